//! The library against a server that misbehaves when told.

#![expect(
    clippy::unwrap_used,
    reason = "test code: a failure here is the test's"
)]

mod common;

use common::{Fault, PATIENCE, Server, nobody};
use kvservice_client::{
    Client, Config, Connection, Error, ErrorCode, Op, Outcome, Reader, Reply, Swap, Value,
};
use std::time::Duration;
use tokio::time::timeout;

fn config(server: &Server) -> Config {
    Config::new(server.address.to_string().parse().unwrap()).request_timeout(PATIENCE)
}

async fn client(server: &Server) -> Client {
    Client::connect(config(server)).await.unwrap()
}

fn set(key: &str, value: &str) -> Op {
    Op::Set {
        key: key.into(),
        value: value.into(),
    }
}

fn get(key: &str) -> Op {
    Op::Get { key: key.into() }
}

/// Waits until the connection is as it should be.
async fn until(client: &Client, wanted: impl Fn(&Connection) -> bool) -> Connection {
    let mut state = client.watch();
    let reached = timeout(PATIENCE, state.wait_for(|state| wanted(state))).await;
    reached
        .expect("the state is reached in time")
        .expect("the client lives")
        .clone()
}

#[tokio::test]
async fn every_operation() {
    let server = Server::start([]);
    let client = client(&server).await;
    assert_eq!(client.get("color").await.unwrap(), None);
    let first = client.set("color", "red").await.unwrap();
    let found = client.get("color").await.unwrap().unwrap();
    assert_eq!((found.value.as_str(), found.revision), (Some("red"), first));

    let held = client.test_set("color", None, "blue").await.unwrap();
    assert_eq!(held, Swap::Held(Some(found.clone())));
    let swap = client
        .test_set("color", Some(found.value), "blue")
        .await
        .unwrap();
    assert!(
        matches!(swap, Swap::Swapped(second) if second > first),
        "{swap:?}"
    );
    let held = client
        .test_set("shape", Some("x".into()), "y")
        .await
        .unwrap();
    assert_eq!(held, Swap::Held(None));

    let page = client.list("co", "").await.unwrap();
    let keys: Vec<_> = page
        .entries
        .iter()
        .map(|entry| entry.key.as_str())
        .collect();
    assert_eq!((keys.as_slice(), page.more), (["color"].as_slice(), false));
    assert!(client.delete("color").await.unwrap());
    assert!(!client.delete("color").await.unwrap());
    assert_eq!(client.status().await.unwrap().members, []);

    let bytes = vec![0, 0xff, b'\n'];
    client.set("bytes", bytes.clone()).await.unwrap();
    assert_eq!(
        client.get("bytes").await.unwrap().unwrap().value,
        Value::from(bytes)
    );
    client.close().await;
    assert_eq!(client.get("color").await, Err(Error::Closed));
}

#[tokio::test]
async fn a_batch_is_one_frame() {
    let server = Server::start([]);
    let client = client(&server).await;
    let calls = client
        .submit_batch(vec![set("a", "1"), get("a"), set("a", "2"), get("a")])
        .await
        .unwrap();
    let mut values = Vec::new();
    for call in calls {
        match call.await.unwrap().result.unwrap() {
            Reply::Set { value, .. }
            | Reply::Get {
                value: Some(value), ..
            } => values.push(value),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(values, ["1", "1", "2", "2"].map(Value::from));
    let frames: Vec<_> = server.seen().iter().map(|seen| seen.frame).collect();
    assert_eq!(frames, [2; 4], "after hello, one frame");
}

#[tokio::test]
async fn a_pipeline_of_any_length_keeps_its_order() {
    let server = Server::start([]);
    let client = client(&server).await;
    let ops = (0..3000)
        .map(|n| set(&format!("key:{n}"), &n.to_string()))
        .collect();
    let answers = client.pipeline(ops).await.unwrap();
    assert_eq!(answers.len(), 3000);
    for (n, answer) in answers.into_iter().enumerate() {
        let Ok(Reply::Set { value, .. }) = answer else {
            panic!("{n}: {answer:?}")
        };
        assert_eq!(value, Value::from(n.to_string()));
    }
    assert_eq!(client.pipeline(Vec::new()).await, Ok(Vec::new()));
}

#[tokio::test]
async fn long_values_are_split_over_frames() {
    let server = Server::start([]);
    let client = client(&server).await;
    let long = "v".repeat(1024 * 1024);
    let ops = (0..10).map(|n| set(&n.to_string(), &long)).collect();
    assert!(
        client
            .pipeline(ops)
            .await
            .unwrap()
            .iter()
            .all(Result::is_ok)
    );
    let frames = server.seen().iter().map(|seen| seen.frame).max().unwrap();
    assert!(frames > 2, "10 MiB do not fit into one frame of 8 MiB");
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_applied_once() {
    let server = Server::start([Fault::DropAfter]);
    let client = client(&server).await;
    // A second application would find "1" and fail.
    let swap = client.test_set("count", None, "1").await.unwrap();
    assert!(matches!(swap, Swap::Swapped(_)), "{swap:?}");
    let seen = server.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[0].request, seen[1].request, "the same id");
    assert_ne!(seen[0].connection, seen[1].connection);
    assert_eq!(server.hellos(), 2);
    let live = until(&client, Connection::is_live).await;
    assert!(
        matches!(live, Connection::Live { resumed: true, .. }),
        "{live:?}"
    );
}

#[tokio::test]
async fn a_frame_that_was_never_read_is_sent_again_in_order() {
    let server = Server::start([Fault::DropBefore, Fault::DropAfter, Fault::DropBefore]);
    let client = client(&server).await;
    let ops = (0..100).map(|n| set("key", &n.to_string())).collect();
    let answers = client.pipeline(ops).await.unwrap();
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(server.value("key"), Some("99".into()));
}

#[tokio::test]
async fn a_forgotten_session_makes_sent_writes_unknown_and_nothing_else() {
    let server = Server::start([Fault::DropAndForget]);
    let client = client(&server).await;
    server.preset("color", "red");
    let mut calls = client
        .submit_batch(vec![set("lost", "1"), get("color")])
        .await
        .unwrap();
    let read = calls.pop().unwrap();
    let error = Error::from(calls.pop().unwrap().await.unwrap().result.unwrap_err());
    assert!(error.outcome_unknown(), "{error}");
    let reply = read.await.unwrap().result.unwrap();
    assert!(matches!(reply, Reply::Get { value: Some(value), .. } if value == "red".into()));
    // The session goes on.
    client.set("color", "blue").await.unwrap();
    let writes = server
        .seen()
        .iter()
        .filter(|seen| seen.request.op == set("lost", "1"))
        .count();
    assert_eq!(writes, 1, "never sent again");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left() {
    let server = Server::start([Fault::Mute]);
    let silence = Duration::from_millis(300);
    let client = Client::connect(config(&server).silence_timeout(silence))
        .await
        .unwrap();
    client.set("color", "red").await.unwrap();
    assert_eq!(server.hellos(), 2);
}

#[tokio::test]
async fn a_slow_answer_is_awaited_while_the_server_is_alive() {
    let server = Server::start([Fault::Hold]);
    let silence = Duration::from_secs(1);
    let client = Client::connect(config(&server).silence_timeout(silence))
        .await
        .unwrap();
    let call = client.submit(set("color", "red")).await.unwrap();
    // Three pings go out within the silence timeout: after four it is over.
    let pinged = async {
        while server.pings() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, pinged)
        .await
        .expect("the client pings a server that it waits for");
    server.release();
    call.await.unwrap().result.unwrap();
    assert_eq!(server.hellos(), 1, "the connection held");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let server = Server::start([Fault::Mute]);
    let short = Duration::from_millis(200);
    let client = Client::connect(config(&server).request_timeout(short))
        .await
        .unwrap();
    let error = client.set("color", "red").await.unwrap_err();
    let Error::Api(error) = error else {
        panic!("{error}")
    };
    assert_eq!(
        (error.code, error.outcome),
        (ErrorCode::Timeout, Outcome::Unknown)
    );
}

#[tokio::test]
async fn requests_wait_for_a_connection() {
    let server = Server::start([]);
    server.refuse_hello(true);
    let client = Client::start(config(&server));
    let call = client.submit(set("color", "red")).await.unwrap();
    let refused = |state: &Connection| matches!(state, Connection::Greeting { refusal: Some(_) });
    until(&client, refused).await;
    // What the front-end answers by itself does not wait for the session.
    assert!(client.status().await.unwrap().waiting.is_some());
    server.refuse_hello(false);
    call.await.unwrap().result.unwrap();
    assert_eq!(server.value("color"), Some("red".into()));
}

#[tokio::test]
async fn connect_says_why_it_cannot() {
    let address = nobody();
    let error = Client::connect(Config::new(address.to_string().parse().unwrap())).await;
    assert_eq!(
        error.unwrap_err(),
        Error::Connect("connection refused".into())
    );

    let server = Server::start([]);
    server.refuse_hello(true);
    let error = Client::connect(config(&server)).await.unwrap_err();
    assert!(
        matches!(&error, Error::Api(e) if e.code == ErrorCode::Unavailable),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_of_another_kind_is_named_as_such() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream
            .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            .await;
    });
    let error = Client::connect(Config::new(address.to_string().parse().unwrap())).await;
    let message = error.unwrap_err().to_string();
    assert_eq!(
        message,
        "what answers there is not a kvservice server: HTTP 404 Not Found"
    );
}

#[tokio::test]
async fn one_that_was_taken_over_stays_away_until_told() {
    let server = Server::start([Fault::TakeOver]);
    let client = client(&server).await;
    let error = client.set("color", "red").await.unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    until(&client, |state| *state == Connection::TakenOver).await;
    assert_eq!(client.get("color").await, Err(Error::Closed));
    assert_eq!(server.hellos(), 1);
    client.reopen().await.unwrap();
    until(&client, Connection::is_live).await;
    client.set("color", "red").await.unwrap();
}

#[tokio::test]
async fn a_full_window_makes_callers_wait_and_loses_nothing() {
    let server = Server::start([Fault::Hold]);
    let client = client(&server).await;
    let submitting = client.clone();
    let (submitted, mut progress) = tokio::sync::watch::channel(0);
    let all = tokio::spawn(async move {
        let mut calls = Vec::new();
        for n in 0..3000 {
            calls.push(
                submitting
                    .submit(set(&format!("key:{n}"), "x"))
                    .await
                    .unwrap(),
            );
            submitted.send_replace(calls.len());
        }
        for call in calls {
            call.await.unwrap().result.unwrap();
        }
    });
    // 1,024 are in the session's window, some in the queue; the rest is not taken.
    progress
        .wait_for(|&submitted| submitted >= 1024)
        .await
        .unwrap();
    let more = timeout(
        Duration::from_millis(300),
        progress.wait_for(|&n| n > 1024 + 100),
    )
    .await;
    assert!(more.is_err(), "the queue is bounded");
    server.release();
    timeout(PATIENCE, all).await.unwrap().unwrap();
    assert_eq!(server.seen().len(), 3000);
}

#[tokio::test]
async fn what_breaks_a_limit_is_not_sent() {
    let server = Server::start([]);
    let client = client(&server).await;
    let long_key = "k".repeat(1025);
    let too_long = client.get(long_key).await.unwrap_err();
    assert!(matches!(too_long, Error::Invalid(_)), "{too_long}");
    let ops = vec![set("fine", "1"), set("k", &"v".repeat(1024 * 1024 + 1))];
    assert!(matches!(client.pipeline(ops).await, Err(Error::Invalid(_))));
    assert_eq!(server.seen(), []);
}

#[tokio::test]
async fn a_call_outlives_the_handles() {
    let server = Server::start([Fault::Hold]);
    let client = client(&server).await;
    let call = client.submit(set("color", "red")).await.unwrap();
    drop(client);
    server.release();
    call.await.unwrap().result.unwrap();
}

#[tokio::test]
async fn a_reader_needs_no_session_and_asks_again() {
    let server = Server::start([Fault::DropAfter]);
    server.refuse_hello(true);
    server.preset("color", "red");
    let mut reader = Reader::connect(config(&server)).await.unwrap();
    let response = reader.ask(get("color")).await.unwrap();
    assert!(
        matches!(response.result, Ok(Reply::Get { value: Some(_), .. })),
        "{response:?}"
    );
    let response = reader.ask(Op::Status).await.unwrap();
    assert!(
        matches!(response.result, Ok(Reply::Status(_))),
        "{response:?}"
    );
    assert_eq!(server.hellos(), 0);
    let error = reader.ask(set("color", "blue")).await.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    reader.close().await;
}
