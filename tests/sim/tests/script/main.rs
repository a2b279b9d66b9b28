//! Situations as scripts: `scripts/AREA_BEHAVIOUR`, in the language of [`Script::run`].
//!
//! After `UPDATE_GOLDENFILES=1 cargo test -p kvservice-sim --test script` read the difference as carefully as
//! code: it is what the protocol does.
//!
//! | command | what happens |
//! | --- | --- |
//! | `flags timeout=MS grace=MS min=N request=MS init=BOOL` | the front-end's flags, before it starts. `any_order=true`: ids do not grow in this script |
//! | `cluster N [retention=BYTES] [disk=true]` | front-end and N nodes `a`, `b`, … that have joined |
//! | `start a [retention=BYTES] [disk=true]`, `kill a [keep=N] [written=N]`, `pause a`, `resume a`, `leave a` | one node; `keep`: frames of each of its connections that still arrive; `written`: writes to its disk that are there though they were not synced (none) |
//! | `start fe`, `kill fe [keep=N]`, `wipe fe`, `pause fe`, `resume fe`, `leave fe` | the front-end; `wipe` empties its directory, or a node's |
//! | `hold a`, `sync a` | from now on what it writes is not durable; until it is |
//! | `break a b`, `stall a b`, `flow a b` | the links between two: break; stall both ways; flow again. `one=true`: only from the first to the second |
//! | `unhook a b` | what stalls between two stays so for ever, without a close; new links flow |
//! | `connect`, `disconnect c1` | clients |
//! | `hello c1 ID SESSION`, `set c1 ID KEY VALUE`, `testset c1 ID KEY TEST VALUE` (TEST may be `absent`), `delete c1 ID KEY`, `get c1 ID KEY`, `list c1 ID [PREFIX]` | requests, a frame each |
//! | `dump c1`, `more c1` | a dump and its first page, the next page |
//! | `sets c1 FROM COUNT [size=BYTES]` | that many sets in one frame |
//! | `hellos FROM COUNT` | that many connections, each of which opens a session |
//! | `deliver a b [N]` | the next frames on the link |
//! | `run [MS]`, `run frames=N` | everything is delivered, and time passes; or the next N frames |
//! | `heal [MS]` | time passes until every node is a member and all hold the same |
//! | `nodes`, `status` | how things stand |
//! | `recover` | what `kvservice-server recover` does, the front-end being down |

mod args;
mod standing;

use args::Args;
use goldenscript::{Command, Context};
use kvservice_server::gateway::Input;
use kvservice_shared::api::{Op, Request, StorageKind, Value};
use kvservice_shared::chain::Settings;
use kvservice_shared::ids::{ConnId, RequestId, SessionUuid};
use kvservice_sim::cluster::Cluster;
use kvservice_sim::disk::Crash;
use kvservice_sim::front_end::Flags;
use kvservice_sim::net::Place;
use kvservice_sim::show;
use std::error::Error;
use uuid::Uuid;

type Failure = Box<dyn Error>;

const HEAL_MS: u64 = 30_000;

struct Script {
    cluster: Cluster,
}

impl Script {
    fn new() -> Script {
        let settings = Settings {
            failure_timeout_ms: 400,
            min_replicas: 1,
        };
        let flags = Flags {
            settings,
            init: true,
            grace_ms: 2000,
            request_timeout_ms: 5000,
        };
        let mut cluster = Cluster::new(flags);
        cluster.trace = Some(Vec::new());
        Script { cluster }
    }

    fn place(&self, name: &str) -> Result<Place, Failure> {
        if name == "fe" {
            return Ok(Place::FrontEnd);
        }
        let at = self
            .cluster
            .slots
            .iter()
            .position(|slot| slot.config.name == name);
        Ok(Place::Node(
            at.ok_or_else(|| format!("there is no {name}"))?,
        ))
    }

    fn places(&self, args: &mut Args<'_>) -> Result<(Place, Place), Failure> {
        Ok((self.place(args.next()?)?, self.place(args.next()?)?))
    }

    fn start(&mut self, name: &str, args: &mut Args<'_>) -> Result<(), Failure> {
        if name == "fe" {
            self.cluster.start_front_end();
            return Ok(());
        }
        let retention = args.named("retention")?;
        let storage = storage(args)?;
        let index = match self.place(name) {
            Ok(Place::Node(index)) => index,
            _ => {
                let index = self.cluster.add_slot(storage, 1 << 20);
                if self.cluster.slots[index].config.name != name {
                    return Err(format!(
                        "the next node is {}",
                        self.cluster.slots[index].config.name
                    )
                    .into());
                }
                index
            }
        };
        if let Some(retention) = retention {
            self.cluster.slots[index].config.retention = retention;
        }
        self.cluster.start_node(index);
        Ok(())
    }

    fn pause(&mut self, name: &str, paused: bool) -> Result<(), Failure> {
        let place = self.place(name)?;
        match self.cluster.set_paused(place, paused) {
            true => Ok(()),
            false => Err(format!("{name} does not run, or does so already").into()),
        }
    }

    fn request(&mut self, name: &str, args: &mut Args<'_>) -> Result<(), Failure> {
        let conn = args.conn()?;
        let id: u64 = args.parse()?;
        let text = |args: &mut Args<'_>| args.next().map(str::to_owned);
        let op = match name {
            "hello" => {
                let number: u128 = args.next()?.trim_start_matches('S').parse()?;
                Op::Hello {
                    session: SessionUuid(Uuid::from_u128(number)),
                }
            }
            "get" => Op::Get { key: text(args)? },
            "set" => Op::Set {
                key: text(args)?,
                value: Value::from(args.next()?),
            },
            "testset" => {
                let (key, test) = (text(args)?, args.next()?);
                let test = (test != "absent").then(|| Value::from(test));
                Op::TestSet {
                    key,
                    test,
                    value: Value::from(args.next()?),
                }
            }
            "delete" => Op::Delete { key: text(args)? },
            _ => {
                let prefix = args.optional().unwrap_or_default().to_owned();
                Op::List {
                    prefix,
                    after: String::new(),
                    limit: 100,
                }
            }
        };
        self.send(
            conn,
            vec![Request {
                id: RequestId(id),
                op,
            }],
        )
    }

    fn sets(&mut self, args: &mut Args<'_>) -> Result<(), Failure> {
        let (conn, first): (_, u64) = (args.conn()?, args.parse()?);
        let count: u64 = args.parse()?;
        let size: usize = args.named("size")?.unwrap_or(1);
        let request = |id| {
            let (key, value) = (format!("k{id:05}"), Value::from(vec![b'v'; size]));
            Request {
                id: RequestId(id),
                op: Op::Set { key, value },
            }
        };
        self.send(conn, (first..first + count).map(request).collect())
    }

    /// Connections that do nothing but open a session.
    fn hellos(&mut self, args: &mut Args<'_>) -> Result<(), Failure> {
        let (first, count): (u128, u128) = (args.parse()?, args.parse()?);
        for number in first..first + count {
            let conn = self.cluster.connect().ok_or("the front-end does not run")?;
            let session = SessionUuid(Uuid::from_u128(number));
            let hello = Request {
                id: RequestId(1),
                op: Op::Hello { session },
            };
            self.cluster.request(conn, vec![hello]);
        }
        self.cluster.flush();
        Ok(())
    }

    fn send(&mut self, conn: ConnId, requests: Vec<Request>) -> Result<(), Failure> {
        if !self.cluster.request(conn, requests) {
            return Err(format!("{conn} is not connected").into());
        }
        self.cluster.flush();
        Ok(())
    }

    fn link(&mut self, name: &str, args: &mut Args<'_>) -> Result<(), Failure> {
        let (from, to) = self.places(args)?;
        let both = !args.named("one")?.unwrap_or(false);
        let net = &mut self.cluster.net;
        for (from, to) in [(from, to), (to, from)]
            .into_iter()
            .take(if both { 2 } else { 1 })
        {
            match name {
                "stall" => net.stall(from, to),
                "flow" => net.unstall(from, to),
                "unhook" => net.unhook(from, to),
                _ => {
                    for (conn, _) in net.between(from, to) {
                        net.break_off(conn);
                    }
                }
            }
        }
        Ok(())
    }

    fn deliver(&mut self, args: &mut Args<'_>) -> Result<(), Failure> {
        let (from, to) = self.places(args)?;
        let count: usize = args.optional().unwrap_or("1").parse()?;
        for _ in 0..count {
            let between = self.cluster.net.between(from, to);
            let ready = self.cluster.deliverable();
            let next = between.into_iter().find(|way| ready.contains(way));
            let (conn, way) = next.ok_or("nothing is on its way there")?;
            self.cluster.deliver(conn, way);
        }
        Ok(())
    }

    fn cluster(&mut self, args: &mut Args<'_>) -> Result<(), Failure> {
        let count: usize = args.parse()?;
        let retention = args.named("retention")?.unwrap_or(1 << 20);
        let storage = storage(args)?;
        let trace = self.cluster.trace.take();
        self.cluster.start_front_end();
        for _ in 0..count {
            let index = self.cluster.add_slot(storage, retention);
            self.cluster.start_node(index);
            let joined = self
                .cluster
                .run_until(HEAL_MS, |cluster| cluster.is_healed().is_ok());
            if !joined {
                return Err(format!("{:?}", self.cluster.is_healed()).into());
            }
        }
        self.cluster.trace = trace;
        let view = self
            .cluster
            .stored
            .view
            .as_ref()
            .map(show::view)
            .unwrap_or_default();
        self.cluster.note(|| format!("view {view}"));
        Ok(())
    }

    fn heal(&mut self, args: &mut Args<'_>) -> Result<(), Failure> {
        let ms = args.optional().map_or(Ok(HEAL_MS), str::parse)?;
        let since = self.cluster.now_ms;
        if !self
            .cluster
            .run_until(ms, |cluster| cluster.is_healed().is_ok())
        {
            return Err(self.cluster.is_healed().err().unwrap_or_default().into());
        }
        let took = self.cluster.now_ms - since;
        let view = self
            .cluster
            .stored
            .view
            .as_ref()
            .map(show::view)
            .unwrap_or_default();
        let end = self.cluster.oracle.end();
        self.cluster
            .note(|| format!("healed in {took} ms: view {view}, all hold {end}"));
        Ok(())
    }

    /// The operator chooses the node that holds most.
    fn recover(&mut self) -> Result<(), Failure> {
        if self.cluster.front_end.is_some() {
            return Err("the front-end runs".into());
        }
        let registers = self.cluster.registers();
        let stored = kvservice_server::recover::recovered(&self.cluster.stored, &registers)
            .ok_or("nobody has data")?;
        self.cluster.stored = stored;
        self.cluster.oracle.give_up();
        Ok(())
    }
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Failure> {
        let mut args = Args::of(command);
        let name = command.name.as_str();
        let mut text = String::new();
        match name {
            "flags" => {
                let flags = &mut self.cluster.flags;
                let settings = &mut flags.settings;
                settings.failure_timeout_ms = args
                    .named("timeout")?
                    .unwrap_or(settings.failure_timeout_ms);
                settings.min_replicas = args.named("min")?.unwrap_or(settings.min_replicas);
                flags.grace_ms = args.named("grace")?.unwrap_or(flags.grace_ms);
                flags.request_timeout_ms =
                    args.named("request")?.unwrap_or(flags.request_timeout_ms);
                self.cluster.oracle.any_order = args.named("any_order")?.unwrap_or(false);
                flags.init = args.named("init")?.unwrap_or(flags.init);
            }
            "cluster" => self.cluster(&mut args)?,
            "start" => {
                let name = args.next()?;
                self.start(name, &mut args)?;
            }
            "kill" => {
                let name = args.next()?;
                let keep = args.named("keep")?.unwrap_or(usize::MAX);
                match self.place(name)? {
                    Place::FrontEnd => self.cluster.kill_front_end(&mut |_| keep),
                    Place::Node(index) => {
                        let written = args.named("written")?.unwrap_or(0);
                        self.cluster
                            .kill_node(index, &mut |_| keep, &mut |_| Crash::Process { written });
                    }
                }
            }
            "wipe" => match self.place(args.next()?)? {
                Place::FrontEnd => {
                    self.cluster.stored = kvservice_server::coordinator::Stored::default();
                    self.cluster.oracle.may_found = self.cluster.flags.init;
                }
                Place::Node(index) => self.cluster.wipe_node(index),
            },
            "pause" => self.pause(args.next()?, true)?,
            "resume" => self.pause(args.next()?, false)?,
            "leave" => match self.place(args.next()?)? {
                Place::FrontEnd => self.cluster.stop_front_end(),
                Place::Node(index) => self.cluster.leave(index),
            },
            "hold" | "sync" => {
                let Place::Node(index) = self.place(args.next()?)? else {
                    return Err("the front-end has no journal".into());
                };
                if let Some(node) = &mut self.cluster.slots[index].node {
                    node.disk.hold(name == "hold");
                }
                if name == "sync" {
                    self.cluster.sync(index);
                }
            }
            "break" | "stall" | "flow" | "unhook" => self.link(name, &mut args)?,
            "connect" => {
                let conn = self.cluster.connect().ok_or("the front-end does not run")?;
                self.cluster.note(|| format!("{conn} connected"));
                self.cluster.flush();
            }
            "disconnect" => {
                let conn = args.conn()?;
                self.cluster.disconnect(conn);
                self.cluster.flush();
            }
            "hello" | "set" | "testset" | "delete" | "get" | "list" => {
                self.request(name, &mut args)?
            }
            "dump" | "more" => {
                let conn = args.conn()?;
                let input = match name {
                    "dump" => Input::Dump(conn),
                    _ => Input::DumpNext(conn),
                };
                if !self.cluster.dump(conn, input) {
                    return Err(format!("{conn} is not connected").into());
                }
                self.cluster.flush();
            }
            "sets" => self.sets(&mut args)?,
            "hellos" => self.hellos(&mut args)?,
            "deliver" => self.deliver(&mut args)?,
            "run" => {
                let ms = args.optional().unwrap_or("0").parse()?;
                match args.named("frames")? {
                    Some(frames) => self.cluster.deliver_some(frames),
                    None => self.cluster.run(ms),
                }
            }
            "heal" => self.heal(&mut args)?,
            "nodes" => text = self.nodes(),
            "status" => text = self.status()?,
            "recover" => self.recover()?,
            _ => return Err(format!("what is {name}?").into()),
        }
        args.end()?;
        let mut lines = self
            .cluster
            .trace
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default();
        for (conn, code, reason) in std::mem::take(&mut self.cluster.closed) {
            lines.push(format!("{conn} closed {code}: {reason}"));
        }
        self.cluster.responses.clear();
        let traced: String = lines.into_iter().map(|line| line + "\n").collect();
        Ok(traced + &text)
    }
}

fn storage(args: &mut Args<'_>) -> Result<StorageKind, Failure> {
    Ok(match args.named("disk")?.unwrap_or(false) {
        true => StorageKind::Disk,
        false => StorageKind::Memory,
    })
}

fn run(name: &str) {
    if let Err(error) = goldenscript::run(&mut Script::new(), path(name)) {
        panic!("{name}: {error}");
    }
}

/// Bugs that depend on more at once than seeds hit upon: each makes another thing of the situation that is its own.
// With small limits some scripts say something else anyway.
#[cfg(all(feature = "canaries", not(feature = "small-limits")))]
#[test]
fn canaries_change_what_their_scripts_say() {
    for (canary, name) in kvservice_sim::canaries::OF_SCRIPTS {
        let path = path(name);
        kvservice_sim::canaries::switch(Some(*canary));
        let changed = std::panic::catch_unwind(|| goldenscript::run(&mut Script::new(), &path));
        kvservice_sim::canaries::switch(None);
        assert!(
            !matches!(changed, Ok(Ok(_))),
            "{name} does not show {canary:?}"
        );
    }
}

fn path(name: &str) -> String {
    format!("{}/tests/script/scripts/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// One test for each script, and one that finds scripts without a test.
macro_rules! scripts {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*

        #[test]
        fn every_script_has_its_test() {
            let listed: std::collections::BTreeSet<String> =
                [$(stringify!($name).to_owned()),*].into();
            let folder = format!("{}/tests/script/scripts", env!("CARGO_MANIFEST_DIR"));
            let found = std::fs::read_dir(folder).expect("the scripts' folder");
            let found = found.map(|file| file.expect("a script").file_name().into_string());
            assert_eq!(found.map(|name| name.expect("a name")).collect::<std::collections::BTreeSet<_>>(), listed);
        }
    };
}

scripts! {
    answers_of_an_older_epoch
    cluster_of_another
    disk_checkpoints
    disk_cut_below_what_was_stable
    disk_decided_otherwise
    disk_front_end_wiped
    disk_killed_between_its_sync_and_its_word
    disk_killed_everything
    disk_of_another_cluster
    disk_older_view_only
    disk_returns_by_snapshot
    disk_tail_dies_and_is_back
    disk_wiped_is_another_node
    disk_wiped_is_first_to_return
    dump_ends_with_its_view
    dump_of_one_point
    dump_waits_on_a_new_head
    front_end_killed_under_load
    front_end_old_frames_late
    front_end_restarted_with_writes_pending
    front_end_restarts_while_a_member_is_dead
    front_end_restarts_with_an_open_offer
    front_end_views_of_an_older_term_are_refused
    front_end_wiped
    front_end_wiped_and_a_holder_comes_late
    front_end_wiped_and_all_but_half_a_learner
    front_end_wiped_and_all_in_memory
    front_end_wiped_and_one_on_disk
    front_end_wiped_and_the_offered_one_away
    front_end_wiped_before_anybody_is_there
    front_end_wiped_after_a_view_that_few_heard
    front_end_wiped_twice
    front_end_wiped_while_a_learner_is_taught
    front_end_wiped_with_an_open_offer
    head_killed_idle
    head_killed_under_load
    head_paused_replaced_resumed
    join_by_a_long_log
    join_by_snapshot
    join_during_failure
    join_learner_lost_after_its_view
    join_order_lost
    join_learner_lost_after_ready
    join_node_killed
    join_snapshot_of_another_term
    join_snapshot_teacher_lost
    join_snapshot_with_writes_meanwhile
    join_tail_killed_while_joint
    join_unreachable
    killed_all_but_one
    killed_everything
    killed_everything_in_a_restart
    killed_one_by_one_and_back
    killed_two_adjacent
    leave_head
    leave_middle_and_tail
    leave_while_others_fail
    tail_killed_with_much_under_way
    link_dead_downwards
    link_stalls
    link_to_front_end_stalls
    log_longer_than_predecessor
    log_same_length_differs
    middle_killed_idle
    middle_killed_under_load
    min_replicas
    min_replicas_without_session
    read_own_pending_writes
    read_waits_for_a_write_sent_again
    read_waits_on_a_new_head
    recover
    report_dropped_once_it_does_not_hold
    report_lost_with_its_epoch
    restart_before_the_front_end_noticed
    retry_across_failover
    retry_across_reconnect
    retry_after_eviction
    retry_session_window
    retry_without_hello
    session_limit_holds_for_pending
    stop_everything
    stop_everything_at_once
    suspect_accuser_that_dies
    suspect_each_other
    suspect_falsely
    suspect_in_turn
    suspect_nobody_while_unsettled
    suspect_observer_resumes
    tail_killed_idle
    tail_killed_under_load
}
