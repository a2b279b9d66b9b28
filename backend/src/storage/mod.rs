//! Where a node keeps its data: two narrow traits, because the two halves are used differently.
//!
//! [`Journal`] is the write-ahead half: what must be durable before something is promised. The runtime
//! drives it. [`State`] is the readable half: keys and values as of the applied point. The replica reads and
//! writes it synchronously while it applies entries; an engine behind it may be as lazy as it likes, for
//! everything in it can be made again from a checkpoint and the journal.
//!
//! # Contract
//! - [`Journal::store_meta`] returns once the meta data are durable. Nothing that was decided after them leaves
//!   the node earlier.
//! - [`Journal::write`] takes operations in order and need not wait; [`Journal::progress`] says what is durable.
//!   Reopened, a journal gives back everything that it ever called durable and that was not cut since.
//! - A failed write or sync is final: the node halts, and the call is never made again.
//! - [`State`] is deterministic: the same calls leave the same content, and ranges are in order of bytes.

pub mod disk;
mod memory;

pub use memory::{MemoryJournal, MemoryState};

use crate::chain::{JournalOp, Meta};
use bytes::Bytes;
use kvservice_shared::chain::SessionRecord;
use kvservice_shared::ids::{Seq, SessionUuid};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use tokio::sync::Notify;

/// A value and the revision that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The value.
    pub value: Bytes,
    /// The revision.
    pub revision: Seq,
}

/// Trouble with a disk. The node halts: what was written is unknown, and a retry could lie.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A file could not be read, written or synced.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, and on which file.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file call does not return.
    #[error("a call to the disk takes longer than {patience:?}")]
    Stuck {
        /// How long was waited for it.
        patience: std::time::Duration,
    },
}

/// Sees a key, its value and the revision that wrote it; says whether to go on.
pub type Visit<'a> = dyn FnMut(&str, &[u8], Seq) -> ControlFlow<()> + 'a;

/// Sees the value that a key held and the revision that wrote it, before both are gone.
pub type Held<'a> = dyn FnMut(&[u8], Seq) + 'a;

/// Hears of a key with value and revision, that they count now (`true`) or no more.
pub type Changed<'a> = dyn FnMut(bool, &str, &[u8], Seq) + 'a;

/// The keys and values at the applied point.
pub trait State {
    /// What a key holds.
    fn get(&self, key: &str) -> Option<Record>;
    /// The revision that wrote what a key holds.
    fn revision(&self, key: &str) -> Option<Seq>;
    /// These keys are about to be read or written: what of them is far away can be fetched, all at once.
    fn warm<'k>(&self, keys: impl Iterator<Item = &'k str>);
    /// Writes a key; shows what it held, if it held anything.
    fn put(&mut self, key: &str, value: &[u8], revision: Seq, held: &mut Held<'_>);
    /// Removes a key; gives what it held.
    fn remove(&mut self, key: &str) -> Option<Record>;
    /// Visits keys in order of their bytes, from a bound on, until told to stop.
    fn scan(&self, from: Bound<&str>, visit: &mut Visit<'_>);
    /// Takes in a key of a checkpoint: after all others in order of bytes, into a store that held nothing
    /// before. It need not be there before [`State::loaded`].
    fn load(&mut self, key: &str, value: &[u8], revision: Seq);
    /// Takes in what the log after the checkpoint's base says of a key, in the order of the log; `None`: it was
    /// removed. It need not be there before [`State::loaded`].
    fn load_newer(&mut self, key: &str, value: Option<&[u8]>, revision: Seq);
    /// Checkpoint and log end. What was said last of a key, by its revision, is what it holds. Tells what the
    /// log changed of what the checkpoint said.
    fn loaded(&mut self, changed: &mut Changed<'_>);
    /// Removes everything.
    fn clear(&mut self);
    /// Number of keys.
    fn keys(&self) -> u64;
    /// Bytes of all keys and values.
    fn bytes(&self) -> u64;
}

/// Takes in a checkpoint, part by part.
pub trait Restore {
    /// A key, after all others in order of bytes.
    fn key(&mut self, key: &str, value: &[u8], revision: Seq);
    /// Sessions, opened after all others.
    fn sessions(&mut self, sessions: Vec<SessionRecord>);
    /// Names of evicted sessions: entry that evicted them, place in its list, name.
    fn evicted(&mut self, names: Vec<(Seq, u32, SessionUuid)>);
    /// What was taken in so far is void.
    fn clear(&mut self);
}

/// What a journal has done of what it was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Up to where the log is durable. Only a cut or a reset takes it back, and at once when it is given.
    pub durable: Seq,
    /// Bytes of the parts of the checkpoint under way (or done last) that were written, as
    /// [`part_bytes`](crate::chain::part_bytes) counts them. Zero again with each [`JournalOp::Begin`].
    pub written: u64,
    /// The base of the last checkpoint that is whole and durable.
    pub checkpoint: Option<Seq>,
}

/// What must be durable before something is promised.
pub trait Journal: Send {
    /// Stores the meta data; returns once they are durable.
    ///
    /// # Errors
    /// The node must halt.
    fn store_meta(&mut self, meta: &Meta) -> Result<(), StorageError>;

    /// Takes operations, in order, and does not wait for the disk.
    ///
    /// # Errors
    /// The node must halt.
    fn write(&mut self, ops: Vec<JournalOp>) -> Result<(), StorageError>;

    /// How far it is.
    ///
    /// # Errors
    /// Trouble that came up since: the node must halt.
    fn progress(&mut self) -> Result<Progress, StorageError>;

    /// Is notified whenever [`Journal::progress`] has news.
    fn news(&self) -> Arc<Notify>;

    /// Makes everything durable, and ends.
    ///
    /// # Errors
    /// Something was not made durable.
    fn close(self) -> Result<(), StorageError>;
}
