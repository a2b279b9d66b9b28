//! The hosts of a run: a front-end with a directory, nodes in memory, clients, and what is done to them.

use crate::client::{self, Board, CLIENT_PORT, Habit};
use crate::fault::{Fault, Who};
use crate::record::Record;
use kvservice_backend::net::TcpListener;
use kvservice_backend::shutdown::{ShutdownTrigger, shutdown};
use kvservice_backend::start::{self, Start, Storage};
use kvservice_server::config::{ChainConfig, EdgeConfig};
use kvservice_server::coordinator::Stored;
use kvservice_server::runtime::run_chain;
use kvservice_shared::chain::{Incarnation, View};
use kvservice_sim::rng::Rng;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tempfile::TempDir;
use turmoil::{Builder, Sim};

pub const FRONT_END: &str = "front";
pub const CHAIN_PORT: u16 = 7401;
pub const NODE_PORT: u16 = 7411;
const OBSERVER: &str = "observer";
const READER: &str = "reader";
/// Log kept for nodes that come back: little, so that snapshots are sent too.
const LOG_RETENTION_BYTES: usize = 16 * 1024;
const CHECKPOINT_BYTES: usize = 64 * 1024 * 1024;

/// What the network is like where nothing is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    pub tick: Duration,
    pub latency_most: Duration,
    /// Segments that a connection has room for.
    pub window: usize,
}

impl Weather {
    pub fn of(rng: &mut Rng) -> Weather {
        Weather {
            tick: Duration::from_millis([2, 5, 10][rng.below(3)]),
            latency_most: Duration::from_millis([1, 5, 20, 60][rng.below(4)]),
            window: [64, 256][rng.below(2)],
        }
    }

    /// A simulated network.
    pub fn sim(self, seed: u64) -> Sim<'static> {
        Builder::new()
            .rng_seed(seed)
            .simulation_duration(Duration::from_secs(3_600))
            .tick_duration(self.tick)
            .max_message_latency(self.latency_most)
            .tcp_capacity(self.window)
            .enable_random_order()
            .build()
    }
}

type Triggers = Rc<RefCell<BTreeMap<String, ShutdownTrigger>>>;

/// All hosts, and what is wrong with them.
pub struct Cluster {
    pub sim: Sim<'static>,
    pub record: Record,
    pub board: Rc<Board>,
    weather: Weather,
    nodes: usize,
    clients: usize,
    dir: TempDir,
    triggers: Triggers,
    /// Links with a fault: each has one at a time.
    faulty: BTreeSet<(String, String)>,
    /// Hosts that do not run.
    down: BTreeSet<String>,
    /// Members whose data are gone with their process.
    dead: BTreeSet<Incarnation>,
}

/// A fault that was begun: what ends it.
#[derive(Debug)]
pub struct Begun {
    links: Vec<(String, String)>,
    undo: Undo,
    host: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Undo {
    Repair,
    Release,
    Speed,
    Loss,
}

pub fn node_name(node: usize) -> String {
    format!("node{}", node + 1)
}

fn client_name(client: usize) -> String {
    format!("client{}", client + 1)
}

fn view_in(dir: &TempDir) -> Option<View> {
    let text = std::fs::read(dir.path().join("view.json")).ok()?;
    let mut file: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let stored: Stored = serde_json::from_value(file.get_mut("stored")?.take()).ok()?;
    stored.view
}

impl Cluster {
    /// Everything is started, but for what is late.
    pub fn new(
        seed: u64,
        rng: &mut Rng,
        weather: Weather,
        (nodes, clients): (usize, usize),
    ) -> std::io::Result<Cluster> {
        let sim = weather.sim(seed);
        let mut cluster = Cluster {
            sim,
            record: Record::default(),
            board: Rc::default(),
            weather,
            nodes,
            clients,
            dir: fast_dir()?,
            triggers: Triggers::default(),
            faulty: BTreeSet::new(),
            down: BTreeSet::new(),
            dead: BTreeSet::new(),
        };
        cluster.add_front_end();
        for node in 0..nodes {
            cluster.add_node(&node_name(node));
        }
        for client in 0..clients {
            let habit = Habit {
                host: client_name(client),
                seed: rng.number(),
                lanes: 1 + rng.below(3),
                timeout: match rng.below(3) {
                    0 => None,
                    1 => Some(Duration::from_secs(2)),
                    _ => Some(Duration::from_secs(10)),
                },
                pause: Duration::from_millis([10, 100, 300][rng.below(3)]),
            };
            cluster.add_client(habit);
        }
        let pause = Duration::from_millis(500 + rng.number() % 2_000);
        let (record, board) = (cluster.record.clone(), Rc::clone(&cluster.board));
        cluster.sim.host(READER, move || {
            let (record, board) = (record.clone(), Rc::clone(&board));
            async move {
                client::read_dumps(READER.to_owned(), pause, record, board).await;
                std::future::pending().await
            }
        });
        let (record, board) = (cluster.record.clone(), Rc::clone(&cluster.board));
        cluster.sim.host(OBSERVER, move || {
            let (record, board) = (record.clone(), Rc::clone(&board));
            async move {
                client::observe(record, board).await;
                Ok(())
            }
        });
        Ok(cluster)
    }

    fn add_front_end(&mut self) {
        add_front_end(&mut self.sim, self.dir.path(), &self.triggers);
    }

    fn add_node(&mut self, name: &str) {
        add_node(&mut self.sim, name, &self.triggers);
    }

    fn add_client(&mut self, habit: Habit) {
        let (record, board) = (self.record.clone(), Rc::clone(&self.board));
        self.sim.host(habit.host.clone(), move || {
            let (habit, record, board) = (habit.clone(), record.clone(), Rc::clone(&board));
            async move {
                client::run(habit, record, board).await;
                std::future::pending().await
            }
        });
    }

    pub fn client_hosts(&self) -> Vec<String> {
        (0..self.clients).map(client_name).collect()
    }

    /// The front-end's view, as it is stored.
    pub fn view(&self) -> Option<View> {
        view_in(&self.dir)
    }

    fn name(&self, who: &Who) -> Option<String> {
        let place = |place: usize| {
            let members = self.view()?.members;
            let member = members.get(place).or(members.last())?;
            member.address.split(':').next().map(str::to_owned)
        };
        match who {
            Who::FrontEnd => Some(FRONT_END.to_owned()),
            Who::Node(node) => Some(node_name(*node)),
            Who::Client(client) => Some(client_name(*client)),
            Who::Place(at) => place(*at),
            Who::Tail => place(usize::MAX),
        }
    }

    /// Links on which anything is ever sent, but for the observer's.
    fn links(&self) -> Vec<(String, String)> {
        let nodes: Vec<String> = (0..self.nodes).map(node_name).collect();
        let mut links = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            links.push((FRONT_END.to_owned(), node.clone()));
            for other in &nodes[number + 1..] {
                links.push((node.clone(), other.clone()));
            }
        }
        for client in self.client_hosts() {
            links.push((client, FRONT_END.to_owned()));
        }
        links.push((FRONT_END.to_owned(), READER.to_owned()));
        links
    }

    /// Those without a fault; they are taken to have one now.
    fn take_links(&mut self, wanted: impl Fn(&str, &str) -> bool) -> Vec<(String, String)> {
        let mut taken = self.links();
        taken.retain(|(a, b)| wanted(a, b) && self.faulty.insert((a.clone(), b.clone())));
        taken
    }

    fn take_link(&mut self, a: &Who, b: &Who) -> Option<(String, String)> {
        let (a, b) = (self.name(a)?, self.name(b)?);
        let between = |x: &str, y: &str| (x == a && y == b) || (x == b && y == a);
        self.take_links(between).pop()?;
        Some((a, b))
    }

    /// Members whose process died, whenever they became members.
    pub fn note_dead(&mut self) {
        if self.down.is_empty() {
            return;
        }
        let Some(view) = self.view() else { return };
        for member in view.members {
            let host = member.address.split(':').next().unwrap_or_default();
            if self.down.contains(host) {
                self.dead.insert(member.id);
            }
        }
    }

    /// Whether somebody still has the data when this node dies: else there would be nothing to check any more.
    fn may_die(&mut self, host: &str) -> bool {
        self.note_dead();
        let Some(view) = self.view() else {
            return false;
        };
        view.members.iter().any(|member| {
            let other = member.address.split(':').next().unwrap_or_default();
            other != host && !self.down.contains(other) && !self.dead.contains(&member.id)
        })
    }

    fn may_stop(&mut self, host: &str) -> bool {
        let is_node = host.starts_with("node");
        !self.down.contains(host) && (!is_node || self.may_die(host))
    }

    /// A node that will be started later.
    pub fn keep_back(&mut self, node: usize) {
        let host = node_name(node);
        self.sim.crash(host.as_str());
        self.down.insert(host);
    }

    /// Does it; `None` where it cannot be done now.
    pub fn begin(&mut self, fault: &Fault) -> Option<Begun> {
        let (links, undo, host) = match fault {
            Fault::Cut(a, b) => {
                let link = self.take_link(a, b)?;
                self.cut(std::slice::from_ref(&link));
                (vec![link], Undo::Repair, None)
            }
            Fault::OneWay(a, b) => {
                let link = self.take_link(a, b)?;
                self.sim.partition_oneway(link.0.as_str(), link.1.as_str());
                (vec![link], Undo::Repair, None)
            }
            Fault::Hold(a, b) => {
                let link = self.take_link(a, b)?;
                self.sim.hold(link.0.as_str(), link.1.as_str());
                (vec![link], Undo::Release, None)
            }
            Fault::HoldAll => {
                let links = self.take_links(|_, _| true);
                for (a, b) in &links {
                    self.sim.hold(a.as_str(), b.as_str());
                }
                (links, Undo::Release, None)
            }
            Fault::Lossy(a, b, often) => {
                let link = self.take_link(a, b)?;
                let rate = f64::from(*often) / 10_000.0;
                self.sim
                    .set_link_fail_rate(link.0.as_str(), link.1.as_str(), rate);
                (vec![link], Undo::Loss, None)
            }
            Fault::Slow(a, b, millis) => {
                let link = self.take_link(a, b)?;
                let latency = Duration::from_millis(*millis);
                self.sim
                    .set_link_latency(link.0.as_str(), link.1.as_str(), latency);
                (vec![link], Undo::Speed, None)
            }
            Fault::Isolate(who) => {
                let host = self.name(who)?;
                let links = self.take_links(|a, b| a == host || b == host);
                self.cut(&links);
                (links, Undo::Repair, None)
            }
            Fault::Crash(who) => {
                let host = self.name(who)?;
                if !self.may_stop(&host) {
                    return None;
                }
                self.crash(&host);
                (Vec::new(), Undo::Repair, Some(host))
            }
            Fault::PowerCut(who) => {
                let host = self.name(who)?;
                if !self.may_stop(&host) {
                    return None;
                }
                let links = self.take_links(|a, b| a == host || b == host);
                self.cut(&links);
                self.crash(&host);
                (links, Undo::Repair, Some(host))
            }
            Fault::Stop(who) => {
                let host = self.name(who)?;
                if !self.may_stop(&host) {
                    return None;
                }
                self.triggers.borrow().get(&host)?.stop();
                // It ends by itself; its data go with it when it does, or when it is started again.
                self.down.insert(host.clone());
                self.note_dead();
                (Vec::new(), Undo::Repair, Some(host))
            }
            Fault::Late(node) => (Vec::new(), Undo::Repair, Some(node_name(*node))),
        };
        Some(Begun { links, undo, host })
    }

    /// Undoes it.
    pub fn end(&mut self, begun: Begun) {
        for (a, b) in begun.links {
            match begun.undo {
                Undo::Repair => self.sim.repair(a.as_str(), b.as_str()),
                Undo::Release => self.sim.release(a.as_str(), b.as_str()),
                Undo::Speed => {
                    let latency = self.weather.latency_most;
                    self.sim.set_link_latency(a.as_str(), b.as_str(), latency);
                }
                Undo::Loss => {
                    self.sim.set_link_fail_rate(a.as_str(), b.as_str(), 0.0);
                    self.sim.repair(a.as_str(), b.as_str());
                }
            }
            self.faulty.remove(&(b.clone(), a.clone()));
            self.faulty.remove(&(a, b));
        }
        if let Some(host) = begun.host {
            self.note_dead();
            self.sim.bounce(host.as_str());
            self.down.remove(&host);
        }
    }

    fn cut(&self, links: &[(String, String)]) {
        for (a, b) in links {
            self.sim.partition(a.as_str(), b.as_str());
        }
    }

    fn crash(&mut self, host: &str) {
        self.sim.crash(host);
        self.down.insert(host.to_owned());
        self.note_dead();
    }
}

/// The front-end, on the host of its name.
pub fn add_front_end(
    sim: &mut Sim<'static>,
    dir: &std::path::Path,
    triggers: &Rc<RefCell<BTreeMap<String, ShutdownTrigger>>>,
) {
    let (dir, triggers) = (dir.to_owned(), Rc::clone(triggers));
    sim.host(FRONT_END, move || {
        let config = ChainConfig {
            data_dir: dir.clone(),
            init: true,
            failure_timeout: Duration::from_secs(1),
            min_replicas: 1,
            grace: Duration::from_secs(10),
            request_timeout: Duration::from_secs(5),
            edge: EdgeConfig::default(),
        };
        let triggers = Rc::clone(&triggers);
        async move {
            let clients = TcpListener::bind(("0.0.0.0", CLIENT_PORT)).await?;
            let nodes = TcpListener::bind(("0.0.0.0", CHAIN_PORT)).await?;
            let (trigger, stop) = shutdown();
            triggers.borrow_mut().insert(FRONT_END.to_owned(), trigger);
            run_chain(config, clients, nodes, stop).await?;
            Ok(())
        }
    });
}

/// A node, on the host of its name.
pub fn add_node(
    sim: &mut Sim<'static>,
    name: &str,
    triggers: &Rc<RefCell<BTreeMap<String, ShutdownTrigger>>>,
) {
    let (name, triggers) = (name.to_owned(), Rc::clone(triggers));
    sim.host(name.clone(), move || {
        let start = Start {
            address: format!("{name}:{NODE_PORT}"),
            log_retention_bytes: LOG_RETENTION_BYTES,
            checkpoint_bytes: CHECKPOINT_BYTES,
            storage: Storage::Memory,
        };
        let (name, triggers) = (name.clone(), Rc::clone(&triggers));
        async move {
            let listener = TcpListener::bind(("0.0.0.0", NODE_PORT)).await?;
            let (trigger, stop) = shutdown();
            triggers.borrow_mut().insert(name, trigger);
            start::run(start, listener, format!("{FRONT_END}:{CHAIN_PORT}"), stop).await?;
            Ok(())
        }
    });
}

/// For the front-end's one small file, which is synced often: in memory where there is such a place.
pub fn fast_dir() -> std::io::Result<TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}
