//! The client's half of exactly-once: ids, what is unanswered, retry, backoff, resume.
//!
//! [`Session`] is a pure state machine, the same in the terminal and in the browser. Its driver owns the
//! socket and the clock: it calls a method for each thing that happens, then drains [`Session::poll`] and
//! does what that says. The machine leaves to its driver what is not its business: which server, which
//! time-outs, what to show.
//!
//! ```text
//!            connected          hello answered
//! Connecting ─────────▶ Greeting ─────────▶ Live        close()   ─▶ Closed    ─┐
//!     ▲  │                 │                 │          code 4000 ─▶ TakenOver ─┤ reopen()
//!     │  └── lost, silent ─┴──── Waiting ◀───┘                     Connecting ◀─┘
//!     └──────────────────────────────┘
//! ```
//!
//! Invariants:
//! 1. Every submitted request completes exactly once.
//! 2. Ids only grow; `hello` takes its ids from the same count. None is used twice.
//! 3. First attempts of requests go out in the order of their ids, and so do second ones.
//! 4. A write that went out on an earlier connection goes out again only if the server still has *the
//!    session in which it went out*. Else it completes as [`Outcome::Unknown`].
//! 5. [`Outcome::NotApplied`] is reported of a write only if no attempt of it was or will be applied.
//!
//! `"resumed":true` alone is not enough for the fourth. Say that a write went out, the connection broke, and
//! the server forgot the session (it was evicted; the cluster was founded anew). The client says `hello`: that
//! opens the session again, empty; and the connection breaks before the answer arrives. The next `hello`
//! finds the session and says `"resumed":true`, but the outcome of the write is not in it, and sending the
//! write again would apply it twice. So once an answer to `hello` was lost, the next `"resumed":true` counts as
//! `false`.

mod backoff;
#[cfg(test)]
mod tests;

use crate::api::json::{decode_responses, write_request};
use crate::api::{ApiError, ErrorCode, Limits, Op, OpKind, Outcome, Reply, Request};
use crate::api::{CLOSE_SESSION_TAKEN_OVER, Response};
use crate::ids::{RequestId, SessionUuid};
use crate::limits::{BATCH_REQUESTS_MAX, CLIENT_FRAME_BYTES_MAX, IN_FLIGHT_REQUESTS_MAX};
use backoff::Backoff;
use std::collections::{BTreeMap, VecDeque};

/// A connection that was live for this long counts as good: the next failure is the first again.
const GOOD_MS: u64 = 1000;

/// What a [`Session`] is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// The session's name: random, new for every process that has its own requests.
    pub uuid: SessionUuid,
    /// From submission to giving up, in milliseconds; 0 means never.
    pub request_timeout_ms: u64,
    /// How long the socket may stay silent while something is awaited from it (that it opens, or an
    /// answer), in milliseconds, before it is closed and opened anew; 0 means for ever.
    pub silence_timeout_ms: u64,
    /// Seed of the backoff's jitter: any number, different between clients.
    pub jitter_seed: u64,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Open a socket; then call [`Session::connected`] or [`Session::disconnected`].
    Connect,
    /// Send this text frame. If that fails, [`Session::disconnected`] says so.
    Send(String),
    /// A request is done: exactly one for each id that was submitted.
    Completed {
        /// The id that `submit` gave.
        id: RequestId,
        /// Its answer.
        result: Result<Reply, ApiError>,
    },
    /// Close the socket, or give up opening it, and report nothing more of it.
    CloseSocket,
    /// [`Session::state`] or [`Session::refusal`] changed.
    StateChanged,
}

/// How the connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnState {
    /// A socket is being opened.
    Connecting {
        /// From 1; grows until a connection holds.
        attempt: u32,
    },
    /// The socket is open, `hello` is sent. A server that has nobody to order it refuses it
    /// ([`Session::refusal`]); it is then sent again, and `status` is answered meanwhile.
    Greeting,
    /// Requests flow.
    Live {
        /// Whether the server still knew the session.
        resumed: bool,
        /// Name and version of the server.
        server: String,
        /// What it accepts.
        limits: Limits,
    },
    /// Not connected, until `retry_at_ms`.
    Waiting {
        /// The number of the attempt to come.
        attempt: u32,
        /// When, on the clock that the caller passes in.
        retry_at_ms: u64,
        /// Why the last connection ended, for people.
        reason: String,
    },
    /// Another connection took the session over (close code 4000). Only [`Session::reopen`] leaves it.
    TakenOver,
    /// [`Session::close`] was called. Only [`Session::reopen`] leaves it.
    Closed,
}

/// Why a request was not taken. Nothing of it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// More would be unanswered than a connection may have ([`IN_FLIGHT_REQUESTS_MAX`]).
    #[error("too many requests are unanswered")]
    Full,
    /// The session is closed or taken over.
    #[error("the session is closed")]
    Closed,
    /// `hello` is the session's own business.
    #[error("hello is sent by the session itself")]
    Hello,
}

/// A client's session: a pure state machine. See the [module](self).
pub struct Session {
    config: SessionConfig,
    state: ConnState,
    actions: VecDeque<Action>,
    backoff: Backoff,
    /// The attempt to connect that is under way, succeeded last, or is waited for.
    attempt: u32,
    /// When the connection became live; meaningful in [`ConnState::Live`].
    live_since_ms: u64,
    next_id: RequestId,
    /// Everything submitted and not completed.
    pending: BTreeMap<RequestId, Pending>,
    /// Every pending request below this was sent on this connection; at and above it, only `status` was.
    unsent_from: RequestId,
    /// How many of `pending` were sent on this connection.
    in_flight: usize,
    hello: Hello,
    /// Whether an answer to `hello` was lost since the last one that arrived (invariant 4).
    in_doubt: bool,
    refusal: Option<ApiError>,
    /// Since when something is awaited without a sign of life.
    silent_since_ms: Option<u64>,
}

/// How `hello` stands on this connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hello {
    /// Not sent, or answered.
    Idle,
    Sent {
        id: RequestId,
        refusals: u32,
    },
    /// Refused for now.
    Again {
        at_ms: u64,
        refusals: u32,
    },
}

struct Pending {
    kind: OpKind,
    json: String,
    /// When to give up.
    deadline_ms: Option<u64>,
    /// Sent on this connection.
    sent_here: bool,
    /// Sent on an earlier connection.
    sent_before: bool,
}

impl Pending {
    /// Whether the server may have seen it.
    fn is_out(&self) -> bool {
        self.sent_here || self.sent_before
    }
}

impl Session {
    /// A new session; its first action is [`Action::Connect`].
    #[must_use]
    pub fn new(config: SessionConfig, now_ms: u64) -> Session {
        let backoff = Backoff::new(config.jitter_seed);
        let mut session = Session {
            config,
            state: ConnState::Closed,
            actions: VecDeque::new(),
            backoff,
            attempt: 1,
            live_since_ms: now_ms,
            next_id: RequestId(1),
            pending: BTreeMap::new(),
            unsent_from: RequestId(1),
            in_flight: 0,
            hello: Hello::Idle,
            in_doubt: false,
            refusal: None,
            silent_since_ms: None,
        };
        session.connect(now_ms);
        session
    }

    /// Takes a request, to be sent as soon as the connection allows.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit(&mut self, op: Op, now_ms: u64) -> Result<RequestId, SubmitError> {
        self.admit(std::slice::from_ref(&op))?;
        let id = self.enqueue(&op, now_ms);
        self.flush(now_ms);
        Ok(id)
    }

    /// Takes several requests, to be sent in one frame (more, where a frame's limit asks for it). All or none.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit_batch(
        &mut self,
        ops: Vec<Op>,
        now_ms: u64,
    ) -> Result<Vec<RequestId>, SubmitError> {
        self.admit(&ops)?;
        let ids = ops.iter().map(|op| self.enqueue(op, now_ms)).collect();
        self.flush(now_ms);
        Ok(ids)
    }

    /// The socket is open.
    pub fn connected(&mut self, now_ms: u64) {
        if !matches!(self.state, ConnState::Connecting { .. }) {
            return;
        }
        self.set_state(ConnState::Greeting);
        self.greet(0);
        self.flush(now_ms);
        self.watch_silence(true, now_ms);
    }

    /// A text frame came.
    pub fn received(&mut self, text: &str, now_ms: u64) {
        if !self.is_connected() {
            return;
        }
        let kind_of = |id: RequestId| match (self.hello, self.pending.get(&id)) {
            (Hello::Sent { id: hello, .. }, _) if hello == id => Some(OpKind::Hello),
            (_, Some(pending)) if pending.sent_here => Some(pending.kind),
            _ => None,
        };
        match decode_responses(text, kind_of) {
            Ok(responses) => {
                for response in responses {
                    self.answer(response, now_ms);
                }
            }
            Err(error) => self.give_up_connection(&error.to_string(), now_ms),
        }
        self.watch_silence(true, now_ms);
    }

    /// Another sign of life came (a pong).
    pub fn heard(&mut self, now_ms: u64) {
        if self.is_connected() {
            self.watch_silence(true, now_ms);
        }
    }

    /// The socket closed (`code` is what the server said, if it did), or could not be opened.
    pub fn disconnected(&mut self, code: Option<u16>, reason: &str, now_ms: u64) {
        if !self.has_socket() {
            return;
        }
        if code == Some(CLOSE_SESSION_TAKEN_OVER) {
            self.forget_connection();
            self.set_state(ConnState::TakenOver);
            self.fail_all("another connection took the session over");
            return;
        }
        let reason = match (code, reason) {
            (_, reason) if !reason.is_empty() => reason.to_owned(),
            (Some(code), _) => format!("the server closed the connection (code {code})"),
            (None, _) => "the connection broke".to_owned(),
        };
        self.wait(reason, now_ms);
    }

    /// Time passed. Needed at [`Session::next_wake_ms`]; harmless at any time.
    pub fn tick(&mut self, now_ms: u64) {
        self.give_up_requests(now_ms);
        if let Some(deadline_ms) = self.silence_deadline_ms()
            && deadline_ms <= now_ms
        {
            let silent_ms = self.config.silence_timeout_ms;
            let reason = match self.state {
                ConnState::Connecting { .. } => format!("no connection within {silent_ms} ms"),
                _ => format!("no answer for {silent_ms} ms"),
            };
            self.give_up_connection(&reason, now_ms);
        }
        match (&self.state, self.hello) {
            (ConnState::Waiting { retry_at_ms, .. }, _) if *retry_at_ms <= now_ms => {
                self.connect(now_ms);
            }
            (_, Hello::Again { at_ms, refusals }) if at_ms <= now_ms => {
                self.greet(refusals);
                self.watch_silence(false, now_ms);
            }
            _ => {}
        }
    }

    /// When [`Session::tick`] is next needed; `None` while only an event can change anything.
    #[must_use]
    pub fn next_wake_ms(&self) -> Option<u64> {
        let retry = match (&self.state, self.hello) {
            (ConnState::Waiting { retry_at_ms, .. }, _) => Some(*retry_at_ms),
            (_, Hello::Again { at_ms, .. }) => Some(at_ms),
            _ => None,
        };
        let request = self
            .pending
            .first_key_value()
            .and_then(|(_, first)| first.deadline_ms);
        [retry, request, self.silence_deadline_ms()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Ends the session here: everything unanswered completes (with outcome unknown, where the server may
    /// have seen it), nothing reconnects.
    pub fn close(&mut self) {
        if self.state == ConnState::Closed {
            return;
        }
        if self.has_socket() {
            self.actions.push_back(Action::CloseSocket);
        }
        self.forget_connection();
        self.set_state(ConnState::Closed);
        self.fail_all("the session was closed");
    }

    /// Connects again after [`Session::close`] or a takeover; while waiting, connects at once.
    pub fn reopen(&mut self, now_ms: u64) {
        match self.state {
            ConnState::Closed | ConnState::TakenOver => {
                self.attempt = 1;
                self.connect(now_ms);
            }
            ConnState::Waiting { .. } => self.connect(now_ms),
            ConnState::Connecting { .. } | ConnState::Greeting | ConnState::Live { .. } => {}
        }
    }

    /// The next thing to do. Drain it after every call of another method.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// How the connection stands.
    #[must_use]
    pub fn state(&self) -> &ConnState {
        &self.state
    }

    /// Why the server does not take the session at the moment though it is connected
    /// ([`ConnState::Greeting`]): its last answer to `hello`.
    #[must_use]
    pub fn refusal(&self) -> Option<&ApiError> {
        self.refusal.as_ref()
    }

    /// How many requests are submitted and not completed.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.pending.len()
    }

    /// What the session was made with.
    #[must_use]
    pub fn config(&self) -> &SessionConfig {
        &self.config
    }

    // --- requests -----------------------------------------------------------------------------

    fn admit(&self, ops: &[Op]) -> Result<(), SubmitError> {
        if matches!(self.state, ConnState::Closed | ConnState::TakenOver) {
            return Err(SubmitError::Closed);
        }
        if ops.iter().any(|op| op.kind() == OpKind::Hello) {
            return Err(SubmitError::Hello);
        }
        if self.pending.len() + ops.len() > IN_FLIGHT_REQUESTS_MAX {
            return Err(SubmitError::Full);
        }
        Ok(())
    }

    fn enqueue(&mut self, op: &Op, now_ms: u64) -> RequestId {
        let id = self.take_id();
        let mut json = String::with_capacity(128);
        write_request(id, op, &mut json);
        let timeout_ms = self.config.request_timeout_ms;
        let pending = Pending {
            kind: op.kind(),
            json,
            deadline_ms: (timeout_ms > 0).then(|| now_ms.saturating_add(timeout_ms)),
            sent_here: false,
            sent_before: false,
        };
        self.pending.insert(id, pending);
        id
    }

    fn take_id(&mut self) -> RequestId {
        let id = self.next_id;
        assert!(id <= RequestId::MAX, "a session's ids are used up: {id}");
        self.next_id = RequestId(id.0 + 1);
        id
    }

    /// Sends what the connection allows and was not sent on it: everything when it is live; before, only
    /// `status`, which the front-end answers by itself.
    fn flush(&mut self, now_ms: u64) {
        let limits = match &self.state {
            ConnState::Live { limits, .. } => *limits,
            ConnState::Greeting => Limits::CURRENT,
            _ => return,
        };
        let live = matches!(self.state, ConnState::Live { .. });
        let bytes_max = to_usize(limits.frame_bytes_max).min(CLIENT_FRAME_BYTES_MAX);
        let batch_max = to_usize(limits.batch_max).clamp(1, BATCH_REQUESTS_MAX);

        let mut frame = Frame::default();
        let mut too_large = Vec::new();
        for (&id, pending) in self.pending.range_mut(self.unsent_from..) {
            if pending.sent_here || (!live && pending.kind != OpKind::Status) {
                continue;
            }
            if pending.json.len() + Frame::BRACKETS > bytes_max {
                too_large.push(id);
                continue;
            }
            if !frame.has_room(pending.json.len(), bytes_max, batch_max) {
                self.actions
                    .push_back(Action::Send(std::mem::take(&mut frame).finish()));
            }
            frame.push(&pending.json);
            pending.sent_here = true;
            self.in_flight += 1;
        }
        if !frame.is_empty() {
            self.actions.push_back(Action::Send(frame.finish()));
        }
        if live {
            self.unsent_from = self.next_id;
        }
        for id in too_large {
            let message = format!("the request is larger than a frame of {bytes_max} bytes");
            self.fail(id, ErrorCode::TooLarge, message);
        }
        self.watch_silence(false, now_ms);
    }

    fn answer(&mut self, response: Response, now_ms: u64) {
        let Some(id) = response.id else {
            // A frame of ours was refused whole. Which requests were in it is not said; on a new
            // connection they are sent again.
            let error = response.result.err();
            let message = error.map_or_else(String::new, |error| error.to_string());
            self.give_up_connection(&format!("the server refused a frame: {message}"), now_ms);
            return;
        };
        if let Hello::Sent {
            id: hello,
            refusals,
        } = self.hello
            && hello == id
        {
            self.greeted(response.result, refusals, now_ms);
            return;
        }
        // Not there: answered already, by an earlier response of the same frame.
        let Some(pending) = self.take(id) else { return };
        let mut result = response.result;
        if let Err(error) = &mut result
            && pending.kind.is_write()
            && pending.sent_before
        {
            // The error speaks of this attempt only.
            error.outcome = Outcome::Unknown;
        }
        self.actions.push_back(Action::Completed { id, result });
    }

    fn take(&mut self, id: RequestId) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.in_flight -= usize::from(pending.sent_here);
        Some(pending)
    }

    /// Ends a request from here.
    fn fail(&mut self, id: RequestId, code: ErrorCode, message: impl Into<String>) {
        let Some(pending) = self.take(id) else { return };
        let error = if pending.kind.is_write() && pending.is_out() {
            ApiError::unknown(code, message)
        } else {
            ApiError::not_applied(code, message)
        };
        self.actions.push_back(Action::Completed {
            id,
            result: Err(error),
        });
    }

    fn fail_all(&mut self, why: &str) {
        let out: Vec<_> = self
            .pending
            .iter()
            .map(|(&id, pending)| (id, pending.is_out()))
            .collect();
        for (id, is_out) in out {
            let code = if is_out {
                ErrorCode::Timeout
            } else {
                ErrorCode::Unavailable
            };
            self.fail(id, code, format!("{why} before the request was answered"));
        }
    }

    /// Ends the requests whose time is up.
    fn give_up_requests(&mut self, now_ms: u64) {
        while let Some((&id, first)) = self.pending.first_key_value()
            && first
                .deadline_ms
                .is_some_and(|deadline_ms| deadline_ms <= now_ms)
        {
            let timeout_ms = self.config.request_timeout_ms;
            if first.is_out() {
                let message = format!("no answer within {timeout_ms} ms");
                self.fail(id, ErrorCode::Timeout, message);
            } else {
                let why = match (&self.state, &self.refusal) {
                    (ConnState::Waiting { reason, .. }, _) => reason.clone(),
                    (_, Some(refusal)) => refusal.message.clone(),
                    _ => "no connection".to_owned(),
                };
                let message = format!("not sent within {timeout_ms} ms: {why}");
                self.fail(id, ErrorCode::Unavailable, message);
            }
        }
        self.watch_silence(false, now_ms);
    }

    // --- the connection -----------------------------------------------------------------------

    fn has_socket(&self) -> bool {
        self.is_connected() || matches!(self.state, ConnState::Connecting { .. })
    }

    fn is_connected(&self) -> bool {
        matches!(self.state, ConnState::Greeting | ConnState::Live { .. })
    }

    fn set_state(&mut self, state: ConnState) {
        self.state = state;
        self.actions.push_back(Action::StateChanged);
    }

    fn connect(&mut self, now_ms: u64) {
        self.set_state(ConnState::Connecting {
            attempt: self.attempt,
        });
        self.actions.push_back(Action::Connect);
        self.watch_silence(true, now_ms);
    }

    fn greet(&mut self, refusals: u32) {
        let id = self.take_id();
        let hello = Request {
            id,
            op: Op::Hello {
                session: self.config.uuid,
            },
        };
        self.actions.push_back(Action::Send(hello.to_json()));
        self.hello = Hello::Sent { id, refusals };
    }

    /// `hello` was answered.
    fn greeted(&mut self, result: Result<Reply, ApiError>, refusals: u32, now_ms: u64) {
        match result {
            Ok(Reply::Hello {
                resumed,
                server,
                limits,
                ..
            }) => {
                self.hello = Hello::Idle;
                self.refusal = None;
                let same_session = resumed && !self.in_doubt;
                self.in_doubt = false;
                self.live_since_ms = now_ms;
                self.set_state(ConnState::Live {
                    resumed,
                    server,
                    limits,
                });
                if !same_session {
                    self.fail_writes_of_lost_session();
                }
                self.flush(now_ms);
            }
            Ok(_) => {
                self.give_up_connection("the server answered hello with something else", now_ms)
            }
            Err(error) => {
                self.hello = Hello::Idle;
                self.in_doubt |= error.outcome == Outcome::Unknown;
                match error.code {
                    // Nobody to order it now; the server itself is there.
                    ErrorCode::Unavailable | ErrorCode::Timeout | ErrorCode::Busy => {
                        let refusals = refusals.saturating_add(1);
                        let at_ms = now_ms.saturating_add(self.backoff.delay_ms(refusals));
                        self.hello = Hello::Again { at_ms, refusals };
                        if self.refusal.as_ref() != Some(&error) {
                            self.refusal = Some(error);
                            self.actions.push_back(Action::StateChanged);
                        }
                    }
                    _ => self.give_up_connection(&error.to_string(), now_ms),
                }
            }
        }
    }

    /// The server does not have the session in which these were sent.
    fn fail_writes_of_lost_session(&mut self) {
        let lost: Vec<RequestId> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.sent_before && pending.kind.is_write())
            .map(|(&id, _)| id)
            .collect();
        for id in lost {
            let message =
                "the connection broke before the answer, and the server no longer has the session";
            self.fail(id, ErrorCode::Timeout, message);
        }
    }

    /// Ends the connection from this side.
    fn give_up_connection(&mut self, reason: &str, now_ms: u64) {
        if self.has_socket() {
            self.actions.push_back(Action::CloseSocket);
            self.wait(reason.to_owned(), now_ms);
        }
    }

    /// The connection is gone; another attempt comes.
    fn wait(&mut self, reason: String, now_ms: u64) {
        let was_good = matches!(self.state, ConnState::Live { .. })
            && now_ms.saturating_sub(self.live_since_ms) >= GOOD_MS;
        self.attempt = if was_good {
            1
        } else {
            self.attempt.saturating_add(1)
        };
        self.forget_connection();
        let retry_at_ms = now_ms.saturating_add(self.backoff.delay_ms(self.attempt));
        self.set_state(ConnState::Waiting {
            attempt: self.attempt,
            retry_at_ms,
            reason,
        });
    }

    fn forget_connection(&mut self) {
        self.in_doubt |= matches!(self.hello, Hello::Sent { .. });
        self.hello = Hello::Idle;
        self.refusal = None;
        self.silent_since_ms = None;
        self.unsent_from = RequestId(1);
        self.in_flight = 0;
        for pending in self.pending.values_mut() {
            pending.sent_before |= pending.sent_here;
            pending.sent_here = false;
        }
    }

    // --- silence ------------------------------------------------------------------------------

    /// Silence counts from the last sign of life, or from when something came to be awaited if that was
    /// later.
    fn watch_silence(&mut self, heard: bool, now_ms: u64) {
        let awaiting = match self.state {
            ConnState::Connecting { .. } => true,
            ConnState::Greeting | ConnState::Live { .. } => {
                self.in_flight > 0 || matches!(self.hello, Hello::Sent { .. })
            }
            _ => false,
        };
        if !awaiting {
            self.silent_since_ms = None;
        } else if heard || self.silent_since_ms.is_none() {
            self.silent_since_ms = Some(now_ms);
        }
    }

    fn silence_deadline_ms(&self) -> Option<u64> {
        let timeout_ms = self.config.silence_timeout_ms;
        let since_ms = self.silent_since_ms.filter(|_| timeout_ms > 0)?;
        Some(since_ms.saturating_add(timeout_ms))
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A frame in the making: one request as it is, several as an array.
#[derive(Default)]
struct Frame {
    text: String,
    requests: usize,
}

impl Frame {
    /// Bytes of the brackets around an array.
    const BRACKETS: usize = 2;

    fn is_empty(&self) -> bool {
        self.requests == 0
    }

    fn has_room(&self, bytes: usize, bytes_max: usize, requests_max: usize) -> bool {
        let comma = 1;
        self.is_empty()
            || (self.requests < requests_max && self.text.len() + comma + bytes < bytes_max)
    }

    fn push(&mut self, request: &str) {
        match self.requests {
            0 => self.text.push_str(request),
            1 => {
                self.text.insert(0, '[');
                self.text.push(',');
                self.text.push_str(request);
            }
            _ => {
                self.text.push(',');
                self.text.push_str(request);
            }
        }
        self.requests += 1;
    }

    fn finish(mut self) -> String {
        if self.requests > 1 {
            self.text.push(']');
        }
        self.text
    }
}
