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
//! - [`Journal::write`] takes log operations in order and need not wait; [`Journal::durable`] says up to where
//!   they are durable, and never goes down but by a cut.
//! - A failed write or sync is final: the node halts, and the call is never made again.
//! - [`State`] is deterministic: the same calls leave the same content, and ranges are in order of bytes.

mod memory;

pub use memory::{MemoryJournal, MemoryState};

use crate::chain::{JournalOp, Meta};
use bytes::Bytes;
use kvservice_shared::ids::Seq;
use std::ops::{Bound, ControlFlow};

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
}

/// Sees a key, its value and the revision that wrote it; says whether to go on.
pub type Visit<'a> = dyn FnMut(&str, &[u8], Seq) -> ControlFlow<()> + 'a;

/// The keys and values at the applied point.
pub trait State {
    /// What a key holds.
    fn get(&self, key: &str) -> Option<Record>;
    /// The revision that wrote what a key holds.
    fn revision(&self, key: &str) -> Option<Seq>;
    /// Writes a key; gives what it held.
    fn put(&mut self, key: &str, value: &[u8], revision: Seq) -> Option<Record>;
    /// Removes a key; gives what it held.
    fn remove(&mut self, key: &str) -> Option<Record>;
    /// Visits keys in order of their bytes, from a bound on, until told to stop.
    fn scan(&self, from: Bound<&str>, visit: &mut Visit<'_>);
    /// Removes everything.
    fn clear(&mut self);
    /// Number of keys.
    fn keys(&self) -> u64;
    /// Bytes of all keys and values.
    fn bytes(&self) -> u64;
}

/// What must be durable before something is promised.
pub trait Journal: Send {
    /// Stores the meta data; returns once they are durable.
    ///
    /// # Errors
    /// The node must halt.
    fn store_meta(&mut self, meta: &Meta) -> Result<(), StorageError>;

    /// Takes log operations, in order.
    ///
    /// # Errors
    /// The node must halt.
    fn write(&mut self, ops: &[JournalOp]) -> Result<(), StorageError>;

    /// Up to where the log is durable.
    fn durable(&self) -> Seq;
}
