//! The processes under test, each behind its proxies, each with a disk.

use super::network::{Network, Place};
use super::proxy::{Dialler, open};
use crate::process::{Process, binary, lasting_address};
use crate::random::Random;
use crate::single::{log_level, status_of};
use crate::small_disk::SmallDisk;
use kvservice_client::Status;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::{fs, io};

/// The small disk: so many bytes, and the room that a node leaves free on it.
const SMALL_DISK_BYTES: u64 = 96 * 1024 * 1024;
/// Below it the node leaves the chain.
const RESERVE_BYTES: u64 = 8 * 1024 * 1024;
/// Small, so that checkpoints are many, and a node that was away for long is sent a snapshot.
const CHECKPOINT_BYTES: u64 = 1024 * 1024;
const LOG_RETENTION_BYTES: u64 = 512 * 1024;
/// A process's clock begins at most so much later than the machine's.
const CLOCK_OFFSET_MAX_S: u64 = 100_000_000;

/// A front-end and its nodes.
#[derive(Debug)]
pub struct Cluster {
    /// The links.
    pub network: Arc<Network>,
    /// The front-end, then the nodes.
    servers: Vec<Server>,
    /// Where clients reach the front-end, past every proxy.
    clients: SocketAddr,
    /// Of the last node.
    small: Option<SmallDisk>,
    clocks: Option<Random>,
    dir: PathBuf,
    /// Processes started.
    pub starts: usize,
    /// Disks lost.
    pub wiped: usize,
}

#[derive(Debug)]
struct Server {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    /// What others call it.
    address: String,
    data: PathBuf,
    process: Option<Process>,
    /// Its disk is full, or was: it may end by itself.
    may_end: bool,
}

impl Cluster {
    /// Founds one with so many nodes; its files are in `dir`.
    ///
    /// # Panics
    /// Where a process cannot be started.
    pub async fn found(dir: &Path, nodes: usize, seed: u64) -> Cluster {
        let network = Arc::new(Network::default());
        let clients = lasting_address();
        let chain = lasting_address();
        let small = SmallDisk::mount(dir.join("small-disk"), SMALL_DISK_BYTES);
        let mut servers = vec![front_end(dir, clients, chain)];
        for node in 0..nodes {
            let small = small.as_ref().filter(|_| node + 1 == nodes);
            servers.push(back_end(dir, node, &network, chain, small).await);
        }
        let mut cluster = Cluster {
            network,
            servers,
            clients,
            small,
            clocks: clocks_differ().then(|| Random::new(seed)),
            dir: dir.to_owned(),
            starts: 0,
            wiped: 0,
        };
        cluster.servers[0].args.push("--init".to_owned());
        for place in cluster.places() {
            cluster.start(place);
        }
        // It changes nothing where there is a cluster already; without it nobody can think otherwise.
        cluster.servers[0].args.pop();
        cluster
    }

    /// A proxy in front of the front-end's client port, for one client.
    pub async fn door(&self, client: usize) -> SocketAddr {
        let from = Dialler::Known(Place::Client(client));
        open(&self.network, from, Place::FrontEnd, self.clients).await
    }

    /// Where clients reach the front-end, past every proxy.
    #[must_use]
    pub fn clients(&self) -> SocketAddr {
        self.clients
    }

    /// How many nodes there are, running or not.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.servers.len() - 1
    }

    /// The front-end's, then the nodes'.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        let nodes = (0..self.nodes()).map(Place::Node);
        std::iter::once(Place::FrontEnd).chain(nodes).collect()
    }

    /// The node with the small disk, if there is one.
    #[must_use]
    pub fn small_disk(&self) -> Option<(usize, &SmallDisk)> {
        self.small.as_ref().map(|small| (self.nodes() - 1, small))
    }

    /// Whether each process has a clock of its own.
    #[must_use]
    pub fn has_clocks(&self) -> bool {
        self.clocks.is_some()
    }

    fn server(&mut self, place: Place) -> &mut Server {
        match place {
            Place::FrontEnd => &mut self.servers[0],
            Place::Node(node) => &mut self.servers[node + 1],
            Place::Client(_) => panic!("a client is no server"),
        }
    }

    /// Starts what does not run.
    ///
    /// # Panics
    /// Where that cannot be done, or it runs.
    pub fn start(&mut self, place: Place) {
        let clock = self.clocks.as_mut();
        let offset = clock.map(|random| random.below(CLOCK_OFFSET_MAX_S));
        let dir = self.dir.clone();
        let server = self.server(place);
        assert!(server.process.is_none(), "{place} runs");
        let (program, args) = server.line(offset);
        let process = Process::start(&server.name, &program, &args, &dir);
        let pid = process.pid();
        server.process = Some(process);
        self.network.set_process(place, pid);
        self.starts += 1;
    }

    /// `kill -9` to all of them, as nearly at once as signals go.
    pub fn kill(&mut self, places: &[Place]) {
        for &place in places {
            // Stopped first, so that none sees another die.
            self.pause(place);
        }
        for &place in places {
            if let Some(mut process) = self.server(place).process.take() {
                process.kill();
            }
        }
    }

    /// SIGSTOP.
    pub fn pause(&mut self, place: Place) {
        if let Some(process) = &mut self.server(place).process {
            process.pause();
        }
    }

    /// SIGCONT.
    pub fn resume(&mut self, place: Place) {
        if let Some(process) = &mut self.server(place).process {
            process.resume();
        }
    }

    /// SIGTERM.
    pub fn terminate(&mut self, place: Place) {
        if let Some(process) = &mut self.server(place).process {
            process.terminate();
        }
    }

    /// Waits for the end of what was told to stop, if it runs.
    ///
    /// # Errors
    /// It ends with an error.
    ///
    /// # Panics
    /// Where it does not end.
    pub async fn ends(&mut self, place: Place) -> Result<(), String> {
        let Some(mut process) = self.server(place).process.take() else {
            return Ok(());
        };
        let status = process.ends().await;
        // One that was told right after its start has not heard of signals yet.
        if status.success() || process.logged().is_empty() {
            return Ok(());
        }
        let words = process.last_words();
        Err(format!(
            "{place} was told to stop, and ended with {status}; {words}"
        ))
    }

    /// Removes what is on a node's disk. It does not run.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn wipe(&mut self, node: usize) -> io::Result<()> {
        fs::remove_dir_all(&self.server(Place::Node(node)).data)
    }

    /// From now on the node may end by itself.
    pub fn may_end(&mut self, node: usize) {
        self.server(Place::Node(node)).may_end = true;
    }

    /// Starts again who had the right to end, and did; who that was.
    pub fn restart_ended(&mut self) -> Vec<Place> {
        let mut ended = Vec::new();
        for place in self.places() {
            let server = self.server(place);
            let over = server.process.as_mut().is_some_and(|p| p.ended().is_some());
            if server.may_end && over {
                server.process = None;
                self.start(place);
                ended.push(place);
            }
        }
        ended
    }

    /// Nobody's disk is full any more, and all run.
    pub fn none_may_end(&mut self) {
        for server in &mut self.servers {
            server.may_end = false;
        }
    }

    /// Who has ended, though nobody told it to: how, and its last words.
    pub fn lost(&mut self) -> Option<String> {
        self.servers.iter_mut().find_map(|server| {
            let process = server.process.as_mut().filter(|_| !server.may_end)?;
            let status = process.ended().filter(|_| !process.was_told())?;
            Some(format!(
                "{} has ended by itself, with {status}; {}",
                server.name,
                process.last_words()
            ))
        })
    }

    /// Whether it runs, paused or not.
    pub fn runs(&mut self, place: Place) -> bool {
        let process = self.server(place).process.as_mut();
        process.is_some_and(|process| process.ended().is_none())
    }

    /// The front-end's answer to `status`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self) -> Result<Status, String> {
        status_of(self.clients).await
    }

    /// What others call a node.
    #[must_use]
    pub fn address(&self, node: usize) -> &str {
        &self.servers[node + 1].address
    }

    /// The order of the members, by their numbers.
    #[must_use]
    pub fn order(&self, status: &Status) -> Vec<usize> {
        let node = |address: &str| (0..self.nodes()).find(|&node| self.address(node) == address);
        let members = status.members.iter();
        members.filter_map(|member| node(&member.address)).collect()
    }
}

impl Server {
    /// The command line, by way of a program that sets its clock if it is to have another.
    fn line(&self, clock_offset: Option<u64>) -> (PathBuf, Vec<String>) {
        let Some(offset) = clock_offset else {
            return (self.program.clone(), self.args.clone());
        };
        let mut args = clock_args(offset);
        args.push(self.program.display().to_string());
        args.extend(self.args.iter().cloned());
        ("unshare".into(), args)
    }
}

fn clock_args(offset: u64) -> Vec<String> {
    vec![
        "--time".to_owned(),
        format!("--monotonic={offset}"),
        format!("--boottime={offset}"),
        "--".to_owned(),
    ]
}

/// Whether processes can have other monotonic clocks than this one.
fn clocks_differ() -> bool {
    let trial = Command::new("unshare")
        .args(clock_args(1))
        .arg("true")
        .stderr(Stdio::null())
        .status();
    trial.is_ok_and(|status| status.success())
}

fn front_end(dir: &Path, clients: SocketAddr, chain: SocketAddr) -> Server {
    let data = dir.join("data-front-end");
    let args = vec![
        "chain".to_owned(),
        format!("--listen={clients}"),
        format!("--chain-listen={chain}"),
        format!("--data-dir={}", data.display()),
        "--grace=3s".to_owned(),
        format!("--log={}", log_level()),
    ];
    Server {
        name: "front-end".to_owned(),
        program: binary("kvservice-server"),
        args,
        address: chain.to_string(),
        data,
        process: None,
        may_end: false,
    }
}

async fn back_end(
    dir: &Path,
    node: usize,
    network: &Arc<Network>,
    chain: SocketAddr,
    small: Option<&SmallDisk>,
) -> Server {
    let place = Place::Node(node);
    let listen = lasting_address();
    let advertised = open(network, Dialler::AnyProcess, place, listen).await;
    let front_end = open(network, Dialler::Known(place), Place::FrontEnd, chain).await;
    let data = small
        .map_or(dir, SmallDisk::path)
        .join(format!("data-node-{node}"));
    let args = vec![
        format!("--listen={listen}"),
        format!("--advertise={advertised}"),
        format!("--frontend={front_end}"),
        format!("--data-dir={}", data.display()),
        format!("--disk-reserve={RESERVE_BYTES}"),
        format!("--checkpoint-bytes={CHECKPOINT_BYTES}"),
        format!("--log-retention={LOG_RETENTION_BYTES}"),
        format!("--log={}", log_level()),
    ];
    Server {
        name: format!("node-{node}"),
        program: binary("kvservice-backend"),
        args,
        address: advertised.to_string(),
        data,
        process: None,
        may_end: false,
    }
}
