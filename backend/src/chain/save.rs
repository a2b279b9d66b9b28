//! Checkpoints: from one of them and the log after its base, a restarted node makes its state again.
//!
//! A checkpoint rolls as a learner's snapshot does: its parts are read one after the other while entries go on
//! being applied. A member makes one each time the log has grown by enough since the last, a few parts with
//! each flush and no more than the disk has taken; a learner writes down the snapshot that it is sent, and
//! is complete only once that is whole and durable.
//!
//! A node in memory makes none.

use super::data::Cursor;
use super::effects::JournalOp;
use super::replica::Replica;
use super::upstream::part_bytes;
use crate::storage::State;
use kvservice_shared::api::StorageKind;
use kvservice_shared::chain::{Run, SnapshotPart};
use kvservice_shared::ids::Seq;

/// Parts that the disk has not taken yet, in bytes at most.
const WINDOW_BYTES: u64 = 1024 * 1024;
/// Parts read in one flush, at most: what else waits is served in between.
const PARTS_PER_FLUSH: usize = 4;
/// Disk space is worth a word to the journal once so many bytes of log were dropped here.
const TRIM_BYTES: u64 = 1024 * 1024;

/// What a node knows of its checkpoints.
#[derive(Debug, Default)]
pub(super) struct Saving {
    under_way: Option<UnderWay>,
    /// Bytes appended to the log, ever; and when the last checkpoint began.
    appended_bytes: u64,
    appended_at_begin: u64,
    /// The committed point that the journal knows.
    noted: Seq,
    trimmed: Seq,
    trimmed_bytes: u64,
}

#[derive(Debug)]
struct UnderWay {
    base: Seq,
    from: From,
    written_bytes: u64,
    ended: bool,
}

/// Where a checkpoint's parts come from.
#[derive(Debug)]
enum From {
    /// The own state.
    State { cursor: Cursor, handed_bytes: u64 },
    /// The tail that this node learns from.
    Tail,
}

impl Saving {
    /// A restarted node's: it has this much log after its checkpoint.
    pub(super) fn restored(log_bytes: u64) -> Saving {
        Saving {
            appended_bytes: log_bytes,
            ..Saving::default()
        }
    }

    pub(super) fn count_append(&mut self, bytes: usize) {
        self.appended_bytes += bytes as u64;
    }

    /// Whether this node's state is a snapshot that would not survive a restart.
    pub(super) fn is_unsaved(&self) -> bool {
        matches!(&self.under_way, Some(saving) if matches!(saving.from, From::Tail))
    }

    /// Bytes of the snapshot that the disk took.
    pub(super) fn written_bytes(&self) -> u64 {
        self.under_way
            .as_ref()
            .map_or(0, |saving| saving.written_bytes)
    }
}

impl<S: State> Replica<S> {
    pub(super) fn is_durable(&self) -> bool {
        self.config.storage == StorageKind::Disk
    }

    /// Everything is dropped, and the log goes on after `base`.
    pub(super) fn reset_journal(&mut self, base: Run) {
        self.out.journal.push(JournalOp::Reset { base });
        self.saving = Saving {
            trimmed: base.last,
            ..Saving::default()
        };
    }

    /// A learner writes down what it is sent.
    pub(super) fn begin_learned_checkpoint(&mut self, base: Run) {
        if self.is_durable() {
            self.begin(base, From::Tail);
        }
    }

    pub(super) fn save_learned_part(&mut self, part: SnapshotPart) {
        let Some(saving) = &mut self.saving.under_way else {
            return;
        };
        if let SnapshotPart::End { at } = part {
            saving.ended = true;
            self.out.journal.push(JournalOp::End { whole_at: at });
        } else {
            self.out.journal.push(JournalOp::Part(part));
        }
    }

    fn begin(&mut self, base: Run, from: From) {
        self.saving.under_way = Some(UnderWay {
            base: base.last,
            from,
            written_bytes: 0,
            ended: false,
        });
        self.saving.appended_at_begin = self.saving.appended_bytes;
        self.out.journal.push(JournalOp::Begin { base });
    }

    /// Begins a checkpoint where it is time; hands on the next parts of one under way.
    pub(super) fn pump_checkpoint(&mut self) {
        if !self.is_durable() || self.data.is_rolling() {
            return;
        }
        if self.saving.under_way.is_none() {
            let grown = self.saving.appended_bytes - self.saving.appended_at_begin;
            let wait = (self.config.checkpoint_bytes as u64).max(self.data.bytes() / 2);
            let at = self.data.applied();
            let epoch = self.log.epoch_at(at);
            let Some(epoch) = epoch.filter(|_| grown > wait && at > Seq::ZERO) else {
                return;
            };
            let cursor = Cursor::Keys(None);
            let base = Run { epoch, last: at };
            self.begin(
                base,
                From::State {
                    cursor,
                    handed_bytes: 0,
                },
            );
        }
        for _ in 0..PARTS_PER_FLUSH {
            let Some(saving) = &mut self.saving.under_way else {
                return;
            };
            let From::State {
                cursor,
                handed_bytes,
            } = &mut saving.from
            else {
                return;
            };
            if saving.ended || handed_bytes.saturating_sub(saving.written_bytes) > WINDOW_BYTES {
                return;
            }
            let part = self.data.snapshot_part(cursor, self.config.part_bytes);
            if let SnapshotPart::End { at } = part {
                saving.ended = true;
                self.out.journal.push(JournalOp::End { whole_at: at });
            } else {
                *handed_bytes += part_bytes(&part);
                self.out.journal.push(JournalOp::Part(part));
            }
        }
    }

    /// Entries go to the journal: the committed point goes along.
    pub(super) fn note_committed(&mut self) {
        let seq = self.data.applied();
        if self.is_durable() && self.is_whole() && seq > self.saving.noted {
            self.saving.noted = seq;
            self.out.journal.push(JournalOp::Committed { seq });
        }
    }

    pub(super) fn on_saved(&mut self, written: u64, durable: Option<Seq>) {
        let Some(saving) = &mut self.saving.under_way else {
            return;
        };
        saving.written_bytes = written;
        // What is said of an older checkpoint, or of one that was given up, is not about this one.
        if saving.ended && durable == Some(saving.base) {
            self.saving.under_way = None;
            self.tell_trimmed();
            self.report_soon();
        }
    }

    /// The log was trimmed by so many bytes.
    pub(super) fn count_trimmed(&mut self, bytes: usize) {
        self.saving.trimmed_bytes += bytes as u64;
        if self.saving.trimmed_bytes >= TRIM_BYTES {
            self.tell_trimmed();
        }
    }

    fn tell_trimmed(&mut self) {
        let up_to = self.log.base().last;
        self.saving.trimmed_bytes = 0;
        if self.is_durable() && up_to > self.saving.trimmed {
            self.saving.trimmed = up_to;
            self.out.journal.push(JournalOp::Trim { up_to });
        }
    }
}
