//! Frames and batches with the checksums that they need: without them a fuzzer never gets past the first check.

use bytes::Bytes;
use kvservice_shared::codec::{Batch, BatchBuilder, CHAIN_VERSION, Entry};

const APPEND: u8 = 9;
const APPEND_HEADER: usize = 33;

/// A frame of this kind around a body: as a peer that means harm would make it.
pub fn sealed_frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let covered = match kind {
        APPEND => body.len().min(APPEND_HEADER),
        _ => body.len(),
    };
    if kind == APPEND {
        Batch::reseal(&mut body[covered..]);
    }
    let head = [CHAIN_VERSION, kind];
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head), &body[..covered]);
    [&head[..], &checksum.to_le_bytes(), &body].concat()
}

/// The same batch made anew, entry by entry.
pub fn rebuilt(batch: &Batch) -> Batch {
    let mut builder = BatchBuilder::new(batch.epoch(), batch.first());
    for Entry { seq, evict, effect } in batch.entries() {
        assert_eq!(seq, builder.next_seq());
        builder.push(&evict, &effect);
    }
    builder.finish()
}

/// What must hold of a batch that was accepted.
///
/// # Panics
/// Where it does not.
pub fn check_batch(batch: &Batch) {
    assert_eq!(rebuilt(batch).bytes(), batch.bytes(), "made anew");
    let entries = batch.entries().count() as u64;
    assert_eq!(batch.last().0 - batch.first().0 + 1, entries);
    let mut damaged = Bytes::from(crate::flipped(batch.bytes()));
    let found = Batch::decode(&mut damaged);
    assert!(found.is_err(), "a bit was flipped: {found:?}");
}
