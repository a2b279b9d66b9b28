//! What the server refuses, with which words, and under which id.

use super::refused;
use crate::api::ErrorCode;
use crate::api::json::decode_requests;
use crate::ids::RequestId;
use crate::limits::{BATCH_REQUESTS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Frame, id, message.
const BAD: &[(&str, Option<u64>, &str)] = &[
    (
        "",
        None,
        "not JSON: EOF while parsing a value at line 1 column 0",
    ),
    (
        "{",
        None,
        "not JSON: EOF while parsing an object at line 1 column 1",
    ),
    (
        r#"{"id":1,"op":"status"}}"#,
        None,
        "not JSON: trailing characters at line 1 column 23",
    ),
    (
        r#"{"id":1,"op":"get","key":"a""#,
        None,
        "not JSON: EOF while parsing an object at line 1 column 28",
    ),
    (
        "[",
        None,
        "not JSON: EOF while parsing a list at line 1 column 1",
    ),
    (
        r#"[{"id":1,"op":"status"},]"#,
        None,
        "not JSON: trailing comma at line 1 column 25",
    ),
    ("[]", None, "a batch holds at least one request"),
    (" [ ] ", None, "a batch holds at least one request"),
    ("7", None, "a request is a JSON object"),
    (r#""get""#, None, "a request is a JSON object"),
    ("null", None, "a request is a JSON object"),
    (
        "{}",
        None,
        r#""id" is missing; it is a whole number from 1 to 9007199254740991"#,
    ),
    (
        r#"{"op":"status"}"#,
        None,
        r#""id" is missing; it is a whole number from 1 to 9007199254740991"#,
    ),
    (
        r#"{"id":0,"op":"status"}"#,
        None,
        r#""id" must be a whole number from 1 to 9007199254740991"#,
    ),
    (
        r#"{"id":"1","op":"status"}"#,
        None,
        r#""id" must be a whole number from 1 to 9007199254740991"#,
    ),
    (
        r#"{"id":null,"op":"status"}"#,
        None,
        r#""id" must be a whole number from 1 to 9007199254740991"#,
    ),
    (
        r#"{"id":1,"id":1,"op":"status"}"#,
        None,
        r#""id" is given twice"#,
    ),
    (r#"{"id":1}"#, Some(1), r#""op" is missing"#),
    (
        r#"{"id":1,"op":"incr","key":"a"}"#,
        Some(1),
        r#"unknown op "incr""#,
    ),
    (
        r#"{"id":1,"op":"Get","key":"a"}"#,
        Some(1),
        r#"unknown op "Get""#,
    ),
    (r#"{"id":1,"op":7}"#, Some(1), r#""op" must be a string"#),
    (
        r#"{"id":1,"op":"status","op":"status"}"#,
        Some(1),
        r#""op" is given twice"#,
    ),
    (
        r#"{"id":1,"op":"get"}"#,
        Some(1),
        r#"op "get" needs the field "key""#,
    ),
    (
        r#"{"id":1,"op":"get","key":null}"#,
        Some(1),
        r#""key" must be a string"#,
    ),
    (
        r#"{"id":1,"op":"get","key":{"base64":"YQ=="}}"#,
        Some(1),
        r#""key" must be a string"#,
    ),
    (
        r#"{"id":1,"op":"get","key":""}"#,
        Some(1),
        r#""key" is empty"#,
    ),
    (
        r#"{"id":1,"op":"get","key":"a","key":"a"}"#,
        Some(1),
        r#""key" is given twice"#,
    ),
    (
        r#"{"id":1,"op":"get","key":"\ud800"}"#,
        Some(1),
        r#""key" must be a string"#,
    ),
    (
        r#"{"id":1,"op":"get","key":"a","value":"b"}"#,
        Some(1),
        r#"op "get" has no field "value""#,
    ),
    (
        r#"{"id":1,"op":"get","key":"a","test":null}"#,
        Some(1),
        r#"op "get" has no field "test""#,
    ),
    (
        r#"{"id":1,"op":"get","key":"a","ttl":1}"#,
        Some(1),
        r#"op "get" has no field "ttl""#,
    ),
    (
        r#"{"ttl":1,"id":1,"op":"get","key":"a"}"#,
        Some(1),
        r#"op "get" has no field "ttl""#,
    ),
    (r#"{"id":1,"ttl":1}"#, Some(1), r#"unknown field "ttl""#),
    (
        r#"{"id":1,"op":"delete","key":"a","limit":1}"#,
        Some(1),
        r#"op "delete" has no field "limit""#,
    ),
    (
        r#"{"id":1,"op":"set","key":"a"}"#,
        Some(1),
        r#"op "set" needs the field "value""#,
    ),
    (
        r#"{"id":1,"op":"set","key":"a","value":null}"#,
        Some(1),
        r#""value" must be a string or {"base64":"…"}"#,
    ),
    (
        r#"{"id":1,"op":"set","key":"a","value":7}"#,
        Some(1),
        r#""value" must be a string or {"base64":"…"}"#,
    ),
    (
        r#"{"id":1,"op":"set","key":"a","value":{}}"#,
        Some(1),
        r#""value" must be a string or {"base64":"…"}"#,
    ),
    (
        r#"{"id":1,"op":"set","key":"a","value":{"base64":7}}"#,
        Some(1),
        r#""value" must be a string or {"base64":"…"}"#,
    ),
    (
        r#"{"id":1,"op":"set","key":"a","value":{"base64":"YQ==","x":1}}"#,
        Some(1),
        r#""value" must be a string or {"base64":"…"}"#,
    ),
    (
        r#"{"id":1,"op":"set","key":"a","value":{"base64":"YQ==","base64":"YQ=="}}"#,
        Some(1),
        r#""value" must be a string or {"base64":"…"}"#,
    ),
    (
        r#"{"id":1,"op":"set","key":"a","value":{"hex":"00"}}"#,
        Some(1),
        r#""value" must be a string or {"base64":"…"}"#,
    ),
    (
        r#"{"id":1,"op":"set","key":"a","value":{"base64":"Y"}}"#,
        Some(1),
        r#""value": bad base64: Invalid input length: 1"#,
    ),
    (
        r#"{"id":1,"op":"set","key":"a","value":{"base64":"YQ"}}"#,
        Some(1),
        r#""value": bad base64: Invalid padding"#,
    ),
    (
        r#"{"id":1,"op":"set","key":"a","value":{"base64":"Y-=="}}"#,
        Some(1),
        r#""value": bad base64: Invalid symbol 45, offset 1."#,
    ),
    (
        r#"{"id":1,"op":"set","key":"a","test":"b","value":"c"}"#,
        Some(1),
        r#"op "set" has no field "test""#,
    ),
    (
        r#"{"id":1,"op":"testset","key":"a","value":"b"}"#,
        Some(1),
        r#"op "testset" needs the field "test""#,
    ),
    (
        r#"{"id":1,"op":"testset","key":"a","test":"b"}"#,
        Some(1),
        r#"op "testset" needs the field "value""#,
    ),
    (
        r#"{"id":1,"op":"testset","key":"a","test":7,"value":"b"}"#,
        Some(1),
        r#""test" must be a string, {"base64":"…"} or null"#,
    ),
    (
        r#"{"id":1,"op":"testset","key":"a","test":null,"test":null,"value":"b"}"#,
        Some(1),
        r#""test" is given twice"#,
    ),
    (
        r#"{"id":1,"op":"list","limit":0}"#,
        Some(1),
        r#""limit" must be a whole number from 1 to 1000"#,
    ),
    (
        r#"{"id":1,"op":"list","limit":1001}"#,
        Some(1),
        r#""limit" must be a whole number from 1 to 1000"#,
    ),
    (
        r#"{"id":1,"op":"list","limit":-1}"#,
        Some(1),
        r#""limit" must be a whole number from 1 to 1000"#,
    ),
    (
        r#"{"id":1,"op":"list","limit":4294967396}"#,
        Some(1),
        r#""limit" must be a whole number from 1 to 1000"#,
    ),
    (
        r#"{"id":1,"op":"list","limit":null}"#,
        Some(1),
        r#""limit" must be a whole number from 1 to 1000"#,
    ),
    (
        r#"{"id":1,"op":"list","prefix":7}"#,
        Some(1),
        r#""prefix" must be a string"#,
    ),
    (
        r#"{"id":1,"op":"list","key":"a"}"#,
        Some(1),
        r#"op "list" has no field "key""#,
    ),
    (
        r#"{"id":1,"op":"status","session":"67e55044-10b1-426f-9247-bb680e5fe0c8"}"#,
        Some(1),
        r#"op "status" has no field "session""#,
    ),
    (
        r#"{"id":1,"op":"hello"}"#,
        Some(1),
        r#"op "hello" needs the field "session""#,
    ),
    (
        r#"{"id":1,"op":"hello","session":"me"}"#,
        Some(1),
        r#""session" must be a UUID in its 36 characters"#,
    ),
    (
        r#"{"id":1,"op":"hello","session":"67e5504410b1426f9247bb680e5fe0c8"}"#,
        Some(1),
        r#""session" must be a UUID in its 36 characters"#,
    ),
    (
        r#"{"id":1,"op":"get","key":"a","value":7}"#,
        Some(1),
        r#"op "get" has no field "value""#,
    ),
];

#[test]
fn bad_requests_are_refused_by_name() {
    for &(text, id, message) in BAD {
        let (refused_id, error) = refused(text);
        assert_eq!(error.code, ErrorCode::BadRequest, "{text}");
        assert_eq!(error.message, message, "{text}");
        assert_eq!(refused_id, id, "{text}");
    }
}

#[test]
fn in_a_batch_each_gets_its_own_error_and_the_others_run() {
    for &(bad, id, message) in BAD {
        let is_whole = message.starts_with("not JSON") || bad.trim().starts_with('[');
        if is_whole {
            continue;
        }
        let text = format!(r#"[{{"id":5,"op":"status"}},{bad},{{"id":6,"op":"status"}}]"#);
        let decoded = decode_requests(&text);
        assert!(decoded.batch, "{text}");
        let [first, middle, last] = &decoded.requests[..] else {
            panic!("{text}: {decoded:?}")
        };
        assert!(first.is_ok() && last.is_ok(), "{text}");
        let refusal = middle.as_ref().expect_err("bad");
        assert_eq!(refusal.id, id.map(RequestId), "{text}");
        assert_eq!(
            refusal.result.as_ref().expect_err("bad").message,
            message,
            "{text}"
        );
    }
    let nested = decode_requests(r#"[[{"id":5,"op":"status"}],{"id":6,"op":"status"}]"#);
    assert_eq!(nested.requests.iter().filter(|r| r.is_ok()).count(), 1);
}

#[test]
fn over_its_limit_is_too_large_under_its_id() {
    let key = "k".repeat(KEY_BYTES_MAX + 1);
    let value = "v".repeat(VALUE_BYTES_MAX + 1);
    for (text, field, bytes) in [
        (
            format!(r#"{{"id":1,"op":"get","key":"{key}"}}"#),
            "key",
            1025,
        ),
        (
            format!(r#"{{"id":1,"op":"list","prefix":"{key}"}}"#),
            "prefix",
            1025,
        ),
        (
            format!(r#"{{"id":1,"op":"list","after":"{key}"}}"#),
            "after",
            1025,
        ),
        (
            format!(r#"{{"id":1,"op":"set","key":"a","value":"{value}"}}"#),
            "value",
            1_048_577,
        ),
        (
            format!(r#"{{"id":1,"op":"testset","key":"a","test":"{value}","value":""}}"#),
            "test",
            1_048_577,
        ),
    ] {
        let (id, error) = refused(&text);
        assert_eq!((id, error.code), (Some(1), ErrorCode::TooLarge), "{field}");
        let start = format!("\"{field}\" has {bytes} bytes");
        assert!(
            error.message.starts_with(&start),
            "{field}: {}",
            error.message
        );
    }
    // Bytes count, not characters; and the limit itself is allowed.
    let key = "é".repeat(KEY_BYTES_MAX / 2);
    assert!(
        decode_requests(&format!(r#"{{"id":1,"op":"get","key":"{key}"}}"#)).requests[0].is_ok()
    );
    let (_, error) = refused(&format!(r#"{{"id":1,"op":"get","key":"{key}é"}}"#));
    assert_eq!(error.code, ErrorCode::TooLarge);
}

#[test]
fn a_batch_has_a_limit() {
    let one = r#"{"id":1,"op":"status"}"#;
    let bad = r#"{"id":1,"op":"boo"}"#;
    let batch = |of: &[&str]| format!("[{}]", of.join(","));
    for filler in [one, bad, "7"] {
        let full = decode_requests(&batch(&vec![filler; BATCH_REQUESTS_MAX]));
        assert!(full.batch);
        assert_eq!(full.requests.len(), BATCH_REQUESTS_MAX);
        for over in [BATCH_REQUESTS_MAX + 1, 10_000] {
            let (id, error) = refused(&batch(&vec![filler; over]));
            assert_eq!((id, error.code), (None, ErrorCode::TooLarge), "{filler}");
            assert_eq!(error.message, "a batch holds at most 1024 requests");
        }
    }
}

#[test]
fn a_hostile_frame_costs_little() {
    // Deep nesting, where a value is due and where nothing is: no stack, no more memory than bytes.
    let deep = "[".repeat(1_000_000);
    assert_eq!(refused(&deep).1.code, ErrorCode::BadRequest);
    let deep = format!(
        r#"{{"id":1,"op":"set","key":"a","value":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(refused(&deep).1.code, ErrorCode::BadRequest);
    // Very many fields: the id is found all the same.
    let many = format!(r#"{{{}"id":7}}"#, r#""x":1,"#.repeat(200_000));
    let (id, error) = refused(&many);
    assert_eq!(
        (id, error.message.as_str()),
        (Some(7), r#"unknown field "x""#)
    );
    // A very long name is not repeated at length.
    let (_, error) = refused(&format!(r#"{{"id":7,"op":"{}"}}"#, "x".repeat(1_000_000)));
    assert!(error.message.len() < 100, "{}", error.message.len());
    let (_, error) = refused(&format!(r#"{{"id":7,"{}":1}}"#, "é".repeat(1_000_000)));
    assert!(error.message.len() < 200, "{}", error.message.len());
}
