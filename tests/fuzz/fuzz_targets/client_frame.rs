//! A client's text frame, as the front-end reads it.
#![no_main]

use kvservice_fuzz::within_memory;
use kvservice_shared::api::json::{decode_requests, requests_to_json};
use kvservice_shared::api::{Op, Request, Response, Value};
use kvservice_shared::ids::RequestId;
use kvservice_shared::limits;
use libfuzzer_sys::fuzz_target;

/// No refusal says more than this: what a client sends must not come back many times over.
const REFUSAL_BYTES_MAX: usize = 400;

fuzz_target!(|text: &str| {
    let decoded = within_memory(text.len(), 64, || decode_requests(text));
    assert!((1..=limits::BATCH_REQUESTS_MAX).contains(&decoded.requests.len()));
    assert!(decoded.batch || decoded.requests.len() == 1);
    decoded.requests.iter().for_each(check_one);
    check_alone_and_in_a_batch(text, &decoded.requests, decoded.batch);

    let accepted: Vec<Request> = decoded.requests.into_iter().flatten().collect();
    for request in &accepted {
        let again = decode_requests(&request.to_json());
        assert!(!again.batch);
        assert_eq!(again.requests, [Ok(request.clone())]);
    }
    if !accepted.is_empty() {
        let again = decode_requests(&requests_to_json(&accepted));
        assert!(again.batch);
        assert!(again.requests.into_iter().eq(accepted.into_iter().map(Ok)));
    }
});

fn check_one(request: &Result<Request, Response>) {
    match request {
        Ok(Request { id, op }) => {
            assert_eq!(RequestId::new(id.0), Some(*id));
            check_limits(op);
        }
        Err(refusal) => {
            let error = refusal.result.as_ref().expect_err("a refusal is an error");
            let length = error.message.len();
            assert!((1..=REFUSAL_BYTES_MAX).contains(&length), "{error}");
        }
    }
}

fn check_limits(op: &Op) {
    let key = |key: &str| assert!((1..=limits::KEY_BYTES_MAX).contains(&key.len()));
    let value = |value: &Value| assert!(value.0.len() <= limits::VALUE_BYTES_MAX);
    match op {
        Op::Get { key: k } | Op::Delete { key: k } => key(k),
        Op::Set { key: k, value: v } => {
            key(k);
            value(v);
        }
        Op::TestSet {
            key: k,
            test,
            value: v,
        } => {
            key(k);
            test.iter().for_each(value);
            value(v);
        }
        Op::List {
            prefix,
            after,
            limit,
        } => {
            assert!(prefix.len() <= limits::KEY_BYTES_MAX);
            assert!(after.len() <= limits::KEY_BYTES_MAX);
            assert!((1..=limits::LIST_ENTRIES_MAX).contains(limit));
        }
        Op::Status | Op::Hello { .. } => {}
    }
}

/// One request is read the same alone, as an element, and beside one that sends all to the slow path.
fn check_alone_and_in_a_batch(text: &str, decoded: &[Result<Request, Response>], is_batch: bool) {
    let is_json = serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok();
    if is_batch || !is_json || text.trim_ascii_start().starts_with('[') {
        return;
    }
    assert_eq!(decode_requests(&format!("[{text}]")).requests, decoded);
    let slow = decode_requests(&format!("[{text},7]")).requests;
    assert_eq!(slow[..1], *decoded);
    assert!(slow.len() == 2 && slow[1].is_err());
}
