//! A journal for who keeps nothing.

use crate::chain::{JournalOp, Meta};
use crate::storage::{Journal, Progress, StorageError};
use kvservice_shared::ids::Seq;
use std::sync::Arc;
use tokio::sync::Notify;

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
