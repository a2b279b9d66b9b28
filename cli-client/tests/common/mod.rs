//! A small front-end for tests: it speaks the client protocol over a map in memory, keeps the
//! outcomes of sessions, and misbehaves exactly when told.

// Each test file uses its own part of this.
#![allow(dead_code)]
#![expect(
    clippy::unwrap_used,
    reason = "test code: a failure here is the test's"
)]

use futures_util::{SinkExt, StreamExt};
use kvservice_client::{ApiError, ErrorCode, Limits, ListEntry, Op, Reply, Response, Seq};
use kvservice_shared::api::json::{decode_requests, responses_to_json};
use kvservice_shared::api::{
    CLOSE_SESSION_TAKEN_OVER, FrontEndStatus, Mode, PROTOCOL_VERSION, Request, SUBPROTOCOL, Status,
    Value,
};
use kvservice_shared::ids::{RequestId, SessionUuid};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server as handshake;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// What goes wrong, at the next frame that holds a request other than `hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing; it is the frame after that something may happen to.
    None,
    /// The connection breaks before anything of the frame is applied.
    DropBefore,
    /// The connection breaks after the frame is applied and before it is answered.
    DropAfter,
    /// As `DropAfter`, and the session is forgotten.
    DropAndForget,
    /// Neither this frame nor anything after it on this connection is read or answered.
    Mute,
    /// The frame is applied, and answered once [`Server::release`] is called. Pings are answered
    /// meanwhile; frames wait.
    Hold,
    /// Each request of it is answered with `unavailable`.
    Unavailable,
    /// Each request of it is answered with `too_large`.
    TooLarge,
    /// The connection is closed as if another one had taken the session over.
    TakeOver,
}

/// One request as the server saw it, `hello` included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which connection, from 1.
    pub connection: usize,
    /// Which frame of that connection, from 1.
    pub frame: usize,
    pub request: Request,
}

#[derive(Default)]
struct State {
    data: BTreeMap<String, (Value, Seq)>,
    revision: u64,
    sessions: HashMap<SessionUuid, BTreeMap<RequestId, Response>>,
    faults: VecDeque<Fault>,
    refuse_hello: bool,
    seen: Vec<Seen>,
    connections: usize,
    pings: usize,
}

/// The server. It runs on a thread of its own until the test's process ends.
#[derive(Clone)]
pub struct Server {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    released: Arc<watch::Sender<bool>>,
    broken: Arc<watch::Sender<u64>>,
}

impl Server {
    pub fn start(faults: impl IntoIterator<Item = Fault>) -> Server {
        let state = State {
            faults: faults.into_iter().collect(),
            ..State::default()
        };
        let state = Arc::new(Mutex::new(state));
        let released = Arc::new(watch::channel(false).0);
        let broken = Arc::new(watch::channel(0).0);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server {
            address,
            state,
            released,
            broken,
        };
        let serving = server.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(serving.serve(listener));
        });
        server
    }

    /// `hello` is answered with `unavailable` from now on, or no longer.
    pub fn refuse_hello(&self, refuse: bool) {
        self.state().refuse_hello = refuse;
    }

    /// Lets [`Fault::Hold`] answer, now and later.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    pub fn preset(&self, key: &str, value: impl Into<Value>) {
        let mut state = self.state();
        state.revision += 1;
        let revision = Seq(state.revision);
        state.data.insert(key.to_owned(), (value.into(), revision));
    }

    pub fn value(&self, key: &str) -> Option<Value> {
        self.state().data.get(key).map(|(value, _)| value.clone())
    }

    /// Everything that came in, without `hello`.
    pub fn seen(&self) -> Vec<Seen> {
        let is_hello = |seen: &Seen| matches!(seen.request.op, Op::Hello { .. });
        self.state()
            .seen
            .iter()
            .filter(|seen| !is_hello(seen))
            .cloned()
            .collect()
    }

    pub fn hellos(&self) -> usize {
        self.state()
            .seen
            .iter()
            .filter(|s| matches!(s.request.op, Op::Hello { .. }))
            .count()
    }

    /// Every connection there is breaks.
    pub fn break_connections(&self) {
        self.broken.send_modify(|times| *times += 1);
    }

    pub fn pings(&self) -> usize {
        self.state().pings
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn serve(self, listener: std::net::TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(self.clone().connection(stream));
        }
    }

    async fn connection(self, stream: TcpStream) {
        #[expect(clippy::result_large_err, reason = "the library's own signature")]
        let echo = |_: &handshake::Request, mut response: handshake::Response| {
            response
                .headers_mut()
                .insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
            Ok(response)
        };
        let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, echo).await else {
            return;
        };
        let connection = {
            let mut state = self.state();
            state.connections += 1;
            state.connections
        };
        let mut peer = Peer {
            socket,
            connection,
            frame: 0,
            session: None,
            held: VecDeque::new(),
        };
        let mut broken = self.broken.subscribe();
        let serve = async {
            while let Some(text) = self.next_frame(&mut peer).await {
                peer.frame += 1;
                if !self.frame(&mut peer, &text).await {
                    return;
                }
            }
        };
        tokio::select! {
            _ = broken.changed() => {}
            () = serve => {}
        }
    }

    async fn next_frame(&self, peer: &mut Peer) -> Option<Utf8Bytes> {
        if let Some(text) = peer.held.pop_front() {
            return Some(text);
        }
        loop {
            match peer.socket.next().await?.ok()? {
                Message::Text(text) => return Some(text),
                Message::Ping(_) => self.state().pings += 1,
                _ => {}
            }
        }
    }

    /// Takes what comes, and puts it by, until [`Server::release`].
    async fn hold(&self, peer: &mut Peer) -> Option<()> {
        let mut released = self.released.subscribe();
        let mut arrived = VecDeque::new();
        loop {
            tokio::select! {
                released = released.wait_for(|&released| released) => {
                    released.ok()?;
                    peer.held.extend(arrived);
                    return Some(());
                }
                text = self.next_frame(peer) => arrived.push_back(text?),
            }
        }
    }

    /// Whether the connection goes on.
    async fn frame(&self, peer: &mut Peer, text: &str) -> bool {
        let decoded = decode_requests(text);
        let requests: Vec<Request> = decoded
            .requests
            .into_iter()
            .map(|request| request.expect("a valid request"))
            .collect();
        let (fault, responses) = {
            let mut state = self.state();
            let only_hello = requests.iter().all(|r| matches!(r.op, Op::Hello { .. }));
            let fault = match only_hello {
                true => Fault::None,
                false => state.faults.pop_front().unwrap_or(Fault::None),
            };
            if fault == Fault::DropBefore {
                return false;
            }
            for request in &requests {
                state.seen.push(Seen {
                    connection: peer.connection,
                    frame: peer.frame,
                    request: request.clone(),
                });
            }
            let responses: Vec<Response> = match fault {
                Fault::Mute | Fault::TakeOver => Vec::new(),
                Fault::Unavailable => requests.iter().map(|r| unavailable(r.id)).collect(),
                Fault::TooLarge => requests
                    .iter()
                    .map(|r| refusal(r.id, ErrorCode::TooLarge, "more than fits"))
                    .collect(),
                _ => requests
                    .into_iter()
                    .map(|r| state.answer(r, &mut peer.session))
                    .collect(),
            };
            if let (Fault::DropAndForget, Some(session)) = (fault, &peer.session) {
                state.sessions.remove(session);
            }
            (fault, responses)
        };
        match fault {
            Fault::DropBefore | Fault::DropAfter | Fault::DropAndForget => return false,
            Fault::Mute => return std::future::pending().await,
            Fault::TakeOver => {
                let close = CloseFrame {
                    code: CLOSE_SESSION_TAKEN_OVER.into(),
                    reason: "taken over".into(),
                };
                let _ = peer.socket.close(Some(close)).await;
                return false;
            }
            Fault::Hold => {
                if self.hold(peer).await.is_none() {
                    return false;
                }
            }
            Fault::None | Fault::Unavailable | Fault::TooLarge => {}
        }
        let text = match responses.as_slice() {
            [response] if !decoded.batch => response.to_json(),
            responses => responses_to_json(responses),
        };
        peer.socket.send(Message::text(text)).await.is_ok()
    }
}

/// One connection.
struct Peer {
    socket: WebSocketStream<TcpStream>,
    /// Its number, from 1, and that of its last frame.
    connection: usize,
    frame: usize,
    session: Option<SessionUuid>,
    /// Frames that came while an answer was held back.
    held: VecDeque<Utf8Bytes>,
}

fn unavailable(id: RequestId) -> Response {
    refusal(id, ErrorCode::Unavailable, "no node has joined yet")
}

fn refusal(id: RequestId, code: ErrorCode, message: &str) -> Response {
    Response {
        id: Some(id),
        result: Err(ApiError::not_applied(code, message)),
    }
}

impl State {
    fn answer(&mut self, request: Request, session: &mut Option<SessionUuid>) -> Response {
        let id = request.id;
        if let Op::Hello { session: name } = request.op {
            if self.refuse_hello {
                return unavailable(id);
            }
            let resumed = self.sessions.contains_key(&name);
            self.sessions.entry(name).or_default();
            *session = Some(name);
            let result = Ok(Reply::Hello {
                session: name,
                resumed,
                opened: None,
                protocol: PROTOCOL_VERSION,
                server: "kvservice/test".into(),
                limits: Limits::CURRENT,
            });
            return Response {
                id: Some(id),
                result,
            };
        }
        let outcomes = session.and_then(|session| self.sessions.get(&session));
        if let Some(known) = outcomes.and_then(|outcomes| outcomes.get(&id)) {
            return known.clone();
        }
        let is_write = request.op.kind().is_write();
        let response = Response {
            id: Some(id),
            result: Ok(self.apply(request.op)),
        };
        if let (true, Some(session)) = (is_write, &session) {
            self.sessions
                .entry(*session)
                .or_default()
                .insert(id, response.clone());
        }
        response
    }

    fn apply(&mut self, op: Op) -> Reply {
        match op {
            Op::Get { key } => match self.data.get(&key) {
                Some((value, revision)) => Reply::Get {
                    value: Some(value.clone()),
                    revision: *revision,
                },
                None => Reply::Get {
                    value: None,
                    revision: Seq(0),
                },
            },
            Op::Set { key, value } => {
                let revision = self.put(key, value.clone());
                Reply::Set { value, revision }
            }
            Op::TestSet { key, test, value } => {
                let found = self.data.get(&key).cloned();
                if found.as_ref().map(|(found, _)| found) == test.as_ref() {
                    let revision = self.put(key, value.clone());
                    return Reply::TestSet {
                        swapped: true,
                        value: Some(value),
                        revision,
                    };
                }
                let (value, revision) = found.map_or((None, Seq(0)), |(v, r)| (Some(v), r));
                Reply::TestSet {
                    swapped: false,
                    value,
                    revision,
                }
            }
            Op::Delete { key } => {
                let deleted = self.data.remove(&key).is_some();
                self.revision += u64::from(deleted);
                let revision = if deleted { Seq(self.revision) } else { Seq(0) };
                Reply::Delete { deleted, revision }
            }
            Op::List {
                prefix,
                after,
                limit,
            } => {
                let mut entries: Vec<ListEntry> = self
                    .data
                    .iter()
                    .filter(|(key, _)| key.starts_with(&prefix) && **key > after)
                    .take(limit as usize + 1)
                    .map(|(key, (value, revision))| ListEntry {
                        key: key.clone(),
                        value: value.clone(),
                        revision: *revision,
                    })
                    .collect();
                let more = entries.len() > limit as usize;
                entries.truncate(limit as usize);
                Reply::List { entries, more }
            }
            Op::Status => Reply::Status(Box::new(Status {
                mode: Mode::Chain,
                cluster: None,
                epoch: 0,
                members: Vec::new(),
                learners: Vec::new(),
                front_end: FrontEndStatus::default(),
                events: Vec::new(),
                waiting: Some("no node has joined yet".into()),
            })),
            Op::Hello { .. } => unreachable!("hello is answered before"),
        }
    }

    fn put(&mut self, key: String, value: Value) -> Seq {
        self.revision += 1;
        self.data.insert(key, (value, Seq(self.revision)));
        Seq(self.revision)
    }
}

/// An address at which nothing listens.
pub fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Far longer than anything here takes; a test that comes to it has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
