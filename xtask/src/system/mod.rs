//! A running system: a front-end and its nodes, or a front-end alone.

pub mod ports;
mod process;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::ports::{Owner, Ports, listener, loopback};
use self::process::{Process, how};
use crate::interrupt::{interrupted, interrupts};
use crate::run::{Line, POLL};
use crate::workspace::{Profile, Workspace};

/// How long a start may take until it is given up. The usual time is a fraction of a second.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long a process may take to end by itself; the front-end gives itself 5 s to drain.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// What the first process of every system is called.
pub const FRONT_END: &str = "front-end";

/// Where a system keeps its files.
pub struct Places {
    /// The directory that holds all of them.
    pub data: PathBuf,
    /// The log files.
    pub logs: PathBuf,
}

impl Places {
    /// The places in `data`.
    ///
    /// # Errors
    /// If the directories cannot be made.
    pub fn in_dir(data: PathBuf) -> Result<Self> {
        let logs = data.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        Ok(Self { logs, data })
    }

    /// What a process keeps: the name is the one that it would choose itself.
    fn of(&self, role: &str, port: u16) -> PathBuf {
        self.data.join(format!("{role}-{port}"))
    }
}

/// What runs. Dropping it stops it.
pub struct System {
    server: PathBuf,
    backend: PathBuf,
    client: PathBuf,
    ports: Ports,
    /// The front-end first, then the nodes in the order in which they joined.
    processes: Vec<Process>,
}

impl System {
    /// Starts everything, and returns when writes can be served by all nodes.
    ///
    /// # Errors
    /// If a process cannot be started or ends early, or the chain does not form; what had been
    /// started is stopped. The message names the log that tells more.
    pub fn start(
        workspace: &Workspace,
        profile: Profile,
        places: &Places,
        ports: &Ports,
    ) -> Result<Self> {
        let bin = |name: &str| workspace.bin(profile, name);
        let mut system = Self {
            server: bin("kvservice-server"),
            backend: bin("kvservice-backend"),
            client: bin("kvservice"),
            ports: ports.clone(),
            processes: Vec::new(),
        };
        let server = Line::new(&system.server);
        let clients = loopback(ports.clients).to_string();
        let log = places.logs.join(format!("frontend-{}.log", ports.clients));
        match ports.chain.map(|port| (port, loopback(port).to_string())) {
            None => {
                let line = server
                    .args(["single", "--listen", &clients, "--data-dir"])
                    .arg(places.of("single", ports.clients));
                system.add(FRONT_END, ports.clients, &line, line.clone(), log)?;
                system.wait("the front-end", || system_is_healthy(ports.clients))?;
            }
            Some((port, chain)) => {
                let view = places.of("front-end", port);
                let is_new = !is_used(&view);
                let line = server
                    .args([
                        "chain",
                        "--listen",
                        &clients,
                        "--chain-listen",
                        &chain,
                        "--data-dir",
                    ])
                    .arg(&view);
                // A front-end that starts again finds its view, and must not found a cluster
                // should somebody have removed it.
                let first = line.clone().arg("--init");
                system.add(FRONT_END, ports.clients, &first, line, log)?;
                system.wait("the front-end", || answers_http(ports.clients))?;
                for (&port, count) in ports.nodes.iter().zip(1..) {
                    let line = Line::new(&system.backend)
                        .args(["--listen", &loopback(port).to_string()])
                        .args(["--frontend", &chain, "--data-dir"])
                        .arg(places.of("backend", port));
                    let log = places.logs.join(format!("backend-{port}.log"));
                    let name = format!("n{count}");
                    system.add(&name, port, &line, line.clone(), log)?;
                    // One after another, so that the chain stands in the order of the ports. Those of an earlier
                    // run know their order, and wait for each other.
                    if is_new {
                        let client = system.client.clone();
                        system.wait(&name, || members(&client, &clients) == Some(count))?;
                    }
                }
                let client = system.client.clone();
                let all = ports.nodes.len();
                system.wait("the chain", || members(&client, &clients) == Some(all))?;
            }
        }
        Ok(system)
    }

    fn add(&mut self, name: &str, port: u16, line: &Line, again: Line, log: PathBuf) -> Result<()> {
        self.processes
            .push(Process::start(name, port, line, again, log)?);
        Ok(())
    }

    fn wait(&mut self, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        while !ready() {
            if interrupted() {
                bail!("stopped before {what} was ready");
            }
            for process in &mut self.processes {
                if let Some(status) = process.just_ended() {
                    bail!(
                        "{} {}. The end of its log, {}:\n{}",
                        process.name,
                        how(status),
                        process.log.display(),
                        process.last_words()
                    );
                }
            }
            if Instant::now() >= deadline {
                let logs = self.processes.last().map(|process| process.log.clone());
                bail!(
                    "{what} is not ready after {} s; its log: {}",
                    START_PATIENCE.as_secs(),
                    logs.unwrap_or_default().display()
                );
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Kills the process called `name`: the front-end, `n1`, `n2` and so on.
    pub fn kill(&mut self, name: &str) {
        self.processes
            .iter_mut()
            .filter(|process| process.name == name)
            .for_each(Process::kill);
    }

    /// Starts the process called `name` again, after it was killed.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restart(&mut self, name: &str) -> Result<()> {
        let mut processes = self.processes.iter_mut();
        processes
            .find(|process| process.name == name)
            .map_or(Ok(()), Process::restart)
    }

    /// For each process: what it is, the line that kills it and the line that starts it again.
    pub fn describe(&self, workspace: &Workspace) -> String {
        let mut text = String::new();
        for process in &self.processes {
            text += &format!(
                "  {}  {}  pid {}  log {}\n      kill it      kill -9 {}\n      start again  {}\n",
                process.name,
                loopback(process.port),
                process.pid(),
                workspace.show(&process.log),
                process.pid(),
                process.start_again(),
            );
        }
        text
    }

    /// What has ended since the last call, a line for each.
    pub fn losses(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for process in &mut self.processes {
            if let Some(status) = process.just_ended() {
                lines.push(format!(
                    "{} (pid {}) {}; start it again:\n  {}",
                    process.name,
                    process.pid(),
                    how(status),
                    process.start_again(),
                ));
            }
        }
        lines
    }

    /// Stops everything: the front-end first, which answers what it has and says good-bye to its
    /// clients, then the nodes, which nobody needs any more; and what was started again by hand,
    /// by the lines that we gave. Returns what is worth knowing.
    pub fn stop(&mut self) -> Vec<String> {
        self.stop_processes();
        let badly = self
            .processes
            .iter()
            .filter(|process| process.had_to_be_killed());
        let mut notes: Vec<_> = badly
            .map(|process| {
                let log = process.log.display();
                format!("{} did not end when it was told to: {log}", process.name)
            })
            .collect();
        for port in self.ports.all() {
            let Some(owner) = listener(port) else {
                continue;
            };
            let Owner { pid, name, .. } = &owner;
            notes.push(if owner.runs(&self.server) || owner.runs(&self.backend) {
                match owner.tell_to_stop() {
                    Ok(()) => format!("{name} (pid {pid}), started by hand, is told to stop too."),
                    Err(error) => format!("{name} (pid {pid}) still runs: {error}"),
                }
            } else {
                format!("{name} (pid {pid}) has taken port {port}, and is left alone.")
            });
        }
        notes
    }
}

impl System {
    fn stop_processes(&mut self) {
        let Some((front_end, nodes)) = self.processes.split_first_mut() else {
            return;
        };
        front_end.tell_to_stop();
        front_end.wait_unless(impatience());
        nodes.iter_mut().for_each(Process::tell_to_stop);
        let too_long = impatience();
        nodes
            .iter_mut()
            .for_each(|node| node.wait_unless(&too_long));
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.stop_processes();
    }
}

/// Tells when a process that is being stopped from now on has had its time. One more ctrl-c
/// means at once.
fn impatience() -> impl Fn() -> bool {
    let deadline = Instant::now() + STOP_PATIENCE;
    let interrupts_before = interrupts();
    move || Instant::now() >= deadline || interrupts() > interrupts_before
}

/// Whether an earlier run left anything in this directory.
fn is_used(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

fn system_is_healthy(port: u16) -> bool {
    healthz(port).is_some_and(|status| status == 200)
}

/// A front-end without nodes is there, but not healthy yet.
fn answers_http(port: u16) -> bool {
    healthz(port).is_some()
}

/// The HTTP status of `/healthz`, if there is an answer.
fn healthz(port: u16) -> Option<u16> {
    let patience = Some(Duration::from_secs(2));
    let mut stream = TcpStream::connect(loopback(port)).ok()?;
    stream.set_read_timeout(patience).ok()?;
    stream.set_write_timeout(patience).ok()?;
    let host = loopback(port);
    write!(
        stream,
        "GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = Vec::new();
    // A server that goes on talking is none of ours.
    stream.take(64 * 1024).read_to_end(&mut answer).ok()?;
    String::from_utf8_lossy(&answer)
        .strip_prefix("HTTP/1.1 ")?
        .get(..3)?
        .parse()
        .ok()
}

/// How many nodes are full members of the chain; `None` if nobody answers.
fn members(client: &Path, server: &str) -> Option<usize> {
    let line = Line::new(client).args(["--server", server, "-o", "json", "status"]);
    let status: serde_json::Value = serde_json::from_str(&line.output()?).ok()?;
    status["waiting"].is_null().then_some(())?;
    Some(status["members"].as_array()?.len())
}
