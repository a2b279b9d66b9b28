//! `GET /v1/dump`, with the test in the gateway's place.

use super::rig::*;
use kvservice_server::config::EdgeConfig;
use kvservice_server::edge::FromConn;
use kvservice_server::gateway::{DumpAnswer, DumpPage};
use kvservice_shared::api::{DUMP_PATH, ListEntry, Value};
use kvservice_shared::ids::{ConnId, Seq};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

type FromConns = mpsc::Receiver<FromConn>;

fn page(keys: &[&str], value: impl Into<Value>, more: bool) -> DumpAnswer {
    let value = value.into();
    let entry = |key: &&str| ListEntry {
        key: (*key).to_owned(),
        value: value.clone(),
        revision: Seq(3),
    };
    Ok(DumpPage {
        revision: Seq(7),
        entries: keys.iter().map(entry).collect(),
        more,
    })
}

/// The dump that is wanted next.
async fn wanted(from_conns: &mut FromConns) -> (ConnId, mpsc::UnboundedSender<DumpAnswer>) {
    match soon("a reader", from_conns.recv()).await {
        Some(FromConn::Dump { conn, to }) => (conn, to),
        other => panic!("expected a reader of a dump, got {other:?}"),
    }
}

async fn wants_more(from_conns: &mut FromConns, reader: ConnId) {
    match soon("a wish for more", from_conns.recv()).await {
        Some(FromConn::DumpNext { conn }) => assert_eq!(conn, reader),
        other => panic!("expected {reader} to want more, got {other:?}"),
    }
}

/// The body of a chunked answer, and whether it came to its end.
fn body(http: &Http) -> (String, bool) {
    let mut text = String::new();
    let mut rest = http.text();
    while let Some((length, chunk)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return (text, true);
        }
        let Some(data) = chunk.get(..length) else {
            text.push_str(chunk);
            break;
        };
        text.push_str(data);
        rest = chunk[length..].strip_prefix("\r\n").unwrap_or_default();
    }
    (text, false)
}

/// A client that has sent its request, and reads nothing yet.
async fn ask(rig: &Rig) -> TcpStream {
    let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
    let request = format!("GET {DUMP_PATH} HTTP/1.1\r\nHost: {}\r\n\r\n", rig.addr);
    tcp.write_all(request.as_bytes()).await.unwrap();
    tcp
}

#[tokio::test]
async fn pages_become_lines_and_the_last_one_says_so() {
    let (rig, mut from_conns) = rig(EdgeConfig::default()).await;
    let asking = tokio::spawn(http_get(rig.addr, DUMP_PATH, ""));
    let (reader, to) = wanted(&mut from_conns).await;
    to.send(page(&["a", "b\n"], "red", true)).unwrap();
    wants_more(&mut from_conns, reader).await;
    to.send(page(&[], "", true)).unwrap();
    wants_more(&mut from_conns, reader).await;
    to.send(page(&["c"], vec![0xff], false)).unwrap();
    assert_eq!(closed(&mut from_conns).await, reader);
    let http = asking.await.unwrap();
    assert_eq!(http.status, 200);
    for (name, value) in [
        ("content-type", "application/x-ndjson"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(http.header(name), Some(value));
    }
    let lines = concat!(
        "{\"key\":\"a\",\"value\":\"red\",\"revision\":3}\n",
        "{\"key\":\"b\\n\",\"value\":\"red\",\"revision\":3}\n",
        "{\"key\":\"c\",\"value\":{\"base64\":\"/w==\"},\"revision\":3}\n",
        "{\"end\":true,\"revision\":7,\"keys\":3}\n",
    );
    assert_eq!(body(&http), (lines.to_owned(), true));
}

#[tokio::test]
async fn a_refusal_is_503_with_its_reason() {
    let (rig, mut from_conns) = rig(EdgeConfig::default()).await;
    let asking = tokio::spawn(http_get(rig.addr, DUMP_PATH, ""));
    let (reader, to) = wanted(&mut from_conns).await;
    to.send(Err("4 dumps are being read already".to_owned()))
        .unwrap();
    assert_eq!(closed(&mut from_conns).await, reader);
    let http = asking.await.unwrap();
    assert_eq!(
        (http.status, http.text()),
        (503, "4 dumps are being read already\n")
    );
    assert_eq!(http.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn one_that_cannot_go_on_does_not_look_whole() {
    let (rig, mut from_conns) = rig(EdgeConfig::default()).await;
    let asking = tokio::spawn(http_get(rig.addr, DUMP_PATH, ""));
    let (reader, to) = wanted(&mut from_conns).await;
    to.send(page(&["a"], "red", true)).unwrap();
    wants_more(&mut from_conns, reader).await;
    to.send(Err("the chain changed under the dump".to_owned()))
        .unwrap();
    assert_eq!(closed(&mut from_conns).await, reader);
    let http = asking.await.unwrap();
    let (text, whole) = body(&http);
    assert_eq!((http.status, whole), (200, false));
    assert!(!text.contains("\"end\""), "{text}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_brought_few_pages() {
    const PAGES: usize = 1000;
    const PAGE_BYTES: usize = 256 * 1024;
    let (rig, mut from_conns) = rig(EdgeConfig {
        write_stall_timeout: Duration::from_millis(200),
        ..EdgeConfig::default()
    })
    .await;
    let _deaf = ask(&rig).await;
    let (reader, to) = wanted(&mut from_conns).await;
    let value = vec![b'x'; PAGE_BYTES];
    let mut brought = 1;
    to.send(page(&["k"], value.clone(), true)).unwrap();
    // What a socket takes without a reader is some megabytes; then the client is cut off.
    while let FromConn::DumpNext { conn } = soon("the end", from_conns.recv()).await.unwrap() {
        assert_eq!(conn, reader);
        brought += 1;
        assert!(brought < PAGES, "it is brought page after page");
        to.send(page(&["k"], value.clone(), true)).unwrap();
    }
}

#[tokio::test]
async fn a_client_that_goes_is_noticed_between_pages() {
    let (rig, mut from_conns) = rig(EdgeConfig::default()).await;
    let mut tcp = ask(&rig).await;
    let (reader, to) = wanted(&mut from_conns).await;
    to.send(page(&["a"], "red", true)).unwrap();
    wants_more(&mut from_conns, reader).await;
    assert!(soon("an answer", tcp.read_u8()).await.is_ok());
    drop(tcp);
    assert_eq!(closed(&mut from_conns).await, reader);
}

#[tokio::test]
async fn a_shutdown_gives_it_a_little_time_and_no_more() {
    let (rig, mut from_conns) = rig(EdgeConfig {
        drain_timeout: Duration::from_millis(50),
        ..EdgeConfig::default()
    })
    .await;
    let asking = tokio::spawn(http_get(rig.addr, DUMP_PATH, ""));
    let (reader, to) = wanted(&mut from_conns).await;
    to.send(page(&["a"], "red", true)).unwrap();
    wants_more(&mut from_conns, reader).await;
    rig.stop.stop();
    assert_eq!(closed(&mut from_conns).await, reader);
    let (text, whole) = body(&asking.await.unwrap());
    assert!(!whole && !text.contains("\"end\""), "{text}");
    soon("the end", rig.served).await.unwrap();
}

#[tokio::test]
async fn strangers_pages_and_other_methods_are_refused() {
    let (rig, _from_conns) = rig(EdgeConfig::default()).await;
    for header in [
        "Origin: http://evil.example\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
    ] {
        let http = http_get(rig.addr, DUMP_PATH, header).await;
        assert_eq!(http.status, 403, "{header}");
    }
    let rebound =
        format!("GET {DUMP_PATH} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(http_raw(rig.addr, &rebound).await.status, 403);
    for method in ["HEAD", "POST"] {
        let request = format!(
            "{method} {DUMP_PATH} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            rig.addr
        );
        let http = http_raw(rig.addr, &request).await;
        assert_eq!((http.status, http.header("allow")), (405, Some("GET")));
    }
}
