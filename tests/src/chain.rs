//! Variation 2 under test: a front-end and its nodes, each a process; and what a test waits for.

use crate::process::{Process, binary, lasting_address};
use crate::rounds::Round;
use crate::search;
use crate::single::{log_level, status_of};
use kvservice_client::{Seq, Status};
use kvservice_shared::api::{EventKind, Role};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;

/// How a chain is started. Times are in milliseconds.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Nodes to start with.
    pub nodes: usize,
    /// `--failure-timeout`. The default is long: a killed process is noticed by its socket, and a busy
    /// machine must not make a slow node a dead one.
    pub failure_timeout_ms: u32,
    /// `--min-replicas`.
    pub min_replicas: u32,
    /// `--grace`.
    pub grace_ms: u32,
    /// `--request-timeout`. The default is long, so that a slow machine is no error.
    pub request_timeout_ms: u32,
    /// Nodes keep their data on disk, each in a directory named by its address.
    pub disk: bool,
    /// More of the front-end's flags.
    pub front_end_args: Vec<String>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            nodes: 3,
            failure_timeout_ms: 3000,
            min_replicas: 1,
            grace_ms: 10_000,
            request_timeout_ms: 30_000,
            disk: false,
            front_end_args: Vec::new(),
        }
    }
}

/// A node, by the order in which the test started it.
pub type NodeIndex = usize;

/// A front-end and its nodes.
#[derive(Debug)]
pub struct Chain {
    setup: Setup,
    dir: PathBuf,
    data_dir: PathBuf,
    clients: SocketAddr,
    chain: SocketAddr,
    front_end: Option<Process>,
    nodes: Vec<Node>,
    /// Back-ends started, nodes or not.
    spawned: usize,
    witness: Witness,
}

/// One node's process.
#[derive(Debug)]
pub struct Node {
    /// The process.
    pub process: Process,
    /// Where its neighbours reach it.
    pub address: String,
}

impl Chain {
    /// Founds a cluster, and waits until all its nodes are members.
    ///
    /// # Panics
    /// Where that does not happen.
    pub async fn start(round: &Round, setup: Setup) -> Chain {
        let mut chain = Chain::new(round, setup);
        chain.found().await;
        chain
    }

    /// Nothing runs yet.
    #[must_use]
    pub fn new(round: &Round, setup: Setup) -> Chain {
        Chain::within(round.dir().to_owned(), setup)
    }

    /// As [`Chain::new`], for a round with several: its files are in a directory of that name.
    ///
    /// # Panics
    /// Where that cannot be made.
    #[must_use]
    pub fn in_dir(round: &Round, name: &str, setup: Setup) -> Chain {
        let dir = round.dir().join(name);
        std::fs::create_dir(&dir).expect("the round's directory can be written");
        Chain::within(dir, setup)
    }

    fn within(dir: PathBuf, setup: Setup) -> Chain {
        Chain {
            setup,
            data_dir: dir.join("front-end-data"),
            dir,
            clients: lasting_address(),
            chain: lasting_address(),
            front_end: None,
            nodes: Vec::new(),
            spawned: 0,
            witness: Witness::default(),
        }
    }

    /// Founds the cluster, and waits until all nodes are members.
    ///
    /// # Panics
    /// Where that does not happen.
    pub async fn found(&mut self) {
        self.start_front_end(&["--init"]).await;
        self.add_nodes(self.setup.nodes).await;
        self.until_members(self.setup.nodes).await;
    }

    /// Where clients connect.
    #[must_use]
    pub fn clients(&self) -> SocketAddr {
        self.clients
    }

    /// Where nodes connect.
    #[must_use]
    pub fn chain(&self) -> SocketAddr {
        self.chain
    }

    /// The front-end's directory.
    #[must_use]
    pub fn data_dir(&self) -> &PathBuf {
        &self.data_dir
    }

    /// Gives the front-end another directory, from its next start on.
    pub fn move_data_dir(&mut self, name: &str) {
        self.data_dir = self.dir.join(name);
    }

    /// Starts the front-end, again where it ran before: with the same ports and directory.
    ///
    /// # Panics
    /// Where it does not come up.
    pub async fn start_front_end(&mut self, more_args: &[&str]) {
        assert!(self.front_end.is_none(), "there is a front-end already");
        let mut process = self.spawn_front_end(more_args);
        assert_eq!(process.listens("clients").await, self.clients);
        assert_eq!(process.listens("nodes").await, self.chain);
        self.front_end = Some(process);
    }

    /// Starts a front-end that may well not come up; it is not the chain's.
    #[must_use]
    pub fn spawn_front_end(&self, more_args: &[&str]) -> Process {
        let setup = &self.setup;
        let mut args = vec![
            "chain".to_owned(),
            format!("--listen={}", self.clients),
            format!("--chain-listen={}", self.chain),
            format!("--data-dir={}", self.data_dir.display()),
            format!("--failure-timeout={}ms", setup.failure_timeout_ms),
            format!("--min-replicas={}", setup.min_replicas),
            format!("--grace={}ms", setup.grace_ms),
            format!("--request-timeout={}ms", setup.request_timeout_ms),
            format!("--log={}", log_level()),
        ];
        args.extend(setup.front_end_args.iter().cloned());
        args.extend(more_args.iter().map(|&arg| arg.to_owned()));
        Process::start("front-end", &binary("kvservice-server"), &args, &self.dir)
    }

    /// The front-end.
    ///
    /// # Panics
    /// Where none runs.
    pub fn front_end(&mut self) -> &mut Process {
        self.front_end.as_mut().expect("a front-end runs")
    }

    /// `kill -9` to the front-end.
    ///
    /// # Panics
    /// Where none runs.
    pub fn kill_front_end(&mut self) {
        self.front_end.take().expect("a front-end runs").kill();
    }

    /// SIGTERM to the front-end; how it ended.
    ///
    /// # Panics
    /// Where none runs, or it does not end.
    pub async fn stop_front_end(&mut self) -> ExitStatus {
        let mut front_end = self.front_end.take().expect("a front-end runs");
        front_end.terminate();
        front_end.ends().await
    }

    /// Starts a node on a free port. It joins by itself.
    ///
    /// # Panics
    /// Where it does not come up.
    pub async fn add_node(&mut self) -> NodeIndex {
        self.add_node_at("127.0.0.1:0", &[]).await
    }

    /// Starts a node on a free port; where its data are is in the arguments.
    ///
    /// # Panics
    /// Where it does not come up.
    pub async fn add_back_end(&mut self, more_args: &[&str]) -> NodeIndex {
        let mut process = self.spawn_back_end("127.0.0.1:0", more_args);
        let address = process.listens("nodes").await.to_string();
        self.nodes.push(Node { process, address });
        self.nodes.len() - 1
    }

    /// Starts a node that listens on `listen`.
    ///
    /// # Panics
    /// Where it does not come up.
    pub async fn add_node_at(&mut self, listen: &str, more_args: &[&str]) -> NodeIndex {
        let mut process = self.spawn_node(listen, more_args);
        let address = process.listens("nodes").await.to_string();
        self.nodes.push(Node { process, address });
        self.nodes.len() - 1
    }

    /// Starts a back-end that may well not come up; it is no node of the chain.
    #[must_use]
    pub fn spawn_node(&mut self, listen: &str, more_args: &[&str]) -> Process {
        let storage = match self.setup.disk {
            true => format!("--data-dir={}", self.node_dir(listen).display()),
            false => "--memory".to_owned(),
        };
        self.spawn_back_end(listen, &[&[storage.as_str()], more_args].concat())
    }

    /// As [`Chain::spawn_node`]; where its data are is in the arguments.
    #[must_use]
    pub fn spawn_back_end(&mut self, listen: &str, more_args: &[&str]) -> Process {
        let name = format!("back-end-{}", self.spawned);
        self.spawned += 1;
        let mut args = vec![
            format!("--listen={listen}"),
            format!("--frontend={}", self.chain),
            format!("--log={}", log_level()),
        ];
        args.extend(more_args.iter().map(|&arg| arg.to_owned()));
        Process::start(&name, &binary("kvservice-backend"), &args, &self.dir)
    }

    /// Starts several nodes at once.
    ///
    /// # Panics
    /// Where one does not come up.
    pub async fn add_nodes(&mut self, count: usize) {
        for _ in 0..count {
            match self.setup.disk {
                // One that comes back is at the same address, and finds its directory.
                true => self.add_node_at(&lasting_address().to_string(), &[]).await,
                false => self.add_node().await,
            };
        }
    }

    /// Where the node at this address keeps its data.
    #[must_use]
    pub fn node_dir(&self, address: &str) -> PathBuf {
        self.dir.join(format!("node-{}", address.replace(':', "-")))
    }

    /// Starts a node that was killed or has ended again, at the same address and with the same directory.
    ///
    /// # Panics
    /// Where it does not come up.
    pub async fn restart_node(&mut self, node: NodeIndex) {
        let address = self.nodes[node].address.clone();
        let mut process = self.spawn_node(&address, &[]);
        assert_eq!(process.listens("nodes").await.to_string(), address);
        self.nodes[node].process = process;
    }

    /// A node.
    ///
    /// # Panics
    /// Where there is no such node.
    pub fn node(&mut self, node: NodeIndex) -> &mut Node {
        &mut self.nodes[node]
    }

    /// Hands a node's process over: it is no longer one of this chain's.
    ///
    /// # Panics
    /// Where there is no such node.
    pub fn give_away(&mut self, node: NodeIndex) -> Process {
        self.nodes.remove(node).process
    }

    /// `kill -9` to these nodes, as nearly at once as signals go.
    pub fn kill(&mut self, nodes: &[NodeIndex]) {
        for &node in nodes {
            // Stopped first, so that none sees another die.
            self.nodes[node].process.pause();
        }
        for &node in nodes {
            self.nodes[node].process.kill();
        }
    }

    /// The front-end's answer to `status`.
    ///
    /// # Errors
    /// It does not answer.
    ///
    /// # Panics
    /// Where two reports contradict each other: the same point of one cluster with two hashes.
    pub async fn status(&mut self) -> Result<Status, String> {
        let status = status_of(self.clients).await?;
        self.witness.hear(&status);
        Ok(status)
    }

    /// Waits until `is_so`.
    ///
    /// # Panics
    /// Where that does not happen in time; or a process has ended that nobody told to.
    pub async fn until(&mut self, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        let mut last = Err("never asked".to_owned());
        let look = async || {
            self.assert_nobody_lost();
            last = self.status().await;
            last.as_ref().ok().filter(|status| is_so(status)).cloned()
        };
        let found = search(look).await;
        found.unwrap_or_else(|| {
            panic!(
                "waited in vain for {what}; the last status: {}",
                show(&last)
            )
        })
    }

    /// Waits until so many nodes are members, and serve.
    ///
    /// # Panics
    /// As [`Chain::until`].
    pub async fn until_members(&mut self, count: usize) -> Status {
        let what = format!("{count} members");
        self.until(&what, |status| {
            status.members.len() == count && status.waiting.is_none()
        })
        .await
    }

    /// The nodes in the chain, head to tail.
    ///
    /// # Panics
    /// Where a member is none of the test's nodes that still run.
    #[must_use]
    pub fn order(&self, status: &Status) -> Vec<NodeIndex> {
        let members = status.members.iter();
        members
            .map(|member| self.at_address(&member.address))
            .collect()
    }

    /// The node that listens there; of several the last, for a port is used again.
    fn at_address(&self, address: &str) -> NodeIndex {
        let node = self.nodes.iter().rposition(|node| node.address == address);
        node.unwrap_or_else(|| panic!("{address} is none of {:?}", self.nodes))
    }

    /// The nodes in the chain now, head to tail.
    ///
    /// # Panics
    /// Where the front-end does not answer.
    pub async fn order_now(&mut self) -> Vec<NodeIndex> {
        let status = self.until("an answer", |_| true).await;
        self.order(&status)
    }

    /// Waits, with no more writes under way, until `count` members hold the same state at the same
    /// point, durable, committed and applied; and checks what else must hold then.
    ///
    /// # Panics
    /// Where it does not come to that.
    pub async fn settle(&mut self, count: usize) -> Status {
        let what = format!("{count} members with one state");
        let status = self.until(&what, |status| is_settled(status, count)).await;
        assert_tables(&status);
        let hashes: Vec<&str> = status.members.iter().map(|m| m.hash.as_str()).collect();
        assert!(
            hashes.windows(2).all(|pair| pair[0] == pair[1]),
            "{}",
            show_status(&status)
        );
        status
    }

    /// Fails where a process has ended that nobody told to.
    ///
    /// # Panics
    /// Then.
    pub fn assert_nobody_lost(&mut self) {
        let nodes = self.nodes.iter_mut().map(|node| &mut node.process);
        for process in nodes.chain(self.front_end.as_mut()) {
            process.assert_not_lost();
        }
    }
}

/// Whether `count` members are at the same point, durable, committed and applied, and nobody is on the way in.
#[must_use]
pub fn is_settled(status: &Status, count: usize) -> bool {
    let heads = status.members.first().map(|head| head.applied);
    status.waiting.is_none()
        && status.members.len() == count
        && status.learners.is_empty()
        && status.members.iter().all(|member| {
            let points = [member.durable, member.stable, member.committed];
            points.iter().all(|&point| Some(point) == heads) && Some(member.applied) == heads
        })
}

/// Whether the chain holds an event of that kind.
#[must_use]
pub fn has_event(status: &Status, kind: EventKind) -> bool {
    status.events.iter().any(|event| event.kind == kind)
}

/// Roles and pointer tables say what the order of the members says.
fn assert_tables(status: &Status) {
    let members = &status.members;
    let address = |at: usize| members.get(at).map(|member| member.address.clone());
    for (at, member) in members.iter().enumerate() {
        let role = match at {
            _ if members.len() == 1 => Role::Single,
            0 => Role::Head,
            _ if at + 1 == members.len() => Role::Tail,
            _ => Role::Middle,
        };
        let table = (member.role, member.next.clone(), member.second.clone());
        let expected = (role, address(at + 1), address(at + 2));
        assert_eq!(
            table,
            expected,
            "of {} in {}",
            member.node,
            show_status(status)
        );
    }
    let table = (
        status.front_end.head.clone(),
        status.front_end.second.clone(),
    );
    assert_eq!(table, (address(0), address(1)), "{}", show_status(status));
}

/// Remembers the hash that was reported for each point, and hears of no other.
#[derive(Debug, Default)]
struct Witness {
    cluster: Option<String>,
    hashes: HashMap<Seq, (String, String)>,
}

impl Witness {
    fn hear(&mut self, status: &Status) {
        if self.cluster != status.cluster {
            self.cluster.clone_from(&status.cluster);
            self.hashes.clear();
        }
        for member in &status.members {
            let said = (member.hash.clone(), member.node.clone());
            let (hash, by) = self.hashes.entry(member.applied).or_insert(said);
            assert_eq!(
                *hash,
                member.hash,
                "{by} and {} differ at {}: {}",
                member.node,
                member.applied,
                show_status(status)
            );
        }
    }
}

fn show(status: &Result<Status, String>) -> String {
    match status {
        Ok(status) => show_status(status),
        Err(error) => error.clone(),
    }
}

/// A status, in a few lines.
#[must_use]
pub fn show_status(status: &Status) -> String {
    let mut text = format!("view {}", status.epoch);
    if let Some(waiting) = &status.waiting {
        text += &format!(", waiting: {waiting}");
    }
    for member in &status.members {
        text += &format!(
            "\n  {} {:?} {} durable {} stable {} committed {} applied {} hash {}",
            member.node,
            member.role,
            member.address,
            member.durable,
            member.stable,
            member.committed,
            member.applied,
            member.hash
        );
    }
    for learner in &status.learners {
        text += &format!(
            "\n  {} learns: {:?}, {} behind, {} of {} bytes",
            learner.node,
            learner.phase,
            learner.behind,
            learner.received_bytes,
            learner.total_bytes
        );
    }
    let events = status.events.iter().rev().take(8).rev();
    for event in events {
        text += &format!("\n  {:?} {:?} view {}", event.kind, event.node, event.epoch);
    }
    text
}
