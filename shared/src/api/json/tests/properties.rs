//! Round trips; truncation and noise.

use crate::api::json::plain::decode_plain;
use crate::api::json::requests::decode_any;
use crate::api::json::{decode_requests, decode_responses, requests_to_json, responses_to_json};
use crate::api::{
    ApiError, ChainEvent, ErrorCode, EventKind, FrontEndStatus, LearnerPhase, LearnerStatus,
    Limits, ListEntry, MemberStatus, Mode, Op, OpKind, Outcome, Reply, Request, Response, Role,
    Status, StorageKind, Value,
};
use crate::ids::{RequestId, Seq, SessionUuid};
use crate::testing::cases;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn text() -> impl Strategy<Value = String> {
    // Every kind of character that JSON escapes, and some that it does not.
    let special = prop::sample::select(vec!['"', '\\', '/', '\n', '\0', '\u{1f}', '\u{7f}', '😀']);
    let chars = prop_oneof![special, any::<char>()];
    // Long ones too: they are written in pieces.
    prop_oneof![9 => vec(chars.clone(), 0..16), 1 => vec(chars, 60..80)]
        .prop_map(|chars| chars.into_iter().collect())
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(Value::from),
        vec(any::<u8>(), 0..40).prop_map(Value::from)
    ]
}

fn key() -> impl Strategy<Value = String> {
    text().prop_filter("not empty", |key| !key.is_empty())
}

fn session() -> impl Strategy<Value = SessionUuid> {
    any::<u128>().prop_map(|bits| SessionUuid(uuid::Uuid::from_u128(bits)))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        key().prop_map(|key| Op::Get { key }),
        (key(), value()).prop_map(|(key, value)| Op::Set { key, value }),
        (key(), option::of(value()), value()).prop_map(|(key, test, value)| Op::TestSet {
            key,
            test,
            value
        }),
        key().prop_map(|key| Op::Delete { key }),
        (text(), text(), 1..=1000u32).prop_map(|(prefix, after, limit)| Op::List {
            prefix,
            after,
            limit
        }),
        Just(Op::Status),
        session().prop_map(|session| Op::Hello { session }),
    ]
}

fn id() -> impl Strategy<Value = RequestId> {
    (1..=RequestId::MAX.0).prop_map(RequestId)
}

fn request() -> impl Strategy<Value = Request> {
    (id(), op()).prop_map(|(id, op)| Request { id, op })
}

fn seq() -> impl Strategy<Value = Seq> {
    any::<u64>().prop_map(Seq)
}

fn pick<T: Clone + std::fmt::Debug + 'static>(of: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(of.to_vec())
}

fn member() -> impl Strategy<Value = MemberStatus> {
    let role = pick(&[Role::Head, Role::Middle, Role::Tail, Role::Single]);
    let storage = pick(&[StorageKind::Disk, StorageKind::Memory]);
    let points = (seq(), seq(), seq(), seq());
    (
        text(),
        text(),
        role,
        option::of(text()),
        option::of(text()),
        points,
        text(),
        storage,
    )
        .prop_map(
            |(node, address, role, next, second, points, hash, storage)| {
                let (durable, stable, committed, applied) = points;
                MemberStatus {
                    node,
                    address,
                    role,
                    next,
                    second,
                    durable,
                    stable,
                    committed,
                    applied,
                    hash,
                    storage,
                }
            },
        )
}

fn learner() -> impl Strategy<Value = LearnerStatus> {
    let phase = pick(&[
        LearnerPhase::Snapshot,
        LearnerPhase::Log,
        LearnerPhase::Joint,
    ]);
    (
        text(),
        text(),
        phase,
        any::<u64>(),
        any::<u64>(),
        any::<u64>(),
    )
        .prop_map(
            |(node, address, phase, behind, received_bytes, total_bytes)| LearnerStatus {
                node,
                address,
                phase,
                behind,
                received_bytes,
                total_bytes,
            },
        )
}

fn event() -> impl Strategy<Value = ChainEvent> {
    let kind = pick(&[EventKind::Founded, EventKind::JoinFailed, EventKind::Failed]);
    let names = (option::of(text()), option::of(text()), option::of(text()));
    (
        any::<u64>(),
        any::<u64>(),
        kind,
        names,
        option::of(any::<u64>()),
    )
        .prop_map(
            |(at_ms, epoch, kind, (node, from, to), took_ms)| ChainEvent {
                at_ms,
                epoch,
                kind,
                node,
                from,
                to,
                took_ms,
            },
        )
}

fn status() -> impl Strategy<Value = Status> {
    let front_end = (option::of(text()), option::of(text()))
        .prop_map(|(head, second)| FrontEndStatus { head, second });
    let mode = pick(&[Mode::Chain, Mode::Single]);
    let rest = (vec(event(), 0..3), option::of(text()));
    (
        mode,
        option::of(text()),
        any::<u64>(),
        vec(member(), 0..3),
        vec(learner(), 0..3),
        front_end,
        rest,
    )
        .prop_map(
            |(mode, cluster, epoch, members, learners, front_end, (events, waiting))| Status {
                mode,
                cluster,
                epoch,
                members,
                learners,
                front_end,
                events,
                waiting,
            },
        )
}

fn entry() -> impl Strategy<Value = ListEntry> {
    (key(), value(), seq()).prop_map(|(key, value, revision)| ListEntry {
        key,
        value,
        revision,
    })
}

fn reply() -> impl Strategy<Value = (OpKind, Reply)> {
    let hello = (
        session(),
        any::<bool>(),
        option::of(text()),
        any::<u32>(),
        text(),
    )
        .prop_map(
            |(session, resumed, opened, protocol, server)| Reply::Hello {
                session,
                resumed,
                opened: opened.map(Into::into),
                protocol,
                server,
                limits: Limits::CURRENT,
            },
        );
    prop_oneof![
        (option::of(value()), seq())
            .prop_map(|(value, revision)| (OpKind::Get, Reply::Get { value, revision })),
        (value(), seq())
            .prop_map(|(value, revision)| (OpKind::Set, Reply::Set { value, revision })),
        (any::<bool>(), option::of(value()), seq()).prop_map(|(swapped, value, revision)| {
            (
                OpKind::TestSet,
                Reply::TestSet {
                    swapped,
                    value,
                    revision,
                },
            )
        }),
        (any::<bool>(), seq())
            .prop_map(|(deleted, revision)| (OpKind::Delete, Reply::Delete { deleted, revision })),
        (vec(entry(), 0..4), any::<bool>())
            .prop_map(|(entries, more)| (OpKind::List, Reply::List { entries, more })),
        status().prop_map(|status| (OpKind::Status, Reply::Status(Box::new(status)))),
        hello.prop_map(|hello| (OpKind::Hello, hello)),
    ]
}

fn error() -> impl Strategy<Value = ApiError> {
    (
        pick(&ErrorCode::ALL),
        text(),
        pick(&[Outcome::NotApplied, Outcome::Unknown]),
    )
        .prop_map(|(code, message, outcome)| ApiError {
            code,
            message,
            outcome,
        })
}

/// What was asked, and the answer to it.
fn answer() -> impl Strategy<Value = (OpKind, Result<Reply, ApiError>)> {
    prop_oneof![
        4 => reply().prop_map(|(kind, reply)| (kind, Ok(reply))),
        1 => (pick(&OpKind::ALL), error()).prop_map(|(kind, error)| (kind, Err(error))),
    ]
}

/// Answers under the ids 1, 2, 3, …
fn answers() -> impl Strategy<Value = (Vec<OpKind>, Vec<Response>)> {
    vec(answer(), 1..5).prop_map(|answers| {
        let (kinds, results): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
        let response = |(id, result)| Response {
            id: Some(RequestId(id)),
            result,
        };
        (kinds, (1..).zip(results).map(response).collect())
    })
}

fn kind_in(kinds: &[OpKind]) -> impl Fn(RequestId) -> Option<OpKind> {
    |id| kinds.get(usize::try_from(id.0).ok()? - 1).copied()
}

/// Text that a client might have meant as a request.
fn almost_a_request() -> impl Strategy<Value = String> {
    let json = prop_oneof![
        Just("null".to_owned()),
        Just("{\"base64\":\"/w==\"}".to_owned()),
        Just("{}".to_owned()),
        Just("[1]".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f32>().prop_map(|number| number.to_string()),
        pick(&OpKind::ALL).prop_map(|kind| format!("\"{}\"", kind.as_str())),
        text().prop_map(|text| serde_json::to_string(&text).expect("a string")),
    ];
    let names = [
        "id", "op", "key", "value", "test", "prefix", "after", "limit", "session", "x", "i\\u0064",
    ];
    let field = (prop::sample::select(names.to_vec()), json)
        .prop_map(|(name, value)| format!("\"{name}\":{value}"));
    vec(field, 0..6).prop_map(|fields| format!("{{{}}}", fields.join(",")))
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn requests_come_back(requests in vec(request(), 1..5)) {
        for request in &requests {
            let decoded = decode_requests(&request.to_json());
            prop_assert!(!decoded.batch);
            prop_assert_eq!(&decoded.requests, &[Ok(request.clone())]);
        }
        let decoded = decode_requests(&requests_to_json(&requests));
        prop_assert!(decoded.batch);
        prop_assert_eq!(decoded.requests, requests.into_iter().map(Ok).collect::<Vec<_>>());
    }

    #[test]
    fn responses_come_back((kinds, responses) in answers()) {
        for response in &responses {
            let back = decode_responses(&response.to_json(), kind_in(&kinds));
            prop_assert_eq!(back, Ok(vec![response.clone()]));
        }
        let back = decode_responses(&responses_to_json(&responses), kind_in(&kinds));
        prop_assert_eq!(back, Ok(responses));
    }

    #[test]
    fn values_and_entries_come_back_through_serde(entry in entry()) {
        let json = serde_json::to_string(&entry).expect("plain data");
        let is_text = entry.value.as_str().is_some();
        prop_assert_eq!(json.contains("\"value\":{\"base64\":"), !is_text);
        prop_assert_eq!(serde_json::from_str::<ListEntry>(&json).expect("what was written"), entry);
    }

    #[test]
    fn a_truncated_frame_of_requests_is_refused_whole(requests in vec(request(), 1..4), batch: bool) {
        let json = if batch { requests_to_json(&requests) } else { requests[0].to_json() };
        for (end, _) in json.char_indices() {
            let decoded = decode_requests(&json[..end]);
            prop_assert_eq!(decoded.requests.len(), 1);
            prop_assert!(!decoded.batch);
            let refusal = decoded.requests[0].as_ref().expect_err("cut off");
            prop_assert_eq!(refusal.id, None);
        }
    }

    #[test]
    fn a_truncated_frame_of_responses_is_an_error((kinds, responses) in answers()) {
        for json in [responses_to_json(&responses), responses[0].to_json()] {
            for (end, _) in json.char_indices() {
                prop_assert!(decode_responses(&json[..end], kind_in(&kinds)).is_err());
            }
        }
    }

    #[test]
    fn any_text_is_answered_and_harms_nobody(text in prop_oneof![any::<String>(), text()]) {
        prop_assert!(!decode_requests(&text).requests.is_empty());
        let _ = decode_responses(&text, |_| Some(OpKind::Get));
    }

    /// The fast path and the slow one agree, and what passes means what it says: written again it
    /// is read as the same.
    #[test]
    fn what_passes_is_well_formed(texts in vec(almost_a_request(), 1..4)) {
        let batch = decode_requests(&format!("[{}]", texts.join(",")));
        prop_assert!(batch.batch);
        prop_assert_eq!(batch.requests.len(), texts.len());
        for (text, in_batch) in texts.iter().zip(batch.requests) {
            let alone = decode_requests(text).requests.remove(0);
            prop_assert_eq!(&alone, &in_batch);
            if let Ok(request) = alone {
                let again = decode_requests(&request.to_json()).requests.remove(0);
                prop_assert_eq!(again, Ok(request));
            }
        }
    }

    /// What the short cut takes, it reads as the long way does; and it takes what is written here of keys and
    /// values without escapes.
    #[test]
    fn the_short_cut_leads_to_the_same(
        requests in vec(request(), 1..4), batch: bool, flips in vec((any::<prop::sample::Index>(), 0..128u8), 0..3),
    ) {
        let json = if batch { requests_to_json(&requests) } else { requests[0].to_json() };
        let known = [OpKind::Get, OpKind::Set, OpKind::TestSet, OpKind::Delete];
        let asked = if batch { &requests[..] } else { &requests[..1] };
        let plain = !json.contains('\\') && !json.contains("base64")
            && asked.iter().all(|request| known.contains(&request.op.kind()));
        prop_assert_eq!(decode_plain(&json).is_some(), plain, "{}", json);
        let mut bytes = json.into_bytes();
        for (at, with) in flips {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        if let Ok(text) = String::from_utf8(bytes)
            && let Some(short) = decode_plain(&text)
        {
            prop_assert_eq!(short, decode_any(&text), "{}", text);
        }
    }

    /// A flipped byte is refused or read as something else, and is never a panic.
    #[test]
    fn a_flipped_byte_is_no_panic(request in request(), at: prop::sample::Index, with in 0..128u8) {
        let mut bytes = request.to_json().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Ok(text) = String::from_utf8(bytes) {
            prop_assert_eq!(decode_requests(&text).requests.len(), 1);
        }
    }
}

/// Of each ASCII character: the short cut takes it where the long way does, and it is written so that it is read again.
#[test]
fn each_character_is_escaped_where_it_must_be() {
    for character in (0..128_u8).map(char::from) {
        let text = format!(r#"{{"id":1,"op":"set","key":"k{character}","value":"{character}"}}"#);
        if let Some(short) = decode_plain(&text) {
            assert_eq!(short, decode_any(&text), "{text:?}");
        }
        let key = format!("k{character}");
        let request = Request {
            id: RequestId(1),
            op: Op::Get { key },
        };
        let json = request.to_json();
        let read: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
        assert_eq!(read["key"], format!("k{character}"), "{json}");
        assert_eq!(decode_requests(&json).requests, [Ok(request)]);
    }
}
