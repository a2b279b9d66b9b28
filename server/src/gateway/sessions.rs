//! Which session a connection's writes belong to: one that the client named with `hello`, or one of the
//! gateway's own, where they are numbered here and a failover behind the gateway is still exactly once.

use super::{Asker, Gateway, OPEN_BYTES, Pending};
use kvservice_shared::api::{
    CLOSE_SESSION_TAKEN_OVER, ErrorCode, Limits, Op, Outcome, PROTOCOL_VERSION, Reply, Response,
};
use kvservice_shared::chain::{AnswerBody, ChainOp, OpenToken};
use kvservice_shared::ids::{ConnId, RequestId, SessionSeq, SessionUuid};
use std::collections::VecDeque;
use uuid::Uuid;

/// What is known of a connection.
#[derive(Debug, Default)]
pub(super) struct Conn {
    pub(super) spoke: bool,
    pub(super) last_id: u64,
    session: Session,
    /// Requests that wait for the session, in order.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: RequestId,
    op: Op,
    bytes: usize,
}

#[derive(Debug, Default)]
enum Session {
    /// None named, no write yet.
    #[default]
    None,
    /// Named, and being opened.
    Opening(SessionUuid),
    /// Named and open.
    Named(SessionUuid, SessionSeq),
    /// One of the gateway's own is being opened.
    OpeningOwn,
    /// One of the gateway's own.
    Own(Own),
}

/// One of the gateway's own sessions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own {
    session: SessionSeq,
    last_request: u64,
}

/// The session for a request.
pub(super) enum Found {
    /// Pass it on: the session (writes have one), and the number that the gateway gives it.
    Ready(Option<SessionSeq>, Option<RequestId>),
    /// The session is not open yet, or earlier requests wait for it.
    Wait,
}

impl Conn {
    /// Whether the client named no session.
    pub(super) fn is_anonymous(&self) -> bool {
        matches!(
            self.session,
            Session::None | Session::OpeningOwn | Session::Own(_)
        )
    }

    pub(super) fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn wait(&mut self, id: RequestId, op: Op, bytes: usize) {
        self.waiting.push_back(Waiting { id, op, bytes });
    }
}

impl Gateway {
    pub(super) fn session_for(&mut self, conn: ConnId, op: &Op) -> Found {
        let write = op.kind().is_write();
        let Some(state) = self.conns.get_mut(&conn) else {
            return Found::Wait;
        };
        if !state.waiting.is_empty() {
            // In the order sent.
            return Found::Wait;
        }
        match &mut state.session {
            Session::Opening(_) | Session::OpeningOwn => Found::Wait,
            Session::Named(_, session) => Found::Ready(Some(*session), None),
            Session::None | Session::Own(_) if !write => Found::Ready(None, None),
            Session::Own(own) => {
                own.last_request += 1;
                Found::Ready(Some(own.session), Some(RequestId(own.last_request)))
            }
            Session::None => {
                if let Some(mut own) = self.spare.pop() {
                    own.last_request += 1;
                    state.session = Session::Own(own);
                    return Found::Ready(Some(own.session), Some(RequestId(own.last_request)));
                }
                state.session = Session::OpeningOwn;
                self.open_own(conn);
                Found::Wait
            }
        }
    }

    fn open_own(&mut self, conn: ConnId) {
        self.own_sessions += 1;
        let uuid = Uuid::from_u128(self.config.boot.wrapping_add(u128::from(self.own_sessions)));
        self.open(Asker::Own(conn), conn, SessionUuid(uuid));
    }

    fn open(&mut self, asker: Asker, conn: ConnId, uuid: SessionUuid) {
        // The ticket that it is about to get: a repetition after a failover carries the same.
        let front_end = (self.config.boot >> 64) as u64 ^ self.config.boot as u64;
        let token = OpenToken {
            front_end,
            ticket: self.next_ticket,
        };
        self.pass_on(asker, conn, ChainOp::Open { uuid, token }, OPEN_BYTES);
    }

    pub(super) fn on_hello(&mut self, conn: ConnId, id: RequestId, uuid: SessionUuid) {
        if let super::Route::Closed(reason) = &self.route {
            let reason = reason.clone();
            if let Some(state) = self.conns.get_mut(&conn) {
                // It may say hello again.
                state.spoke = false;
            }
            return self.refuse(
                conn,
                id,
                ErrorCode::Unavailable,
                reason,
                Outcome::NotApplied,
            );
        }
        if let Some(older) = self.holders.insert(uuid, conn)
            && older != conn
        {
            let reason = "another connection took this session over".to_owned();
            self.out
                .close
                .push((older, CLOSE_SESSION_TAKEN_OVER, reason));
            self.on_closed(older);
            self.holders.insert(uuid, conn);
        }
        if let Some(state) = self.conns.get_mut(&conn) {
            state.session = Session::Opening(uuid);
        }
        self.open(Asker::Hello(conn, id, uuid), conn, uuid);
    }

    pub(super) fn on_hello_answer(
        &mut self,
        conn: ConnId,
        id: RequestId,
        uuid: SessionUuid,
        body: AnswerBody,
    ) {
        let AnswerBody::Opened {
            session,
            resumed,
            opened,
        } = body
        else {
            let message = match body {
                AnswerBody::TooFewReplicas { members, wanted } => {
                    super::answers::too_few(members, wanted)
                }
                _ => "the session was closed again at once: too many sessions".to_owned(),
            };
            self.refuse(
                conn,
                id,
                ErrorCode::Unavailable,
                message.clone(),
                Outcome::NotApplied,
            );
            return self.hello_failed(conn, &message);
        };
        let Some(state) = self.conns.get_mut(&conn) else {
            return;
        };
        if !matches!(state.session, Session::Opening(of) if of == uuid) {
            return;
        }
        state.session = Session::Named(uuid, session);
        let reply = Reply::Hello {
            session: uuid,
            resumed,
            opened: Some(opened.to_string().into()),
            protocol: PROTOCOL_VERSION,
            server: concat!("kvservice/", env!("CARGO_PKG_VERSION")).to_owned(),
            limits: Limits::CURRENT,
        };
        self.respond(
            conn,
            Response {
                id: Some(id),
                result: Ok(reply),
            },
        );
        self.pass_on_waiting(conn);
    }

    /// The client may say hello again; what waited for it is refused.
    pub(super) fn hello_failed(&mut self, conn: ConnId, reason: &str) {
        if let Some(state) = self.conns.get_mut(&conn) {
            if let Session::Opening(uuid) = state.session
                && self.holders.get(&uuid) == Some(&conn)
            {
                self.holders.remove(&uuid);
            }
            state.session = Session::None;
            state.spoke = false;
        }
        self.refuse_waiting(conn, reason);
    }

    pub(super) fn on_own_answer(&mut self, conn: ConnId, body: AnswerBody) {
        let AnswerBody::Opened { session, .. } = body else {
            let reason = match body {
                AnswerBody::TooFewReplicas { members, wanted } => {
                    super::answers::too_few(members, wanted)
                }
                _ => "no session could be opened: too many sessions".to_owned(),
            };
            return self.own_refused(conn, &reason);
        };
        let own = Own {
            session,
            last_request: 0,
        };
        match self.conns.get_mut(&conn) {
            Some(state) if matches!(state.session, Session::OpeningOwn) => {
                state.session = Session::Own(own);
                self.pass_on_waiting(conn);
            }
            _ => self.spare.push(own),
        }
    }

    /// Writes that wait for the session are refused with it; reads only waited for their turn.
    fn own_refused(&mut self, conn: ConnId, reason: &str) {
        let waiting = self
            .conns
            .get_mut(&conn)
            .map(|state| std::mem::take(&mut state.waiting));
        self.own_failed(conn, reason);
        for waiting in waiting.unwrap_or_default() {
            self.pending_bytes -= waiting.bytes;
            match waiting.op.kind().is_write() {
                true => {
                    let (code, outcome) = (ErrorCode::Unavailable, Outcome::NotApplied);
                    self.refuse(conn, waiting.id, code, reason, outcome);
                }
                false => self.admit(conn, waiting.id, waiting.op),
            }
        }
    }

    pub(super) fn own_failed(&mut self, conn: ConnId, reason: &str) {
        if let Some(state) = self.conns.get_mut(&conn)
            && matches!(state.session, Session::OpeningOwn)
        {
            state.session = Session::None;
        }
        self.refuse_waiting(conn, reason);
    }

    /// The log does not hold one of the gateway's own sessions any more. A write that was handed to one head only,
    /// once, was not applied: it goes again in a new session. `false`: it must be answered as it is.
    pub(super) fn reopen_own(&mut self, conn: ConnId, id: RequestId, pending: &Pending) -> bool {
        let ChainOp::Write { session, write, .. } = &pending.op else {
            return false;
        };
        let Some(state) = self.conns.get_mut(&conn) else {
            return false;
        };
        let op = match write.clone() {
            kvservice_shared::chain::Write::Set { key, value } => Op::Set { key, value },
            kvservice_shared::chain::Write::TestSet { key, test, value } => {
                Op::TestSet { key, test, value }
            }
            kvservice_shared::chain::Write::Delete { key } => Op::Delete { key },
        };
        match &state.session {
            Session::Own(own) if own.session == *session => {
                state.session = Session::None;
            }
            Session::Own(_) | Session::OpeningOwn => {}
            _ => return false,
        }
        if pending.sent != 1 {
            return false;
        }
        self.admit(conn, id, op);
        true
    }

    fn pass_on_waiting(&mut self, conn: ConnId) {
        let Some(state) = self.conns.get_mut(&conn) else {
            return;
        };
        for waiting in std::mem::take(&mut state.waiting) {
            self.pending_bytes -= waiting.bytes;
            self.admit(conn, waiting.id, waiting.op);
        }
    }

    pub(super) fn refuse_waiting(&mut self, conn: ConnId, reason: &str) {
        let Some(state) = self.conns.get_mut(&conn) else {
            return;
        };
        for waiting in std::mem::take(&mut state.waiting) {
            self.pending_bytes -= waiting.bytes;
            let (code, outcome) = (ErrorCode::Unavailable, Outcome::NotApplied);
            self.refuse(conn, waiting.id, code, reason, outcome);
        }
    }

    /// Connections with requests that wait for their session, in order.
    pub(super) fn conns_with_waiting(&self) -> Vec<ConnId> {
        let waiting = self
            .conns
            .iter()
            .filter(|(_, state)| !state.waiting.is_empty());
        let mut conns: Vec<ConnId> = waiting.map(|(conn, _)| *conn).collect();
        conns.sort_unstable();
        conns
    }

    pub(super) fn on_closed(&mut self, conn: ConnId) {
        let Some(state) = self.conns.remove(&conn) else {
            return;
        };
        self.pending_bytes -= state
            .waiting
            .iter()
            .map(|waiting| waiting.bytes)
            .sum::<usize>();
        match state.session {
            Session::Opening(uuid) | Session::Named(uuid, _) => {
                if self.holders.get(&uuid) == Some(&conn) {
                    self.holders.remove(&uuid);
                }
            }
            // Its numbers go on where they are: what is still under way keeps its own.
            Session::Own(own) => self.spare.push(own),
            Session::None | Session::OpeningOwn => {}
        }
    }
}
