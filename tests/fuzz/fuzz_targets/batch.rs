//! A batch of entries, as it travels and as it lies on disk.
//!
//! The first byte says how the rest is used: as it is, with the checksums that it needs, or as what a batch is to be
//! made of.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use kvservice_fuzz::chain::check_batch;
use kvservice_fuzz::{choice, within_memory};
use kvservice_shared::chain::OpenToken;
use kvservice_shared::codec::{Batch, BatchBuilder, Decision, Effect};
use kvservice_shared::ids::{Epoch, RequestId, Seq, SessionSeq, SessionUuid};
use kvservice_shared::limits;
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

fuzz_target!(|data: &[u8]| {
    let (how, rest) = choice(data);
    match how % 3 {
        0 => decode(rest.to_vec()),
        1 => {
            let mut bytes = rest.to_vec();
            Batch::reseal(&mut bytes);
            decode(bytes);
        }
        _ => {
            // What is too short for a plan is none.
            let _ = Plan::arbitrary_take_rest(Unstructured::new(rest)).map(|plan| make(&plan));
        }
    }
});

fn decode(bytes: Vec<u8>) {
    let mut rest = Bytes::from(bytes);
    loop {
        let before = rest.clone();
        let decoded = within_memory(before.len(), 1, || Batch::decode(&mut rest));
        let Ok(batch) = decoded else { return };
        assert_eq!([&batch.bytes()[..], &rest[..]].concat(), before);
        check_batch(&batch);
    }
}

#[derive(Arbitrary, Debug)]
struct Plan {
    term: u32,
    number: u64,
    first: u64,
    entries: Vec<Planned>,
}

#[derive(Arbitrary, Debug)]
struct Planned {
    evict: Vec<u64>,
    session: u64,
    request: u64,
    hash: u64,
    what: What,
}

#[derive(Arbitrary, Debug)]
enum What {
    Open([u8; 16], u64, u64),
    Set(String, Vec<u8>),
    Swapped(String, Vec<u8>),
    NotSwapped(Option<(Vec<u8>, u64)>),
    Deleted(String),
    NothingToDelete,
}

/// Makes a batch of what a head could have decided, and takes it apart again.
fn make(plan: &Plan) {
    let Plan { term, number, .. } = *plan;
    // Room for the entries above, and for a session below.
    let first = plan
        .first
        .clamp(2, u64::MAX - 1 - plan.entries.len() as u64);
    let mut builder = BatchBuilder::new(Epoch { term, number }, Seq(first));
    let mut expected = Vec::new();
    for (planned, seq) in plan.entries.iter().zip(first..) {
        let Some(effect) = effect(planned, seq) else {
            return;
        };
        let evict = planned.evict.iter().take(255);
        let evict: Vec<_> = evict.map(|raw| SessionSeq(Seq(*raw))).collect();
        builder.push(&evict, &effect);
        expected.push((Seq(seq), evict, effect));
    }
    if builder.is_empty() {
        return;
    }
    let made = builder.finish();
    let decoded = Batch::decode(&mut made.bytes().clone());
    assert_eq!(decoded.as_ref(), Ok(&made));
    let entries = made.entries().map(|e| (e.seq, e.evict, e.effect));
    assert!(entries.eq(expected));
    check_batch(&made);
}

fn effect(planned: &Planned, seq: u64) -> Option<Effect<'_>> {
    let key = |key: &'_ str| (1..=limits::KEY_BYTES_MAX).contains(&key.len());
    let decision = match &planned.what {
        What::Open(name, front_end, ticket) => {
            return Some(Effect::Open {
                uuid: SessionUuid(Uuid::from_bytes(*name)),
                token: OpenToken {
                    front_end: *front_end,
                    ticket: *ticket,
                },
            });
        }
        What::Set(k, value) if key(k) => Decision::Set { key: k, value },
        What::Swapped(k, value) if key(k) => Decision::Swapped { key: k, value },
        What::Deleted(k) if key(k) => Decision::Deleted { key: k },
        What::NothingToDelete => Decision::NothingToDelete,
        What::NotSwapped(found) => Decision::NotSwapped {
            found: found.as_ref().map(|(value, _)| &value[..]),
            revision: match found {
                Some((_, revision)) => Seq((*revision).clamp(1, seq - 1)),
                None => Seq::ZERO,
            },
        },
        _ => return None,
    };
    Some(Effect::Write {
        session: SessionSeq(Seq(planned.session.clamp(1, seq - 1))),
        request: RequestId(planned.request.clamp(1, RequestId::MAX.0)),
        hash: planned.hash,
        decision,
    })
}
