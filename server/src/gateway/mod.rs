//! The gateway: client sessions to the head. Pure: an [`Input`] and the time in, an [`Output`] out.
//!
//! It keeps every request that is not answered, sends it to the head, and sends it again on every new view and
//! every new connection to the head; the head knows what it has seen. An answer of a former head is thrown away.
//!
//! # Invariants
//! 1. Every request that came in is answered exactly once, unless its connection is gone.
//! 2. Requests reach the head in the order of their tickets, which is the order they came in.
//! 3. What is held is bounded: by connection through the connections' own windows, and for all together by
//!    [`Config::pending_bytes_max`]; beyond that the answer is `busy`.
//!
//! | file | its purpose |
//! | --- | --- |
//! | `sessions` | which session a connection's writes belong to |
//! | `answers` | from the head's words to the client's |
//! | `requests` | what a request takes, and how the chain takes it |
//! | `dumps` | pages of a dump, one for each time its reader asks |

mod answers;
mod dumps;
mod requests;
mod sessions;

pub use answers::shed;
pub use dumps::{DumpAnswer, DumpPage};
pub use requests::request_bytes;

use hashbrown::HashMap;
use kvservice_shared::api::{ApiError, ErrorCode, Op, Outcome, Request, Response, Status};
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::{Answer, AnswerBody, ChainOp, ChainRequest};
use kvservice_shared::ids::{ConnId, Epoch, RequestId, SessionUuid, Ticket};
use requests::{chain_op, op_bytes};
use sessions::{Conn, Own};
use std::collections::{BTreeMap, VecDeque};

/// WebSocket's "service restart": clients connect again.
const CLOSE_FORGOTTEN: u16 = 1012;
/// What a `hello` holds while it is unanswered, in bytes, about.
const OPEN_BYTES: usize = 256;

/// What the gateway is told at start.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// From a request's arrival to giving up on it, in milliseconds.
    pub request_timeout_ms: u64,
    /// Bytes of unanswered requests, for all connections together.
    pub pending_bytes_max: usize,
    /// Random: names this process's own sessions, and its `hello`s.
    pub boot: u128,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To the head of this epoch.
    Head(Epoch),
    /// Nowhere for the moment.
    Wait,
    /// Nowhere until somebody does something; the reason.
    Closed(String),
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client connected.
    Opened(ConnId),
    /// It is gone.
    Closed(ConnId),
    /// It sent requests, in this order.
    Requests(ConnId, Vec<Request>),
    /// A reader of this number wants a dump, and its first page.
    Dump(ConnId),
    /// It wants the next page; [`Input::Closed`] says that it wants no more.
    DumpNext(ConnId),
    /// Requests go here now, and everything that is unanswered is sent again.
    Route(Route),
    /// The head of this epoch answers.
    Answers(Epoch, Vec<Answer>),
    /// The cluster was given up, and a new one is empty: sessions that clients named are not known any more.
    Forget,
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Output {
    /// To the head of the current route, oldest first.
    pub requests: Vec<ChainRequest>,
    /// To clients.
    pub responses: Vec<(ConnId, Response)>,
    /// Connections to close: code and reason.
    pub close: Vec<(ConnId, u16, String)>,
    /// To readers of dumps.
    pub dumps: Vec<(ConnId, DumpAnswer)>,
    /// Requests for the chain's status, to be answered by whoever knows it.
    pub status: Vec<(ConnId, RequestId)>,
}

/// A request that is not answered.
#[derive(Debug)]
struct Pending {
    asker: Asker,
    op: ChainOp,
    bytes: usize,
    /// How often it was handed to a head.
    sent: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    /// A client's request.
    Client(ConnId, RequestId),
    /// A client's `hello`.
    Hello(ConnId, RequestId, SessionUuid),
    /// The gateway's own session for a connection that named none.
    Own(ConnId),
    /// A reader's dump.
    Dump(ConnId),
}

/// The gateway.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    route: Route,
    pending: HashMap<Ticket, Pending>,
    pending_bytes: usize,
    /// Tickets in the order of their deadlines, which is the order of their coming.
    deadlines: VecDeque<(u64, Ticket)>,
    next_ticket: u64,
    conns: HashMap<ConnId, Conn>,
    /// By their readers' numbers.
    dumps: BTreeMap<ConnId, dumps::Dump>,
    /// Which connection has a session now.
    holders: HashMap<SessionUuid, ConnId>,
    /// Own sessions that no connection uses.
    spare: Vec<Own>,
    own_sessions: u64,
    now_ms: u64,
    out: Output,
}

impl Gateway {
    /// A gateway without connections.
    #[must_use]
    pub fn new(config: Config) -> Gateway {
        Gateway {
            config,
            route: Route::Wait,
            pending: HashMap::new(),
            pending_bytes: 0,
            deadlines: VecDeque::new(),
            next_ticket: 1,
            conns: HashMap::new(),
            dumps: BTreeMap::new(),
            holders: HashMap::new(),
            spare: Vec::new(),
            own_sessions: 0,
            now_ms: 0,
            out: Output::default(),
        }
    }

    /// Requests that are not answered.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.pending.len() + self.conns.values().map(Conn::waiting_len).sum::<usize>()
    }

    /// Takes one input. `now_ms` is any clock that does not go back.
    pub fn step(&mut self, now_ms: u64, input: Input) {
        self.now_ms = now_ms;
        match input {
            Input::Opened(conn) => {
                self.conns.insert(conn, Conn::default());
            }
            Input::Closed(conn) => {
                self.end_dump(conn);
                self.on_closed(conn);
            }
            Input::Dump(conn) => self.on_dump(conn),
            Input::DumpNext(conn) => self.on_dump_next(conn),
            Input::Requests(conn, requests) => {
                for request in requests {
                    self.on_request(conn, request);
                }
            }
            Input::Route(route) => self.on_route(route),
            Input::Answers(epoch, answers) => {
                if self.route == Route::Head(epoch) || canary::is_on(Canary::FormerHeadAnswers) {
                    for answer in answers {
                        self.on_answer(answer);
                    }
                }
            }
            Input::Forget => self.forget(),
            Input::Tick => self.check_deadlines(),
        }
    }

    /// What is to be done because of all inputs since the last flush.
    pub fn flush(&mut self) -> Output {
        std::mem::take(&mut self.out)
    }

    /// The answer to a request for the status.
    #[must_use]
    pub fn status_response(id: RequestId, status: Status) -> Response {
        let reply = kvservice_shared::api::Reply::Status(Box::new(status));
        Response {
            id: Some(id),
            result: Ok(reply),
        }
    }

    fn respond(&mut self, conn: ConnId, response: Response) {
        self.out.responses.push((conn, response));
    }

    fn refuse(
        &mut self,
        conn: ConnId,
        id: RequestId,
        code: ErrorCode,
        message: impl Into<String>,
        outcome: Outcome,
    ) {
        let error = ApiError {
            code,
            message: message.into(),
            outcome,
        };
        self.respond(
            conn,
            Response {
                id: Some(id),
                result: Err(error),
            },
        );
    }

    fn on_request(&mut self, conn: ConnId, request: Request) {
        let Some(state) = self.conns.get_mut(&conn) else {
            return;
        };
        let Request { id, op } = request;
        // `status` has nothing to do with sessions: it may come before `hello`, and between two tries.
        let first = !state.spoke;
        state.spoke |= !matches!(op, Op::Status);
        if let Op::Hello { session } = op {
            if !first {
                let message = "hello must be the first request of a connection";
                return self.refuse(
                    conn,
                    id,
                    ErrorCode::BadRequest,
                    message,
                    Outcome::NotApplied,
                );
            }
            return self.on_hello(conn, id, session);
        }
        if state.is_anonymous() {
            if id.0 <= state.last_id {
                let message = format!(
                    "id {id} after {}: without hello, ids must grow on a connection",
                    state.last_id
                );
                return self.refuse(
                    conn,
                    id,
                    ErrorCode::BadRequest,
                    message,
                    Outcome::NotApplied,
                );
            }
            state.last_id = id.0;
        }
        if matches!(op, Op::Status) {
            return self.out.status.push((conn, id));
        }
        self.admit(conn, id, op);
    }

    /// A request for the chain: passed on, or made to wait for its session, or refused.
    fn admit(&mut self, conn: ConnId, id: RequestId, op: Op) {
        if let Route::Closed(reason) = &self.route {
            let reason = reason.clone();
            return self.refuse(
                conn,
                id,
                ErrorCode::Unavailable,
                reason,
                Outcome::NotApplied,
            );
        }
        let bytes = op_bytes(&op);
        if self.pending_bytes + bytes > self.config.pending_bytes_max {
            let message = "the server holds as many unanswered requests as it may: try again soon";
            return self.refuse(conn, id, ErrorCode::Busy, message, Outcome::NotApplied);
        }
        match self.session_for(conn, &op) {
            sessions::Found::Ready(session, request) => {
                let op = chain_op(op, session, request.unwrap_or(id));
                self.pass_on(Asker::Client(conn, id), conn, op, bytes);
            }
            sessions::Found::Wait => {
                self.pending_bytes += bytes;
                if let Some(state) = self.conns.get_mut(&conn) {
                    // For as long as its session's opening takes, which has a deadline.
                    state.wait(id, op, bytes);
                }
            }
        }
    }

    fn pass_on(&mut self, asker: Asker, conn: ConnId, op: ChainOp, bytes: usize) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let deadline_ms = self.now_ms + self.config.request_timeout_ms;
        let mut pending = Pending {
            asker,
            op,
            bytes,
            sent: 0,
        };
        if matches!(self.route, Route::Head(_)) {
            pending.sent = 1;
            let op = pending.op.clone();
            self.out.requests.push(ChainRequest { ticket, conn, op });
        }
        self.pending_bytes += bytes;
        self.deadlines.push_back((deadline_ms, ticket));
        self.pending.insert(ticket, pending);
        ticket
    }

    /// Closes every connection: a client that says hello again is told that its session is not resumed. What a
    /// connection sent earlier must not reach the new log, where other sessions have the old ones' numbers.
    fn forget(&mut self) {
        let mut conns: Vec<ConnId> = self.conns.keys().copied().collect();
        conns.sort_unstable();
        for conn in conns {
            self.on_closed(conn);
            let reason = "the data are gone, and a new cluster was founded".to_owned();
            self.out.close.push((conn, CLOSE_FORGOTTEN, reason));
        }
        self.break_dumps("the data are gone, and a new cluster was founded");
        self.spare.clear();
        self.pending.clear();
        self.pending_bytes = 0;
        self.out.requests.clear();
    }

    fn on_route(&mut self, route: Route) {
        self.route = route;
        // What was not carried out goes nowhere: the new head gets everything below.
        self.out.requests.clear();
        self.break_dumps("the chain changed under the dump");
        match self.route.clone() {
            Route::Head(_) => {
                for ticket in self.tickets() {
                    let Some(pending) = self.pending.get_mut(&ticket) else {
                        continue;
                    };
                    if pending.sent > 0 && canary::is_on(Canary::NoResend) {
                        continue;
                    }
                    pending.sent += 1;
                    let conn = pending.asker.conn();
                    let op = pending.op.clone();
                    self.out.requests.push(ChainRequest { ticket, conn, op });
                }
            }
            Route::Wait => {}
            Route::Closed(reason) => self.refuse_unsent(&reason),
        }
    }

    /// Of everything that is unanswered, in order.
    fn tickets(&self) -> Vec<Ticket> {
        let mut tickets: Vec<Ticket> = self.pending.keys().copied().collect();
        tickets.sort_unstable();
        tickets
    }

    /// Nobody will serve for a while: what was never passed on is certainly not applied.
    fn refuse_unsent(&mut self, reason: &str) {
        for ticket in self.tickets() {
            if self.pending.get(&ticket).is_some_and(|p| p.sent == 0) {
                self.give_up(ticket, reason);
            }
        }
        for conn in self.conns_with_waiting() {
            self.refuse_waiting(conn, reason);
        }
    }

    fn take_pending(&mut self, ticket: Ticket) -> Option<Pending> {
        let pending = self.pending.remove(&ticket)?;
        self.pending_bytes -= pending.bytes;
        Some(pending)
    }

    /// Answers a request that was not answered in time, or cannot be.
    fn give_up(&mut self, ticket: Ticket, reason: &str) {
        let Some(pending) = self.take_pending(ticket) else {
            return;
        };
        let read = matches!(pending.op, ChainOp::Get { .. } | ChainOp::List { .. });
        let (code, outcome) = match pending.sent {
            0 => (ErrorCode::Unavailable, Outcome::NotApplied),
            _ if read => (ErrorCode::Timeout, Outcome::NotApplied),
            _ => (ErrorCode::Timeout, Outcome::Unknown),
        };
        match pending.asker {
            Asker::Client(conn, id) => self.refuse(conn, id, code, reason, outcome),
            Asker::Hello(conn, id, _) => {
                self.refuse(conn, id, code, reason, outcome);
                self.hello_failed(conn, reason);
            }
            Asker::Own(conn) => self.own_failed(conn, reason),
            Asker::Dump(conn) => self.break_dump(conn, "the head did not answer in time"),
        }
    }

    fn check_deadlines(&mut self) {
        while let Some(&(deadline, ticket)) = self.deadlines.front()
            && deadline <= self.now_ms
        {
            self.deadlines.pop_front();
            if let Some(pending) = self.pending.get(&ticket) {
                let reason = match pending.sent {
                    0 => "not passed on in time: no head answers for the chain",
                    _ => "passed on, and not committed in time",
                };
                self.give_up(ticket, reason);
            }
        }
    }

    fn on_answer(&mut self, answer: Answer) {
        let Some(pending) = self.take_pending(answer.ticket) else {
            return;
        };
        match pending.asker {
            Asker::Hello(conn, id, uuid) => self.on_hello_answer(conn, id, uuid, answer.body),
            Asker::Own(conn) => self.on_own_answer(conn, answer.body),
            Asker::Dump(conn) => self.on_dump_answer(conn, answer.body),
            Asker::Client(conn, id) => {
                if answer.body == AnswerBody::NoSession && self.reopen_own(conn, id, &pending) {
                    return;
                }
                let response = answers::response(id, pending.op, answer.body);
                self.respond(conn, response);
            }
        }
    }
}

impl Asker {
    fn conn(self) -> ConnId {
        match self {
            Asker::Client(conn, _)
            | Asker::Hello(conn, ..)
            | Asker::Own(conn)
            | Asker::Dump(conn) => conn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvservice_shared::api::{FrontEndStatus, Mode, Reply, Value};

    #[test]
    fn refuses_what_it_has_no_room_for() {
        let mut gateway = Gateway::new(Config {
            request_timeout_ms: 5_000,
            pending_bytes_max: 10_000,
            boot: 1,
        });
        let conn = ConnId(1);
        gateway.step(0, Input::Route(Route::Head(Epoch { term: 0, number: 1 })));
        gateway.step(0, Input::Opened(conn));
        let set = |id, bytes| Request {
            id: RequestId(id),
            op: Op::Set {
                key: "k".into(),
                value: Value::from(vec![b'v'; bytes]),
            },
        };
        gateway.step(0, Input::Requests(conn, vec![set(1, 20_000), set(2, 10)]));
        let out = gateway.flush();
        let (to, refused) = out.responses.first().expect("the first is refused");
        assert_eq!(
            (*to, refused.id, out.responses.len()),
            (conn, Some(RequestId(1)), 1)
        );
        let error = refused.result.as_ref().expect_err("it is too much");
        assert_eq!(
            (error.code, error.outcome),
            (ErrorCode::Busy, Outcome::NotApplied)
        );
        // The second waits for a session, which is being opened.
        assert_eq!(gateway.unanswered(), 2);
    }

    #[test]
    fn a_status_is_somebody_elses_to_tell() {
        let mut gateway = Gateway::new(Config {
            request_timeout_ms: 5_000,
            pending_bytes_max: 10_000,
            boot: 1,
        });
        let conn = ConnId(1);
        gateway.step(0, Input::Opened(conn));
        let request = Request {
            id: RequestId(7),
            op: Op::Status,
        };
        gateway.step(0, Input::Requests(conn, vec![request]));
        let out = gateway.flush();
        assert_eq!(out.status, [(conn, RequestId(7))]);
        assert!(out.responses.is_empty() && out.requests.is_empty());
        let status = Status {
            mode: Mode::Chain,
            cluster: None,
            epoch: 0,
            members: Vec::new(),
            learners: Vec::new(),
            front_end: FrontEndStatus {
                head: None,
                second: None,
            },
            events: Vec::new(),
            waiting: Some("no node".to_owned()),
        };
        let response = Gateway::status_response(RequestId(7), status.clone());
        assert_eq!(response.id, Some(RequestId(7)));
        assert_eq!(response.result, Ok(Reply::Status(Box::new(status))));
    }

    /// What waits for a session that no head opens any more is not applied, and said to be so.
    #[test]
    fn a_chain_that_is_gone_refuses_what_waits() {
        let mut gateway = Gateway::new(Config {
            request_timeout_ms: 5_000,
            pending_bytes_max: 10_000,
            boot: 1,
        });
        let conn = ConnId(1);
        gateway.step(0, Input::Opened(conn));
        let request = Request {
            id: RequestId(1),
            op: Op::Delete { key: "k".into() },
        };
        gateway.step(0, Input::Requests(conn, vec![request]));
        assert!(gateway.flush().responses.is_empty());
        gateway.step(0, Input::Route(Route::Closed("gone".to_owned())));
        let out = gateway.flush();
        let refused: Vec<_> = out.responses.iter().collect();
        assert_eq!(refused.len(), 1);
        let error = refused[0].1.result.as_ref().expect_err("nobody does it");
        assert_eq!(
            (error.code, error.outcome),
            (ErrorCode::Unavailable, Outcome::NotApplied)
        );
        assert_eq!(gateway.unanswered(), 0);
    }
}
