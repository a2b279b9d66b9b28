//! Every example in `docs/client-protocol.md` is what the code reads and writes, byte for byte.

mod document;

use document::{Example, examples};
use kvservice_shared::api::json::{
    decode_requests, decode_responses, requests_to_json, responses_to_json,
};
use kvservice_shared::api::{DumpLine, ErrorCode, OpKind};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[cfg(target_arch = "wasm32")]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

#[test]
fn requests_read_and_come_back() {
    let mut kinds = Vec::new();
    for example in examples() {
        let Example::Request { frame } = example else {
            continue;
        };
        let decoded = decode_requests(frame);
        let requests: Vec<_> = decoded
            .requests
            .into_iter()
            .map(|request| request.expect(frame))
            .collect();
        kinds.extend(requests.iter().map(|request| request.op.kind()));
        let again = match (&requests[..], decoded.batch) {
            (requests, true) => requests_to_json(requests),
            ([request], false) => request.to_json(),
            _ => panic!("several, and no array: {frame}"),
        };
        // Fields that may be left out are written.
        if !frame.contains(r#""op":"list"}"#) {
            assert_eq!(again, frame);
        }
    }
    for kind in OpKind::ALL {
        assert!(
            kinds.contains(&kind),
            "the reference has no example of {}",
            kind.as_str()
        );
    }
}

#[test]
fn responses_read_and_come_back() {
    let mut kinds = Vec::new();
    let mut codes = Vec::new();
    for example in examples() {
        let Example::Response { to, frame } = example else {
            continue;
        };
        // An error can answer anything.
        let kind = OpKind::named(to).unwrap_or(OpKind::Set);
        let responses = decode_responses(frame, |_| Some(kind)).expect(frame);
        for response in &responses {
            match &response.result {
                Ok(_) => kinds.push(kind),
                Err(error) => {
                    assert_eq!(to, "error", "{frame}: {error}");
                    codes.push(error.code);
                }
            }
        }
        let again = match &responses[..] {
            [response] => response.to_json(),
            responses => responses_to_json(responses),
        };
        assert_eq!(again, frame);
    }
    for kind in OpKind::ALL {
        assert!(
            kinds.contains(&kind),
            "the reference shows no answer to {}",
            kind.as_str()
        );
    }
    assert!(codes.contains(&ErrorCode::BadRequest) && codes.contains(&ErrorCode::Timeout));
}

#[test]
fn lines_of_a_dump_read_and_come_back() {
    let mut again = String::new();
    let mut lines = String::new();
    for example in examples() {
        let Example::Dump { line } = example else {
            continue;
        };
        lines.push_str(line);
        lines.push('\n');
        match DumpLine::parse(line.as_bytes()).expect(line) {
            DumpLine::Entry(entry) => entry.write_dump_line(&mut again),
            DumpLine::End(end) => end.write_dump_line(&mut again),
        }
    }
    assert_eq!(again, lines);
    assert!(
        lines.ends_with("\"keys\":2}\n"),
        "the reference has no dump"
    );
}
