//! The systems: started from their own programs, each with its processes and how to speak to it.

pub mod etcd;
pub mod hop;
pub mod kvservice;
pub mod redis;

use crate::load::{self, Load};
use crate::options::SystemName;
use crate::process::{Process, on_path};
use crate::stats::Stats;
use crate::wire::Target;
use crate::wire::etcd::Etcd;
use crate::wire::json::{Hop, Kvservice};
use crate::wire::resp::Resp;
use crate::work::KeyCount;
use anyhow::Result;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A system that runs.
#[derive(Debug)]
pub struct System {
    /// Which.
    pub name: SystemName,
    /// Its processes, each with its own name.
    pub processes: Vec<Process>,
    /// Where clients connect, one after the other.
    pub addresses: Vec<SocketAddr>,
    /// Copies of the data.
    pub nodes: u16,
    /// How many keys it holds, and of which size.
    pub count: KeyCount,
    filled: Option<(u64, usize)>,
}

/// Where programs are, and where data may be.
#[derive(Clone, Debug)]
pub struct Places {
    /// kvservice's binaries.
    pub bin_dir: PathBuf,
    /// A directory for this system alone.
    pub dir: PathBuf,
}

impl System {
    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    /// It does not start. Nothing of it is left behind.
    pub fn start(name: SystemName, nodes: u16, places: &Places) -> Result<System> {
        let (processes, addresses) = match name {
            SystemName::Kvservice => kvservice::start(places, nodes, false)?,
            SystemName::KvserviceMemory => kvservice::start(places, nodes, true)?,
            SystemName::RedisAlways => redis::start(places, nodes, true)?,
            SystemName::RedisMemory => redis::start(places, nodes, false)?,
            SystemName::Etcd => etcd::start(places, nodes)?,
            SystemName::Hop => hop::start(places)?,
        };
        Ok(System {
            name,
            processes,
            addresses,
            nodes,
            count: Arc::new(AtomicU64::new(0)),
            filled: None,
        })
    }

    /// What is needed to speak to it. Of etcd's members the leader alone: a linearizable read at another one asks the
    /// leader first, and a put is handed on to it, so that clients spread over all get less.
    pub fn targets(&self, value_bytes: usize) -> Vec<Target> {
        let target = |&address: &SocketAddr| Target {
            address,
            value_bytes,
            replicas: self.nodes - 1,
        };
        let leader = match self.name {
            SystemName::Etcd => etcd::leader(&self.addresses).ok().flatten(),
            _ => None,
        };
        match leader {
            Some(leader) => vec![target(&self.addresses[leader])],
            None => self.addresses.iter().map(target).collect(),
        }
    }

    /// Writes all keys with values of this size, unless they are there.
    ///
    /// # Errors
    /// It does not take them.
    pub fn fill(&mut self, connections: u32, keys: u64, value_bytes: usize) -> Result<()> {
        if self.filled == Some((keys, value_bytes)) {
            return Ok(());
        }
        let targets = self.targets(value_bytes);
        match self.name {
            SystemName::Kvservice | SystemName::KvserviceMemory => {
                load::fill::<Kvservice>(&targets, connections, keys)?;
            }
            SystemName::RedisAlways | SystemName::RedisMemory => {
                load::fill::<Resp>(&targets, connections, keys)?;
            }
            SystemName::Etcd => load::fill::<Etcd>(&targets, connections, keys)?,
            SystemName::Hop => {}
        }
        self.count.store(keys, Ordering::Relaxed);
        self.filled = Some((keys, value_bytes));
        Ok(())
    }

    /// Puts a load on it.
    ///
    /// # Errors
    /// As [`load::run`].
    pub fn run(&self, load: &Load, watch: impl FnMut()) -> Result<Stats> {
        match self.name {
            SystemName::Kvservice | SystemName::KvserviceMemory => {
                load::run::<Kvservice>(load, watch)
            }
            SystemName::RedisAlways | SystemName::RedisMemory => load::run::<Resp>(load, watch),
            SystemName::Etcd => load::run::<Etcd>(load, watch),
            SystemName::Hop => load::run::<Hop>(load, watch),
        }
    }
}

/// Why a system cannot be measured here, if so: what is missing, and where it comes from.
pub fn missing(name: SystemName) -> Option<&'static str> {
    let (program, word) = match name {
        SystemName::RedisAlways | SystemName::RedisMemory => (
            "redis-server",
            "redis-server is not on PATH. On Debian and Ubuntu: sudo apt-get install redis-server",
        ),
        SystemName::Etcd => (
            "etcd",
            "etcd is not on PATH. On Debian and Ubuntu: sudo apt-get install etcd-server",
        ),
        SystemName::Kvservice | SystemName::KvserviceMemory | SystemName::Hop => return None,
    };
    on_path(program).is_none().then_some(word)
}

/// What runs once a system has started: its processes, and where clients connect.
type Started = (Vec<Process>, Vec<SocketAddr>);

/// A program on `PATH`, by its name alone where it is not: starting it then says so.
fn program(name: &str) -> PathBuf {
    on_path(name).unwrap_or_else(|| Path::new(name).to_owned())
}
