//! What all files have in common: names, and heads that carry a version and a checksum.
//!
//! ```text
//! head   0       8        12      16    16 + length
//!        magic   version  length  body  crc32c
//! ```
//! Integers are little-endian; a body is [postcard](https://postcard.jamesmunns.com/wire-format). The
//! checksum covers all before it. This much stays as it is in every later version, so that a newer file is
//! told from a broken one.

use super::OpenError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

/// The version of all files here.
pub(super) const VERSION: u32 = 1;
/// Ends the name of a file that is not whole yet.
pub(super) const PART: &str = ".part";

pub(super) const LOCK: &str = "lock";
pub(super) const NODE: &str = "node";
pub(super) const META: &str = "meta";

/// What a head starts with: what sort of file it is.
pub(super) type Magic = [u8; 8];

pub(super) const BEFORE_BODY: usize = 16;
pub(super) const CHECKSUM: usize = 4;
/// Bytes that are read to decode the head of a file that is longer.
pub(super) const HEAD_BYTES_MAX: usize = 4096;

/// The name of a log segment.
pub(super) fn segment_name(generation: u64, ordinal: u64) -> String {
    format!("log-{generation}-{ordinal:010}")
}

/// The name of a checkpoint.
pub(super) fn checkpoint_name(generation: u64, number: u64) -> String {
    format!("checkpoint-{generation}-{number:010}")
}

/// A file of ours, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Node,
    Meta,
    Segment {
        generation: u64,
        ordinal: u64,
    },
    Checkpoint {
        generation: u64,
        number: u64,
    },
    /// Not whole: worth nothing.
    Part,
}

impl Name {
    /// `None` for files that are none of ours.
    pub(super) fn parse(name: &str) -> Option<Name> {
        if let Some(whole) = name.strip_suffix(PART) {
            return Name::parse(whole).map(|_| Name::Part);
        }
        match name {
            NODE => return Some(Name::Node),
            META => return Some(Name::Meta),
            _ => {}
        }
        let (kind, numbers) = name.split_once('-')?;
        let (generation, place) = numbers.split_once('-')?;
        let (generation, place) = (generation.parse().ok()?, place.parse().ok()?);
        let (parsed, canonical) = match kind {
            "log" => (
                Name::Segment {
                    generation,
                    ordinal: place,
                },
                segment_name(generation, place),
            ),
            "checkpoint" => (
                Name::Checkpoint {
                    generation,
                    number: place,
                },
                checkpoint_name(generation, place),
            ),
            _ => return None,
        };
        (canonical == name).then_some(parsed)
    }
}

/// A head with this body.
pub(super) fn encode_head<T: Serialize>(magic: Magic, body: &T) -> Vec<u8> {
    let body = postcard::to_allocvec(body).expect("these types have no unbounded or fallible part");
    let length = u32::try_from(body.len()).expect("heads are small");
    let mut bytes = Vec::with_capacity(BEFORE_BODY + body.len() + CHECKSUM);
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// The body of a head, and the bytes that the head takes.
pub(super) fn decode_head<T: DeserializeOwned>(
    magic: Magic,
    bytes: &[u8],
    path: &Path,
) -> Result<(T, usize), OpenError> {
    let corrupt = |problem: &str| OpenError::corrupt(path, 0, problem);
    if bytes.len() < BEFORE_BODY + CHECKSUM {
        return Err(corrupt("the file is too short for its head"));
    }
    if bytes[..8] != magic {
        return Err(corrupt("the file does not begin as it should"));
    }
    let length = read_u32(&bytes[12..]) as usize;
    if length > bytes.len() - BEFORE_BODY - CHECKSUM {
        return Err(corrupt("the head is longer than the file"));
    }
    let (covered, rest) = bytes.split_at(BEFORE_BODY + length);
    if crc32c::crc32c(covered) != read_u32(rest) {
        return Err(corrupt("the head's checksum does not match"));
    }
    let version = read_u32(&bytes[8..]);
    if version != VERSION {
        return Err(OpenError::Version {
            file: path.to_owned(),
            version,
        });
    }
    let body = postcard::from_bytes(&covered[BEFORE_BODY..])
        .map_err(|error| corrupt(&format!("the head does not decode: {error}")))?;
    Ok((body, BEFORE_BODY + length + CHECKSUM))
}

/// The integer that these bytes begin with.
///
/// # Panics
/// Where there are fewer than four.
pub(super) fn read_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))
}

/// The integer that these bytes begin with.
///
/// # Panics
/// Where there are fewer than eight.
pub(super) fn read_u64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

/// A checksum that belongs to one place in one file: the same bytes elsewhere have another.
pub(super) fn placed_checksum(salt: u64, offset: u64, bytes: &[u8]) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&salt.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), bytes)
}
