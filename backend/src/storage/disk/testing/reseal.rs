//! New checksums for files that were changed on purpose, so that a test gets to what the checksums guard.

use super::super::checkpoint::{
    BLOCK_MAGIC, BODY_CHECKSUM, CHECKED as BLOCK_CHECKED, CHECKPOINT_MAGIC, CheckpointHead, END,
    END_BYTES, HEADER,
};
use super::super::format::{BEFORE_BODY, CHECKSUM, Name, decode_head, placed_checksum, read_u32};
use super::super::segment::{
    CHECKED as GROUP_CHECKED, GROUP_BYTES, GROUP_MAGIC, decode_segment_head,
};
use kvservice_shared::codec::Batch;
use std::path::Path;

/// Gives a file of this name the checksums that its bytes need, as far as its lengths lead.
pub fn reseal(name: &str, bytes: &mut [u8]) {
    // Where the lengths lead nowhere there is nothing more to seal.
    let _ = reseal_head(bytes).and_then(|start| match Name::parse(name)? {
        Name::Segment { .. } => {
            let (head, _) = decode_segment_head(bytes, Path::new(name)).ok()?;
            reseal_groups(bytes, head.salt, start)
        }
        Name::Checkpoint { .. } => {
            let decoded = decode_head::<CheckpointHead>(CHECKPOINT_MAGIC, bytes, Path::new(name));
            reseal_blocks(bytes, decoded.ok()?.0.salt, start)
        }
        Name::Node | Name::Meta | Name::Part => None,
    });
}

/// Gives the place where the head ends.
fn reseal_head(bytes: &mut [u8]) -> Option<usize> {
    let length = read_u32(bytes.get(12..BEFORE_BODY)?) as usize;
    let end = BEFORE_BODY + length;
    let checksum = crc32c::crc32c(bytes.get(..end)?);
    let place = bytes.get_mut(end..end + CHECKSUM)?;
    place.copy_from_slice(&checksum.to_le_bytes());
    Some(end + CHECKSUM)
}

/// `None` at the first place where no group begins, or one goes on past the end.
fn reseal_groups(bytes: &mut [u8], salt: u64, mut offset: usize) -> Option<()> {
    loop {
        let (header, rest) = bytes.get_mut(offset..)?.split_at_mut_checked(GROUP_BYTES)?;
        if header[..4] != GROUP_MAGIC {
            return None;
        }
        let placed = placed_checksum(salt, offset as u64, &header[..GROUP_CHECKED]);
        header[GROUP_CHECKED..].copy_from_slice(&placed.to_le_bytes());
        let length = read_u32(&header[8..]) as usize;
        Batch::reseal(rest.get_mut(..length)?);
        offset += GROUP_BYTES + length;
    }
}

/// `None` at the first place where no block begins, or one goes on past the end.
fn reseal_blocks(bytes: &mut [u8], salt: u64, mut offset: usize) -> Option<()> {
    let mut sum = 0;
    loop {
        let (header, rest) = bytes.get_mut(offset..)?.split_at_mut_checked(HEADER)?;
        if header[..4] != BLOCK_MAGIC {
            return None;
        }
        let length = read_u32(&header[8..]) as usize;
        let body = rest.get_mut(..length);
        if let Some(body) = body {
            if read_u32(&header[4..]) == END && length == END_BYTES {
                body[END_BYTES - 4..].copy_from_slice(&u32::to_le_bytes(sum));
            }
            let checksum = crc32c::crc32c(body).to_le_bytes();
            header[BODY_CHECKSUM..BLOCK_CHECKED].copy_from_slice(&checksum);
            sum = crc32c::crc32c_append(sum, &checksum);
        }
        let placed = placed_checksum(salt, offset as u64, &header[..BLOCK_CHECKED]);
        header[BLOCK_CHECKED..].copy_from_slice(&placed.to_le_bytes());
        offset += HEADER + length;
    }
}
