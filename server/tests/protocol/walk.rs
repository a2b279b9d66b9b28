//! Random walks: clients ask, links and processes fail, and whatever happens the oracle's and the clients' checks
//! hold; once the failures stop, everything heals.
//!
//! `KVSERVICE_SEEDS=N` walks N seeds, from `KVSERVICE_FIRST_SEED` on; `KVSERVICE_SEED=N` that one alone, with its
//! trace.

mod failures;

use crate::client::Client;
use crate::cluster::{Cluster, Slot};
use crate::front_end::Flags;
use crate::node::name;
use crate::rng::Rng;
use failures::{Rates, Undo, start_new_node};
use kvservice_shared::api::StorageKind;
use kvservice_shared::chain::Settings;
use kvservice_shared::ids::Seq;
use std::panic::{AssertUnwindSafe, catch_unwind};

const SEEDS: u64 = 200;
const ROUNDS: usize = 250;
const HEAL_MS: u64 = 30_000;
/// Lines of trace that a failure prints.
const TRACE_LINES: usize = 400;

struct Walk {
    cluster: Cluster,
    rng: Rng,
    rates: Rates,
    clients: Vec<Client>,
    undo: Vec<(u64, Undo)>,
    /// The newest revision that any answer has shown.
    shown: Seq,
    nodes_max: usize,
    storage: StorageKind,
    /// Some node was asked to leave.
    left: bool,
    /// The front-end lost its directory.
    wiped: bool,
    done: Done,
}

/// What a walk came to.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    entries: u64,
    answers: usize,
    ms: u64,
    /// The last members are gone, one with the only data: nothing is left to heal from.
    abandoned: bool,
}

impl Walk {
    fn new(seed: u64, traced: bool) -> Walk {
        let mut rng = Rng::new(seed);
        let rates = Rates::new(&mut rng);
        let settings = Settings {
            failure_timeout_ms: 400,
            min_replicas: 1,
        };
        let flags = Flags {
            settings,
            init: true,
            grace_ms: 1500,
            request_timeout_ms: 3000,
        };
        let mut cluster = Cluster::new(flags);
        cluster.trace = traced.then(Vec::new);
        cluster.start_front_end();
        cluster.flags.init = false;
        let nodes_max = 2 + rng.below(4);
        let storage = match rng.chance(50) {
            true => StorageKind::Disk,
            false => StorageKind::Memory,
        };
        for _ in 0..1 + rng.below(nodes_max) {
            let retention = [0, 200, 2000, 1 << 20][rng.below(4)];
            start_new_node(&mut cluster, storage, retention);
        }
        let clients = (1..=3)
            .map(|number| Client::new(number, number == 3 && rng.chance(50)))
            .collect();
        Walk {
            cluster,
            rng,
            rates,
            clients,
            undo: Vec::new(),
            shown: Seq::ZERO,
            nodes_max,
            storage,
            left: false,
            wiped: false,
            done: Done::default(),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS {
            self.undo_due(false);
            self.fail();
            self.ask(true);
            self.deliver();
            if self.cluster.oracle.founded_anew {
                self.done.abandoned = true;
                // A front-end without its directory founds a cluster once its grace ends, if no node with data is
                // there to tell of another.
                return match self.storage {
                    StorageKind::Disk if !self.wiped => {
                        Err("a cluster was given up whose data are on disks".into())
                    }
                    _ => Ok(()),
                };
            }
            self.answers()?;
            self.halted()?;
            self.cluster.tick();
        }
        self.heal()
    }

    fn ask(&mut self, ask: bool) {
        for client in &mut self.clients {
            let ask = ask && self.rng.chance(30);
            client.act(&mut self.cluster, &mut self.rng, self.shown, ask);
        }
    }

    /// Delivers some frames or all, and lets processes speak after some of them or after each.
    fn deliver(&mut self) {
        if self.rng.chance(self.rates.calm) {
            self.cluster.settle();
            return;
        }
        let eager = self.rng.chance(50);
        for _ in 0..self.rng.below(60) {
            let ready = self.cluster.deliverable();
            let Some(&(conn, way)) = self.rng.pick(&ready) else {
                break;
            };
            self.cluster.take_in(conn, way);
            if eager || self.rng.chance(30) {
                self.cluster.flush();
            }
        }
        self.cluster.flush();
    }

    fn answers(&mut self) -> Result<(), String> {
        let now = self.cluster.now_ms;
        for (conn, response) in std::mem::take(&mut self.cluster.responses) {
            let Some(client) = self.clients.iter_mut().find(|c| c.conn() == Some(conn)) else {
                continue;
            };
            let newest = client.take(&mut self.cluster, response, self.shown)?;
            self.shown = self.shown.max(newest);
        }
        let closed = std::mem::take(&mut self.cluster.closed);
        for client in &mut self.clients {
            let Some(conn) = client.conn() else { continue };
            let gone = self
                .cluster
                .front_end
                .as_ref()
                .is_none_or(|fe| !fe.clients.contains(&conn));
            if gone || closed.iter().any(|(closed, ..)| *closed == conn) {
                client.lost(now);
            }
        }
        Ok(())
    }

    /// No node may call anything fatal.
    fn halted(&mut self) -> Result<(), String> {
        for (index, slot) in self.cluster.slots.iter().enumerate() {
            let Some(reason) = slot.ended.as_ref().filter(|_| slot.node.is_none()) else {
                continue;
            };
            if reason.starts_with("fatal") {
                return Err(format!("{} ends: {reason}", slot.config.name));
            }
            // Whoever left comes back.
            if !self
                .undo
                .iter()
                .any(|(_, undo)| matches!(undo, Undo::StartNode(at) if *at == index))
            {
                let at = self.cluster.now_ms + 100 + self.rng.below(1500) as u64;
                self.undo.push((at, Undo::StartNode(index)));
                return Ok(());
            }
        }
        Ok(())
    }

    /// Nothing fails any more: everyone is answered, everyone is a member, all hold the same.
    fn heal(&mut self) -> Result<(), String> {
        self.cluster.note(|| "! no more failures".to_owned());
        self.undo_due(true);
        let until = self.cluster.now_ms + HEAL_MS;
        loop {
            self.undo_due(false);
            self.ask(false);
            self.cluster.settle();
            if self.is_abandoned() {
                self.done.abandoned = true;
                return Ok(());
            }
            self.answers()?;
            self.halted()?;
            let answered = self.clients.iter().all(Client::is_answered);
            let healed = self.cluster.is_healed();
            if answered
                && healed.is_ok()
                && self.cluster.slots.iter().all(|slot| slot.node.is_some())
            {
                break;
            }
            if self.cluster.now_ms > until {
                let members = self
                    .cluster
                    .stored
                    .view
                    .iter()
                    .flat_map(|v| &v.members)
                    .map(|m| name(m.id));
                return Err(format!(
                    "does not heal: answered {answered}, {healed:?}, members {:?}",
                    members.collect::<Vec<_>>()
                ));
            }
            self.cluster.tick();
        }
        for client in &self.clients {
            client.check_refusals(&self.cluster.oracle)?;
        }
        self.check_counter()
    }

    /// Nodes that run in memory, and are told to stop one after the other, take their data with them. So does one
    /// that dies just when the others are falsely suspected: it answered, and is the next view. A view of nodes
    /// that were long dead is something else.
    fn is_abandoned(&self) -> bool {
        const JUST_MS: u64 = 3000;
        if self.cluster.oracle.founded_anew {
            return true;
        }
        if self.storage == StorageKind::Disk {
            return false;
        }
        let Some(view) = &self.cluster.stored.view else {
            return false;
        };
        let runs = view
            .members
            .iter()
            .any(|member| self.cluster.node_of(member.id).is_some());
        let made_ms = self.cluster.view_ms;
        let just = |slot: &Slot| slot.ended_ms + JUST_MS > made_ms;
        let members = |slot: &&Slot| view.members.iter().any(|m| m.address == slot.config.name);
        !runs && (self.left || self.cluster.slots.iter().filter(members).any(just))
    }

    /// The counter counts each success once.
    fn check_counter(&self) -> Result<(), String> {
        let oracle = &self.cluster.oracle;
        let mut count = 0;
        for seq in 1..=oracle.end().0 {
            let (value, revision) = oracle.at("counter", Seq(seq));
            if revision == Seq(seq) {
                count += 1;
                let expected = format!("{count}");
                if value.is_none_or(|value| value != expected.as_bytes()) {
                    return Err(format!(
                        "the counter goes to {value:?}, not to {expected}, at {seq}"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn walk(seed: u64, trace: Option<&mut Vec<String>>) -> Result<Done, String> {
    let mut walk = Walk::new(seed, trace.is_some());
    let ran = catch_unwind(AssertUnwindSafe(|| walk.run()));
    let result = ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text
            .or(panic.downcast_ref::<&str>().map(|t| (*t).to_owned()))
            .unwrap_or_default())
    });
    if let (Some(trace), Some(lines)) = (trace, walk.cluster.trace.take()) {
        *trace = lines;
    }
    result.map(|()| Done {
        entries: walk.cluster.oracle.end().0,
        answers: walk.clients.iter().map(|client| client.answered).sum(),
        ms: walk.cluster.now_ms,
        ..walk.done
    })
}

/// Walks a seed; where it fails, again with its trace.
fn check(seed: u64) -> Done {
    let error = match walk(seed, None) {
        Ok(done) => return done,
        Err(error) => error,
    };
    let mut trace = Vec::new();
    let again = walk(seed, Some(&mut trace));
    for line in &trace[trace.len().saturating_sub(TRACE_LINES)..] {
        println!("{line}");
    }
    assert!(
        again.is_err(),
        "seed {seed} failed and then did not: it is not deterministic. {error}"
    );
    panic!("KVSERVICE_SEED={seed}: {error}");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().expect("a number"))
}

#[test]
fn random_walks() {
    if let Some(seed) = number("KVSERVICE_SEED") {
        let mut trace = Vec::new();
        let done = walk(seed, Some(&mut trace));
        for line in &trace {
            println!("{line}");
        }
        println!("seed {seed}: {:?}", done.expect("a walk without a failure"));
        return;
    }
    let seeds = number("KVSERVICE_SEEDS").unwrap_or(SEEDS);
    let first = number("KVSERVICE_FIRST_SEED").unwrap_or(0);
    let mut all = Done::default();
    let mut abandoned = 0;
    for seed in first..first + seeds {
        let done = check(seed);
        all.entries += done.entries;
        all.answers += done.answers;
        all.ms += done.ms;
        abandoned += u64::from(done.abandoned);
    }
    println!("{seeds} seeds, {abandoned} abandoned: {all:?}");
    // A walk in which nothing happens proves nothing.
    assert!(
        all.entries > 20 * seeds && all.answers as u64 > 20 * seeds,
        "{all:?}"
    );
    assert!(
        abandoned <= 1 + seeds / 50,
        "{abandoned} of {seeds} walks lost their data"
    );
}

#[test]
fn a_walk_is_the_same_each_time() {
    let trace = || {
        let mut trace = Vec::new();
        walk(7, Some(&mut trace)).expect("a walk without a failure");
        trace
    };
    assert!(trace() == trace(), "the same seed gives the same trace");
}
