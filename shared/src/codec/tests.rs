//! Every message comes back as it was; whatever else is in a frame is an error, and costs little.

mod messages;

use super::{Batch, CHAIN_VERSION, ChainMessage, CodecError, Entry};
use crate::chain::{Downstream, FromNode, LinkHello, LinkReply, OpenToken, ToNode, Upstream};
use crate::ids::{Epoch, Seq, SessionSeq, SessionUuid};
use crate::testing::cases;
use bytes::{BufMut, Bytes, BytesMut};
use messages::{
    batch_parts, build, downstream, effect, from_node, link_hello, link_reply, to_node, upstream,
};
use proptest::prelude::*;
use proptest::sample::Index;
use std::fmt::Debug;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn comes_back<M: ChainMessage + Debug + PartialEq>(message: &M) -> Result<(), TestCaseError> {
    prop_assert_eq!(&M::decode(message.encode()).unwrap(), message);
    Ok(())
}

/// Cut off, with a byte changed, or with one more.
fn damage_is_noticed<M: ChainMessage + Debug>(
    message: &M,
    at: Index,
    mask: u8,
) -> Result<(), TestCaseError> {
    let frame = message.encode();
    let cut = M::decode(frame.slice(..at.index(frame.len())));
    prop_assert!(cut.is_err(), "cut off: {:?}", cut);

    let mut flipped = frame.to_vec();
    flipped[at.index(frame.len())] ^= mask;
    let flipped = M::decode(flipped.into());
    prop_assert!(flipped.is_err(), "a byte changed: {:?}", flipped);

    let longer = M::decode([&frame[..], &[mask]].concat().into());
    prop_assert!(longer.is_err(), "one more: {:?}", longer);
    Ok(())
}

/// A peer that means harm gives its frames the right checksums: what they say is still taken apart with care.
fn decoding_ends<M: ChainMessage>(body: &[u8]) {
    for kind in 0..=10 {
        let _ = M::decode(sealed(kind, body));
    }
}

/// A frame whose checksum holds: of all of it, and where it is short enough of an `Append`'s header.
fn sealed(kind: u8, body: &[u8]) -> Bytes {
    const APPEND: u8 = 9;
    const APPEND_HEADER: usize = 33;
    let covered = match kind {
        APPEND => body.len().min(APPEND_HEADER),
        _ => body.len(),
    };
    let head = [CHAIN_VERSION, kind];
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&head), &body[..covered]);
    let mut frame = BytesMut::new();
    frame.put_slice(&head);
    frame.put_u32_le(checksum);
    frame.put_slice(body);
    frame.freeze()
}

/// A batch with these bytes after its checksum, and the checksum that they need.
fn sealed_batch(mut batch: Vec<u8>) -> Bytes {
    let checksum = crc32c::crc32c(&batch[4..]);
    batch[..4].copy_from_slice(&checksum.to_le_bytes());
    batch.into()
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn messages_come_back(
        to_node in to_node(),
        from_node in from_node(),
        hello in link_hello(),
        reply in link_reply(),
        downstream in downstream(),
        upstream in upstream(),
    ) {
        comes_back(&to_node)?;
        comes_back(&from_node)?;
        comes_back(&hello)?;
        comes_back(&reply)?;
        comes_back(&downstream)?;
        comes_back(&upstream)?;
    }

    #[test]
    fn damaged_frames_are_errors(
        to_node in to_node(),
        from_node in from_node(),
        hello in link_hello(),
        reply in link_reply(),
        downstream in downstream(),
        upstream in upstream(),
        at: Index,
        mask in 1..=u8::MAX,
    ) {
        damage_is_noticed(&to_node, at, mask)?;
        damage_is_noticed(&from_node, at, mask)?;
        damage_is_noticed(&hello, at, mask)?;
        damage_is_noticed(&reply, at, mask)?;
        damage_is_noticed(&downstream, at, mask)?;
        damage_is_noticed(&upstream, at, mask)?;
    }

    #[test]
    fn an_end_takes_only_what_it_may_be_sent(to_node in to_node(), downstream in downstream()) {
        prop_assert!(matches!(FromNode::decode(to_node.encode()), Err(CodecError::Kind(_))));
        prop_assert!(matches!(Upstream::decode(downstream.encode()), Err(CodecError::Kind(_))));
        prop_assert!(matches!(Downstream::decode(to_node.encode()), Err(CodecError::Kind(_))));
    }

    #[test]
    fn hostile_bodies_are_no_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        decoding_ends::<ToNode>(&body);
        decoding_ends::<FromNode>(&body);
        decoding_ends::<LinkHello>(&body);
        decoding_ends::<LinkReply>(&body);
        decoding_ends::<Downstream>(&body);
        decoding_ends::<Upstream>(&body);
    }

    #[test]
    fn messages_with_a_byte_changed_and_the_right_checksum_are_no_panic(
        from_node in from_node(),
        downstream in downstream(),
        at: Index,
        mask in 1..=u8::MAX,
    ) {
        const HEADER: usize = 6;
        for frame in [from_node.encode(), downstream.encode()] {
            let mut body = frame[HEADER..].to_vec();
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] ^= mask;
            }
            let sealed = sealed(frame[1], &body);
            // It may mean something else: then that comes back as itself.
            if let Ok(other) = FromNode::decode(sealed.clone()) {
                comes_back(&other)?;
            }
            if let Ok(other) = Downstream::decode(sealed) {
                comes_back(&other)?;
            }
        }
    }

    #[test]
    fn batches_come_back((epoch, first, parts) in batch_parts(), after: Vec<u8>) {
        let made = build(epoch, first, &parts);
        let mut bytes = Bytes::from([&made.bytes()[..], &after].concat());
        let batch = Batch::decode(&mut bytes).unwrap();
        prop_assert_eq!(&bytes[..], &after[..], "it takes what is its own");
        prop_assert_eq!(&batch, &made);
        prop_assert_eq!(batch.epoch(), epoch);
        prop_assert_eq!(batch.first(), first);
        prop_assert_eq!(batch.last(), Seq(first.0 + parts.len() as u64 - 1));
        let expected = parts.iter().zip(first.0..).map(|((evict, made), seq)| Entry {
            seq: Seq(seq),
            evict: evict.iter().map(|raw| SessionSeq(Seq(*raw))).collect(),
            effect: effect(made, Seq(seq)),
        });
        prop_assert!(batch.entries().eq(expected));
    }

    #[test]
    fn a_batch_with_a_byte_changed_is_an_error(
        (epoch, first, parts) in batch_parts(),
        at: Index,
        mask in 1..=u8::MAX,
    ) {
        let batch = build(epoch, first, &parts);
        let mut flipped = batch.bytes().to_vec();
        flipped[at.index(batch.bytes().len())] ^= mask;
        prop_assert!(Batch::decode(&mut flipped.into()).is_err());
        let mut cut = batch.bytes().slice(..at.index(batch.bytes().len()));
        prop_assert!(Batch::decode(&mut cut).is_err());
    }

    #[test]
    fn a_batch_with_a_byte_changed_and_the_right_checksum_is_no_panic(
        (epoch, first, parts) in batch_parts(),
        at: Index,
        mask in 1..=u8::MAX,
    ) {
        let batch = build(epoch, first, &parts);
        let mut hostile = batch.bytes().to_vec();
        let at = at.index(hostile.len());
        hostile[at] ^= mask;
        let mut hostile = sealed_batch(hostile);
        if let Ok(other) = Batch::decode(&mut hostile) {
            // What was accepted can be read to its end.
            let last = other.entries().last().map(|entry| entry.seq);
            prop_assert_eq!(last, Some(other.last()));
        }
    }
}

#[test]
fn a_peer_of_another_version_is_told_so() {
    let mut frame = ToNode::Beat.encode().to_vec();
    frame[0] = CHAIN_VERSION + 1;
    let error = ToNode::decode(frame.into()).unwrap_err();
    assert_eq!(error, CodecError::Version(CHAIN_VERSION + 1));
    assert!(error.to_string().contains("same version everywhere"));
}

#[test]
fn an_append_with_a_gap_is_an_error() {
    let entry = (vec![], messages::Made::Open(some_uuid(), some_token()));
    let batch = |first| build(Epoch::NONE.next(), Seq(first), std::slice::from_ref(&entry));
    let append = |batches| Downstream::Append {
        epoch: Epoch::NONE.next(),
        settle: None,
        committed: Seq::ZERO,
        batches,
    };
    assert!(Downstream::decode(append(vec![batch(5), batch(6)]).encode()).is_ok());
    for firsts in [[5, 7], [5, 5], [6, 5]] {
        let broken = append(firsts.map(batch).to_vec());
        let error = Downstream::decode(broken.encode()).unwrap_err();
        assert_eq!(error, CodecError::Invalid("append order"));
    }
}

fn some_uuid() -> SessionUuid {
    SessionUuid(uuid::Uuid::from_u128(7))
}

fn some_token() -> OpenToken {
    OpenToken {
        front_end: 1,
        ticket: 2,
    }
}
