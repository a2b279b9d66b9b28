//! Every line of the protocol's table, both ways, byte for byte.

use super::{read, refused};
use crate::api::json::{decode_requests, decode_responses, requests_to_json, responses_to_json};
use crate::api::{
    ApiError, ErrorCode, Limits, ListEntry, Op, OpKind, Outcome, Reply, Request, Response, Value,
};
use crate::ids::{RequestId, Seq, SessionUuid};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

const UUID: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

fn session() -> SessionUuid {
    SessionUuid(uuid::Uuid::parse_str(UUID).expect("a UUID"))
}

fn request(id: u64, op: Op) -> Request {
    Request {
        id: RequestId(id),
        op,
    }
}

#[test]
fn requests_of_the_table_read_and_write() {
    let key = || "color".to_owned();
    let hello = format!(r#"{{"id":7,"op":"hello","session":"{UUID}"}}"#);
    let table = [
        (
            r#"{"id":1,"op":"get","key":"color"}"#,
            Op::Get { key: key() },
        ),
        (
            r#"{"id":2,"op":"set","key":"color","value":"red"}"#,
            Op::Set {
                key: key(),
                value: "red".into(),
            },
        ),
        (
            r#"{"id":3,"op":"testset","key":"color","test":"red","value":"blue"}"#,
            Op::TestSet {
                key: key(),
                test: Some("red".into()),
                value: "blue".into(),
            },
        ),
        (
            r#"{"id":3,"op":"testset","key":"color","test":null,"value":"blue"}"#,
            Op::TestSet {
                key: key(),
                test: None,
                value: "blue".into(),
            },
        ),
        (
            r#"{"id":4,"op":"delete","key":"color"}"#,
            Op::Delete { key: key() },
        ),
        (
            r#"{"id":5,"op":"list","prefix":"co","after":"color","limit":100}"#,
            Op::List {
                prefix: "co".to_owned(),
                after: key(),
                limit: 100,
            },
        ),
        (r#"{"id":6,"op":"status"}"#, Op::Status),
        (hello.as_str(), Op::Hello { session: session() }),
        (
            r#"{"id":9,"op":"set","key":"color","value":{"base64":"/wA="}}"#,
            Op::Set {
                key: key(),
                value: Value::from(vec![0xff, 0]),
            },
        ),
    ];
    for (json, op) in table {
        let request = read(json);
        assert_eq!(request.op, op, "{json}");
        assert_eq!(request.to_json(), json);
    }
}

#[test]
fn requests_read_however_they_are_written() {
    let set = Op::Set {
        key: "color".to_owned(),
        value: "r\u{e9}d".into(),
    };
    for json in [
        r#" { "value" : "r\u00e9d" , "key" : "color" , "op" : "set" , "id" : 2 } "#,
        "\n{\"id\":2,\n\"op\":\"s\\u0065t\",\"k\\u0065y\":\"color\",\"value\":\"réd\"}\n",
        // Text may come as base64 too.
        r#"{"id":2,"op":"set","key":"color","value":{"base64":"csOpZA=="}}"#,
    ] {
        assert_eq!(read(json), request(2, set.clone()), "{json}");
    }
}

#[test]
fn every_field_of_list_is_optional() {
    let expected = Op::List {
        prefix: String::new(),
        after: String::new(),
        limit: 100,
    };
    assert_eq!(read(r#"{"id":5,"op":"list"}"#).op, expected);
    for limit in [1, 1000] {
        let op = read(&format!(r#"{{"id":5,"op":"list","limit":{limit}}}"#)).op;
        assert_eq!(
            op,
            Op::List {
                prefix: String::new(),
                after: String::new(),
                limit
            }
        );
    }
}

#[test]
fn ids_reach_to_2_to_the_53() {
    for id in [1, 9_007_199_254_740_991] {
        assert_eq!(
            read(&format!(r#"{{"id":{id},"op":"status"}}"#)).id,
            RequestId(id)
        );
    }
    for id in [
        "0",
        "9007199254740992",
        "18446744073709551616",
        "-1",
        "1.5",
        "1.0",
        "1e3",
    ] {
        let (none, error) = refused(&format!(r#"{{"id":{id},"op":"status"}}"#));
        assert_eq!((none, error.code), (None, ErrorCode::BadRequest), "{id}");
        assert!(error.message.contains("\"id\""), "{id}: {}", error.message);
    }
}

#[test]
fn a_batch_reads_and_writes() {
    let json = r#"[{"id":1,"op":"status"},{"id":2,"op":"get","key":"a"}]"#;
    let decoded = decode_requests(json);
    assert!(decoded.batch);
    let requests: Vec<Request> = decoded
        .requests
        .into_iter()
        .map(|r| r.expect("good"))
        .collect();
    assert_eq!(
        requests[1],
        request(
            2,
            Op::Get {
                key: "a".to_owned()
            }
        )
    );
    assert_eq!(requests_to_json(&requests), json);
    // One in an array is a batch of one.
    assert!(decode_requests(r#" [ {"id":1,"op":"status"} ] "#).batch);
}

#[test]
fn responses_of_the_table_write_and_read() {
    let hello = format!(
        r#"{{"id":7,"session":"{UUID}","resumed":false,"opened":"00000000000000a1-1","protocol":1,"server":"kvservice/0.1.0","limits":{{"key_bytes_max":1024,"value_bytes_max":1048576,"frame_bytes_max":8388608,"batch_max":1024,"in_flight_max":1024}}}}"#
    );
    let entry = |key: &str, value: Value, revision| ListEntry {
        key: key.to_owned(),
        value,
        revision: Seq(revision),
    };
    let table = [
        (
            r#"{"id":1,"value":"red","revision":17}"#,
            OpKind::Get,
            Reply::Get {
                value: Some("red".into()),
                revision: Seq(17),
            },
        ),
        (
            r#"{"id":1,"value":null,"revision":0}"#,
            OpKind::Get,
            Reply::Get {
                value: None,
                revision: Seq(0),
            },
        ),
        (
            r#"{"id":2,"value":"red","revision":18}"#,
            OpKind::Set,
            Reply::Set {
                value: "red".into(),
                revision: Seq(18),
            },
        ),
        (
            r#"{"id":3,"swapped":true,"value":"blue","revision":19}"#,
            OpKind::TestSet,
            Reply::TestSet {
                swapped: true,
                value: Some("blue".into()),
                revision: Seq(19),
            },
        ),
        (
            r#"{"id":3,"swapped":false,"value":null,"revision":0}"#,
            OpKind::TestSet,
            Reply::TestSet {
                swapped: false,
                value: None,
                revision: Seq(0),
            },
        ),
        (
            r#"{"id":4,"deleted":true,"revision":20}"#,
            OpKind::Delete,
            Reply::Delete {
                deleted: true,
                revision: Seq(20),
            },
        ),
        (
            r#"{"id":4,"deleted":false,"revision":0}"#,
            OpKind::Delete,
            Reply::Delete {
                deleted: false,
                revision: Seq(0),
            },
        ),
        (
            r#"{"id":5,"entries":[{"key":"a","value":"\"1\"","revision":3},{"key":"b","value":{"base64":"gA=="},"revision":4}],"more":true}"#,
            OpKind::List,
            Reply::List {
                entries: vec![
                    entry("a", "\"1\"".into(), 3),
                    entry("b", vec![0x80].into(), 4),
                ],
                more: true,
            },
        ),
        (
            r#"{"id":5,"entries":[],"more":false}"#,
            OpKind::List,
            Reply::List {
                entries: Vec::new(),
                more: false,
            },
        ),
        (
            hello.as_str(),
            OpKind::Hello,
            Reply::Hello {
                session: session(),
                resumed: false,
                opened: Some("00000000000000a1-1".into()),
                protocol: 1,
                server: "kvservice/0.1.0".to_owned(),
                limits: Limits::CURRENT,
            },
        ),
    ];
    for (json, kind, reply) in table {
        let responses = decode_responses(json, |_| Some(kind)).expect(json);
        assert_eq!(responses.len(), 1, "{json}");
        assert_eq!(responses[0].result, Ok(reply), "{json}");
        assert_eq!(responses[0].to_json(), json);
    }
}

#[test]
fn status_reads_and_writes() {
    let json = concat!(
        r#"{"id":6,"mode":"chain","cluster":"5f0c","epoch":3,"members":[{"node":"n3","#,
        r#""address":"127.0.0.1:7411","role":"head","next":"127.0.0.1:7412","second":null,"#,
        r#""durable":9,"stable":8,"committed":8,"applied":7,"hash":"00000000000000ff","#,
        r#""storage":"memory"}],"learners":[{"node":"n4","address":"127.0.0.1:7414","#,
        r#""phase":"snapshot","behind":5,"received_bytes":1,"total_bytes":2}],"#,
        r#""front_end":{"head":"127.0.0.1:7411","second":null},"events":[{"at_ms":1,"epoch":3,"#,
        r#""kind":"failed","node":"n1","from":"front-end","to":"n3","took_ms":38}]}"#
    );
    let responses = decode_responses(json, |_| Some(OpKind::Status)).expect("status");
    assert!(matches!(&responses[0].result, Ok(Reply::Status(status)) if status.epoch == 3));
    assert_eq!(responses[0].to_json(), json);
    let batch = format!(r#"[{{"id":1,"value":null,"revision":0}},{json}]"#);
    let kind_of = |id: RequestId| {
        Some(if id.0 == 6 {
            OpKind::Status
        } else {
            OpKind::Get
        })
    };
    let responses = decode_responses(&batch, kind_of).expect("a batch");
    assert_eq!(responses_to_json(&responses), batch);
}

#[test]
fn errors_write_and_read() {
    for code in ErrorCode::ALL {
        for (outcome, word) in [
            (Outcome::NotApplied, "not_applied"),
            (Outcome::Unknown, "unknown"),
        ] {
            let error = ApiError {
                code,
                message: "so \"it\" is".to_owned(),
                outcome,
            };
            let response = Response {
                id: Some(RequestId(8)),
                result: Err(error),
            };
            let json = response.to_json();
            let expected = format!(
                r#"{{"id":8,"error":{{"code":"{}","message":"so \"it\" is","outcome":"{word}"}}}}"#,
                code.as_str()
            );
            assert_eq!(json, expected);
            assert_eq!(
                decode_responses(&json, |_| Some(OpKind::Set)),
                Ok(vec![response])
            );
        }
    }
    // The names that serde derives for the schema are the ones that are written.
    for code in ErrorCode::ALL {
        let derived = serde_json::to_string(&code).expect("a string");
        assert_eq!(derived, format!("\"{}\"", code.as_str()));
    }
}

#[test]
fn a_client_ignores_what_it_does_not_know() {
    let kind_of = |id: RequestId| (id.0 != 99).then_some(OpKind::Get);
    // A field.
    let json = r#"{"id":1,"value":"red","ttl_ms":{"a":[1]},"revision":17}"#;
    let expected = Reply::Get {
        value: Some("red".into()),
        revision: Seq(17),
    };
    let responses = decode_responses(json, kind_of).expect("a response");
    assert_eq!(responses[0].result, Ok(expected));
    // An error's code and outcome; what may have happened is then not known.
    let json = r#"{"id":1,"error":{"code":"moved","message":"there","outcome":"maybe","to":"x"}}"#;
    let responses = decode_responses(json, kind_of).expect("a response");
    let error = ApiError::unknown(ErrorCode::Internal, "moved: there");
    assert_eq!(responses[0].result, Err(error));
    // An answer to nothing that is asked.
    let json = r#"[{"id":99,"value":"red","revision":17},{"id":1,"value":null,"revision":0}]"#;
    let responses = decode_responses(json, kind_of).expect("responses");
    assert_eq!(
        responses.iter().map(|r| r.id).collect::<Vec<_>>(),
        [Some(RequestId(1))]
    );
}

#[test]
fn an_answer_that_cannot_be_read_fails_its_own_request_only() {
    let json = concat!(
        r#"[{"id":1,"value":7,"revision":1},{"id":2,"revision":2},"#,
        r#"{"id":3,"value":"x","revision":3}]"#
    );
    let responses = decode_responses(json, |_| Some(OpKind::Get)).expect("responses");
    let codes: Vec<_> = responses
        .iter()
        .map(|r| {
            r.result
                .as_ref()
                .map_err(|error| (error.code, error.outcome))
                .is_ok()
        })
        .collect();
    assert_eq!(codes, [false, false, true]);
    let error = responses[0]
        .result
        .as_ref()
        .expect_err("a number is no value");
    assert_eq!(
        (error.code, error.outcome),
        (ErrorCode::Internal, Outcome::Unknown)
    );
}

#[test]
fn what_is_no_response_is_an_error() {
    for text in [
        "",
        "x",
        "7",
        "{}",
        r#"{"value":"red"}"#,
        "[7]",
        r#"[{"id":1,"value":null}"#,
    ] {
        assert!(
            decode_responses(text, |_| Some(OpKind::Get)).is_err(),
            "{text}"
        );
    }
}
