//! What a connection may hold, and that the others do not feel it.

use super::rig::*;
use kvservice_server::config::EdgeConfig;
use kvservice_server::edge::{FromConn, ToConn};
use kvservice_shared::ids::ConnId;
use kvservice_shared::limits::IN_FLIGHT_REQUESTS_MAX;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_connection_passes_on_no_more_than_its_window() {
    let (rig, mut gateway) = rig(EdgeConfig::default()).await;
    let mut ws = connect(rig.addr).await;
    let (_, to) = opened(&mut gateway).await;
    let total = 3 * IN_FLIGHT_REQUESTS_MAX;
    for first in (0..total).step_by(500) {
        let ids = first..total.min(first + 500);
        let batch: Vec<_> = ids
            .map(|id| json!({"id":id + 1,"op":"get","key":"k"}))
            .collect();
        send(&mut ws, Value::from(batch).to_string()).await;
    }

    let mut waiting = Vec::new();
    let mut passed_on = 0;
    let mut answered = 0;
    while answered < total {
        while passed_on < total.min(answered + IN_FLIGHT_REQUESTS_MAX) {
            let (_, more) = requests(&mut gateway).await;
            passed_on += more.len();
            waiting.extend(more);
            assert!(
                passed_on <= answered + IN_FLIGHT_REQUESTS_MAX,
                "{passed_on} after {answered}"
            );
        }
        assert!(gateway.is_empty(), "more than the window");
        let some: Vec<_> = waiting.drain(..waiting.len().min(100)).collect();
        assert!(to.send(ToConn::Responses(
            some.iter().map(|r| got(r, "v")).collect()
        )));
        // The window opens once they are in the socket.
        let mut received = 0;
        while received < some.len() {
            let frame: Value = serde_json::from_str(&receive(&mut ws).await).unwrap();
            received += frame.as_array().map_or(1, Vec::len);
        }
        answered += received;
    }
    assert_eq!(passed_on, total);
}

#[tokio::test]
async fn one_that_never_reads_is_held_then_cut_off_and_hurts_nobody() {
    let config = EdgeConfig {
        write_stall_timeout: Duration::from_millis(500),
        ..EdgeConfig::default()
    };
    let (rig, mut seen) = echo_rig(config).await;
    let slow_conn = ConnId(1);
    let mut slow = connect_raw(rig.addr).await;
    let mut other = connect(rig.addr).await;
    send(
        &mut other,
        json!({"id":1,"op":"set","key":"big","value":"x".repeat(1 << 20)}).to_string(),
    )
    .await;
    receive(&mut other).await;

    let gets = |ids: std::ops::Range<u64>| {
        let get = |id| {
            frame(
                1,
                json!({"id":id,"op":"get","key":"big"})
                    .to_string()
                    .as_bytes(),
            )
        };
        ids.flat_map(get).collect::<Vec<u8>>()
    };
    slow.write_all(&gets(1..65)).await.unwrap();
    let asked = |seen: &Seen| seen.requests[&slow_conn] == 64;
    soon("the first requests", seen.wait_for(asked))
        .await
        .unwrap();
    until("answers to pile up", || rig.edge.queued_bytes() > 9 << 20).await;
    slow.write_all(&gets(65..129)).await.unwrap();

    let mut id = 2;
    while !seen.borrow().closed.contains(&slow_conn) {
        set_and_get(&mut other, id, "quick").await;
        id += 2;
    }
    assert!(id > 20, "the other was served meanwhile");
    assert_eq!(
        seen.borrow().requests[&slow_conn],
        64,
        "it was not read any more"
    );
    until("its answers to be let go", || rig.edge.queued_bytes() == 0).await;
}

#[tokio::test]
async fn a_flood_of_pings_that_reads_no_pongs_is_held_and_cut_off() {
    let config = EdgeConfig {
        write_stall_timeout: Duration::from_millis(300),
        ..EdgeConfig::default()
    };
    let (rig, mut seen) = echo_rig(config).await;
    let mut flood = connect_raw(rig.addr).await;
    let mut other = connect(rig.addr).await;
    let pings: Vec<u8> = std::iter::repeat_n(frame(9, &[7; 125]), 1000)
        .flatten()
        .collect();
    let flooding = tokio::spawn(async move {
        let mut sent = 0_u64;
        // Until it is not read any more, and then cut off.
        while flood.write_all(&pings).await.is_ok() {
            sent += pings.len() as u64;
        }
        sent
    });
    let cut_off = |seen: &Seen| seen.closed.contains(&ConnId(1));
    soon("the flood to be cut off", seen.wait_for(cut_off))
        .await
        .unwrap();
    // What the sockets' buffers hold, and little more, was ever taken.
    let sent = soon("the flood to notice", flooding).await.unwrap();
    assert!(sent < 64 << 20, "{sent} bytes were taken");
    set_and_get(&mut other, 1, "unharmed").await;
}

#[tokio::test]
async fn writes_of_many_megabytes_wait_for_their_turn() {
    let (rig, mut gateway) = rig(EdgeConfig::default()).await;
    let mut tcp = connect_raw(rig.addr).await;
    let (_, to) = opened(&mut gateway).await;
    let value = "x".repeat(1 << 20);
    let total = 40;
    let writing = tokio::spawn(async move {
        for id in 1..=total {
            let set = json!({"id":id,"op":"set","key":"k","value":value}).to_string();
            tcp.write_all(&frame(1, set.as_bytes())).await.unwrap();
        }
        tcp
    });
    let mut waiting = Vec::new();
    let mut answered = 0;
    while answered < total {
        // Eight of them are a little over 8 MiB.
        while waiting.len() < 8.min(total - answered) {
            waiting.extend(requests(&mut gateway).await.1);
            assert!(waiting.len() <= 8, "{} MiB are in flight", waiting.len());
        }
        let oldest = waiting.remove(0);
        answered += 1;
        assert!(to.send(ToConn::Responses(vec![got(&oldest, "v")])));
    }
    soon("all to be written", writing).await.unwrap();
}

#[tokio::test]
async fn large_frames_of_all_connections_together_have_a_limit() {
    let config = EdgeConfig {
        inbound_bytes_max: 12 << 20,
        ..EdgeConfig::default()
    };
    let (rig, _seen) = echo_rig(config).await;
    let part = {
        let mut part = frame(1, &vec![b' '; 8 << 20]);
        part.truncate(7 << 20);
        part
    };
    let mut first = connect_raw(rig.addr).await;
    first.write_all(&part).await.unwrap();
    let mut second = connect_raw(rig.addr).await;
    // It may be cut off while it sends.
    let _ = second.write_all(&part).await;
    let (opcode, payload) = server_frame(&mut second).await;
    assert_eq!((opcode, &payload[..2]), (8, &1013_u16.to_be_bytes()[..]));
    drop(second);

    // Small ones pass all the while, and room that is let go can be had again.
    let mut small = connect(rig.addr).await;
    set_and_get(&mut small, 1, "small").await;
    drop(first);
    soon("room for a large frame", async {
        loop {
            let mut third = connect_raw(rig.addr).await;
            let set = json!({"id":1,"op":"set","key":"k","value":"v","x":"y".repeat(7 << 20)});
            let _ = third.write_all(&frame(1, set.to_string().as_bytes())).await;
            if server_frame_or_error(&mut third).await == 1 {
                break;
            }
        }
    })
    .await;
}

async fn server_frame_or_error(tcp: &mut TcpStream) -> u8 {
    tcp.read_u8().await.map_or(8, |first| first & 0x0f)
}

#[tokio::test]
async fn a_slow_gateway_makes_clients_wait_and_loses_nothing() {
    // Its queue holds four messages, and twenty clients have more to say.
    let (rig, mut gateway) = rig(EdgeConfig::default()).await;
    let clients: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn(async move {
                let mut ws = connect(rig.addr).await;
                for id in 1..=50 {
                    send(&mut ws, json!({"id":id,"op":"get","key":"k"}).to_string()).await;
                }
                for _ in 1..=50 {
                    receive(&mut ws).await;
                }
            })
        })
        .collect();
    let mut conns = HashMap::new();
    let mut open = 20;
    while open > 0 {
        match soon("clients", gateway.recv()).await.unwrap() {
            FromConn::Opened { conn, to } => _ = conns.insert(conn, to),
            FromConn::Requests { conn, requests } => {
                tokio::task::yield_now().await;
                let responses = requests.iter().map(|request| got(request, "v")).collect();
                conns[&conn].send(ToConn::Responses(responses));
            }
            FromConn::Dump { .. } | FromConn::DumpNext { .. } => panic!("nobody asked for a dump"),
            FromConn::Closed { .. } => open -= 1,
        }
    }
    for client in clients {
        client.await.unwrap();
    }
}
