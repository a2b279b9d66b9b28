//! A node's journal on disk.
//!
//! ```text
//! lock                    held while a process uses the directory
//! node                    the node's id; made once
//! meta                    what the replica remembers, and which generation counts; replaced as a whole
//! log-<G>-<ordinal>       segments of the log: the very batches that travel
//! checkpoint-<G>-<number> the state, to start from
//! *.part                  not whole: removed
//! ```
//! # Invariants
//! 1. A file has its name only when its head (a checkpoint: all of it) is durable. A named file whose head does
//!    not verify was damaged, not torn.
//! 2. Only files of the generation that `meta` names count. A reset makes the new generation's first segment,
//!    then names it in `meta`: that one rename voids everything before it.
//! 3. Only the last segment is written to. All others end with a seal: a group that says that everything before
//!    it is durable.
//! 4. What is on disk is what came of the first so many operations, in the order in which they were given; but
//!    for checkpoints, which are as late as they like.
//! 5. After a call failed no call is made.
//!
//! Two threads do all file calls: one for the log and the meta data, one for checkpoints and for removing files.
//! [`DiskJournal`] hands them work and says how far they are.

mod checkpoint;
mod files;
mod format;
mod handle;
mod identity;
mod journal;
mod log;
mod recover;
mod saver;
mod segment;
#[doc(hidden)]
pub mod testing;

pub use files::{File, Files, Lock, SystemFiles};
pub use journal::DiskJournal;
pub use recover::{open, open_by_hand};

pub use super::Restore;
use super::StorageError;
use crate::chain::Meta;
use kvservice_shared::chain::Run;
use kvservice_shared::codec::Batch;
use kvservice_shared::ids::{NodeId, Seq};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// When the log is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before anything counts as durable.
    Always,
    /// At least this often. What is written counts as durable at once: a crash of the process loses nothing, a
    /// power cut loses up to this much of what was promised.
    Interval(Duration),
}

/// How the journal goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// When the log is synced.
    pub fsync: Fsync,
    /// A segment of the log is closed before it grows past this, in bytes; one write may go past it.
    pub segment_bytes: u64,
    /// A file call that takes longer halts the node.
    pub disk_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            fsync: Fsync::Always,
            segment_bytes: 64 * 1024 * 1024,
            disk_timeout: Duration::from_secs(10),
        }
    }
}

/// What was found in a data directory.
pub struct Opened {
    /// Who the node is.
    pub node: NodeId,
    /// What it remembers.
    pub meta: Meta,
    /// Base of the checkpoint that was restored, and where it is whole.
    pub checkpoint: Option<(Run, Seq)>,
    /// The entry before the log's first.
    pub log_base: Run,
    /// An entry of the log that is known to be committed, and so are all before it.
    pub committed: Seq,
    /// The log, all of it durable.
    pub log: Vec<Batch>,
    /// Takes what comes next.
    pub journal: DiskJournal,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file could not be read, written or synced.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Another process has it.
    #[error(
        "{dir} is in use by {by}: stop that one first, or give this node a directory of its own"
    )]
    Locked {
        /// The directory.
        dir: String,
        /// Who, as far as is known.
        by: String,
    },
    /// Something does not verify, and no crash explains it.
    #[error(
        "{file}, at byte {offset}: {problem}. The data are damaged: restore the directory from a copy, \
         or wipe it to let the node join the chain anew"
    )]
    Corrupt {
        /// The file.
        file: String,
        /// Where in it, in bytes from its start.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// A file that must be there is not.
    #[error(
        "{file} is missing: {problem}. Restore the directory from a copy, or wipe it to let the node \
         join the chain anew"
    )]
    Missing {
        /// The file.
        file: String,
        /// Why it must be there.
        problem: String,
    },
    /// The file is whole, and of another program version.
    #[error(
        "{file} has format version {version}, this program reads version {known}: use the program that \
         wrote it, or wipe the directory to let the node join the chain anew",
        file = file.display(), known = format::VERSION
    )]
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: u32,
    },
}

impl OpenError {
    fn corrupt(file: &Path, offset: u64, problem: &str) -> OpenError {
        OpenError::Corrupt {
            file: file.display().to_string(),
            offset,
            problem: problem.to_owned(),
        }
    }

    fn missing(file: &Path, problem: &str) -> OpenError {
        OpenError::Missing {
            file: file.display().to_string(),
            problem: problem.to_owned(),
        }
    }
}
