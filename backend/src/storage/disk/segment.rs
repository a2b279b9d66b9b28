//! A segment of the log: a head, then groups, then zeros.
//!
//! ```text
//! group   0      4     8       12    16     24    32      40         48     52
//!         magic  kind  length  term  epoch  last  synced  committed  crc32c batches …
//! ```
//! `length` counts the batches' bytes. `term`, `epoch` and `last` name the log's last entry after this group.
//! `synced` is where the file was known to be durable up to when this group was written: what does not
//! verify before that place was not torn by a crash. `committed` is an entry that was known to be committed
//! then: a restarted node applies the log up to there by itself. The checksum covers the segment's salt, the group's
//! place in the file and all of the header before it; the batches carry their own. The salt is random, so that
//! no client can store a value that passes for a group.

use super::OpenError;
use super::format::{Magic, decode_head, placed_checksum, read_u32, read_u64};
use bytes::Bytes;
use kvservice_shared::chain::Run;
use kvservice_shared::codec::Batch;
use kvservice_shared::ids::{Epoch, NodeId, Seq};
use serde::{Deserialize, Serialize};
use std::path::Path;

pub(super) const SEGMENT_MAGIC: Magic = *b"kvs log\n";
pub(super) const GROUP_BYTES: usize = 52;
pub(super) const GROUP_MAGIC: [u8; 4] = *b"\xf5grp";
pub(super) const CHECKED: usize = GROUP_BYTES - 4;

/// What a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentHead {
    pub node: NodeId,
    pub generation: u64,
    /// Segments of one generation are numbered without gaps.
    pub ordinal: u64,
    /// The log's last entry before this segment.
    pub before: Run,
    pub salt: u64,
}

/// What a group does to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Adds batches.
    Append = 1,
    /// Makes everything after its `end` void.
    Cut = 2,
    /// Nothing: it is the segment's last group, and all before it is durable.
    Seal = 3,
}

/// A group's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub kind: Kind,
    pub length: u32,
    pub end: Run,
    pub synced: u64,
    pub committed: Seq,
}

impl Group {
    /// The header of the group at `offset`.
    pub(super) fn encode(&self, salt: u64, offset: u64) -> [u8; GROUP_BYTES] {
        let mut bytes = [0; GROUP_BYTES];
        bytes[..4].copy_from_slice(&GROUP_MAGIC);
        bytes[4..8].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.end.epoch.term.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.end.epoch.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.end.last.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.synced.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.committed.0.to_le_bytes());
        let checksum = placed_checksum(salt, offset, &bytes[..CHECKED]);
        bytes[CHECKED..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], salt: u64, offset: usize) -> Result<Group, &'static str> {
        let Some(bytes) = bytes.get(offset..offset + GROUP_BYTES) else {
            return Err("the file ends inside a group's header");
        };
        let checksum = placed_checksum(salt, offset as u64, &bytes[..CHECKED]);
        if bytes[..4] != GROUP_MAGIC || checksum != read_u32(&bytes[CHECKED..]) {
            return Err("no group begins here");
        }
        Ok(Group {
            kind: match read_u32(&bytes[4..]) {
                1 => Kind::Append,
                2 => Kind::Cut,
                3 => Kind::Seal,
                _ => return Err("the group is of an unknown kind"),
            },
            length: read_u32(&bytes[8..]),
            end: Run {
                epoch: Epoch {
                    term: read_u32(&bytes[12..]),
                    number: read_u64(&bytes[16..]),
                },
                last: Seq(read_u64(&bytes[24..])),
            },
            synced: read_u64(&bytes[32..]),
            committed: Seq(read_u64(&bytes[40..])),
        })
    }
}

/// The log as it is read back, group by group.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// The entry before the first batch.
    pub base: Run,
    pub batches: Vec<Batch>,
    /// The last entry that any group knew to be committed.
    pub committed: Seq,
}

impl Recovered {
    /// The log's last entry.
    pub(super) fn end(&self) -> Run {
        self.batches.last().map_or(self.base, |batch| Run {
            epoch: batch.epoch(),
            last: batch.last(),
        })
    }

    fn append(&mut self, batches: Vec<Batch>) -> Result<(), &'static str> {
        for batch in batches {
            let end = self.end();
            // A damaged head may say that the log follows the last number that there is.
            let follows = end.last.0.checked_add(1) == Some(batch.first().0);
            if !follows || batch.epoch() < end.epoch {
                return Err("a batch does not follow the one before");
            }
            self.batches.push(batch);
        }
        Ok(())
    }

    fn cut(&mut self, keep: Run) -> Result<(), &'static str> {
        let kept = self.batches.partition_point(|b| b.last() <= keep.last);
        self.batches.truncate(kept);
        if keep.last < self.base.last {
            // The segments before, which held what is kept, were not needed any more.
            self.base = keep;
        }
        if self.end() == keep {
            Ok(())
        } else {
            Err("a cut falls inside a batch or past the end")
        }
    }
}

/// Where a segment ends, and how.
#[derive(Debug)]
pub(super) struct End {
    /// Where the next group would go.
    pub offset: usize,
    /// All before this is durable, by the groups' word.
    pub synced: usize,
    /// The last group is a seal.
    pub sealed: bool,
    /// There is no entry and no cut in it.
    pub empty: bool,
    /// No entry in it is after this one.
    pub last: Seq,
    /// Checksums in it are made with this.
    pub salt: u64,
    /// What follows is not zeros, but may be a group that was being written when the power went.
    pub torn: bool,
}

/// Adds a segment's groups to the log. `is_last` says that no segment follows.
///
/// # Errors
/// Where something does not verify that a crash cannot have torn.
pub(super) fn replay(
    bytes: &Bytes,
    path: &Path,
    is_last: bool,
    expected: &SegmentHead,
    log: &mut Recovered,
) -> Result<End, OpenError> {
    let corrupt = |at: usize, problem: &str| OpenError::corrupt(path, at as u64, problem);
    let (head, start) = decode_segment_head(bytes, path)?;
    if head.node != expected.node {
        return Err(corrupt(0, &format!("it belongs to node {}", head.node)));
    }
    if (head.generation, head.ordinal) != (expected.generation, expected.ordinal) {
        return Err(corrupt(0, "it was written under another name"));
    }
    if head.before != expected.before {
        let problem = format!(
            "it follows entry {}, but the log before it ends with {}",
            head.before.last, expected.before.last
        );
        return Err(corrupt(0, &problem));
    }
    let mut end = End {
        offset: start,
        synced: start,
        sealed: false,
        empty: true,
        last: head.before.last,
        salt: head.salt,
        torn: false,
    };
    let problem = loop {
        if end.sealed || bytes.len() == end.offset {
            break "there is something after the end";
        }
        let (group, batches) = match read_group(bytes, head.salt, end.offset) {
            Ok(read) => read,
            Err(problem) => break problem,
        };
        let applied = match group.kind {
            Kind::Append => log.append(batches),
            Kind::Cut => log.cut(group.end),
            Kind::Seal => Ok(()),
        };
        // The checksums match: no crash made this.
        applied.map_err(|problem| corrupt(end.offset, problem))?;
        if log.end() != group.end {
            return Err(corrupt(end.offset, "a group does not end where it says"));
        }
        if group.committed > group.end.last {
            return Err(corrupt(end.offset, "more is committed than there is"));
        }
        log.committed = log.committed.max(group.committed);
        if group.kind == Kind::Append {
            end.last = end.last.max(group.end.last);
        }
        end.sealed = group.kind == Kind::Seal;
        end.empty &= end.sealed;
        end.synced = usize::try_from(group.synced).unwrap_or(usize::MAX);
        end.offset += GROUP_BYTES + group.length as usize;
    };
    let clean = bytes[end.offset..].iter().all(|byte| *byte == 0);
    if !is_last && (!clean || !end.sealed) {
        let problem = if clean { "it ends too early" } else { problem };
        return Err(corrupt(end.offset, problem));
    }
    if !clean {
        if synced_later(bytes, head.salt, end.offset) {
            return Err(corrupt(end.offset, problem));
        }
        end.torn = true;
    }
    Ok(end)
}

/// The head of a segment, and its length.
pub(super) fn decode_segment_head(
    bytes: &[u8],
    path: &Path,
) -> Result<(SegmentHead, usize), OpenError> {
    decode_head(SEGMENT_MAGIC, bytes, path)
}

/// Whether a segment holds nothing but its head: as it is made, before anything counts on it.
pub(super) fn is_unused(bytes: &[u8], path: &Path) -> Result<bool, OpenError> {
    let (_, start) = decode_segment_head(bytes, path)?;
    Ok(bytes[start..].iter().all(|byte| *byte == 0))
}

fn read_group(
    bytes: &Bytes,
    salt: u64,
    offset: usize,
) -> Result<(Group, Vec<Batch>), &'static str> {
    let group = Group::decode(bytes, salt, offset)?;
    let start = offset + GROUP_BYTES;
    let length = group.length as usize;
    if length > bytes.len() - start {
        return Err("the file ends inside a group");
    }
    if (length == 0) != (group.kind != Kind::Append) {
        return Err("the group's length does not fit its kind");
    }
    let mut rest = bytes.slice(start..start + length);
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let batch = Batch::decode(&mut rest).map_err(|_| "a batch does not verify")?;
        batches.push(batch);
    }
    Ok((group, batches))
}

/// Whether a group after `offset` says that the file had been synced past there before it was written.
fn synced_later(bytes: &[u8], salt: u64, offset: usize) -> bool {
    bytes[offset..]
        .windows(GROUP_MAGIC.len())
        .enumerate()
        .skip(1)
        .filter(|(_, window)| *window == GROUP_MAGIC)
        .filter_map(|(after, _)| Group::decode(bytes, salt, offset + after).ok())
        .any(|group| group.synced > offset as u64)
}

/// The epochs of the log's entries, by the last entry of each: a cut must name the epoch that it ends in.
#[derive(Debug)]
pub(super) struct Runs {
    base: Run,
    runs: Vec<Run>,
}

impl Runs {
    /// Of an empty log.
    pub(super) fn after(base: Run) -> Runs {
        Runs {
            base,
            runs: Vec::new(),
        }
    }

    pub(super) fn of(log: &Recovered) -> Runs {
        let mut runs = Runs::after(log.base);
        for batch in &log.batches {
            runs.append(batch);
        }
        runs
    }

    pub(super) fn end(&self) -> Run {
        self.runs.last().copied().unwrap_or(self.base)
    }

    /// # Panics
    /// Where the batch does not follow: the log in memory was not the one that is on disk.
    pub(super) fn append(&mut self, batch: &Batch) {
        let end = self.end();
        assert!(
            batch.first() == end.last.next() && batch.epoch() >= end.epoch,
            "{batch:?} does not follow {end:?}"
        );
        let run = Run {
            epoch: batch.epoch(),
            last: batch.last(),
        };
        match self.runs.last_mut() {
            Some(last) if last.epoch == run.epoch => *last = run,
            _ => self.runs.push(run),
        }
    }

    /// # Panics
    /// Where `keep` is not in the log.
    pub(super) fn cut(&mut self, keep: Seq) -> Run {
        let end = self.end();
        assert!(
            self.base.last <= keep && keep <= end.last,
            "cannot cut to {keep}: the log has {} to {}",
            self.base.last,
            end.last
        );
        if keep == self.base.last {
            self.runs.clear();
        } else {
            let at = self.runs.partition_point(|run| run.last < keep);
            self.runs.truncate(at + 1);
            self.runs[at].last = keep;
        }
        self.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_know_the_epoch_of_every_entry() {
        let run = |number, last| Run {
            epoch: Epoch { term: 0, number },
            last: Seq(last),
        };
        let mut runs = Runs {
            base: run(1, 10),
            runs: vec![run(1, 12), run(3, 20), run(4, 21)],
        };
        assert_eq!(runs.cut(Seq(20)), run(3, 20));
        assert_eq!(runs.cut(Seq(13)), run(3, 13));
        assert_eq!(runs.cut(Seq(12)), run(1, 12));
        assert_eq!(runs.cut(Seq(11)), run(1, 11));
        assert_eq!(runs.cut(Seq(10)), run(1, 10));
        assert_eq!(runs.end(), run(1, 10));
    }
}
