//! The ports that a system uses, and who has them if they are taken.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The most nodes one `up` starts: their ports are one block of ten, as the front-end's are.
pub const NODES_MAX: u16 = 9;

/// The ports of one system, all on loopback. With the base 7400, clients talk to 7400, nodes
/// talk to the front-end on 7401, and the nodes themselves listen on 7411, 7412, and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Where clients and browsers connect.
    pub clients: u16,
    /// Where nodes connect to the front-end; `None` where the front-end is the only process.
    pub chain: Option<u16>,
    /// Where each node listens for its neighbours.
    pub nodes: Vec<u16>,
}

impl Ports {
    /// The ports of a system of one process.
    pub fn single(base: u16) -> Self {
        Self {
            clients: base,
            chain: None,
            nodes: Vec::new(),
        }
    }

    /// The ports of a chain of `nodes`; `base` must leave room for them under 65536.
    pub fn chain(base: u16, nodes: u16) -> Self {
        Self {
            clients: base,
            chain: Some(base + 1),
            nodes: (1..=nodes).map(|node| base + 10 + node).collect(),
        }
    }

    /// Ports that are free now, for a chain of `nodes`. They lie below those that the kernel gives
    /// to outgoing connections, so that they stay free until they are listened on.
    ///
    /// # Errors
    /// If there are none.
    pub fn free_chain(nodes: u16) -> Result<Self> {
        (17_400..30_000)
            .step_by(100)
            .map(|base| Self::chain(base, nodes))
            .find(|ports| ports.check().is_ok())
            .context("no free ports between 17400 and 30000")
    }

    /// Every port, front-end first.
    pub fn all(&self) -> impl Iterator<Item = u16> {
        [self.clients]
            .into_iter()
            .chain(self.chain)
            .chain(self.nodes.iter().copied())
    }

    /// Whether all of them can be listened on now.
    ///
    /// # Errors
    /// If one is taken: the message names it, who has it as far as that can be seen, and the way
    /// out.
    pub fn check(&self) -> Result<()> {
        for port in self.all() {
            match TcpListener::bind(loopback(port)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    let taken = match listener(port) {
                        Some(Owner { pid, name, .. }) => {
                            format!(
                                "port {port} is taken by {name} (pid {pid}). To end it:\n  kill {pid}"
                            )
                        }
                        None => format!("port {port} is taken by another program."),
                    };
                    bail!("{taken}\nTo use other ports:\n  {}", self.elsewhere());
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot listen on port {port}"));
                }
            }
        }
        Ok(())
    }
}

impl Ports {
    /// The line that starts a system on ports that are probably free.
    pub fn elsewhere(&self) -> String {
        let base = if self.clients > 60_000 {
            7400
        } else {
            self.clients + 100
        };
        format!("cargo xtask up --port-base {base}")
    }
}

/// `127.0.0.1:port`.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A process that listens on a port.
#[derive(Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// Its program's name, without the path.
    pub name: String,
    /// The file that it executes, if we may know.
    exe: Option<PathBuf>,
}

impl Owner {
    /// Whether it executes `program`, or did until that was compiled anew.
    pub fn runs(&self, program: &Path) -> bool {
        let exe = self.exe.as_ref().map(|exe| exe.to_string_lossy());
        exe.is_some_and(|exe| Path::new(exe.trim_end_matches(" (deleted)")) == program)
    }

    /// Sends it SIGTERM.
    ///
    /// # Errors
    /// If it has gone, or is not ours to stop.
    pub fn tell_to_stop(&self) -> nix::Result<()> {
        let pid = i32::try_from(self.pid).expect("process ids fit an i32 on Unix");
        kill(Pid::from_raw(pid), Signal::SIGTERM)
    }
}

/// Who listens on `port`, where `/proc` tells: only Linux has it, and it shows the open files
/// of one's own processes only.
pub fn listener(port: u16) -> Option<Owner> {
    let sockets: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    processes
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .find(|(_, process)| has_open(process, &sockets))
        .map(|(pid, process)| Owner {
            pid,
            name: program(&process),
            exe: fs::read_link(process.join("exe")).ok(),
        })
}

/// The sockets that listen on `port` in a table as `/proc/net/tcp` prints it, by the names under
/// which `/proc` shows them among a process's open files.
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.len() > 9 && fields[1].ends_with(&port) && fields[3] == LISTEN)
        .map(|fields| format!("socket:[{}]", fields[9]))
        .collect()
}

fn has_open(process: &Path, files: &[String]) -> bool {
    let Ok(open) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok())
        .any(|target| files.iter().any(|file| target.as_os_str() == file.as_str()))
}

fn program(process: &Path) -> String {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let first = line.split(|&byte| byte == 0).next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    match first.rsplit('/').next() {
        Some(name) if !name.is_empty() => name.to_owned(),
        _ => "a program".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::{Ports, listener, listening};

    #[test]
    fn ports_are_laid_out_from_the_base() {
        let ports = Ports::chain(7400, 3);
        assert_eq!(
            ports.all().collect::<Vec<_>>(),
            [7400, 7401, 7411, 7412, 7413]
        );
        assert_eq!(Ports::single(8000).all().collect::<Vec<_>>(), [8000]);
    }

    #[test]
    fn a_taken_port_is_named_with_its_owner() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let message = Ports::single(port).check().unwrap_err().to_string();
        assert!(
            message.contains(&format!("port {port} is taken by ")),
            "{message}"
        );
        assert!(
            message.contains(&format!("pid {}", std::process::id())),
            "{message}"
        );
        let this = std::env::current_exe().unwrap();
        assert!(listener(port).unwrap().runs(&this));
        assert!(
            !listener(port)
                .unwrap()
                .runs(std::path::Path::new("/bin/sh"))
        );
        drop(taken);
        Ports::single(port).check().unwrap();
        assert_eq!(listener(port), None);
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1CE8 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 101 1 0\n\
            1: 0100007F:1CE8 0100007F:9C40 01 00000000:00000000 00:00000000 00000000 0 0 102 1 0\n\
            2: 0100007F:1CE9 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 103 1 0\n";
        assert_eq!(listening(table, 7400), ["socket:[101]"]);
    }
}
