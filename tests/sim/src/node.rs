//! A simulated node process: what `backend/src/runtime.rs` does around the replica, without sockets and clock.

use crate::disk::{Disk, Trouble};
use crate::net::Process;
use kvservice_backend::chain::{Config, Event, LinkId, Loading, Replica};
use kvservice_backend::storage::{MemoryState, Progress};
use kvservice_shared::api::StorageKind;
use kvservice_shared::chain::{Incarnation, Member};
use kvservice_shared::ids::{Boot, ClusterId, Epoch, NodeId};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use uuid::Uuid;

/// First wait before dialling again, and the longest, as in `backend/src/link`.
pub const RETRY_MIN_MS: u64 = 10;
pub const RETRY_PEER_MAX_MS: u64 = 500;
pub const RETRY_FRONT_END_MAX_MS: u64 = 250;
/// After a link to the front-end that lasted so long, the first wait is short again.
pub const LINK_LASTED_MS: u64 = 1000;
/// A handshake takes no longer.
pub const HANDSHAKE_MS: u64 = 5000;
/// A front-end that is silent for longer is given up: less than its grace.
pub const FRONT_END_SILENCE_MS: u64 = 1000;
/// A node that asked to leave and gets no answer stops in its place after this.
pub const LEAVE_MS: u64 = 3000;

/// A node in memory has a new id with every start, one with a disk only a new boot.
pub fn node_id(index: usize, life: u32, slot: &SlotConfig) -> NodeId {
    let of_id = match slot.storage {
        StorageKind::Memory => life,
        StorageKind::Disk => slot.wiped + 1,
    };
    NodeId(Uuid::from_u128((index as u128) << 32 | u128::from(of_id)))
}

fn incarnation(index: usize, life: u32, slot: &SlotConfig) -> Incarnation {
    Incarnation {
        node: node_id(index, life, slot),
        boot: Boot(u64::from(life)),
    }
}

/// `a`, `b`, …; with the number of its life from the second on. Written when it is shown: mostly it is not.
#[derive(Clone, Copy, Debug)]
pub struct Name(Incarnation);

/// What a node is called.
pub fn name(id: Incarnation) -> Name {
    Name(id)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.node.0.as_u128();
        let letter = char::from(b'a' + u8::try_from(bits >> 32).unwrap_or(25).min(25));
        match bits as u32 {
            1 => write!(f, "{letter}"),
            life => write!(f, "{letter}{life}"),
        }
    }
}

/// A link that this node keeps to a peer.
#[derive(Debug)]
pub struct Dialler {
    pub peer: Member,
    pub conn: Option<u64>,
    /// The handshake is done, and the replica did not give the link up.
    pub up: bool,
    pub since_ms: u64,
    pub retry_ms: Option<u64>,
    pub wait_ms: u64,
}

impl Dialler {
    pub fn new(peer: Member) -> Dialler {
        Dialler {
            peer,
            conn: None,
            up: false,
            since_ms: 0,
            retry_ms: None,
            wait_ms: RETRY_MIN_MS,
        }
    }
}

/// The link to the front-end.
#[derive(Debug)]
pub struct FrontEndLink {
    pub conn: Option<u64>,
    pub up: bool,
    pub since_ms: u64,
    /// When anything came on it.
    pub heard_ms: u64,
    pub retry_ms: Option<u64>,
    pub wait_ms: u64,
}

/// What a place for a node is.
#[derive(Clone, Debug)]
pub struct SlotConfig {
    pub name: String,
    pub storage: StorageKind,
    /// Bytes of log that its processes keep, and between two checkpoints.
    pub retention: usize,
    pub part_bytes: usize,
    /// Its disk is kept by the code that ships, and not by a model.
    pub real_disk: bool,
    /// Its lives before its disk was emptied: that made it another node.
    pub wiped: u32,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    pub process: Process,
    pub id: Incarnation,
    pub replica: Replica<MemoryState>,
    pub disk: Disk,
    progress: Progress,
    pub paused: bool,
    pub started_ms: u64,
    pub cluster: Option<ClusterId>,
    /// Of the view that its disk has.
    pub stored_epoch: Epoch,
    pub front_end: FrontEndLink,
    pub dialled: BTreeMap<Incarnation, Dialler>,
    /// Links that others dialled, and the connections that they are.
    pub inbound: BTreeMap<LinkId, u64>,
    /// Who dialled them.
    pub dialled_by: BTreeMap<LinkId, Incarnation>,
    /// Dialled links whose end the runtime has still to tell the replica.
    pub lost: VecDeque<Incarnation>,
    pub leave_by_ms: Option<u64>,
}

impl Node {
    pub fn start(
        process: Process,
        index: usize,
        slot: &SlotConfig,
        mut disk: Disk,
        now_ms: u64,
    ) -> Result<Node, Box<(Disk, Trouble)>> {
        let id = incarnation(index, process.life, slot);
        let config = Config {
            id,
            address: slot.name.clone(),
            storage: slot.storage,
            log_retention_bytes: slot.retention,
            checkpoint_bytes: slot.retention,
            part_bytes: slot.part_bytes,
        };
        let mut loading = Loading::into(MemoryState::default());
        let opened = disk.open(id.node, &mut loading).and_then(|restored| {
            let progress = disk.progress()?;
            let replica = match slot.storage {
                StorageKind::Memory => Replica::new(config, MemoryState::default()),
                StorageKind::Disk => {
                    Replica::restore(config, loading, restored).map_err(|e| e.to_string())?
                }
            };
            Ok((replica, progress))
        });
        let (replica, progress) = match opened {
            Ok(opened) => opened,
            Err(trouble) => return Err(Box::new((disk, trouble))),
        };
        Ok(Node {
            process,
            id: replica.id(),
            cluster: replica.cluster(),
            stored_epoch: replica.epoch(),
            replica,
            disk,
            progress,
            paused: false,
            started_ms: now_ms,
            front_end: FrontEndLink {
                conn: None,
                up: false,
                since_ms: 0,
                heard_ms: now_ms,
                retry_ms: Some(now_ms),
                wait_ms: RETRY_MIN_MS,
            },
            dialled: BTreeMap::new(),
            inbound: BTreeMap::new(),
            dialled_by: BTreeMap::new(),
            lost: VecDeque::new(),
            leave_by_ms: None,
        })
    }

    pub fn step(&mut self, now_ms: u64, event: Event) {
        self.replica.step(now_ms - self.started_ms, event);
    }

    /// What the disk did since it was last asked.
    pub fn news(&mut self) -> Result<Vec<Event>, Trouble> {
        let progress = self.disk.progress()?;
        let before = std::mem::replace(&mut self.progress, progress);
        let mut news = Vec::new();
        if self.replica.is_news(progress.durable) {
            news.push(Event::Durable(progress.durable));
        }
        if (progress.written, progress.checkpoint) != (before.written, before.checkpoint) {
            news.push(Event::Saved {
                written: progress.written,
                durable: progress.checkpoint,
            });
        }
        Ok(news)
    }

    /// The dialled peer of a connection.
    pub fn dialled_on(&mut self, conn: u64) -> Option<(Incarnation, &mut Dialler)> {
        let found = self
            .dialled
            .iter_mut()
            .find(|(_, dialler)| dialler.conn == Some(conn));
        found.map(|(peer, dialler)| (*peer, dialler))
    }
}
