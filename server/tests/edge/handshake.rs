//! Becoming a connection, and every way not to.

use super::rig::*;
use kvservice_server::config::EdgeConfig;
use kvservice_shared::api::SUBPROTOCOL;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn the_subprotocol_is_echoed_if_offered() {
    let (rig, _seen) = echo_rig(EdgeConfig::default()).await;
    let offered = http_raw(rig.addr, &handshake(rig.addr)).await;
    assert_eq!(offered.status, 101);
    assert_eq!(offered.header("sec-websocket-protocol"), Some(SUBPROTOCOL));
    // The key and the answer to it are RFC 6455's own example.
    assert_eq!(
        offered.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );

    let several = handshake(rig.addr).replace(SUBPROTOCOL, &format!("graphql-ws, {SUBPROTOCOL}"));
    let several = http_raw(rig.addr, &several).await;
    assert_eq!(several.status, 101);
    assert_eq!(several.header("sec-websocket-protocol"), Some(SUBPROTOCOL));

    let none =
        handshake(rig.addr).replace(&format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"), "");
    let none = http_raw(rig.addr, &none).await;
    assert_eq!(none.status, 101);
    assert_eq!(none.header("sec-websocket-protocol"), None);
}

#[tokio::test]
async fn what_is_wrong_with_a_handshake_is_said() {
    let (rig, seen) = echo_rig(EdgeConfig::default()).await;
    let right = handshake(rig.addr);
    for (status, says, wrong) in [
        (
            400,
            SUBPROTOCOL,
            right.replace(SUBPROTOCOL, "kvservice.v2.cbor"),
        ),
        (
            426,
            "version 13",
            right.replace("Version: 13", "Version: 8"),
        ),
        (
            426,
            "version 13",
            right.replace("Sec-WebSocket-Version: 13\r\n", ""),
        ),
        (
            426,
            "ws://",
            right.replace("Upgrade: websocket\r\n", "Connection: close\r\n"),
        ),
        (426, "ws://", right.replace("HTTP/1.1", "HTTP/1.0")),
        (
            400,
            "Sec-WebSocket-Key",
            right.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
        ),
        (405, "GET", right.replace("GET", "POST")),
        (
            403,
            "--allow-origin http://evil.example",
            right.replace("\r\n\r\n", "\r\nOrigin: http://evil.example\r\n\r\n"),
        ),
    ] {
        let close = wrong.replace("keep-alive, Upgrade", "close, Upgrade");
        let answer = http_raw(rig.addr, &close).await;
        assert_eq!(answer.status, status, "{wrong}");
        assert!(answer.text().contains(says), "{wrong}: {}", answer.text());
        if status == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"));
            assert_eq!(answer.header("upgrade"), Some("websocket"));
        }
    }
    assert!(
        seen.borrow().requests.is_empty(),
        "none of them became a connection"
    );
}

#[tokio::test]
async fn a_named_origin_may_connect() {
    let allow_origins = vec!["https://kv.example.com".to_string()];
    let (rig, _seen) = echo_rig(EdgeConfig {
        allow_origins,
        ..EdgeConfig::default()
    })
    .await;
    let with = |origin: &str| {
        handshake(rig.addr).replace(
            "\r\n\r\n",
            &format!("\r\nOrigin: {origin}\r\nConnection: close\r\n\r\n"),
        )
    };
    assert_eq!(
        http_raw(rig.addr, &with("https://kv.example.com"))
            .await
            .status,
        101
    );
    assert_eq!(
        http_raw(rig.addr, &with(&format!("http://{}", rig.addr)))
            .await
            .status,
        101
    );
    assert_eq!(
        http_raw(rig.addr, &with("http://localhost:8080"))
            .await
            .status,
        101
    );
    assert_eq!(
        http_raw(rig.addr, &with("https://other.example.com"))
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn a_client_may_send_before_it_has_read_the_handshake() {
    let (rig, _seen) = echo_rig(EdgeConfig::default()).await;
    let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
    let mut eager = handshake(rig.addr).into_bytes();
    eager.extend(frame(1, br#"{"id":1,"op":"get","key":"k"}"#));
    tcp.write_all(&eager).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("the handshake", tcp.read_u8()).await.unwrap());
    }
    let (opcode, payload) = server_frame(&mut tcp).await;
    assert_eq!(
        (opcode, payload.as_slice()),
        (1, &br#"{"id":1,"value":null,"revision":1}"#[..])
    );
}

#[tokio::test]
async fn a_handshake_that_is_never_finished_is_closed() {
    let handshake_timeout = Duration::from_millis(200);
    let (rig, _seen) = echo_rig(EdgeConfig {
        handshake_timeout,
        ..EdgeConfig::default()
    })
    .await;
    for part in ["", "GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgr"] {
        let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
        tcp.write_all(part.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // An end of file or a reset: closed is closed.
        let _ = soon("the end", tcp.read_to_end(&mut rest)).await;
        assert!(!rest.starts_with(b"HTTP/1.1 101"));
    }
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let (rig, _seen) = echo_rig(EdgeConfig::default()).await;
    let cookie = "c".repeat(100_000);
    let answer = http_get(rig.addr, "/", &format!("Cookie: {cookie}\r\n")).await;
    assert_eq!(answer.status, 431);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let (rig, _seen) = echo_rig(EdgeConfig {
        max_connections: 2,
        ..EdgeConfig::default()
    })
    .await;
    let mut first = connect(rig.addr).await;
    let mut second = connect(rig.addr).await;
    let refused = http_raw(rig.addr, &handshake(rig.addr)).await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("too many connections"));
    set_and_get(&mut first, 1, "still here").await;

    first.close(None).await.unwrap();
    let mut third = soon("a free slot", async {
        loop {
            let tcp = TcpStream::connect(rig.addr).await.unwrap();
            let url = format!("ws://{}/v1/ws", rig.addr);
            if let Ok((ws, _)) = tokio_tungstenite::client_async(url, tcp).await {
                return ws;
            }
        }
    })
    .await;
    set_and_get(&mut third, 1, "third").await;
    set_and_get(&mut second, 1, "second").await;
}

#[tokio::test]
async fn health_is_the_chains() {
    let (rig, _seen) = echo_rig(EdgeConfig::default()).await;
    let well = http_get(rig.addr, "/healthz", "").await;
    assert_eq!((well.status, well.text()), (200, "ok\n"));
    rig.health
        .send(Err("no node has joined yet".to_string()))
        .unwrap();
    let ill = http_get(rig.addr, "/healthz", "").await;
    assert_eq!((ill.status, ill.text()), (503, "no node has joined yet\n"));
    assert_eq!(ill.header("cache-control"), Some("no-store"));
    let post = http_raw(
        rig.addr,
        "POST /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(
        (post.status, post.header("allow")),
        (405, Some("GET, HEAD"))
    );
}
