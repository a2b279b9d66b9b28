//! What the tests share: an edge on a free port, a gateway that a test plays itself or leaves to [`echo`], and
//! clients.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use kvservice_backend::shutdown::{ShutdownTrigger, shutdown};
use kvservice_server::config::EdgeConfig;
use kvservice_server::edge::{ConnSender, Edge, FromConn, Health, ToConn, serve};
use kvservice_shared::api::{Op, Reply, Request, Response, SUBPROTOCOL, Value, WS_PATH};
use kvservice_shared::ids::{ConnId, Seq};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Longer than anything here may take on a busy machine: reaching it is a failure, not a wait.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Fails, rather than hangs, where what a test waits for does not come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Looks again until it is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    soon(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

pub struct Rig {
    pub addr: SocketAddr,
    pub edge: Arc<Edge>,
    pub health: watch::Sender<Health>,
    pub stop: ShutdownTrigger,
    pub served: JoinHandle<()>,
}

/// An edge, and the queue to the gateway that the test plays.
pub async fn rig(config: EdgeConfig) -> (Rig, mpsc::Receiver<FromConn>) {
    let (gateway, from_conns) = mpsc::channel(4);
    let (health, health_seen) = watch::channel(Ok(()));
    let edge = Arc::new(Edge::new(gateway, config, health_seen));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, shutdown) = shutdown();
    let served = tokio::spawn(serve(listener, Arc::clone(&edge), shutdown));
    (
        Rig {
            addr,
            edge,
            health,
            stop,
            served,
        },
        from_conns,
    )
}

/// An edge over a map: every request is answered at once.
pub async fn echo_rig(config: EdgeConfig) -> (Rig, watch::Receiver<Seen>) {
    let (rig, from_conns) = rig(config).await;
    let (seen, seen_rx) = watch::channel(Seen::default());
    tokio::spawn(echo(from_conns, seen));
    (rig, seen_rx)
}

/// What the echoing gateway saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Requests of each connection that was opened.
    pub requests: BTreeMap<ConnId, usize>,
    pub closed: Vec<ConnId>,
}

async fn echo(mut from_conns: mpsc::Receiver<FromConn>, seen: watch::Sender<Seen>) {
    let mut conns: HashMap<ConnId, ConnSender> = HashMap::new();
    let mut map: HashMap<String, Value> = HashMap::new();
    while let Some(message) = from_conns.recv().await {
        match message {
            FromConn::Opened { conn, to } => {
                assert!(conns.insert(conn, to).is_none(), "{conn} opened twice");
                seen.send_modify(|seen| _ = seen.requests.insert(conn, 0));
            }
            FromConn::Requests { conn, requests } => {
                assert!(!requests.is_empty());
                seen.send_modify(|seen| *seen.requests.get_mut(&conn).unwrap() += requests.len());
                let responses = requests
                    .into_iter()
                    .map(|request| answer(request, &mut map))
                    .collect();
                conns[&conn].send(ToConn::Responses(responses));
            }
            FromConn::Dump { .. } | FromConn::DumpNext { .. } => panic!("the echo has no dumps"),
            FromConn::Closed { conn } => {
                assert!(
                    conns.remove(&conn).is_some(),
                    "{conn} closed and was not open"
                );
                seen.send_modify(|seen| seen.closed.push(conn));
            }
        }
    }
}

fn answer(request: Request, map: &mut HashMap<String, Value>) -> Response {
    let revision = Seq(request.id.0);
    let reply = match request.op {
        Op::Set { key, value } => {
            map.insert(key, value.clone());
            Reply::Set { value, revision }
        }
        Op::Get { key } => Reply::Get {
            value: map.get(&key).cloned(),
            revision,
        },
        other => panic!("the echo knows no {other:?}"),
    };
    Response {
        id: Some(request.id),
        result: Ok(reply),
    }
}

/// An answer to any `get`.
pub fn got(request: &Request, value: &str) -> Response {
    let reply = Reply::Get {
        value: Some(Value::from(value)),
        revision: Seq(1),
    };
    Response {
        id: Some(request.id),
        result: Ok(reply),
    }
}

/// The next requests, and whose.
pub async fn requests(from_conns: &mut mpsc::Receiver<FromConn>) -> (ConnId, Vec<Request>) {
    match soon("requests", from_conns.recv()).await {
        Some(FromConn::Requests { conn, requests }) => (conn, requests),
        other => panic!("expected requests, got {other:?}"),
    }
}

/// The connection that is opened next.
pub async fn opened(from_conns: &mut mpsc::Receiver<FromConn>) -> (ConnId, ConnSender) {
    match soon("a connection", from_conns.recv()).await {
        Some(FromConn::Opened { conn, to }) => (conn, to),
        other => panic!("expected a connection, got {other:?}"),
    }
}

/// The connection that is closed next.
pub async fn closed(from_conns: &mut mpsc::Receiver<FromConn>) -> ConnId {
    match soon("a closed connection", from_conns.recv()).await {
        Some(FromConn::Closed { conn }) => conn,
        other => panic!("expected a closed connection, got {other:?}"),
    }
}

pub type Ws = WebSocketStream<TcpStream>;

/// A client with an open WebSocket.
pub async fn connect(addr: SocketAddr) -> Ws {
    let tcp = TcpStream::connect(addr).await.unwrap();
    let url = format!("ws://{addr}{WS_PATH}");
    soon("the handshake", tokio_tungstenite::client_async(url, tcp))
        .await
        .unwrap()
        .0
}

pub async fn send(ws: &mut Ws, text: impl Into<String>) {
    soon("room to send", ws.send(Message::text(text.into())))
        .await
        .unwrap();
}

/// The next text frame.
pub async fn receive(ws: &mut Ws) -> String {
    loop {
        match soon("a frame", ws.next()).await {
            Some(Ok(Message::Text(text))) => return text.to_string(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("expected text, got {other:?}"),
        }
    }
}

/// The code and reason with which the server closes, whatever comes before.
pub async fn close_frame(ws: &mut Ws) -> (u16, String) {
    loop {
        match soon("a close frame", ws.next()).await {
            Some(Ok(Message::Close(Some(frame)))) => {
                return (frame.code.into(), frame.reason.to_string());
            }
            Some(Ok(_)) => {}
            other => panic!("expected a close frame, got {other:?}"),
        }
    }
}

/// A round trip.
pub async fn set_and_get(ws: &mut Ws, id: u64, value: &str) {
    send(
        ws,
        format!(r#"{{"id":{id},"op":"set","key":"k","value":"{value}"}}"#),
    )
    .await;
    assert_eq!(
        receive(ws).await,
        format!(r#"{{"id":{id},"value":"{value}","revision":{id}}}"#)
    );
    let id = id + 1;
    send(ws, format!(r#"{{"id":{id},"op":"get","key":"k"}}"#)).await;
    assert_eq!(
        receive(ws).await,
        format!(r#"{{"id":{id},"value":"{value}","revision":{id}}}"#)
    );
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Http {
    pub status: u16,
    pub head: String,
    pub body: Bytes,
}

impl Http {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Sends a head as it is written, and reads until the head (of a 101) or everything has come.
pub async fn http_raw(addr: SocketAddr, request: &str) -> Http {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let head_end = |bytes: &[u8]| bytes.windows(4).position(|end| end == b"\r\n\r\n");
    soon("an HTTP answer", async {
        while tcp.read_buf(&mut bytes).await.unwrap_or(0) > 0 {
            if bytes.starts_with(b"HTTP/1.1 101") && head_end(&bytes).is_some() {
                break;
            }
        }
    })
    .await;
    let end = head_end(&bytes).unwrap_or_else(|| panic!("no answer to {request:?}: {bytes:?}"));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Http {
        status,
        head,
        body: Bytes::copy_from_slice(&bytes[end + 4..]),
    }
}

/// A GET with some more header lines, each ended by `\r\n`.
pub async fn http_get(addr: SocketAddr, path: &str, headers: &str) -> Http {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n{headers}\r\n");
    http_raw(addr, &request).await
}

/// The head of a handshake that is right.
pub fn handshake(addr: SocketAddr) -> String {
    format!(
        "GET {WS_PATH} HTTP/1.1\r\nHost: {addr}\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    )
}

/// A socket on which the handshake is done, for clients that then misbehave.
pub async fn connect_raw(addr: SocketAddr) -> TcpStream {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    tcp.write_all(handshake(addr).as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("the handshake", tcp.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    tcp
}

/// A client's frame: final, masked with zeros.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        medium @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((medium as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// A short frame of the server's.
pub async fn server_frame(tcp: &mut TcpStream) -> (u8, Vec<u8>) {
    soon("a frame", async {
        let opcode = tcp.read_u8().await.unwrap() & 0x0f;
        let length = tcp.read_u8().await.unwrap();
        assert!(length < 126, "a long frame");
        let mut payload = vec![0; usize::from(length)];
        tcp.read_exact(&mut payload).await.unwrap();
        (opcode, payload)
    })
    .await
}
