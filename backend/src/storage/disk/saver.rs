//! The second thread: writes checkpoints and removes files, so that the log's syncs wait for neither.

use super::checkpoint::CheckpointWriter;
use super::handle::Disk;
use super::journal::Shared;
use crate::storage::StorageError;
use kvservice_shared::chain::{Run, SnapshotPart};
use kvservice_shared::ids::{NodeId, Seq};
use std::sync::Arc;

/// What the log's thread asks of it.
pub(super) enum Task {
    /// Begin a checkpoint; drop the one under way.
    Begin { generation: u64, base: Run },
    /// Its next part.
    Part { part: SnapshotPart, save: u64 },
    /// It is whole. Whatever it needs of the log is durable.
    End { whole_at: Seq, reset: u64 },
    /// Drop all checkpoints, and remove these files.
    Reset { void: Vec<String> },
    /// Remove these files, in this order.
    Remove(Vec<String>),
}

/// A checkpoint that is whole and durable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub generation: u64,
    pub base: Seq,
    pub whole_at: Seq,
}

pub(super) struct Saver {
    pub disk: Disk,
    pub shared: Arc<Shared>,
    pub node: NodeId,
    /// The number of the last checkpoint. They grow, whatever generation they are of.
    pub number: u64,
    /// The last whole checkpoint's file.
    pub whole: Option<String>,
    pub under_way: Option<(u64, CheckpointWriter)>,
}

impl Saver {
    /// Works until the journal is closed or fails.
    pub(super) fn run(&mut self) -> Result<(), StorageError> {
        while let Some((task, cost)) = self.shared.next_task() {
            self.carry_out(task)?;
            self.shared.release(cost);
        }
        Ok(())
    }

    pub(super) fn carry_out(&mut self, task: Task) -> Result<(), StorageError> {
        match task {
            Task::Begin { generation, base } => {
                self.drop_under_way()?;
                self.number += 1;
                let number = self.number;
                let writer =
                    CheckpointWriter::create(&self.disk, self.node, generation, number, base)?;
                self.under_way = Some((generation, writer));
            }
            Task::Part { part, save } => {
                if let Some((_, writer)) = &mut self.under_way {
                    let bytes = writer.part(&part)?;
                    self.shared.part_written(save, bytes);
                }
            }
            Task::End { whole_at, reset } => {
                if let Some((generation, writer)) = self.under_way.take() {
                    let base = writer.base().last;
                    let name = writer.finish(&self.disk, whole_at)?;
                    let done = Done {
                        generation,
                        base,
                        whole_at,
                    };
                    self.shared.checkpoint_done(reset, done);
                    if let Some(old) = self.whole.replace(name) {
                        self.remove(&[old])?;
                    }
                }
            }
            Task::Reset { void } => {
                self.drop_under_way()?;
                let whole = self.whole.take();
                self.remove(&void)?;
                self.remove(whole.as_slice())?;
            }
            Task::Remove(names) => self.remove(&names)?,
        }
        Ok(())
    }

    fn drop_under_way(&mut self) -> Result<(), StorageError> {
        match self.under_way.take() {
            Some((_, writer)) => self.disk.remove(&writer.part_name()),
            None => Ok(()),
        }
    }

    /// Each removal is durable before the next: there is never a gap between the segments that are left.
    fn remove(&self, names: &[String]) -> Result<(), StorageError> {
        for name in names {
            self.disk.remove(name)?;
            self.disk.sync_dir()?;
        }
        Ok(())
    }
}
