//! The chain's log, as far as it is kept: batches in order, each as the head made it.
//!
//! # Invariants
//! 1. Batches follow each other without gaps; the first follows `base`.
//! 2. Ordering epochs never go down along the log.
//! 3. An entry is identified by its ordering epoch and sequence number: two logs that have the same epoch at
//!    a sequence number are the same up to there (one head makes all batches of an epoch, in order).
//! 4. Cuts fall between batches, because all logs are made of the same whole batches.

use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::{Boundaries, Run};
use kvservice_shared::codec::Batch;
use kvservice_shared::ids::{Epoch, Seq};
use std::collections::VecDeque;

/// The kept part of the log.
#[derive(Debug, Default)]
pub struct Log {
    base: Run,
    batches: VecDeque<Batch>,
    bytes: usize,
}

/// Where another log agrees with this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Common {
    /// The last entry that both have; this log is kept from there on.
    At(Seq),
    /// Before what this log keeps, or nowhere: only a snapshot helps.
    BeforeBase,
}

impl Log {
    /// An empty log that goes on after `base`.
    #[must_use]
    pub fn after(base: Run) -> Log {
        Log {
            base,
            ..Log::default()
        }
    }

    /// What lies before the kept part.
    #[must_use]
    pub fn base(&self) -> Run {
        self.base
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.batches.back().map_or(self.base.last, Batch::last)
    }

    /// Bytes kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The ordering epoch of the last entry.
    #[must_use]
    pub fn last_epoch(&self) -> Epoch {
        self.batches.back().map_or(self.base.epoch, Batch::epoch)
    }

    /// Adds a batch at the end.
    ///
    /// # Panics
    /// Where it does not follow: callers check what comes from outside with [`Log::follows`].
    pub fn append(&mut self, batch: Batch) {
        assert!(
            self.follows(&batch),
            "{batch:?} does not follow {} @{}",
            self.last(),
            self.last_epoch()
        );
        self.bytes += batch.bytes().len();
        self.batches.push_back(batch);
    }

    /// Whether a batch can be added at the end.
    #[must_use]
    pub fn follows(&self, batch: &Batch) -> bool {
        batch.first() == self.last().next() && batch.epoch() >= self.last_epoch()
    }

    /// Whether the log holds this very batch.
    #[must_use]
    pub fn holds(&self, batch: &Batch) -> bool {
        batch.last() <= self.base.last
            || self.index_of(batch.first()).is_some_and(|at| {
                let mine = &self.batches[at];
                mine.epoch() == batch.epoch() && mine.last() == batch.last()
            })
    }

    /// Drops everything after `keep`.
    ///
    /// # Errors
    /// Where `keep` lies inside a batch, before the kept part or past the end: a peer that asks for it does
    /// not have a log of this cluster. Nothing is changed then.
    pub fn cut(&mut self, keep: Seq) -> Result<(), CutError> {
        if keep < self.base.last || keep > self.last() {
            return Err(CutError {
                keep,
                base: self.base.last,
                last: self.last(),
            });
        }
        let kept = self.batches.partition_point(|batch| batch.last() <= keep);
        if self
            .batches
            .get(kept)
            .is_some_and(|batch| batch.first() <= keep)
        {
            return Err(CutError {
                keep,
                base: self.base.last,
                last: self.last(),
            });
        }
        self.bytes -= self
            .batches
            .drain(kept..)
            .map(|batch| batch.bytes().len())
            .sum::<usize>();
        Ok(())
    }

    /// Forgets batches from the front, none with an entry after `up_to`, until `keep_bytes` are left.
    pub fn trim(&mut self, up_to: Seq, keep_bytes: usize) {
        while self.bytes > keep_bytes {
            match self.batches.front() {
                Some(batch) if batch.last() <= up_to => {
                    self.base = Run {
                        epoch: batch.epoch(),
                        last: batch.last(),
                    };
                    self.bytes -= batch.bytes().len();
                    self.batches.pop_front();
                }
                _ => return,
            }
        }
    }

    /// The kept batches with an entry after `seq`, oldest first.
    pub fn after_seq(&self, seq: Seq) -> impl Iterator<Item = &Batch> {
        let at = self.first_with_last_above(seq);
        self.batches.range(at..)
    }

    /// The ordering epoch at `seq`, if that entry is kept or is the base.
    #[must_use]
    pub fn epoch_at(&self, seq: Seq) -> Option<Epoch> {
        if seq == self.base.last {
            return Some(self.base.epoch);
        }
        self.index_of(seq).map(|at| self.batches[at].epoch())
    }

    /// Where the ordering epochs end.
    #[must_use]
    pub fn boundaries(&self) -> Boundaries {
        let mut runs: Vec<Run> = Vec::new();
        for batch in &self.batches {
            let run = Run {
                epoch: batch.epoch(),
                last: batch.last(),
            };
            match runs.last_mut() {
                Some(last) if last.epoch == run.epoch => *last = run,
                _ => runs.push(run),
            }
        }
        Boundaries {
            base: self.base,
            runs,
        }
    }

    /// The last entry that a log with these boundaries has in common with this one.
    ///
    /// By invariant 3 it is the highest sequence number at which both have the same ordering epoch.
    #[must_use]
    pub fn common(&self, other: &Boundaries) -> Common {
        let end = other.last().min(self.last());
        if canary::is_on(Canary::LengthsOnly) && end >= self.base.last && end >= other.base.last {
            return Common::At(end);
        }
        // Their runs backwards: (epoch, after, last] each.
        let mut runs = Vec::with_capacity(other.runs.len() + 1);
        let mut after = other.base.last;
        for run in &other.runs {
            runs.push((run.epoch, after, run.last));
            after = run.last;
        }
        for &(epoch, after, last) in runs.iter().rev() {
            let last = last.min(end);
            // Mine with that epoch, within their run, and within what I keep.
            let mine = self.batches.iter().rev().find(|b| b.epoch() <= epoch);
            let Some(mine) = mine else { break };
            if mine.epoch() == epoch {
                let shared = mine.last().min(last);
                if shared > after && self.epoch_at(shared) == Some(epoch) {
                    return Common::At(shared);
                }
            }
        }
        // Nothing that both keep. Their base may be an entry of mine, or mine one of theirs.
        let theirs = other.base;
        if theirs.last <= self.last() && self.epoch_at(theirs.last) == Some(theirs.epoch) {
            return Common::At(theirs.last);
        }
        let mine = self.base;
        let at_mine = runs
            .iter()
            .find(|&&(_, after, last)| after < mine.last && mine.last <= last);
        match at_mine {
            Some(&(epoch, ..)) if epoch == mine.epoch => Common::At(mine.last),
            _ => Common::BeforeBase,
        }
    }

    /// The first batch with an entry after `seq`. Nearly all questions are about the end of a log that is long:
    /// the steps grow from there.
    fn first_with_last_above(&self, seq: Seq) -> usize {
        let (mut high, mut step) = (self.batches.len(), 1);
        let mut low = high.saturating_sub(step);
        while low > 0 && self.batches[low].last() > seq {
            step *= 2;
            high = low;
            low = high.saturating_sub(step);
        }
        while low < high {
            let middle = low.midpoint(high);
            match self.batches[middle].last() > seq {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        low
    }

    fn index_of(&self, seq: Seq) -> Option<usize> {
        let at = match seq.0.checked_sub(1) {
            Some(before) => self.first_with_last_above(Seq(before)),
            None => 0,
        };
        self.batches
            .get(at)
            .filter(|batch| batch.first() <= seq)
            .map(|_| at)
    }
}

/// A cut that would fall inside a batch, or outside the kept log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot cut the log to {keep}: it keeps {base} to {last}, in whole batches")]
pub struct CutError {
    keep: Seq,
    base: Seq,
    last: Seq,
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvservice_shared::codec::{BatchBuilder, Decision, Effect};
    use kvservice_shared::ids::{RequestId, SessionSeq};
    use proptest::prelude::*;

    fn batch(number: u64, first: u64, count: u64) -> Batch {
        let mut builder = BatchBuilder::new(Epoch { term: 0, number }, Seq(first));
        for i in 0..count {
            builder.push(
                &[],
                &Effect::Write {
                    session: SessionSeq(Seq(1)),
                    request: RequestId(first + i),
                    hash: 0,
                    decision: Decision::Set {
                        key: "k",
                        value: b"v",
                    },
                },
            );
        }
        builder.finish()
    }

    fn log(batches: &[(u64, u64)]) -> Log {
        let mut log = Log::after(Run {
            epoch: Epoch { term: 0, number: 1 },
            last: Seq(1),
        });
        for &(epoch, count) in batches {
            log.append(batch(epoch, log.last().0 + 1, count));
        }
        log
    }

    #[test]
    fn two_logs_of_one_length_that_differ_share_only_what_one_head_ordered() {
        let mine = log(&[(1, 2), (2, 1), (4, 1)]);
        let theirs = log(&[(1, 2), (3, 2)]);
        assert_eq!(mine.last(), theirs.last());
        assert_eq!(mine.common(&theirs.boundaries()), Common::At(Seq(3)));
        assert_eq!(theirs.common(&mine.boundaries()), Common::At(Seq(3)));
    }

    #[test]
    fn a_log_that_ends_before_what_is_kept_needs_a_snapshot() {
        let mut mine = log(&[(1, 2), (2, 3), (2, 4)]);
        let theirs = log(&[(1, 2)]);
        assert_eq!(mine.common(&theirs.boundaries()), Common::At(Seq(3)));
        mine.trim(Seq(3), 0);
        assert_eq!(mine.common(&theirs.boundaries()), Common::At(Seq(3)));
        mine.trim(Seq(6), 0);
        assert_eq!(mine.common(&theirs.boundaries()), Common::BeforeBase);
        assert_eq!(mine.common(&Boundaries::default()), Common::BeforeBase);
    }

    #[test]
    fn an_empty_log_gets_all_from_the_first_entry() {
        let mut mine = Log::default();
        mine.append(batch(1, 1, 3));
        assert_eq!(mine.common(&Boundaries::default()), Common::At(Seq(0)));
    }

    /// No node is ever there, but anybody can say that it is.
    #[test]
    fn a_peer_at_the_last_number_there_is_has_nothing_in_common() {
        let mut mine = log(&[(1, 2), (2, 3)]);
        mine.trim(Seq(2), 0);
        let run = |number| Run {
            epoch: Epoch { term: 0, number },
            last: Seq(u64::MAX),
        };
        let theirs = Boundaries {
            base: run(7),
            runs: vec![run(8)],
        };
        assert_eq!(mine.common(&theirs), Common::BeforeBase);
    }

    #[test]
    fn a_cut_inside_a_batch_is_refused_and_changes_nothing() {
        let mut mine = log(&[(1, 2), (2, 3)]);
        assert!(mine.cut(Seq(5)).is_err());
        assert!(mine.cut(Seq(0)).is_err());
        assert!(mine.cut(Seq(7)).is_err());
        assert_eq!(mine.last(), Seq(6));
        mine.cut(Seq(3)).unwrap();
        assert_eq!(
            (mine.last(), mine.bytes()),
            (Seq(3), batch(1, 2, 2).bytes().len())
        );
    }

    /// Epoch and number of entries of each batch.
    type Batches = Vec<(u64, u64)>;

    /// Logs as heads make them: a common start, then two futures in epochs of their own.
    fn diverging() -> impl Strategy<Value = (Batches, Batches, Batches)> {
        let run = |low: u64, step: u64| {
            prop::collection::vec((1_u64..4, 1_u64..5), 0..5).prop_map(move |steps| {
                let mut epoch = low;
                steps
                    .into_iter()
                    .map(|(up, count)| {
                        epoch += up / 2 * step;
                        (epoch, count)
                    })
                    .collect::<Vec<_>>()
            })
        };
        (run(1, 1), run(100, 2), run(101, 2))
    }

    proptest! {
        #[test]
        fn common_is_the_longest_shared_prefix_unless_it_was_trimmed(
            (start, a, b) in diverging(), trim_a in 0_u64..40, trim_b in 0_u64..40
        ) {
            let mut mine = log(&[start.clone(), a].concat());
            let mut theirs = log(&[start.clone(), b].concat());
            let shared = log(&start).last();
            prop_assert_eq!(mine.common(&theirs.boundaries()), Common::At(shared));
            mine.trim(Seq(trim_a).min(shared), 0);
            theirs.trim(Seq(trim_b).min(shared), 0);
            prop_assert_eq!(mine.common(&theirs.boundaries()), Common::At(shared));
        }

        #[test]
        fn cut_then_append_restores(batches in prop::collection::vec((1_u64..2, 1_u64..5), 1..8), at in 0_usize..8) {
            let whole = log(&batches);
            let mut mine = log(&batches);
            let keep = log(&batches[..at.min(batches.len())]).last();
            mine.cut(keep).unwrap();
            prop_assert_eq!(mine.last(), keep);
            for batch in whole.after_seq(keep) {
                prop_assert!(!mine.holds(batch));
                mine.append(batch.clone());
                prop_assert!(mine.holds(batch));
            }
            prop_assert_eq!(mine.boundaries(), whole.boundaries());
            prop_assert_eq!(mine.bytes(), whole.bytes());
        }
    }
}
