//! A batch of ordered entries, as bytes. All integers are little-endian.
//!
//! ```text
//! batch   0       4      8      12     16            24         32
//!         crc32c  length count  term   epoch number  first seq  entries …
//! entry   0       4     5        6        8          12       20       28    36
//!         length  kind  evicted  key len  value len  session  request  hash  evicted…, key, value
//! ```
//! `length` of a batch counts all that follows the field (from `count`); `length` of an entry counts the
//! whole entry. The checksum covers all that follows it. `evicted` counts sessions that this entry
//! evicts, 8 bytes each. An `Open` entry has the session's name as its key (16 bytes) and its token as
//! its value (16 bytes); a failed test has the found value as its value, and the revision that wrote it
//! (8 bytes) as its key.
//!
//! One head makes all batches of its epoch and nobody splits or joins them, so the same entry is always
//! in the same batch, and two logs that agree on an entry agree on its whole batch.

use super::CodecError;
use crate::chain::OpenToken;
use crate::ids::{Epoch, RequestId, Seq, SessionSeq, SessionUuid};
use crate::limits;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use uuid::Uuid;

const HEADER: usize = 32;
const ENTRY_HEADER: usize = 36;
/// `length` counts from here.
const COUNTED_FROM: usize = 8;

const OPEN: u8 = 1;
const PUT: u8 = 2;
const SWAP: u8 = 3;
const SWAP_FAILED: u8 = 4;
const REMOVE: u8 = 5;
const NOTHING_TO_REMOVE: u8 = 6;

/// Bit of `kind` in a failed test that found a value (which may be empty).
const FOUND: u8 = 0x80;

/// One deterministic entry: what every replica does, and what the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its place in the log, and its revision.
    pub seq: Seq,
    /// Sessions that go with this entry.
    pub evict: Vec<SessionSeq>,
    /// What it does.
    pub effect: Effect<'a>,
}

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Opens a session under this entry's sequence number.
    Open {
        /// The session's name.
        uuid: SessionUuid,
        /// The `hello` that asked for it.
        token: OpenToken,
    },
    /// Decides a client's write.
    Write {
        /// The session that it belongs to.
        session: SessionSeq,
        /// The client's id.
        request: RequestId,
        /// Hash of the request.
        hash: u64,
        /// The decision.
        decision: Decision<'a>,
    },
}

/// The decision on a client's write, its effect on the keys with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// A set: write the key.
    Set {
        /// The key.
        key: &'a str,
        /// The value.
        value: &'a [u8],
    },
    /// A test that held: write the key.
    Swapped {
        /// The key.
        key: &'a str,
        /// The value.
        value: &'a [u8],
    },
    /// A test that failed: change nothing.
    NotSwapped {
        /// What was found.
        found: Option<&'a [u8]>,
        /// The revision that wrote it; 0 where nothing was found.
        revision: Seq,
    },
    /// A delete of something: remove the key.
    Deleted {
        /// The key.
        key: &'a str,
    },
    /// A delete of nothing: change nothing.
    NothingToDelete,
}

/// A checked batch: its bytes, as they travel and are stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    bytes: Bytes,
    epoch: Epoch,
    first: Seq,
    count: u32,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..={}@{}", self.first, self.last(), self.epoch)
    }
}

impl Batch {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The epoch whose head ordered these entries.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The first entry's sequence number.
    #[must_use]
    pub fn first(&self) -> Seq {
        self.first
    }

    /// The last entry's sequence number.
    #[must_use]
    pub fn last(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count) - 1)
    }

    /// The entries, in order.
    #[must_use]
    pub fn entries(&self) -> Entries<'_> {
        Entries {
            rest: &self.bytes[HEADER..],
            next: self.first,
        }
    }

    /// Takes one batch off the front of `bytes`, every entry of it checked.
    ///
    /// # Errors
    /// Where the bytes are not exactly what a [`BatchBuilder`] makes.
    pub fn decode(bytes: &mut Bytes) -> Result<Batch, CodecError> {
        if bytes.len() < HEADER {
            return Err(CodecError::Length("batch header"));
        }
        let mut header = &bytes[..HEADER];
        let checksum = header.get_u32_le();
        let length = header.get_u32_le() as usize;
        let count = header.get_u32_le();
        let term = header.get_u32_le();
        let number = header.get_u64_le();
        let first = Seq(header.get_u64_le());
        if length < HEADER - COUNTED_FROM || length > bytes.len() - COUNTED_FROM {
            return Err(CodecError::Length("batch"));
        }
        if crc32c::crc32c(&bytes[4..COUNTED_FROM + length]) != checksum {
            return Err(CodecError::Checksum("batch"));
        }
        let room = u64::MAX - u64::from(count);
        if count == 0 || first == Seq::ZERO || first.0 > room {
            return Err(CodecError::Invalid("batch sequence numbers"));
        }
        let batch = Batch {
            bytes: bytes.split_to(COUNTED_FROM + length),
            epoch: Epoch { term, number },
            first,
            count,
        };
        let mut rest = &batch.bytes[HEADER..];
        let mut found = 0;
        while !rest.is_empty() {
            decode_entry(&mut rest, Seq(first.0 + u64::from(found)))?;
            found += 1;
            if found > count {
                return Err(CodecError::Invalid("batch count"));
            }
        }
        if found != count {
            return Err(CodecError::Invalid("batch count"));
        }
        Ok(batch)
    }

    /// Gives batches that stand one behind the other and were changed on purpose the checksums that they need, as
    /// far as their lengths lead: so a test gets to what the checksums guard.
    #[doc(hidden)]
    pub fn reseal(mut bytes: &mut [u8]) {
        while bytes.len() >= HEADER {
            let length = (&bytes[4..COUNTED_FROM]).get_u32_le() as usize;
            if length > bytes.len() - COUNTED_FROM {
                return;
            }
            let (batch, rest) = bytes.split_at_mut(COUNTED_FROM + length);
            let checksum = crc32c::crc32c(&batch[4..]);
            batch[..4].copy_from_slice(&checksum.to_le_bytes());
            bytes = rest;
        }
    }
}

/// The entries of a batch, in order.
pub struct Entries<'a> {
    rest: &'a [u8],
    next: Seq,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = decode_entry(&mut self.rest, self.next)
            .expect("the entries were checked when the batch was made or decoded");
        self.next = self.next.next();
        Some(entry)
    }
}

fn decode_entry<'a>(rest: &mut &'a [u8], seq: Seq) -> Result<Entry<'a>, CodecError> {
    if rest.len() < ENTRY_HEADER {
        return Err(CodecError::Length("entry header"));
    }
    let mut header = &rest[..ENTRY_HEADER];
    let length = header.get_u32_le() as usize;
    let kind = header.get_u8();
    let evicted = usize::from(header.get_u8());
    let key_length = usize::from(header.get_u16_le());
    let value_length = header.get_u32_le() as usize;
    let session = SessionSeq(Seq(header.get_u64_le()));
    let request = header.get_u64_le();
    let hash = header.get_u64_le();
    if key_length > limits::KEY_BYTES_MAX || value_length > limits::VALUE_BYTES_MAX {
        return Err(CodecError::Invalid("entry: key or value over its limit"));
    }
    if length != ENTRY_HEADER + 8 * evicted + key_length + value_length || length > rest.len() {
        return Err(CodecError::Length("entry"));
    }
    let (entry, after) = rest.split_at(length);
    *rest = after;
    let mut body = &entry[ENTRY_HEADER..];
    let evict = (0..evicted)
        .map(|_| SessionSeq(Seq(body.get_u64_le())))
        .collect();
    let (key, value) = body.split_at(key_length);

    let text = |key: &'a [u8]| match std::str::from_utf8(key) {
        Ok(text) if !text.is_empty() => Ok(text),
        _ => Err(CodecError::Invalid("entry key")),
    };
    let empty = |part: &[u8]| {
        if part.is_empty() {
            Ok(())
        } else {
            Err(CodecError::Invalid("entry: unexpected bytes"))
        }
    };
    let decision = match kind {
        OPEN => {
            let uuid = Uuid::from_slice(key).map_err(|_| CodecError::Invalid("session name"))?;
            if value.len() != 16 || session != SessionSeq(Seq::ZERO) || request != 0 || hash != 0 {
                return Err(CodecError::Invalid("session opening"));
            }
            let mut token = value;
            let token = OpenToken {
                front_end: token.get_u64_le(),
                ticket: token.get_u64_le(),
            };
            let effect = Effect::Open {
                uuid: SessionUuid(uuid),
                token,
            };
            return Ok(Entry { seq, evict, effect });
        }
        PUT => Decision::Set {
            key: text(key)?,
            value,
        },
        SWAP => Decision::Swapped {
            key: text(key)?,
            value,
        },
        REMOVE => {
            empty(value)?;
            Decision::Deleted { key: text(key)? }
        }
        NOTHING_TO_REMOVE => {
            empty(key)?;
            empty(value)?;
            Decision::NothingToDelete
        }
        SWAP_FAILED => {
            empty(key)?;
            empty(value)?;
            Decision::NotSwapped {
                found: None,
                revision: Seq::ZERO,
            }
        }
        k if k == SWAP_FAILED | FOUND => {
            let revision: [u8; 8] = key
                .try_into()
                .map_err(|_| CodecError::Invalid("found revision"))?;
            let revision = Seq(u64::from_le_bytes(revision));
            if revision >= seq || revision == Seq::ZERO {
                return Err(CodecError::Invalid("found revision"));
            }
            Decision::NotSwapped {
                found: Some(value),
                revision,
            }
        }
        _ => return Err(CodecError::Invalid("entry kind")),
    };
    let request = RequestId::new(request).ok_or(CodecError::Invalid("request id"))?;
    if session.0 == Seq::ZERO || session.0 >= seq {
        return Err(CodecError::Invalid("entry session"));
    }
    Ok(Entry {
        seq,
        evict,
        effect: Effect::Write {
            session,
            request,
            hash,
            decision,
        },
    })
}

/// Makes a batch, entry by entry. Only the head does.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes: BytesMut,
    epoch: Epoch,
    first: Seq,
    count: u32,
}

impl BatchBuilder {
    /// An empty batch whose first entry will be `first`.
    #[must_use]
    pub fn new(epoch: Epoch, first: Seq) -> BatchBuilder {
        let mut bytes = BytesMut::with_capacity(4096);
        bytes.put_bytes(0, HEADER);
        BatchBuilder {
            bytes,
            epoch,
            first,
            count: 0,
        }
    }

    /// The sequence number that the next entry gets.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        Seq(self.first.0 + u64::from(self.count))
    }

    /// Whether there is no entry yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds the entry that gets [`BatchBuilder::next_seq`].
    ///
    /// # Panics
    /// Where a key, a value or the list of evictions is over its limit: they were checked before.
    pub fn push(&mut self, evict: &[SessionSeq], effect: &Effect<'_>) {
        let (uuid, token_bytes, revision_bytes);
        let mut session = SessionSeq(Seq::ZERO);
        let mut request_id = 0;
        let mut request_hash = 0;
        let (kind, key, value): (u8, &[u8], &[u8]) = match *effect {
            Effect::Open { uuid: name, token } => {
                uuid = name.0.into_bytes();
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&token.front_end.to_le_bytes());
                bytes[8..].copy_from_slice(&token.ticket.to_le_bytes());
                token_bytes = bytes;
                (OPEN, &uuid, &token_bytes)
            }
            Effect::Write {
                session: of,
                request,
                hash,
                decision,
            } => {
                session = of;
                request_id = request.0;
                request_hash = hash;
                match decision {
                    Decision::Set { key, value } => (PUT, key.as_bytes(), value),
                    Decision::Swapped { key, value } => (SWAP, key.as_bytes(), value),
                    Decision::Deleted { key } => (REMOVE, key.as_bytes(), &[]),
                    Decision::NothingToDelete => (NOTHING_TO_REMOVE, &[], &[]),
                    Decision::NotSwapped { found: None, .. } => (SWAP_FAILED, &[], &[]),
                    Decision::NotSwapped {
                        found: Some(value),
                        revision,
                    } => {
                        revision_bytes = revision.0.to_le_bytes();
                        (SWAP_FAILED | FOUND, &revision_bytes, value)
                    }
                }
            }
        };
        let evicted = u8::try_from(evict.len()).expect("at most 255 evictions an entry");
        let key_length = u16::try_from(key.len()).expect("keys are within their limit");
        let value_length = u32::try_from(value.len()).expect("values are within their limit");
        let length = ENTRY_HEADER + 8 * evict.len() + key.len() + value.len();
        self.bytes.reserve(length);
        self.bytes
            .put_u32_le(u32::try_from(length).expect("entries are within their limit"));
        self.bytes.put_u8(kind);
        self.bytes.put_u8(evicted);
        self.bytes.put_u16_le(key_length);
        self.bytes.put_u32_le(value_length);
        self.bytes.put_u64_le(session.0.0);
        self.bytes.put_u64_le(request_id);
        self.bytes.put_u64_le(request_hash);
        for session in evict {
            self.bytes.put_u64_le(session.0.0);
        }
        self.bytes.put_slice(key);
        self.bytes.put_slice(value);
        self.count += 1;
    }

    /// The finished batch.
    ///
    /// # Panics
    /// Where it is empty.
    #[must_use]
    pub fn finish(mut self) -> Batch {
        assert!(self.count > 0, "a batch has at least one entry");
        let length = u32::try_from(self.bytes.len() - COUNTED_FROM).expect("batches are bounded");
        let mut header = &mut self.bytes[4..HEADER];
        header.put_u32_le(length);
        header.put_u32_le(self.count);
        header.put_u32_le(self.epoch.term);
        header.put_u64_le(self.epoch.number);
        header.put_u64_le(self.first.0);
        let checksum = crc32c::crc32c(&self.bytes[4..]);
        self.bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        Batch {
            // A copy of the right size: the log keeps it, and the builder's buffer is larger.
            bytes: Bytes::copy_from_slice(&self.bytes),
            epoch: self.epoch,
            first: self.first,
            count: self.count,
        }
    }
}
