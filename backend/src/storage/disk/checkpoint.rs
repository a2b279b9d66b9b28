//! Checkpoints: a head, then blocks, the last of which says that the checkpoint is whole.
//!
//! ```text
//! block   0      4     8       12     16      20      24
//!         magic  kind  length  count  crc32c  crc32c  body …
//! key     0        2          6         14
//!         key len  value len  revision  key, value
//! end     0         8     16      24
//!         whole at  keys  blocks  crc32c
//! ```
//! The first checksum of a block is its body's. The second covers the file's salt, the block's place and the
//! header before it. The end's covers the bodies' checksums of all blocks before it, in order. Keys are raw so
//! that they are read back without a copy of each; sessions and evicted names are postcard.
//!
//! A checkpoint gets its name when it is whole and durable: a named one that does not verify was damaged.

use super::format::{
    HEAD_BYTES_MAX, Magic, PART, checkpoint_name, decode_head, encode_head, placed_checksum,
    read_u32, read_u64,
};
use super::handle::{Disk, DiskFile};
use super::{OpenError, Restore};
use crate::chain::part_bytes;
use crate::storage::StorageError;
use kvservice_shared::chain::{Run, SessionRecord, SnapshotPart};
use kvservice_shared::ids::{NodeId, Seq, SessionSeq, SessionUuid};
use kvservice_shared::limits;
use serde::{Deserialize, Serialize};
use std::sync::mpsc;
use uuid::Uuid;

pub(super) const CHECKPOINT_MAGIC: Magic = *b"kvs save";
pub(super) const BLOCK_MAGIC: [u8; 4] = *b"\xf5blk";
pub(super) const HEADER: usize = 24;
pub(super) const BODY_CHECKSUM: usize = 16;
pub(super) const CHECKED: usize = HEADER - 4;
const KEY_HEADER: usize = 14;
pub(super) const END_BYTES: usize = 28;

const KEYS: u32 = 1;
const SESSIONS: u32 = 2;
const EVICTED: u32 = 3;
pub(super) const END: u32 = 4;

/// So much is written before it is synced: the disk is not flooded at the end, and the log's own syncs wait
/// for no more than this.
const SYNC_BYTES: u64 = 8 * 1024 * 1024;
/// Blocks that wait between the thread that reads and the one that restores.
const BLOCKS_AHEAD: usize = 16;

/// What a checkpoint begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CheckpointHead {
    node: NodeId,
    generation: u64,
    number: u64,
    /// The entry after which the log is needed with it.
    base: Run,
    pub(super) salt: u64,
}

type EvictedNames = Vec<(Seq, u32, SessionUuid)>;

/// Writes one checkpoint.
pub(super) struct CheckpointWriter {
    file: DiskFile,
    name: String,
    base: Run,
    salt: u64,
    offset: u64,
    synced: u64,
    keys: u64,
    blocks: u64,
    sum: u32,
    buffer: Vec<u8>,
}

impl CheckpointWriter {
    pub(super) fn create(
        disk: &Disk,
        node: NodeId,
        generation: u64,
        number: u64,
        base: Run,
    ) -> Result<CheckpointWriter, StorageError> {
        let name = checkpoint_name(generation, number);
        let salt = Uuid::new_v4().as_u64_pair().1;
        let head = CheckpointHead {
            node,
            generation,
            number,
            base,
            salt,
        };
        let head = encode_head(CHECKPOINT_MAGIC, &head);
        let mut file = disk.create(&format!("{name}{PART}"))?;
        file.write_at(&head, 0)?;
        Ok(CheckpointWriter {
            file,
            name,
            base,
            salt,
            offset: head.len() as u64,
            synced: 0,
            keys: 0,
            blocks: 0,
            sum: 0,
            buffer: Vec::new(),
        })
    }

    pub(super) fn base(&self) -> Run {
        self.base
    }

    /// The name that its file has until it is whole.
    pub(super) fn part_name(&self) -> String {
        format!("{}{PART}", self.name)
    }

    /// Adds a part; gives the bytes that it counts for.
    pub(super) fn part(&mut self, part: &SnapshotPart) -> Result<u64, StorageError> {
        self.buffer.clear();
        self.buffer.resize(HEADER, 0);
        match part {
            // What they say is in the head and in the end.
            SnapshotPart::Begin { .. } | SnapshotPart::End { .. } => {}
            SnapshotPart::Keys { entries, .. } => {
                for (key, value, revision) in entries {
                    let key_bytes = u16::try_from(key.len()).expect("keys are within their limit");
                    let value_bytes =
                        u32::try_from(value.0.len()).expect("values are within their limit");
                    self.buffer.extend_from_slice(&key_bytes.to_le_bytes());
                    self.buffer.extend_from_slice(&value_bytes.to_le_bytes());
                    self.buffer.extend_from_slice(&revision.0.to_le_bytes());
                    self.buffer.extend_from_slice(key.as_bytes());
                    self.buffer.extend_from_slice(&value.0);
                }
                self.keys += entries.len() as u64;
                self.block(KEYS, entries.len())?;
            }
            SnapshotPart::Sessions { sessions, .. } => {
                self.encode(sessions);
                self.block(SESSIONS, sessions.len())?;
            }
            SnapshotPart::Evicted { names } => {
                self.encode(names);
                self.block(EVICTED, names.len())?;
            }
        }
        Ok(part_bytes(part))
    }

    fn encode<T: Serialize>(&mut self, body: &T) {
        let body = postcard::to_allocvec(body).expect("these types have no fallible part");
        self.buffer.extend_from_slice(&body);
    }

    /// Writes the buffer as a block. Empty ones say nothing.
    fn block(&mut self, kind: u32, count: usize) -> Result<(), StorageError> {
        if count == 0 && kind != END {
            return Ok(());
        }
        let (header, body) = self.buffer.split_at_mut(HEADER);
        let length = u32::try_from(body.len()).expect("parts are bounded");
        let count = u32::try_from(count).expect("parts are bounded");
        let checksum = crc32c::crc32c(body);
        header[..4].copy_from_slice(&BLOCK_MAGIC);
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[8..12].copy_from_slice(&length.to_le_bytes());
        header[12..16].copy_from_slice(&count.to_le_bytes());
        header[BODY_CHECKSUM..CHECKED].copy_from_slice(&checksum.to_le_bytes());
        let placed = placed_checksum(self.salt, self.offset, &header[..CHECKED]);
        header[CHECKED..].copy_from_slice(&placed.to_le_bytes());
        self.file.write_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.blocks += 1;
        self.sum = crc32c::crc32c_append(self.sum, &checksum.to_le_bytes());
        if self.offset - self.synced >= SYNC_BYTES {
            self.file.sync()?;
            self.synced = self.offset;
        }
        Ok(())
    }

    /// It is whole: durable under its name when this returns. Gives the name.
    pub(super) fn finish(mut self, disk: &Disk, whole_at: Seq) -> Result<String, StorageError> {
        self.buffer.clear();
        self.buffer.resize(HEADER, 0);
        self.buffer.extend_from_slice(&whole_at.0.to_le_bytes());
        self.buffer.extend_from_slice(&self.keys.to_le_bytes());
        self.buffer.extend_from_slice(&self.blocks.to_le_bytes());
        self.buffer.extend_from_slice(&self.sum.to_le_bytes());
        self.block(END, 0)?;
        self.file.sync()?;
        disk.publish(&self.name)?;
        Ok(self.name)
    }
}

/// A whole checkpoint whose head and end were read and verified, and whose blocks were not.
pub(super) struct CheckpointReader {
    file: DiskFile,
    head: CheckpointHead,
    start: u64,
    end: EndBlock,
    end_at: u64,
}

#[derive(Clone, Copy)]
struct EndBlock {
    whole_at: Seq,
    keys: u64,
    blocks: u64,
    sum: u32,
}

struct Header {
    kind: u32,
    length: u32,
    count: u32,
    checksum: u32,
}

/// A block's body, its checksum verified.
enum Block {
    Keys { count: u32, body: Vec<u8> },
    Sessions(Vec<SessionRecord>),
    Evicted(EvictedNames),
}

impl CheckpointReader {
    pub(super) fn open(
        disk: &Disk,
        node: NodeId,
        generation: u64,
        number: u64,
    ) -> Result<CheckpointReader, OpenError> {
        let file = disk.open(&checkpoint_name(generation, number))?;
        let path = file.path().to_owned();
        let corrupt = |at: u64, problem: &str| OpenError::corrupt(&path, at, problem);
        let length = file.len()?;
        let begin = usize::try_from(length).map_or(HEAD_BYTES_MAX, |all| all.min(HEAD_BYTES_MAX));
        let mut bytes = vec![0; begin];
        file.read_at(&mut bytes, 0)?;
        let (head, start) = decode_head::<CheckpointHead>(CHECKPOINT_MAGIC, &bytes, &path)?;
        if head.node != node {
            return Err(corrupt(0, &format!("it belongs to node {}", head.node)));
        }
        if (head.generation, head.number) != (generation, number) {
            return Err(corrupt(0, "it was written under another name"));
        }
        let start = start as u64;
        let Some(end_at) = length
            .checked_sub((HEADER + END_BYTES) as u64)
            .filter(|at| *at >= start)
        else {
            return Err(corrupt(length, "the file ends too early"));
        };
        let mut reader = CheckpointReader {
            file,
            head,
            start,
            end: EndBlock {
                whole_at: Seq::ZERO,
                keys: 0,
                blocks: 0,
                sum: 0,
            },
            end_at,
        };
        let header = reader.header(end_at)?;
        if header.kind != END || header.length as usize != END_BYTES {
            return Err(corrupt(end_at, "the file does not end with an end block"));
        }
        let body = reader.body(end_at, &header)?;
        reader.end = EndBlock {
            whole_at: Seq(read_u64(&body)),
            keys: read_u64(&body[8..]),
            blocks: read_u64(&body[16..]),
            sum: read_u32(&body[24..]),
        };
        Ok(reader)
    }

    /// The entry after which the log is needed with it.
    pub(super) fn base(&self) -> Run {
        self.head.base
    }

    /// With the log up to here it is the state there.
    pub(super) fn whole_at(&self) -> Seq {
        self.end.whole_at
    }

    /// Reads and verifies all blocks on a thread of its own, and restores them here.
    pub(super) fn restore(self, restore: &mut dyn Restore) -> Result<(), OpenError> {
        let path = self.file.path().to_owned();
        let (sender, blocks) = mpsc::sync_channel(BLOCKS_AHEAD);
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || self.read_blocks(&sender));
            let mut last_key = Vec::new();
            let mut last_session = SessionSeq(Seq::ZERO);
            for (at, block) in blocks {
                let corrupt = |problem| OpenError::corrupt(&path, at, problem);
                match block {
                    Block::Keys { count, body } => {
                        restore_keys(count, &body, &mut last_key, restore).map_err(corrupt)?;
                    }
                    Block::Sessions(sessions) => {
                        check_order(&sessions, &mut last_session).map_err(corrupt)?;
                        restore.sessions(sessions);
                    }
                    Block::Evicted(names) => restore.evicted(names),
                }
            }
            match reader.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn read_blocks(&self, blocks: &mpsc::SyncSender<(u64, Block)>) -> Result<(), OpenError> {
        let corrupt = |at: u64, problem: &str| OpenError::corrupt(self.file.path(), at, problem);
        let mut offset = self.start;
        let (mut keys, mut count, mut sum) = (0, 0, 0);
        while offset < self.end_at {
            let header = self.header(offset)?;
            let body = self.body(offset, &header)?;
            let block = match header.kind {
                KEYS => {
                    keys += u64::from(header.count);
                    Block::Keys {
                        count: header.count,
                        body,
                    }
                }
                SESSIONS => Block::Sessions(
                    postcard::from_bytes(&body)
                        .map_err(|_| corrupt(offset, "sessions do not decode"))?,
                ),
                EVICTED => Block::Evicted(
                    postcard::from_bytes(&body)
                        .map_err(|_| corrupt(offset, "names do not decode"))?,
                ),
                _ => return Err(corrupt(offset, "a block of an unknown kind")),
            };
            count += 1;
            sum = crc32c::crc32c_append(sum, &header.checksum.to_le_bytes());
            if blocks.send((offset, block)).is_err() {
                // Whoever restores met trouble, and tells it.
                return Ok(());
            }
            offset += HEADER as u64 + u64::from(header.length);
        }
        let end = &self.end;
        if offset != self.end_at || (keys, count, sum) != (end.keys, end.blocks, end.sum) {
            return Err(corrupt(offset, "the end does not fit what is before it"));
        }
        Ok(())
    }

    fn header(&self, offset: u64) -> Result<Header, OpenError> {
        let mut bytes = [0; HEADER];
        let corrupt = |problem: &str| OpenError::corrupt(self.file.path(), offset, problem);
        if offset > self.end_at {
            return Err(corrupt("a block goes on past the end"));
        }
        self.file.read_at(&mut bytes, offset)?;
        let placed = placed_checksum(self.head.salt, offset, &bytes[..CHECKED]);
        if bytes[..4] != BLOCK_MAGIC || placed != read_u32(&bytes[CHECKED..]) {
            return Err(corrupt("no block begins here"));
        }
        let length = read_u32(&bytes[8..]);
        // The end block's body is all that there is after `end_at`.
        if u64::from(length) > self.end_at.saturating_sub(offset).max(END_BYTES as u64) {
            return Err(corrupt("a block is longer than the file"));
        }
        Ok(Header {
            kind: read_u32(&bytes[4..]),
            length,
            count: read_u32(&bytes[12..]),
            checksum: read_u32(&bytes[BODY_CHECKSUM..]),
        })
    }

    fn body(&self, offset: u64, header: &Header) -> Result<Vec<u8>, OpenError> {
        let mut body = vec![0; header.length as usize];
        self.file.read_at(&mut body, offset + HEADER as u64)?;
        if crc32c::crc32c(&body) != header.checksum {
            return Err(OpenError::corrupt(
                self.file.path(),
                offset,
                "a block's checksum does not match",
            ));
        }
        Ok(body)
    }
}

/// Whoever restores relies on the order of the keys, and on their limits: `last` is the key before these, and after
/// them their last.
fn restore_keys(
    count: u32,
    mut body: &[u8],
    last: &mut Vec<u8>,
    restore: &mut dyn Restore,
) -> Result<(), &'static str> {
    let mut before: &[u8] = last;
    for _ in 0..count {
        let Some((header, rest)) = body.split_at_checked(KEY_HEADER) else {
            return Err("a block ends inside a key");
        };
        let key_bytes = usize::from(u16::from_le_bytes([header[0], header[1]]));
        let value_bytes = read_u32(&header[2..]) as usize;
        let revision = Seq(read_u64(&header[6..]));
        if key_bytes > limits::KEY_BYTES_MAX || value_bytes > limits::VALUE_BYTES_MAX {
            return Err("a key or value is over its limit");
        }
        let Some((key, rest)) = rest.split_at_checked(key_bytes) else {
            return Err("a block ends inside a key");
        };
        let Some((value, rest)) = rest.split_at_checked(value_bytes) else {
            return Err("a block ends inside a value");
        };
        // No key is empty: the first one of all comes after that, too.
        if key <= before {
            return Err("a key does not come after the one before");
        }
        before = key;
        let key = std::str::from_utf8(key).map_err(|_| "a key is not UTF-8")?;
        restore.key(key, value, revision);
        body = rest;
    }
    if !body.is_empty() {
        return Err("a block goes on after its last key");
    }
    *last = before.to_vec();
    Ok(())
}

/// Sessions come in the order of their opening, and the outcomes of each in that of their ids. `last` is the session
/// before these, and after them their last.
fn check_order(sessions: &[SessionRecord], last: &mut SessionSeq) -> Result<(), &'static str> {
    for record in sessions {
        if record.session <= *last {
            return Err("a session does not come after the one before");
        }
        *last = record.session;
        if !record.outcomes.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err("the outcomes of a session are out of order");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvservice_shared::chain::{OpenToken, OutcomeRecord, StoredOutcome};
    use kvservice_shared::ids::RequestId;

    fn record(session: u64, ids: &[u64]) -> SessionRecord {
        let outcome = |id: &u64| {
            let outcome = OutcomeRecord {
                hash: 0,
                seq: Seq(*id),
                outcome: StoredOutcome::Set,
            };
            (RequestId(*id), outcome)
        };
        SessionRecord {
            session: SessionSeq(Seq(session)),
            uuid: SessionUuid(Uuid::from_u128(u128::from(session))),
            token: OpenToken {
                front_end: 1,
                ticket: 1,
            },
            reopened: false,
            last_used: Seq(session),
            forgotten: 0,
            outcomes: ids.iter().map(outcome).collect(),
        }
    }

    #[test]
    fn sessions_out_of_order_are_refused() {
        let mut last = SessionSeq(Seq::ZERO);
        let good = [record(1, &[2, 3]), record(4, &[])];
        assert_eq!(check_order(&good, &mut last), Ok(()));
        assert_eq!(last, SessionSeq(Seq(4)));
        for bad in [
            record(4, &[]),
            record(3, &[]),
            record(5, &[3, 2]),
            record(5, &[2, 2]),
        ] {
            assert!(check_order(&[bad], &mut last.clone()).is_err());
        }
    }
}
