//! Told to stop, a front-end answers what it has and says goodbye.

use super::rig::*;
use kvservice_server::config::EdgeConfig;
use kvservice_server::edge::ToConn;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn what_is_in_flight_is_answered_and_then_all_are_closed_with_1001() {
    let (rig, mut gateway) = rig(EdgeConfig::default()).await;
    let mut idle = connect(rig.addr).await;
    opened(&mut gateway).await;
    let mut busy = connect(rig.addr).await;
    let (busy_conn, to) = opened(&mut gateway).await;
    send(&mut busy, r#"{"id":1,"op":"get","key":"k"}"#).await;
    let (_, asked) = requests(&mut gateway).await;

    rig.stop.stop();
    assert_eq!(close_frame(&mut idle).await.0, 1001);
    drop(idle);
    assert_ne!(closed(&mut gateway).await, busy_conn);
    assert!(
        TcpStream::connect(rig.addr).await.is_err(),
        "nobody is accepted any more"
    );
    // Asked too late: it is not read.
    send(&mut busy, r#"{"id":2,"op":"get","key":"k"}"#).await;
    assert!(to.send(ToConn::Responses(vec![got(&asked[0], "answered")])));
    assert!(receive(&mut busy).await.contains("answered"));
    assert_eq!(close_frame(&mut busy).await.0, 1001);
    drop(busy);
    assert_eq!(closed(&mut gateway).await, busy_conn);
    soon("serve to return", rig.served).await.unwrap();
    assert!(gateway.try_recv().is_err(), "nothing came after");
}

#[tokio::test]
async fn an_answer_that_never_comes_is_waited_for_but_not_for_ever() {
    let config = EdgeConfig {
        drain_timeout: Duration::from_millis(200),
        ..EdgeConfig::default()
    };
    let (rig, mut gateway) = rig(config).await;
    let mut ws = connect(rig.addr).await;
    let (_, _to) = opened(&mut gateway).await;
    send(&mut ws, r#"{"id":1,"op":"get","key":"k"}"#).await;
    requests(&mut gateway).await;
    rig.stop.stop();
    let (code, reason) = close_frame(&mut ws).await;
    assert_eq!(code, 1001);
    assert!(reason.contains("unknown outcome"), "{reason}");
    drop(ws);
    soon("serve to return", rig.served).await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_say_goodbye_does_not_hold_up_the_stop() {
    let config = EdgeConfig {
        drain_timeout: Duration::from_millis(200),
        close_timeout: Duration::from_millis(200),
        ..EdgeConfig::default()
    };
    let (rig, _seen) = echo_rig(config).await;
    let _mute = connect_raw(rig.addr).await;
    rig.stop.stop();
    soon("serve to return", rig.served).await.unwrap();
}

#[tokio::test]
async fn connections_that_ask_nothing_are_closed_at_once() {
    // Browsers keep such connections; a stop that waited for them would wait for these times.
    let hour = Duration::from_secs(3600);
    let config = EdgeConfig {
        drain_timeout: hour,
        handshake_timeout: hour,
        ..EdgeConfig::default()
    };
    let (rig, _seen) = echo_rig(config).await;
    let mut unused = TcpStream::connect(rig.addr).await.unwrap();
    let mut half_asked = TcpStream::connect(rig.addr).await.unwrap();
    half_asked.write_all(b"GET / HT").await.unwrap();
    let mut kept = TcpStream::connect(rig.addr).await.unwrap();
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        assert_ne!(
            soon("an answer", kept.read_buf(&mut answer)).await.unwrap(),
            0
        );
    }
    rig.stop.stop();
    soon("serve to return", rig.served).await.unwrap();
    for tcp in [&mut unused, &mut half_asked, &mut kept] {
        // An end of file or a reset: closed is closed.
        assert_eq!(
            soon("the end", tcp.read(&mut [0; 16])).await.unwrap_or(0),
            0
        );
    }
}

#[tokio::test]
async fn a_gateway_that_is_gone_closes_its_connections() {
    let (rig, mut gateway) = rig(EdgeConfig::default()).await;
    let mut ws = connect(rig.addr).await;
    let (_, to) = opened(&mut gateway).await;
    drop((gateway, to));
    assert_eq!(close_frame(&mut ws).await.0, 1001);
}
