//! A model of a node's storage, for situations that are told exactly: what was synced is there after a crash; of
//! what was only written, as much as the crash left.

use kvservice_backend::chain::{JournalOp, Meta, Restored, part_bytes};
use kvservice_backend::storage::{Progress, Restore};
use kvservice_shared::chain::{Run, SnapshotPart};
use kvservice_shared::codec::Batch;
use kvservice_shared::ids::Seq;
use std::collections::VecDeque;

/// What is on the disk for good.
#[derive(Clone, Debug, Default)]
struct Files {
    base: Run,
    log: VecDeque<Batch>,
    checkpoint: Option<Checkpoint>,
    part: Option<Checkpoint>,
    committed: Seq,
    /// The log follows a snapshot: it is worth nothing without a checkpoint.
    learning: bool,
}

#[derive(Clone, Debug)]
struct Checkpoint {
    base: Run,
    parts: Vec<SnapshotPart>,
    whole_at: Option<Seq>,
}

impl Files {
    fn last(&self) -> Seq {
        self.log.back().map_or(self.base.last, Batch::last)
    }

    fn carry_out(&mut self, op: JournalOp) {
        match op {
            JournalOp::Append(batch) => {
                assert_eq!(batch.first(), self.last().next(), "the journal has a gap");
                self.log.push_back(batch);
            }
            JournalOp::Cut { keep } => {
                while self.log.back().is_some_and(|batch| batch.last() > keep) {
                    self.log.pop_back();
                }
                assert_eq!(self.last(), keep, "a cut falls between batches");
            }
            JournalOp::Reset { base } => {
                *self = Files {
                    base,
                    learning: base.last > Seq::ZERO,
                    ..Files::default()
                };
            }
            JournalOp::Begin { base } => {
                self.part = Some(Checkpoint {
                    base,
                    parts: Vec::new(),
                    whole_at: None,
                });
            }
            JournalOp::Part(part) => {
                let under_way = self.part.as_mut().expect("a part follows a beginning");
                under_way.parts.push(part);
            }
            JournalOp::End { whole_at } => {
                let mut whole = self.part.take().expect("an end follows a beginning");
                whole.whole_at = Some(whole_at);
                self.checkpoint = Some(whole);
            }
            JournalOp::Committed { seq } => {
                assert!(seq <= self.last(), "{seq} is committed, and not there");
                self.committed = self.committed.max(seq);
            }
            JournalOp::Trim { up_to } => {
                let needed = self
                    .checkpoint
                    .as_ref()
                    .map_or(self.base.last, |c| c.base.last);
                while let Some(batch) = self.log.front()
                    && batch.last() <= up_to.min(needed)
                {
                    self.base = Run {
                        epoch: batch.epoch(),
                        last: batch.last(),
                    };
                    self.log.pop_front();
                }
            }
        }
    }
}

/// A modelled disk. Of a node in memory, it goes with the process.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub(super) meta: Meta,
    files: Files,
    /// Written, and not synced.
    written: VecDeque<JournalOp>,
    /// Syncs wait until they are told to go on.
    pub(super) held: bool,
}

impl Model {
    pub fn write(&mut self, ops: Vec<JournalOp>) {
        self.written.extend(ops);
        if !self.held {
            self.sync();
        }
    }

    pub fn sync(&mut self) {
        for op in self.written.drain(..) {
            self.files.carry_out(op);
        }
    }

    pub fn progress(&self) -> Progress {
        let mut durable = self.files.last();
        let mut files = Some(&self.files);
        for op in &self.written {
            match op {
                JournalOp::Cut { keep } => durable = durable.min(*keep),
                JournalOp::Reset { base } => {
                    durable = base.last;
                    files = None;
                }
                JournalOp::Begin { .. } => files = files.filter(|files| files.part.is_none()),
                _ => {}
            }
        }
        let under_way = files.and_then(|files| files.part.as_ref().or(files.checkpoint.as_ref()));
        Progress {
            durable,
            written: under_way.map_or(0, |c| c.parts.iter().map(part_bytes).sum()),
            checkpoint: files
                .and_then(|files| files.checkpoint.as_ref())
                .map(|checkpoint| checkpoint.base.last),
        }
    }

    /// How much is written and not synced.
    pub fn unsynced(&self) -> usize {
        self.written.len()
    }

    /// The process ends: of what was not synced, the first `keep` operations are there.
    pub fn crash(&mut self, keep: usize) {
        self.written.truncate(keep);
        self.sync();
        self.held = false;
        self.files.part = None;
    }

    /// What a process that starts finds.
    pub fn open(&mut self, restore: &mut dyn Restore) -> Restored {
        let reaches = |checkpoint: &&Checkpoint| checkpoint.whole_at <= Some(self.files.last());
        let checkpoint = self.files.checkpoint.as_ref();
        if self.files.learning && checkpoint.filter(reaches).is_none() {
            self.files = Files::default();
        }
        for part in self.files.checkpoint.iter().flat_map(|c| c.parts.clone()) {
            match part {
                SnapshotPart::Keys { entries, .. } => {
                    for (key, value, revision) in entries {
                        restore.key(&key, &value.0, revision);
                    }
                }
                SnapshotPart::Sessions { sessions, .. } => restore.sessions(sessions),
                SnapshotPart::Evicted { names } => restore.evicted(names),
                SnapshotPart::Begin { .. } | SnapshotPart::End { .. } => {}
            }
        }
        let checkpoint = self.files.checkpoint.as_ref();
        Restored {
            meta: self.meta.clone(),
            checkpoint: checkpoint.and_then(|c| Some((c.base, c.whole_at?))),
            log_base: self.files.base,
            committed: self.files.committed,
            log: self.files.log.iter().cloned().collect(),
        }
    }
}
