//! A node from what it was told: opens its storage, runs it, and stays by while its disk is too full.

use crate::chain::{Config, Loading, Replica, Restored};
use crate::link::FrontEnd;
use crate::net::TcpListener;
use crate::runtime::{self, RunError};
use crate::shutdown::{Shutdown, shutdown};
use crate::storage::disk::{self, DiskJournal, Opened, Options, SystemFiles};
use crate::storage::{MemoryJournal, MemoryState, StorageError};
use kvservice_shared::api::StorageKind;
use kvservice_shared::chain::Incarnation;
use kvservice_shared::ids::{Boot, NodeId};
use nix::sys::statvfs::statvfs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How often, and how far apart, to try to listen again.
const BIND_TRIES: u32 = 100;
const BIND_WAIT: Duration = Duration::from_millis(50);
/// Bytes of one part of a snapshot or a checkpoint, about.
const PART_BYTES: usize = 64 * 1024;
/// How often the room on a disk is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Where a node keeps its data.
#[derive(Clone, Debug)]
pub enum Storage {
    /// Gone with the process.
    Memory,
    /// In a directory of its own.
    Disk {
        /// The directory; made if it is not there.
        dir: PathBuf,
        /// How the journal goes about it.
        options: Options,
        /// With less room than this, in bytes, the node leaves the chain until there is more.
        reserve_bytes: u64,
    },
}

/// What a node is told.
#[derive(Clone, Debug)]
pub struct Start {
    /// Where its neighbours reach it.
    pub address: String,
    /// Log kept beyond what is needed, in bytes, for nodes that come back.
    pub log_retention_bytes: usize,
    /// See [`Config::checkpoint_bytes`].
    pub checkpoint_bytes: usize,
    /// Where its data are.
    pub storage: Storage,
}

impl Start {
    fn config(&self, node: NodeId) -> Config {
        let random = Uuid::new_v4().as_u64_pair();
        Config {
            id: Incarnation {
                node,
                boot: Boot(random.0 ^ random.1),
            },
            address: self.address.clone(),
            storage: match self.storage {
                Storage::Memory => StorageKind::Memory,
                Storage::Disk { .. } => StorageKind::Disk,
            },
            log_retention_bytes: self.log_retention_bytes,
            checkpoint_bytes: self.checkpoint_bytes,
            part_bytes: PART_BYTES,
        }
    }
}

/// Runs a node of a chain until it is asked to stop, and leaves the chain then. One whose disk is nearly full
/// leaves too, and comes back once there is room.
///
/// # Errors
/// Where the node must not go on; its data are left as they are.
pub async fn run(
    start: Start,
    listener: TcpListener,
    front_end: String,
    stop: Shutdown,
) -> Result<(), RunError> {
    let local = listener.local_addr().map_err(RunError::Listener)?;
    let mut listener = Some(listener);
    loop {
        if !wait_for_room(&start.storage, stop.clone()).await {
            return Ok(());
        }
        let bound = match listener.take() {
            Some(bound) => bound,
            None => listen_again(local).await?,
        };
        let front_end = FrontEnd::At(front_end.clone());
        let ended = run_once(&start, Some(bound), front_end, stop.clone()).await;
        match ended {
            Err(error) if error.is_full_disk() && !stop.is_requested() => {
                tracing::error!("{error}: out of the chain until there is room");
            }
            ended => return ended,
        }
    }
}

/// Runs a node until it is asked to stop, or must.
///
/// # Errors
/// As [`run`]; a disk that is nearly full is an error too.
pub async fn run_once(
    start: &Start,
    listener: Option<TcpListener>,
    front_end: FrontEnd,
    stop: Shutdown,
) -> Result<(), RunError> {
    match &start.storage {
        Storage::Memory => {
            let config = start.config(NodeId(Uuid::new_v4()));
            let replica = Replica::new(config, MemoryState::default());
            let journal = MemoryJournal::default();
            runtime::run(replica, journal, listener, front_end, stop).await
        }
        Storage::Disk {
            dir,
            options,
            reserve_bytes,
        } => {
            let (replica, journal) = open(start, dir.clone(), *options).await?;
            let (full, filled) = shutdown();
            let node = runtime::run(replica, journal, listener, front_end, stop.or(filled));
            let watch = watch_room(dir.clone(), *reserve_bytes);
            tokio::pin!(node, watch);
            tokio::select! {
                ended = &mut node => ended,
                left = &mut watch => {
                    full.stop();
                    node.await?;
                    Err(RunError::Full { dir: dir.display().to_string(), left, reserve: *reserve_bytes })
                }
            }
        }
    }
}

async fn open(
    start: &Start,
    dir: PathBuf,
    options: Options,
) -> Result<(Replica<MemoryState>, DiskJournal), RunError> {
    let start = start.clone();
    let opening = tokio::task::spawn_blocking(move || {
        let began = std::time::Instant::now();
        let mut loading = Loading::into(MemoryState::default());
        let opened = disk::open(&dir, options, Arc::new(SystemFiles), &mut loading)?;
        let Opened {
            node,
            meta,
            checkpoint,
            log_base,
            committed,
            log,
            journal,
            notes,
        } = opened;
        for note in notes {
            tracing::warn!("{note}");
        }
        let restored = Restored {
            meta,
            checkpoint,
            log_base,
            committed,
            log,
        };
        let replica = Replica::restore(start.config(node), loading, restored)
            .map_err(|error| RunError::Fatal(format!("{}: {error}", dir.display())))?;
        let (durable, _, applied, _) = replica.points();
        let keys = replica.size().0;
        let took_ms = began.elapsed().as_millis();
        tracing::info!(dir = %dir.display(), %node, keys, %applied, %durable, took_ms, "read the data");
        Ok((replica, journal))
    });
    opening
        .await
        .map_err(|error| RunError::Fatal(format!("reading the data: {error}")))?
}

/// The task that had the port was told to end, and may take a moment.
async fn listen_again(local: SocketAddr) -> Result<TcpListener, RunError> {
    let mut tries = 0;
    loop {
        match TcpListener::bind(local).await {
            Ok(listener) => return Ok(listener),
            Err(error) if tries == BIND_TRIES => return Err(RunError::Listener(error)),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(BIND_WAIT).await;
    }
}

/// Bytes that this process may still write where `dir` is.
fn room(dir: &Path) -> Option<u64> {
    // Trouble with asking is no reason to stop: writing will show.
    let found = statvfs(dir).ok()?;
    #[allow(clippy::useless_conversion)] // Their widths differ between systems.
    Some(u64::from(found.blocks_available()) * u64::from(found.fragment_size()))
}

async fn look(dir: PathBuf) -> Option<u64> {
    tokio::task::spawn_blocking(move || room(&dir)).await.ok()?
}

/// Ends once there is less room than `reserve`; says how much is left.
async fn watch_room(dir: PathBuf, reserve: u64) -> u64 {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Some(left) = look(dir.clone()).await.filter(|left| *left < reserve) {
            return left;
        }
    }
}

/// Waits until there is comfortably more room than the reserve; `false` if the process is to stop first.
async fn wait_for_room(storage: &Storage, mut stop: Shutdown) -> bool {
    let Storage::Disk {
        dir, reserve_bytes, ..
    } = storage
    else {
        return true;
    };
    let wanted = reserve_bytes + reserve_bytes / 4;
    let mut said = false;
    loop {
        // A directory that is not there yet is made in its parent.
        let there = dir.ancestors().find(|dir| dir.exists());
        let there = there.map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        match look(there).await {
            Some(left) if left < wanted => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(
                        dir = %dir.display(), left, wanted,
                        "waiting for room on the disk before joining: make some, or lower --disk-reserve"
                    );
                }
            }
            _ => return true,
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.requested() => return false,
        }
    }
}

impl RunError {
    fn is_full_disk(&self) -> bool {
        match self {
            RunError::Full { .. } => true,
            RunError::Storage(StorageError::Io { source, .. }) => matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
            ),
            _ => false,
        }
    }
}
