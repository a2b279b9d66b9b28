//! Storage in memory: gone with the process, and therefore "durable" at once. A process that starts with it
//! is a new node.

use super::{Journal, Progress, Record, State, StorageError, Visit};
use crate::chain::{JournalOp, Meta};
use bytes::Bytes;
use kvservice_shared::ids::Seq;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::Notify;

/// A key, its value and the revision that wrote it in one allocation of their exact size: they live long and may
/// be many. Ordered, and found, by the key.
///
/// ```text
/// 0         8           10
/// revision  key length  key, value
/// ```
struct Entry(Box<[u8]>);

const ENTRY_HEADER: usize = 10;

impl Entry {
    fn new(key: &str, value: &[u8], revision: Seq) -> Entry {
        let length = u16::try_from(key.len()).expect("keys are within their limit");
        let mut bytes = Vec::with_capacity(ENTRY_HEADER + key.len() + value.len());
        bytes.extend_from_slice(&revision.0.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(key.as_bytes());
        bytes.extend_from_slice(value);
        Entry(bytes.into_boxed_slice())
    }

    fn revision(&self) -> Seq {
        let (revision, _) = self.0.split_first_chunk().expect("an entry has a header");
        Seq(u64::from_le_bytes(*revision))
    }

    /// Where the value begins.
    fn value_at(&self) -> usize {
        ENTRY_HEADER + usize::from(u16::from_le_bytes([self.0[8], self.0[9]]))
    }

    fn key(&self) -> &[u8] {
        &self.0[ENTRY_HEADER..self.value_at()]
    }

    fn key_text(&self) -> &str {
        std::str::from_utf8(self.key()).expect("a key was made from text")
    }

    fn value(&self) -> &[u8] {
        &self.0[self.value_at()..]
    }

    /// Bytes of key and value.
    fn size(&self) -> u64 {
        (self.0.len() - ENTRY_HEADER) as u64
    }

    fn into_record(self) -> Record {
        let (revision, value_at) = (self.revision(), self.value_at());
        Record {
            value: Bytes::from(self.0).slice(value_at..),
            revision,
        }
    }
}

impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        self.key().cmp(other.key())
    }
}

/// Keys and values in memory, in order.
#[derive(Default)]
pub struct MemoryState {
    entries: BTreeSet<Entry>,
    bytes: u64,
    /// Of a checkpoint that is being read, in order.
    loading: Vec<Entry>,
}

impl fmt::Debug for MemoryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryState")
            .field("keys", &self.keys())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl State for MemoryState {
    fn get(&self, key: &str) -> Option<Record> {
        let entry = self.entries.get(key.as_bytes())?;
        Some(Record {
            value: Bytes::copy_from_slice(entry.value()),
            revision: entry.revision(),
        })
    }

    fn revision(&self, key: &str) -> Option<Seq> {
        self.entries.get(key.as_bytes()).map(Entry::revision)
    }

    fn put(&mut self, key: &str, value: &[u8], revision: Seq) -> Option<Record> {
        let entry = Entry::new(key, value, revision);
        self.bytes += entry.size();
        let old = self.entries.replace(entry)?;
        self.bytes -= old.size();
        Some(old.into_record())
    }

    fn remove(&mut self, key: &str) -> Option<Record> {
        let old = self.entries.take(key.as_bytes())?;
        self.bytes -= old.size();
        Some(old.into_record())
    }

    fn scan(&self, from: Bound<&str>, visit: &mut Visit<'_>) {
        let from = from.map(str::as_bytes);
        for entry in self.entries.range::<[u8], _>((from, Bound::Unbounded)) {
            if visit(entry.key_text(), entry.value(), entry.revision()).is_break() {
                return;
            }
        }
    }

    fn load(&mut self, key: &str, value: &[u8], revision: Seq) {
        let entry = Entry::new(key, value, revision);
        self.bytes += entry.size();
        self.loading.push(entry);
    }

    fn loaded(&mut self) {
        // In order already: this builds the tree from below, and its nodes are full.
        let loaded = std::mem::take(&mut self.loading);
        self.entries = loaded.into_iter().collect();
    }

    fn clear(&mut self) {
        *self = MemoryState::default();
    }

    fn keys(&self) -> u64 {
        self.entries.len() as u64
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// A journal that keeps nothing: the replica holds the log, and it dies with the process.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    durable: Seq,
    news: Arc<Notify>,
}

impl Journal for MemoryJournal {
    fn store_meta(&mut self, _: &Meta) -> Result<(), StorageError> {
        Ok(())
    }

    fn write(&mut self, ops: Vec<JournalOp>) -> Result<(), StorageError> {
        for op in ops {
            match op {
                JournalOp::Append(batch) => self.durable = batch.last(),
                JournalOp::Cut { keep } => self.durable = self.durable.min(keep),
                JournalOp::Reset { base } => self.durable = base.last,
                // What could be started again from is worth nothing without a disk.
                JournalOp::Begin { .. }
                | JournalOp::Part(_)
                | JournalOp::End { .. }
                | JournalOp::Committed { .. }
                | JournalOp::Trim { .. } => {}
            }
        }
        Ok(())
    }

    fn progress(&mut self) -> Result<Progress, StorageError> {
        Ok(Progress {
            durable: self.durable,
            ..Progress::default()
        })
    }

    fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.news)
    }

    fn close(self) -> Result<(), StorageError> {
        Ok(())
    }
}
