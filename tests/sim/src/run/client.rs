//! A client: the session that ships (or, as browsers without one do, bare requests), over a socket that delays,
//! breaks and loses; and what it asks.

use crate::cluster::Cluster;
use crate::rng::Rng;
use kvservice_history::{Answer, Call, Entry, Op as Asked};
use kvservice_shared::api::json::{decode_requests, decode_responses};
use kvservice_shared::api::{ApiError, ErrorCode, Op, OpKind, Outcome, Reply, Request, Value};
use kvservice_shared::ids::{ConnId, RequestId, SessionUuid};
use kvservice_shared::session::{Action, Session, SessionConfig};
use std::collections::{BTreeMap, HashMap, VecDeque};
use uuid::Uuid;

/// Keys that all clients fight over; the first is a counter.
const HOT: [&str; 5] = [COUNTER, "a", "b", "ba", "c"];
pub const COUNTER: &str = "counter";
/// Others, so that a snapshot has something to carry.
const COLD: usize = 40;
const IN_FLIGHT: usize = 12;
const SILENCE_MS: u64 = 3000;

/// What all clients did, and when: every invocation and every return is one tick of its clock.
#[derive(Debug, Default)]
pub struct History {
    pub calls: Vec<Call>,
    /// Of each call, on which of its client's connections it was sent first, and answered.
    pub connections: Vec<(u64, Option<u64>)>,
    now: u64,
}

impl History {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn invoke(&mut self, process: u64, connection: u64, op: Asked) -> usize {
        self.connections.push((connection, None));
        let invoked = self.tick();
        self.calls.push(Call {
            process,
            op,
            invoked,
            returned: None,
            answer: Answer::Unknown,
        });
        self.calls.len() - 1
    }

    fn complete(&mut self, call: usize, connection: u64, answer: Answer) {
        self.connections[call].1 = Some(connection);
        let returned = self.tick();
        let call = &mut self.calls[call];
        call.returned = (answer != Answer::Unknown).then_some(returned);
        call.answer = answer;
    }
}

enum Kind {
    Session(Box<Session>),
    /// Its ids start anew with each connection, and lost connections lose answers.
    Anonymous {
        next_id: u64,
        connect_ms: u64,
    },
}

enum Socket {
    None,
    Opening,
    Open(ConnId),
}

/// One client.
pub struct Client {
    number: u64,
    kind: Kind,
    socket: Socket,
    /// Frames that did not reach the server yet, and the other way.
    outbox: VecDeque<String>,
    inbox: VecDeque<String>,
    /// Counts its connections.
    connection: u64,
    /// Unanswered: where in the history, and of what kind.
    calls: BTreeMap<RequestId, (usize, OpKind)>,
    values: u64,
    /// What it believes that keys hold.
    believed: HashMap<String, Option<String>>,
    pub answered: u64,
}

impl Client {
    pub fn new(number: u64, rng: &mut Rng) -> Client {
        let config = SessionConfig {
            uuid: SessionUuid(Uuid::from_u128(
                u128::from(number) << 64 | u128::from(rng.number()),
            )),
            request_timeout_ms: [0, 4000][rng.below(2)],
            silence_timeout_ms: SILENCE_MS,
            jitter_seed: rng.number(),
        };
        let kind = match rng.chance(15) {
            true => Kind::Anonymous {
                next_id: 1,
                connect_ms: 0,
            },
            false => Kind::Session(Box::new(Session::new(config, 0))),
        };
        Client {
            number,
            kind,
            socket: Socket::None,
            outbox: VecDeque::new(),
            inbox: VecDeque::new(),
            connection: 0,
            calls: BTreeMap::new(),
            values: 0,
            believed: HashMap::new(),
            answered: 0,
        }
    }

    pub fn is_answered(&self) -> bool {
        self.calls.is_empty()
    }

    pub fn conn(&self) -> Option<ConnId> {
        match self.socket {
            Socket::Open(conn) => Some(conn),
            _ => None,
        }
    }

    /// Time passes: connects, takes in what arrived, asks, and sends.
    pub fn act(
        &mut self,
        cluster: &mut Cluster,
        rng: &mut Rng,
        history: &mut History,
        ask: usize,
    ) -> Result<(), String> {
        let now = cluster.now_ms;
        if let Kind::Session(session) = &mut self.kind {
            session.tick(now);
        }
        self.carry_out(cluster, history)?;
        self.connect(cluster, history);
        let arrived = rng.below(self.inbox.len() + 1);
        for _ in 0..arrived.max(usize::from(ask == 0) * self.inbox.len()) {
            if let Some(text) = self.inbox.pop_front() {
                self.take(&text, now, history)?;
            }
        }
        self.carry_out(cluster, history)?;
        for _ in 0..ask {
            if self.calls.len() < IN_FLIGHT {
                self.ask(rng, now, history);
            }
        }
        self.carry_out(cluster, history)?;
        if cluster.serves_clients() {
            let sent = match ask {
                0 => self.outbox.len(),
                _ => rng.below(self.outbox.len() + 1),
            };
            self.deliver(cluster, sent);
        }
        Ok(())
    }

    fn connect(&mut self, cluster: &mut Cluster, history: &mut History) {
        let wants = match (&self.socket, &self.kind) {
            (Socket::Opening, _) => true,
            (Socket::None, Kind::Anonymous { connect_ms, .. }) => cluster.now_ms >= *connect_ms,
            _ => false,
        };
        if !wants {
            return;
        }
        // Nobody listens: refused. Somebody who is paused: not yet.
        match (cluster.front_end.is_some(), cluster.serves_clients()) {
            (false, _) => self.lost(cluster.now_ms, None, history),
            (true, false) => self.socket = Socket::Opening,
            (true, true) => {
                if let Some(conn) = cluster.connect() {
                    self.socket = Socket::Open(conn);
                    if let Kind::Session(session) = &mut self.kind {
                        session.connected(cluster.now_ms);
                    }
                }
            }
        }
    }

    /// Frames reach the server.
    fn deliver(&mut self, cluster: &mut Cluster, frames: usize) {
        let Socket::Open(conn) = self.socket else {
            return;
        };
        for text in self.outbox.drain(..frames) {
            let decoded = decode_requests(&text);
            let requests: Vec<Request> = decoded.requests.into_iter().flatten().collect();
            cluster.request(conn, requests);
        }
    }

    /// The server said something; it arrives later.
    pub fn told(&mut self, text: String) {
        self.inbox.push_back(text);
    }

    /// The connection breaks, from this side; some of what was sent still arrives.
    pub fn break_off(&mut self, cluster: &mut Cluster, rng: &mut Rng, history: &mut History) {
        let Socket::Open(conn) = self.socket else {
            return;
        };
        let arrives = rng.below(self.outbox.len() + 1);
        if cluster.serves_clients() {
            self.deliver(cluster, arrives);
        }
        cluster.disconnect(conn);
        self.lost(cluster.now_ms, None, history);
    }

    /// The connection is gone.
    pub fn lost(&mut self, now_ms: u64, code: Option<u16>, history: &mut History) {
        self.connection += 1;
        self.socket = Socket::None;
        self.outbox.clear();
        self.inbox.clear();
        match &mut self.kind {
            Kind::Session(session) => session.disconnected(code, "reset", now_ms),
            Kind::Anonymous {
                next_id,
                connect_ms,
            } => {
                *next_id = 1;
                *connect_ms = now_ms + 60;
                // What came of these is not known, ever.
                for (_, (call, _)) in std::mem::take(&mut self.calls) {
                    history.complete(call, self.connection, Answer::Unknown);
                }
            }
        }
    }

    fn carry_out(&mut self, cluster: &mut Cluster, history: &mut History) -> Result<(), String> {
        loop {
            let Kind::Session(session) = &mut self.kind else {
                return Ok(());
            };
            match session.poll() {
                None => return Ok(()),
                Some(Action::Connect) => self.socket = Socket::Opening,
                Some(Action::Send(text)) => self.outbox.push_back(text),
                Some(Action::Completed { id, result }) => self.complete(id, result, history)?,
                Some(Action::CloseSocket) => {
                    if let Socket::Open(conn) = self.socket {
                        cluster.disconnect(conn);
                    }
                    self.connection += 1;
                    self.socket = Socket::None;
                    self.outbox.clear();
                    self.inbox.clear();
                }
                Some(Action::StateChanged) => {}
            }
        }
    }

    fn take(&mut self, text: &str, now_ms: u64, history: &mut History) -> Result<(), String> {
        match &mut self.kind {
            Kind::Session(session) => {
                session.received(text, now_ms);
                Ok(())
            }
            Kind::Anonymous { .. } => {
                let calls = &self.calls;
                let kind_of = |id: RequestId| calls.get(&id).map(|(_, kind)| *kind);
                let responses = decode_responses(text, kind_of).map_err(|e| e.to_string())?;
                for response in responses {
                    let id = response.id.ok_or("an answer without an id")?;
                    self.complete(id, response.result, history)?;
                }
                Ok(())
            }
        }
    }

    fn complete(
        &mut self,
        id: RequestId,
        result: Result<Reply, ApiError>,
        history: &mut History,
    ) -> Result<(), String> {
        let (call, kind) = self
            .calls
            .remove(&id)
            .ok_or_else(|| format!("client {}: a second answer to {id}", self.number))?;
        self.answered += 1;
        let answer = match result {
            Ok(reply) => told(reply).ok_or("an answer of another kind")?,
            Err(error) if is_wrong(error.code) => {
                return Err(format!("{} is refused: {error:?}", history.calls[call]));
            }
            Err(error) => match error.outcome {
                Outcome::NotApplied => Answer::NotApplied,
                Outcome::Unknown if kind.is_write() => Answer::Unknown,
                Outcome::Unknown => {
                    return Err(format!("a read with an unknown outcome: {error:?}"));
                }
            },
        };
        self.believe(&history.calls[call].op, &answer);
        history.complete(call, self.connection, answer);
        Ok(())
    }

    fn ask(&mut self, rng: &mut Rng, now_ms: u64, history: &mut History) {
        let op = self.choose(rng);
        let request = asked(&op);
        let kind = request.kind();
        let id = match &mut self.kind {
            Kind::Session(session) => match session.submit(request, now_ms) {
                Ok(id) => id,
                Err(_) => return,
            },
            Kind::Anonymous { next_id, .. } => {
                if !matches!(self.socket, Socket::Open(_)) {
                    return;
                }
                let id = RequestId(*next_id);
                *next_id += 1;
                self.outbox.push_back(Request { id, op: request }.to_json());
                id
            }
        };
        let call = history.invoke(self.number, self.connection, op);
        self.calls.insert(id, (call, kind));
    }

    fn value(&mut self, rng: &mut Rng) -> String {
        self.values += 1;
        let padding = match rng.below(10) {
            0 => rng.below(1500),
            _ => 0,
        };
        format!("c{}.{}{:padding$}", self.number, self.values, "")
    }

    fn choose(&mut self, rng: &mut Rng) -> Asked {
        let key = match rng.chance(70) {
            true => HOT[1 + rng.below(HOT.len() - 1)].to_owned(),
            false => format!("k{:02}", rng.below(COLD)),
        };
        let believed = self.believed.get(&key).cloned().flatten();
        match rng.below(20) {
            0..6 => Asked::Get { key },
            6..11 => {
                let value = self.value(rng);
                Asked::Set { key, value }
            }
            11..15 => {
                let test = self.believed.get(COUNTER).cloned().flatten();
                let count = test.as_deref().map_or(0, counted);
                Asked::TestSet {
                    key: COUNTER.to_owned(),
                    test,
                    value: format!("{} {}", count + 1, self.value(rng)),
                }
            }
            15..17 => {
                let value = self.value(rng);
                let test = believed;
                Asked::TestSet { key, test, value }
            }
            17 => Asked::Delete { key },
            18 => Asked::Get {
                key: COUNTER.to_owned(),
            },
            _ => Asked::List {
                prefix: ["", "b", "k1"][rng.below(3)].to_owned(),
                after: String::new(),
                limit: 3,
            },
        }
    }

    fn believe(&mut self, op: &Asked, answer: &Answer) {
        let (key, value) = match (op, answer) {
            (Asked::Get { key }, Answer::Value { value, .. })
            | (Asked::TestSet { key, .. }, Answer::NotSwapped { value, .. }) => {
                (key, value.clone())
            }
            (Asked::Set { key, value }, Answer::Set { .. })
            | (Asked::TestSet { key, value, .. }, Answer::Swapped { .. }) => {
                (key, Some(value.clone()))
            }
            (Asked::Delete { key }, Answer::Deleted { .. } | Answer::Absent) => (key, None),
            _ => return,
        };
        self.believed.insert(key.clone(), value);
    }
}

/// The number that a counter's value begins with.
pub fn counted(value: &str) -> u64 {
    let number = value.split(' ').next().unwrap_or_default();
    number.parse().unwrap_or_default()
}

fn asked(op: &Asked) -> Op {
    let value = |value: &String| Value::from(value.clone());
    match op.clone() {
        Asked::Get { key } => Op::Get { key },
        Asked::Set { key, value: new } => Op::Set {
            key,
            value: value(&new),
        },
        Asked::TestSet {
            key,
            test,
            value: new,
        } => Op::TestSet {
            key,
            test: test.as_ref().map(value),
            value: value(&new),
        },
        Asked::Delete { key } => Op::Delete { key },
        Asked::List {
            prefix,
            after,
            limit,
        } => Op::List {
            prefix,
            after,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        },
    }
}

fn told(reply: Reply) -> Option<Answer> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(match reply {
        Reply::Get { value, revision } => Answer::Value {
            value: value.as_ref().and_then(text),
            revision: revision.0,
        },
        Reply::Set { revision, .. } => Answer::Set {
            revision: revision.0,
        },
        Reply::TestSet {
            swapped: true,
            revision,
            ..
        } => Answer::Swapped {
            revision: revision.0,
        },
        Reply::TestSet {
            value, revision, ..
        } => Answer::NotSwapped {
            value: value.as_ref().and_then(text),
            revision: revision.0,
        },
        Reply::Delete {
            deleted: true,
            revision,
        } => Answer::Deleted {
            revision: revision.0,
        },
        Reply::Delete { .. } => Answer::Absent,
        Reply::List { entries, more } => Answer::Page {
            entries: entries
                .into_iter()
                .map(|entry| Entry {
                    value: text(&entry.value).unwrap_or_default(),
                    key: entry.key,
                    revision: entry.revision.0,
                })
                .collect(),
            more,
        },
        _ => return None,
    })
}

/// What no server may answer to these requests.
fn is_wrong(code: ErrorCode) -> bool {
    use ErrorCode::{BadRequest, Internal, TooLarge, Unauthorized};
    matches!(code, BadRequest | TooLarge | Unauthorized | Internal)
}
