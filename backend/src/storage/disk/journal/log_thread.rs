//! The thread that writes the log and the meta data.

use super::{Eras, Item, ROUND_BYTES, Shared};
use crate::chain::JournalOp;
use crate::storage::StorageError;
use crate::storage::disk::Fsync;
use crate::storage::disk::log::LogWriter;
use crate::storage::disk::saver::Task;
use kvservice_shared::ids::Seq;
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

/// What the log's thread works with.
pub(super) struct LogThread {
    shared: Arc<Shared>,
    writer: LogWriter,
    fsync: Fsync,
    /// Where the log ends with what was given to the writer, and in which era.
    point: Option<(u64, Seq)>,
    /// What is written must be synced by then.
    sync_by: Option<Instant>,
    trim: Seq,
    /// Base of the last whole checkpoint.
    checkpoint: Seq,
    /// Where that checkpoint is whole, while the node learns.
    whole_at: Option<Seq>,
}

impl LogThread {
    pub(super) fn new(
        shared: Arc<Shared>,
        writer: LogWriter,
        fsync: Fsync,
        checkpoint: Option<Seq>,
    ) -> LogThread {
        LogThread {
            shared,
            writer,
            fsync,
            point: None,
            sync_by: None,
            trim: Seq::ZERO,
            checkpoint: checkpoint.unwrap_or(Seq::ZERO),
            whole_at: None,
        }
    }

    pub(super) fn run(&mut self) -> Result<(), StorageError> {
        let result = self.work();
        self.shared.state().log_ended = true;
        result
    }

    fn work(&mut self) -> Result<(), StorageError> {
        loop {
            let Some(items) = self.next_items() else {
                if self.shared.state().dropped {
                    return Ok(());
                }
                self.shared.health.failed()?;
                self.commit(true)?;
                return self.writer.seal();
            };
            self.round(items)?;
        }
    }

    /// Carries out what was waiting, and makes it durable.
    pub(super) fn round(&mut self, items: VecDeque<(Item, u64)>) -> Result<(), StorageError> {
        let mut cost = 0;
        for (item, bytes) in items {
            cost += self.take(item, bytes)?;
        }
        self.commit(false)?;
        if self.sync_by.is_some_and(|by| Instant::now() >= by) {
            self.commit(true)?;
        }
        self.shared.release(cost);
        Ok(())
    }

    /// All that is waiting; nothing when a sync is due; `None` at the end.
    fn next_items(&self) -> Option<VecDeque<(Item, u64)>> {
        let mut state = self.shared.state();
        loop {
            if state.dropped || self.shared.health.failed().is_err() {
                return None;
            }
            if !state.items.is_empty() {
                return Some(std::mem::take(&mut state.items));
            }
            if state.ended {
                return None;
            }
            let to_log = &self.shared.to_log;
            state = match self.sync_by {
                None => to_log.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(by) => {
                    let left = by.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Some(VecDeque::new());
                    }
                    let wait = to_log.wait_timeout(state, left);
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Carries an item out, or has it wait for the next commit. Gives what it costs, unless the saver has it now.
    fn take(&mut self, item: Item, cost: u64) -> Result<u64, StorageError> {
        match item {
            Item::Op(op, eras) => return self.take_op(op, eras, cost),
            Item::Meta(meta) => {
                self.commit(true)?;
                self.writer.store_meta(*meta)?;
                self.shared.state().metas_stored += 1;
                self.shared.to_caller.notify_all();
            }
            Item::Done(done) => {
                if done.generation == self.writer.generation() {
                    self.checkpoint = done.base;
                    self.whole_at = Some(done.whole_at);
                    self.remove_segments();
                    self.settle_learning()?;
                }
            }
        }
        Ok(cost)
    }

    fn take_op(&mut self, op: JournalOp, eras: Eras, cost: u64) -> Result<u64, StorageError> {
        match op {
            JournalOp::Append(batch) => {
                self.writer.append(&batch);
                self.point = Some((eras.log, batch.last()));
                if self.writer.waiting_bytes() >= ROUND_BYTES {
                    self.commit(false)?;
                }
            }
            JournalOp::Cut { keep } => {
                self.writer.cut(keep);
                self.point = Some((eras.log, keep));
            }
            JournalOp::Reset { base } => {
                self.point = None;
                self.sync_by = None;
                let void = self.writer.reset(base)?;
                self.trim = Seq::ZERO;
                self.checkpoint = Seq::ZERO;
                self.whole_at = None;
                self.shared.give_task(Task::Reset { void }, cost);
                return Ok(0);
            }
            JournalOp::Begin { base } => {
                let generation = self.writer.generation();
                let task = Task::Begin { generation, base };
                self.shared.give_task(task, cost);
                return Ok(0);
            }
            JournalOp::Part(part) => {
                let save = eras.save;
                self.shared.give_task(Task::Part { part, save }, cost);
                return Ok(0);
            }
            JournalOp::End { whole_at } => {
                // A named checkpoint needs the log up to there.
                self.commit(true)?;
                let reset = eras.reset;
                self.shared.give_task(Task::End { whole_at, reset }, cost);
                return Ok(0);
            }
            JournalOp::Committed { seq } => self.writer.note_committed(seq),
            JournalOp::Trim { up_to } => {
                self.trim = self.trim.max(up_to);
                self.remove_segments();
            }
        }
        Ok(cost)
    }

    /// Writes what is waiting; syncs it too, if it must be or `now`. Tells what is durable.
    fn commit(&mut self, now: bool) -> Result<(), StorageError> {
        self.writer.write()?;
        match self.fsync {
            Fsync::Interval(interval) if !now => {
                if self.point.is_some() && self.sync_by.is_none() {
                    self.sync_by = Some(Instant::now() + interval);
                }
            }
            _ => {
                self.writer.sync()?;
                self.sync_by = None;
            }
        }
        if let Some((era, up_to)) = self.point.take() {
            self.shared.durable(era, up_to);
        }
        if self.sync_by.is_none() {
            self.settle_learning()?;
        }
        Ok(())
    }

    /// Once checkpoint and log meet on disk, the node's data are its own.
    fn settle_learning(&mut self) -> Result<(), StorageError> {
        if self.writer.is_learning()
            && let Some(whole_at) = self.whole_at
            && self.writer.waiting_bytes() == 0
            && self.sync_by.is_none()
            && self.writer.end().last >= whole_at
        {
            self.writer.end_learning()?;
        }
        Ok(())
    }

    fn remove_segments(&mut self) {
        let names = self.writer.release(self.trim.min(self.checkpoint));
        if !names.is_empty() {
            self.shared.give_task(Task::Remove(names), 0);
        }
    }
}
