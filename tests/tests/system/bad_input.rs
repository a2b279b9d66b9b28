//! Anything that a client can send, sent to real servers of both variations: a clear error or a closed connection,
//! bounded memory, and everyone else unharmed. (What reaches the ports between nodes is `bad_peers`.)
//!
//! All the while well-behaved clients are at work whose every answer is checked.

use kvservice_shared::limits::{
    BATCH_REQUESTS_MAX, CLIENT_FRAME_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX,
};
use kvservice_tests::chain::{Chain, Setup};
use kvservice_tests::load::{Allow, Load, fill};
use kvservice_tests::process::Process;
use kvservice_tests::raw::{Heard, Raw};
use kvservice_tests::rounds::{Round, rounds};
use kvservice_tests::single::Single;
use kvservice_tests::{Uuid, soon};
use serde_json::{Value as Json, json};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

pub const CLIENTS: usize = 2;
pub const WRITES: u64 = 100;
pub const MEBIBYTE: u64 = 1024 * 1024;

/// Does something bad to a server of each variation, while others are served. Its memory stays within
/// `bytes_max`, and so does that of every process behind it.
async fn both(round: &Round, bytes_max: u64, bad: impl AsyncFn(SocketAddr)) {
    let single = Single::start(round, &[]).await;
    let load = Load::start(single.address, CLIENTS, Allow::Nothing);
    load.progress(WRITES).await;
    bad(single.address).await;
    load.progress(WRITES).await;
    load.stop().await;
    assert_bounded(round, &single.process, bytes_max);
    drop(single);

    let mut chain = Chain::start(
        round,
        Setup {
            nodes: 2,
            ..Setup::default()
        },
    )
    .await;
    let epoch = chain.until_members(2).await.epoch;
    let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
    load.progress(WRITES).await;
    bad(chain.clients()).await;
    load.progress(WRITES).await;
    load.stop_and_settle(&mut chain, 2).await;
    assert_eq!(
        chain.until_members(2).await.epoch,
        epoch,
        "no view was made for it"
    );
    assert_bounded(round, chain.front_end(), bytes_max);
    for node in 0..2 {
        assert_bounded(round, &chain.node(node).process, bytes_max);
    }
}

pub fn assert_bounded(round: &Round, process: &Process, bytes_max: u64) {
    let (name, peak) = (process.name(), process.peak_bytes());
    let now = process.resident_bytes();
    round.say(&format!(
        "{name}: {} MiB, at most {} MiB",
        now / MEBIBYTE,
        peak / MEBIBYTE
    ));
    assert!(
        peak <= bytes_max,
        "{name} had {} MiB resident",
        peak / MEBIBYTE
    );
}

/// The error of an answer: its id and its code.
fn error_of(answer: &Json) -> (Json, String) {
    let error = &answer["error"];
    let message = error["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty(), "an error says what is wrong: {answer}");
    assert_eq!(error["outcome"], "not_applied", "{answer}");
    (
        answer["id"].clone(),
        error["code"].as_str().unwrap_or_default().to_owned(),
    )
}

/// The connection serves.
async fn assert_serves(raw: &mut Raw, id: u64) {
    let answer = raw
        .ask(json!({"id": id, "op": "get", "key": "bad:nothing"}).to_string())
        .await;
    assert_eq!(answer, json!({"id": id, "value": null, "revision": 0}));
}

#[test]
fn requests_that_cannot_be_meant() {
    rounds(async |round| {
        both(round, 100 * MEBIBYTE, async |server| {
            let key = "k".repeat(KEY_BYTES_MAX + 1);
            let value = "v".repeat(VALUE_BYTES_MAX + 1);
            let deep = "[".repeat(100_000);
            let many = |count: usize| {
                let get = |id| json!({"id": id, "op": "get", "key": "k"});
                Json::from((1..=count).map(get).collect::<Vec<_>>()).to_string()
            };
            let bad: Vec<(String, Json, &str)> = vec![
                (String::new(), Json::Null, "bad_request"),
                ("no json".to_owned(), Json::Null, "bad_request"),
                (
                    "{\"id\":1,\"op\":\"get\",\"key\":\"k\"".to_owned(),
                    Json::Null,
                    "bad_request",
                ),
                ("[]".to_owned(), Json::Null, "bad_request"),
                ("null".to_owned(), Json::Null, "bad_request"),
                (deep, Json::Null, "bad_request"),
                // Ids that do not fit.
                (r#"{"op":"status"}"#.to_owned(), Json::Null, "bad_request"),
                (
                    r#"{"id":0,"op":"status"}"#.to_owned(),
                    Json::Null,
                    "bad_request",
                ),
                (
                    r#"{"id":-1,"op":"status"}"#.to_owned(),
                    Json::Null,
                    "bad_request",
                ),
                (
                    r#"{"id":1.5,"op":"status"}"#.to_owned(),
                    Json::Null,
                    "bad_request",
                ),
                (
                    r#"{"id":"1","op":"status"}"#.to_owned(),
                    Json::Null,
                    "bad_request",
                ),
                (
                    r#"{"id":9007199254740992,"op":"status"}"#.to_owned(),
                    Json::Null,
                    "bad_request",
                ),
                (
                    r#"{"id":18446744073709551617,"op":"status"}"#.to_owned(),
                    Json::Null,
                    "bad_request",
                ),
                (
                    r#"{"id":1e400,"op":"status"}"#.to_owned(),
                    Json::Null,
                    "bad_request",
                ),
                // Ops and fields that there are not, or not so.
                (
                    r#"{"id":1,"op":"frobnicate"}"#.to_owned(),
                    json!(1),
                    "bad_request",
                ),
                (r#"{"id":2,"op":"get"}"#.to_owned(), json!(2), "bad_request"),
                (
                    r#"{"id":3,"op":"get","key":""}"#.to_owned(),
                    json!(3),
                    "bad_request",
                ),
                (
                    r#"{"id":4,"op":"get","key":"k","extra":1}"#.to_owned(),
                    json!(4),
                    "bad_request",
                ),
                (
                    r#"{"id":5,"op":"set","key":"k","value":1}"#.to_owned(),
                    json!(5),
                    "bad_request",
                ),
                (
                    r#"{"id":6,"op":"set","key":"k","value":{"base64":"!"}}"#.to_owned(),
                    json!(6),
                    "bad_request",
                ),
                (
                    r#"{"id":7,"op":"testset","key":"k","value":"v"}"#.to_owned(),
                    json!(7),
                    "bad_request",
                ),
                (
                    r#"{"id":8,"op":"list","limit":0}"#.to_owned(),
                    json!(8),
                    "bad_request",
                ),
                (
                    r#"{"id":9,"op":"list","limit":1001}"#.to_owned(),
                    json!(9),
                    "bad_request",
                ),
                (
                    r#"{"id":10,"op":"hello","session":"me"}"#.to_owned(),
                    json!(10),
                    "bad_request",
                ),
                // Too much.
                (
                    json!({"id": 11, "op": "get", "key": key}).to_string(),
                    json!(11),
                    "too_large",
                ),
                (
                    json!({"id": 12, "op": "set", "key": "k", "value": value}).to_string(),
                    json!(12),
                    "too_large",
                ),
                (many(BATCH_REQUESTS_MAX + 1), Json::Null, "too_large"),
                (many(10_000), Json::Null, "too_large"),
            ];
            let mut raw = Raw::connect(server).await;
            for (id, (frame, at, code)) in (100..).zip(bad) {
                let shown: String = frame.chars().take(60).collect();
                let answer = raw.ask(frame).await;
                assert_eq!(error_of(&answer), (at, code.to_owned()), "to {shown}");
                assert_serves(&mut raw, id).await;
            }
            // Without a session ids grow; with one, an id has one meaning.
            let answer = raw
                .ask(json!({"id": 1, "op": "get", "key": "k"}).to_string())
                .await;
            assert_eq!(error_of(&answer), (json!(1), "bad_request".to_owned()));
        })
        .await;
    });
}

/// An id of a session means one request for ever.
#[test]
fn an_id_used_for_another_request() {
    rounds(async |round| {
        both(round, 100 * MEBIBYTE, async |server| {
            let mut raw = Raw::connect(server).await;
            let session = Uuid::from_u128(server.port().into()).to_string();
            let hello = raw.ask(json!({"id": 1, "op": "hello", "session": session}).to_string());
            assert_eq!(hello.await["resumed"], false);
            let set = |value: &str| {
                json!({"id": 2, "op": "set", "key": "bad:id", "value": value}).to_string()
            };
            let first = raw.ask(set("one")).await;
            assert_eq!(
                raw.ask(set("one")).await,
                first,
                "a retry is answered as the first time"
            );
            let answer = raw.ask(set("two")).await;
            assert_eq!(error_of(&answer), (json!(2), "bad_request".to_owned()));
            let found = raw
                .ask(json!({"id": 3, "op": "get", "key": "bad:id"}).to_string())
                .await;
            assert_eq!(found["value"], "one");

            // A second connection under the session closes the first.
            let mut second = Raw::connect(server).await;
            let hello = second.ask(json!({"id": 4, "op": "hello", "session": session}).to_string());
            assert_eq!(hello.await["resumed"], true);
            assert_eq!(raw.hear_end().await.0, Some(4000));
            assert_eq!(second.ask(set("one")).await, first);
        })
        .await;
    });
}

/// Frames that end the connection, each with the code that says why.
#[test]
fn frames_that_close_the_connection() {
    rounds(async |round| {
        both(round, 200 * MEBIBYTE, async |server| {
            let reserved = Frame::message(vec![1], OpCode::Data(Data::Reserved(3)), true);
            let text = |bytes: Vec<u8>| {
                Message::Frame(Frame::message(bytes, OpCode::Data(Data::Text), true))
            };
            let bad = [
                (Message::binary(vec![1, 2, 3]), 1003),
                (text(vec![b'x'; CLIENT_FRAME_BYTES_MAX + 1]), 1009),
                (text(vec![0xff, 0xfe]), 1007),
                (Message::Frame(reserved), 1002),
            ];
            for (frame, code) in bad {
                let mut raw = Raw::connect(server).await;
                raw.send(frame).await;
                let (closed_with, reason) = raw.hear_end().await;
                assert_eq!(closed_with, Some(code), "{reason}");
            }
            // The largest frame that there may be is read, and is no JSON.
            let mut raw = Raw::connect(server).await;
            let answer = raw.ask("x".repeat(CLIENT_FRAME_BYTES_MAX)).await;
            assert_eq!(error_of(&answer), (Json::Null, "bad_request".to_owned()));
        })
        .await;
    });
}

/// What a plain HTTP client may ask for, and what is no HTTP at all.
#[test]
fn requests_that_are_no_websocket() {
    rounds(async |round| {
        both(round, 100 * MEBIBYTE, async |server| {
            let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
            let headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
            let upgrade =
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
            let elsewhere = format!(
                "GET /v1/ws HTTP/1.1\r\nHost: {server}\r\n{upgrade}Origin: https://evil.example\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            let bad = [
                (
                    format!("GET /v1/nothing HTTP/1.1\r\nHost: {server}\r\n\r\n"),
                    "404",
                ),
                (
                    format!("GET /../../etc/passwd HTTP/1.1\r\nHost: {server}\r\n\r\n"),
                    "40",
                ),
                (
                    format!("POST /healthz HTTP/1.1\r\nHost: {server}\r\n\r\n"),
                    "405",
                ),
                (
                    format!("GET /v1/ws HTTP/1.1\r\nHost: {server}\r\n\r\n"),
                    "426",
                ),
                (elsewhere, "403"),
                ("\u{1}\u{2}garbage\r\n\r\n".to_owned(), "400"),
                (long, "4"),
                (headers, "4"),
            ];
            for (request, status) in bad {
                let shown: String = request.chars().take(60).collect();
                let mut stream = TcpStream::connect(server).await.expect("the port is open");
                // A server that has had enough may close before it has read everything.
                let _ = stream.write_all(request.as_bytes()).await;
                let mut answer = vec![0; 4096];
                let read = soon("an answer", stream.read(&mut answer))
                    .await
                    .unwrap_or(0);
                let answer = String::from_utf8_lossy(&answer[..read]);
                let expected = format!("HTTP/1.1 {status}");
                assert!(
                    answer.starts_with(&expected),
                    "{answer:?} to {shown:?}, not {expected}"
                );
            }
            let refused = Raw::try_connect(server, "/v1/elsewhere").await;
            assert!(matches!(refused, Err(WsError::Http(_))), "{refused:?}");
        })
        .await;
    });
}

/// Clients that ask for much and read nothing: what they asked for does not pile up.
#[test]
fn clients_that_never_read_their_answers() {
    rounds(async |round| {
        both(round, 700 * MEBIBYTE, async |server| {
            let mut writer = Raw::connect(server).await;
            let big = "v".repeat(VALUE_BYTES_MAX);
            let set = json!({"id": 1, "op": "set", "key": "bad:big", "value": big}).to_string();
            assert!(writer.ask(set).await.get("error").is_none());
            // A gigabyte of answers in all, asked for at once.
            let mut deaf = Vec::new();
            for _ in 0..8 {
                deaf.push(Raw::connect(server).await);
            }
            let many = |op: &dyn Fn(usize) -> Json| {
                Json::from((1..=128).map(op).collect::<Vec<_>>()).to_string()
            };
            let gets = many(&|id| json!({"id": id, "op": "get", "key": "bad:big"}));
            let lists = many(&|id| json!({"id": id, "op": "list", "prefix": "bad:"}));
            for (raw, frame) in deaf.iter_mut().zip([&gets, &lists].into_iter().cycle()) {
                raw.say(frame.as_str()).await;
            }
            // A client that reads is served meanwhile.
            fill(server, 200, 1024).await;
            let mut raw = Raw::connect(server).await;
            assert_serves(&mut raw, 1).await;
            let deleted = raw.ask(json!({"id": 2, "op": "delete", "key": "bad:big"}).to_string());
            assert_eq!(deleted.await["deleted"], true);
        })
        .await;
    });
}

/// A client that sends without end and without reading is no longer read, and costs what a window costs.
#[test]
fn a_client_that_floods() {
    rounds(async |round| {
        both(round, 300 * MEBIBYTE, async |server| {
            let mut raw = Raw::connect(server).await;
            let value = "v".repeat(1000);
            let mut next = 1;
            // A hundred megabytes, unless the server stops reading first.
            let flood = async {
                for _ in 0..100 {
                    let ids = next..next + BATCH_REQUESTS_MAX as u64;
                    next = ids.end;
                    let set =
                        |id| json!({"id": id, "op": "set", "key": "bad:flood", "value": value});
                    raw.say(Json::from(ids.map(set).collect::<Vec<_>>()).to_string())
                        .await;
                }
            };
            // Stopped by back-pressure or done: both are right.
            let _ = tokio::time::timeout(std::time::Duration::from_secs(5), flood).await;
            let mut other = Raw::connect(server).await;
            assert_serves(&mut other, 1).await;
        })
        .await;
    });
}

/// Clients that take their time: to finish a handshake, to say anything, to answer a ping. Each is let go
/// in its time (the front-end's own, so this test takes as long), and meanwhile others are served.
#[test]
fn clients_that_keep_the_server_waiting() {
    rounds(async |round| {
        let single = Single::start(round, &[]).await;
        let load = Load::start(single.address, 1, Allow::Nothing);
        let server = single.address;
        let half = format!("GET /v1/ws HTTP/1.1\r\nHost: {server}\r\nUpgrade: webso");
        let mut waiting = Vec::new();
        for n in 0..50 {
            let mut stream = TcpStream::connect(server).await.expect("the port is open");
            if n % 2 == 0 {
                stream
                    .write_all(half.as_bytes())
                    .await
                    .expect("a little can be sent");
            }
            waiting.push(stream);
        }
        // It is connected, and then neither reads nor writes: pings are not answered.
        let silent = Raw::connect(server).await;
        for stream in &mut waiting {
            let mut rest = Vec::new();
            // Whether it was told why (408) or not: it ends.
            let _ =
                tokio::time::timeout(2 * kvservice_tests::PATIENCE, stream.read_to_end(&mut rest))
                    .await
                    .expect("a half handshake is not waited for for ever");
        }
        load.progress(WRITES).await;
        let mut silent = silent;
        // Until then nobody polls it: no pong goes out.
        tokio::time::sleep(std::time::Duration::from_secs(47)).await;
        let (code, reason) = silent.hear_end().await;
        assert!(matches!(code, Some(1008) | None), "{code:?} {reason}");
        load.progress(WRITES).await;
        load.stop().await;
        assert_bounded(round, &single.process, 100 * MEBIBYTE);
    });
}

/// The answer to a request that was never made does not exist: a client that reads only what it asked for
/// sees no frame too many, whatever others do.
#[test]
fn nobody_hears_what_another_asked() {
    rounds(async |round| {
        both(round, 200 * MEBIBYTE, async |server| {
            let mut clients = Vec::new();
            for _ in 0..100 {
                clients.push(Raw::connect(server).await);
            }
            for (n, raw) in clients.iter_mut().enumerate() {
                raw.say(json!({"id": 1, "op": "set", "key": format!("bad:{n}"), "value": n.to_string()}).to_string())
                    .await;
                raw.say(json!({"id": 2, "op": "get", "key": format!("bad:{n}")}).to_string()).await;
            }
            for (n, raw) in clients.iter_mut().enumerate() {
                let mut answers = [raw.hear_json().await, raw.hear_json().await];
                answers.sort_by_key(|answer| answer["id"].as_u64());
                assert_eq!(answers[1]["value"], n.to_string(), "{answers:?}");
                assert_eq!(answers[0]["revision"], answers[1]["revision"], "{answers:?}");
            }
            let mut last = clients.pop().expect("there are a hundred");
            drop(clients);
            last.say(json!({"id": 3, "op": "get", "key": "bad:99"}).to_string()).await;
            match last.hear().await {
                Heard::Text(text) => assert!(text.contains("\"id\":3"), "{text}"),
                other => panic!("{other:?}"),
            }
        })
        .await;
    });
}
