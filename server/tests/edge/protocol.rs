//! Frames in, frames out.

use super::rig::*;
use futures_util::{SinkExt, StreamExt};
use kvservice_server::config::EdgeConfig;
use kvservice_server::edge::ToConn;
use kvservice_shared::limits::{BATCH_REQUESTS_MAX, CLIENT_FRAME_BYTES_MAX};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_request_is_answered_with_an_object_and_a_batch_with_an_array() {
    let (rig, _seen) = echo_rig(EdgeConfig::default()).await;
    let mut ws = connect(rig.addr).await;
    set_and_get(&mut ws, 1, "red").await;
    send(
        &mut ws,
        r#"[{"id":3,"op":"get","key":"k"},{"id":4,"op":"set","key":"k","value":"blue"}]"#,
    )
    .await;
    let both = json!([{"id":3,"value":"red","revision":3},{"id":4,"value":"blue","revision":4}]);
    assert_eq!(parsed(&receive(&mut ws).await), both);
    // A lone answer is an object, whoever asked.
    send(&mut ws, r#"[{"id":5,"op":"get","key":"k"}]"#).await;
    assert_eq!(
        parsed(&receive(&mut ws).await),
        json!({"id":5,"value":"blue","revision":5})
    );
}

#[tokio::test]
async fn a_client_that_never_sent_an_array_never_gets_one() {
    let (rig, mut gateway) = rig(EdgeConfig::default()).await;
    let mut ws = connect(rig.addr).await;
    let (_, to) = opened(&mut gateway).await;
    let mut asked = Vec::new();
    for id in 1..=3 {
        send(&mut ws, format!(r#"{{"id":{id},"op":"get","key":"k"}}"#)).await;
        asked.extend(requests(&mut gateway).await.1);
    }
    let answers = || asked.iter().map(|request| got(request, "v")).collect();
    assert!(to.send(ToConn::Responses(answers())));
    for id in 1..=3 {
        assert_eq!(
            parsed(&receive(&mut ws).await),
            json!({"id":id,"value":"v","revision":1})
        );
    }

    send(&mut ws, r#"[{"id":4,"op":"get","key":"k"}]"#).await;
    let (_, fourth) = requests(&mut gateway).await;
    send(&mut ws, r#"{"id":5,"op":"get","key":"k"}"#).await;
    let (_, fifth) = requests(&mut gateway).await;
    assert!(to.send(ToConn::Responses(vec![
        got(&fifth[0], "b"),
        got(&fourth[0], "a")
    ])));
    let both = json!([{"id":5,"value":"b","revision":1},{"id":4,"value":"a","revision":1}]);
    assert_eq!(parsed(&receive(&mut ws).await), both);
}

#[tokio::test]
async fn answers_past_a_megabyte_are_several_frames() {
    let (rig, mut gateway) = rig(EdgeConfig::default()).await;
    let mut ws = connect(rig.addr).await;
    let (_, to) = opened(&mut gateway).await;
    let batch: Vec<_> = (1..=10)
        .map(|id| json!({"id":id,"op":"get","key":"k"}))
        .collect();
    send(&mut ws, Value::from(batch).to_string()).await;
    let (_, asked) = requests(&mut gateway).await;
    let value = "x".repeat(300_000);
    assert!(to.send(ToConn::Responses(
        asked.iter().map(|request| got(request, &value)).collect()
    )));
    let (mut ids, mut frames) = (Vec::new(), 0);
    while ids.len() < 10 {
        let frame = receive(&mut ws).await;
        assert!(frame.len() < 1_500_000, "a frame of {} bytes", frame.len());
        frames += 1;
        match parsed(&frame) {
            Value::Array(answers) => ids.extend(answers.iter().map(|a| a["id"].as_u64().unwrap())),
            answer => ids.push(answer["id"].as_u64().unwrap()),
        }
    }
    assert_eq!(ids, (1..=10).collect::<Vec<_>>());
    assert_eq!(frames, 3);
    until("nothing to wait", || rig.edge.queued_bytes() == 0).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_the_rest_is_served() {
    let (rig, seen) = echo_rig(EdgeConfig::default()).await;
    let mut ws = connect(rig.addr).await;
    for (frame, id) in [
        ("no json", Value::Null),
        ("[]", Value::Null),
        ("", Value::Null),
        (r#"{"id":0,"op":"get","key":"k"}"#, Value::Null),
        (
            r#"{"id":9007199254740992,"op":"get","key":"k"}"#,
            Value::Null,
        ),
        (r#"{"id":1.5,"op":"get","key":"k"}"#, Value::Null),
        (r#"{"id":7,"op":"frobnicate"}"#, json!(7)),
        (r#"{"id":8,"op":"get"}"#, json!(8)),
        (r#"{"id":9,"op":"get","key":""}"#, json!(9)),
        (
            r#"{"id":10,"op":"set","key":"k","value":{"base64":"!"}}"#,
            json!(10),
        ),
    ] {
        send(&mut ws, frame).await;
        let answer = parsed(&receive(&mut ws).await);
        assert_eq!(answer["id"], id, "{frame}");
        assert_eq!(answer["error"]["code"], "bad_request", "{frame}");
        assert_eq!(answer["error"]["outcome"], "not_applied", "{frame}");
    }
    send(
        &mut ws,
        r#"[{"id":20,"op":"get"},{"id":21,"op":"get","key":"k"}]"#,
    )
    .await;
    let (mut answers, mut ids) = (0, Vec::new());
    while answers < 2 {
        let frame = parsed(&receive(&mut ws).await);
        for answer in frame.as_array().unwrap_or(&vec![frame.clone()]) {
            answers += 1;
            ids.push((answer["id"].clone(), answer.get("error").is_some()));
        }
    }
    assert!(
        ids.contains(&(json!(20), true)) && ids.contains(&(json!(21), false)),
        "{ids:?}"
    );
    assert_eq!(seen.borrow().requests.values().sum::<usize>(), 1);
}

#[tokio::test]
async fn ten_thousand_requests_in_a_frame_are_refused_and_none_is_passed_on() {
    let (rig, seen) = echo_rig(EdgeConfig::default()).await;
    let mut ws = connect(rig.addr).await;
    let batch = |count: usize| {
        let batch: Vec<_> = (1..=count)
            .map(|id| json!({"id":id,"op":"get","key":"k"}))
            .collect();
        Value::from(batch).to_string()
    };
    send(&mut ws, batch(10_000)).await;
    let refusal = parsed(&receive(&mut ws).await);
    assert_eq!(refusal["id"], Value::Null);
    assert_eq!(refusal["error"]["code"], "too_large");
    assert_eq!(seen.borrow().requests.values().sum::<usize>(), 0);

    send(&mut ws, batch(BATCH_REQUESTS_MAX)).await;
    let mut answers = 0;
    while answers < BATCH_REQUESTS_MAX {
        answers += parsed(&receive(&mut ws).await)
            .as_array()
            .map_or(1, Vec::len);
    }
    assert_eq!(answers, BATCH_REQUESTS_MAX);
}

#[tokio::test]
async fn a_frame_over_its_limit_closes_with_1009() {
    let (rig, _seen) = echo_rig(EdgeConfig::default()).await;
    let mut bystander = connect(rig.addr).await;

    // The whole frame is on its way when the server has seen enough: the close frame must arrive anyway.
    let mut ws = connect(rig.addr).await;
    let oversize = Message::text("x".repeat(CLIENT_FRAME_BYTES_MAX + 1));
    // It may be cut off while it sends.
    let _ = soon("room to send", ws.send(oversize)).await;
    assert_eq!(close_frame(&mut ws).await.0, 1009);

    // Only announced.
    let mut tcp = connect_raw(rig.addr).await;
    let mut header = vec![0x81, 0x80 | 127];
    header.extend((1_u64 << 62).to_be_bytes());
    header.extend([0; 4]);
    tcp.write_all(&header).await.unwrap();
    let (opcode, payload) = server_frame(&mut tcp).await;
    assert_eq!((opcode, &payload[..2]), (8, &1009_u16.to_be_bytes()[..]));

    // In fragments, each of them small enough.
    let mut tcp = connect_raw(rig.addr).await;
    let part = "x".repeat(CLIENT_FRAME_BYTES_MAX / 2 + 1);
    let mut first = frame(1, part.as_bytes());
    first[0] = 0x01;
    let mut second = frame(0, part.as_bytes());
    second[0] = 0x80;
    let (mut reader, mut writer) = tcp.split();
    let sent = async {
        writer.write_all(&first).await.unwrap();
        let _ = writer.write_all(&second).await;
    };
    let close = async {
        let mut close = [0; 4];
        reader.read_exact(&mut close).await.unwrap();
        close
    };
    let ((), close) = soon("a close frame", futures_util::future::join(sent, close)).await;
    assert_eq!((close[0], &close[2..]), (0x88, &1009_u16.to_be_bytes()[..]));

    set_and_get(&mut bystander, 1, "unharmed").await;
}

#[tokio::test]
async fn the_largest_value_in_its_longest_form_passes_both_ways() {
    let (rig, _seen) = echo_rig(EdgeConfig::default()).await;
    let mut ws = connect(rig.addr).await;
    // JSON writes each of these bytes as six.
    let value = "\u{1}".repeat(1024 * 1024);
    send(
        &mut ws,
        json!({"id":1,"op":"set","key":"k","value":value}).to_string(),
    )
    .await;
    let answer = receive(&mut ws).await;
    assert!(answer.len() > 6 * 1024 * 1024);
    assert_eq!(parsed(&answer)["value"], value);
}

#[tokio::test]
async fn frames_that_are_no_text_close_the_connection() {
    let (rig, _seen) = echo_rig(EdgeConfig::default()).await;
    let mut ws = connect(rig.addr).await;
    ws.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    let (code, reason) = close_frame(&mut ws).await;
    assert_eq!(code, 1003);
    assert!(reason.contains("text"), "{reason}");

    let unmasked = [0x81, 2, b'{', b'}'].to_vec();
    let reserved = {
        let mut frame = frame(1, b"{}");
        frame[0] |= 0x40;
        frame
    };
    for (code, bad) in [
        (1007_u16, frame(1, b"\xff\xff")),
        (1002, unmasked),
        (1002, reserved),
        (1002, frame(3, b"")),
        (1002, frame(0, b"continues nothing")),
        (1002, frame(9, &[0; 126])),
    ] {
        let mut tcp = connect_raw(rig.addr).await;
        tcp.write_all(&bad).await.unwrap();
        let (opcode, payload) = server_frame(&mut tcp).await;
        assert_eq!(
            (opcode, &payload[..2]),
            (8, &code.to_be_bytes()[..]),
            "{bad:?}"
        );
    }
}

#[tokio::test]
async fn the_gateway_closes_after_what_it_sent_before() {
    let (rig, mut gateway) = rig(EdgeConfig::default()).await;
    let mut ws = connect(rig.addr).await;
    let (conn, to) = opened(&mut gateway).await;
    send(&mut ws, r#"{"id":1,"op":"get","key":"k"}"#).await;
    let (_, asked) = requests(&mut gateway).await;
    assert!(to.send(ToConn::Responses(vec![got(&asked[0], "last words")])));
    let reason = "é".repeat(100);
    assert!(to.send(ToConn::Close { code: 4000, reason }));
    assert!(receive(&mut ws).await.contains("last words"));
    let (code, reason) = close_frame(&mut ws).await;
    assert_eq!(code, 4000);
    assert_eq!(
        reason,
        "é".repeat(61),
        "as much of it as fits, in whole characters"
    );
    assert!(soon("the end", ws.next()).await.is_none());
    assert_eq!(closed(&mut gateway).await, conn);
    assert!(!to.send(ToConn::Responses(vec![got(&asked[0], "too late")])));
    assert_eq!(rig.edge.queued_bytes(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_is_reported_however_it_leaves() {
    let (rig, mut gateway) = rig(EdgeConfig::default()).await;
    let mut polite = connect(rig.addr).await;
    let (conn, to) = opened(&mut gateway).await;
    send(&mut polite, r#"{"id":1,"op":"get","key":"k"}"#).await;
    let (_, asked) = requests(&mut gateway).await;
    // It closes while an answer is due, and still gets its close frame back.
    polite.close(None).await.unwrap();
    while let Some(frame) = soon("the end", polite.next()).await {
        assert!(frame.unwrap().is_close());
    }
    assert_eq!(closed(&mut gateway).await, conn);
    assert!(!to.send(ToConn::Responses(vec![got(&asked[0], "late")])));

    let rude = connect(rig.addr).await;
    let (conn, _to) = opened(&mut gateway).await;
    drop(rude);
    assert_eq!(closed(&mut gateway).await, conn);
}

#[tokio::test]
async fn silence_is_pinged_and_then_closed() {
    let config = EdgeConfig {
        ping_after: Duration::from_millis(50),
        silence_timeout: Duration::from_millis(400),
        ..EdgeConfig::default()
    };
    let (rig, _seen) = echo_rig(config).await;
    // One that answers pings stays: it is pinged far past the time that the other one has.
    let mut alive = connect(rig.addr).await;
    for _ in 0..20 {
        let frame = soon("a ping", alive.next()).await.unwrap().unwrap();
        assert!(frame.is_ping(), "{frame:?}");
        alive.flush().await.unwrap();
    }
    set_and_get(&mut alive, 1, "still here").await;

    let mut dead = connect_raw(rig.addr).await;
    let (opcode, _) = server_frame(&mut dead).await;
    assert_eq!(opcode, 9, "first a ping");
    let close = loop {
        let (opcode, payload) = server_frame(&mut dead).await;
        if opcode != 9 {
            break (opcode, payload);
        }
    };
    assert_eq!((close.0, &close.1[..2]), (8, &1008_u16.to_be_bytes()[..]));
}
