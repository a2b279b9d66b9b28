//! Storage in memory: gone with the process, and therefore "durable" at once. A process that starts with it
//! is a new node.

use super::{Journal, Progress, Record, State, StorageError, Visit};
use crate::chain::{JournalOp, Meta};
use bytes::Bytes;
use kvservice_shared::ids::Seq;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::Notify;

/// Keys and values in an ordered map. Keys and values are allocated to their exact size: they live long and
/// may be many.
#[derive(Debug, Default)]
pub struct MemoryState {
    map: BTreeMap<Box<str>, (Box<[u8]>, Seq)>,
    bytes: u64,
}

fn size(key: &str, value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

impl State for MemoryState {
    fn get(&self, key: &str) -> Option<Record> {
        let (value, revision) = self.map.get(key)?;
        Some(Record {
            value: Bytes::copy_from_slice(value),
            revision: *revision,
        })
    }

    fn revision(&self, key: &str) -> Option<Seq> {
        self.map.get(key).map(|(_, revision)| *revision)
    }

    fn put(&mut self, key: &str, value: &[u8], revision: Seq) -> Option<Record> {
        self.bytes += size(key, value);
        // Looked up first: most puts of a full store overwrite, and need no new key.
        let old = match self.map.get_mut(key) {
            Some(slot) => std::mem::replace(slot, (value.into(), revision)),
            None => {
                self.map.insert(key.into(), (value.into(), revision));
                return None;
            }
        };
        self.bytes -= size(key, &old.0);
        Some(Record {
            value: Bytes::from(old.0),
            revision: old.1,
        })
    }

    fn remove(&mut self, key: &str) -> Option<Record> {
        let (value, revision) = self.map.remove(key)?;
        self.bytes -= size(key, &value);
        Some(Record {
            value: Bytes::from(value),
            revision,
        })
    }

    fn scan(&self, from: Bound<&str>, visit: &mut Visit<'_>) {
        for (key, (value, revision)) in self.map.range::<str, _>((from, Bound::Unbounded)) {
            if visit(key, value, *revision).is_break() {
                return;
            }
        }
    }

    fn load(&mut self, key: &str, value: &[u8], revision: Seq) {
        self.put(key, value, revision);
    }

    fn loaded(&mut self) {}

    fn clear(&mut self) {
        self.map.clear();
        self.bytes = 0;
    }

    fn keys(&self) -> u64 {
        self.map.len() as u64
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
