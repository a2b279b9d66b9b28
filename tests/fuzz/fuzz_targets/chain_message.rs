//! A frame between nodes, or between a node and the front-end.
//!
//! The first byte says how the rest is used: from 128 on it is a frame as it is, below that the body of a frame of
//! that kind, with the checksums that it needs.
#![no_main]

use bytes::Bytes;
use kvservice_fuzz::chain::{check_batch, sealed_frame};
use kvservice_fuzz::{choice, flipped, within_memory};
use kvservice_shared::chain::{Downstream, FromNode, LinkHello, LinkReply, ToNode, Upstream};
use kvservice_shared::codec::ChainMessage;
use libfuzzer_sys::fuzz_target;
use std::fmt::Debug;

/// A list of small things takes so many times more in memory than in a frame.
const BYTES_EACH: usize = 64;

fuzz_target!(|data: &[u8]| {
    let (kind, rest) = choice(data);
    let frame = Bytes::from(match kind {
        128.. => rest.to_vec(),
        kind => sealed_frame(kind % 12, rest),
    });
    let taken_by = [
        check::<ToNode>(&frame),
        check::<FromNode>(&frame),
        check::<LinkHello>(&frame),
        check::<LinkReply>(&frame),
        check::<Upstream>(&frame),
        check::<Downstream>(&frame),
    ];
    let ends = taken_by.into_iter().filter(|taken| *taken).count();
    assert!(ends <= 1, "{ends} ends take the same frame");
    if let Ok(Downstream::Append { batches, .. }) = Downstream::decode(frame) {
        batches.iter().for_each(check_batch);
    }
});

/// Whether an end that takes such messages takes this one.
fn check<M: ChainMessage + Debug + PartialEq>(frame: &Bytes) -> bool {
    let decoded = within_memory(frame.len(), BYTES_EACH, || M::decode(frame.clone()));
    let Ok(message) = decoded else { return false };
    let encoded = message.encode();
    assert!(encoded.len() <= frame.len(), "the shortest form is ours");
    assert_eq!(M::decode(encoded.clone()).as_ref(), Ok(&message));
    let damaged = M::decode(flipped(&encoded).into());
    assert!(damaged.is_err(), "a bit was flipped: {damaged:?}");
    let cut = M::decode(encoded.slice(..encoded.len() - 1));
    assert!(cut.is_err(), "cut off: {cut:?}");
    true
}
