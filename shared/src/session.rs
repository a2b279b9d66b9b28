//! The client's half of exactly-once: ids, what is unanswered, retry, backoff, resume.
//!
//! [`Session`] is a pure state machine, the same in the terminal and in the browser. Its driver
//! owns the socket and the clock: it calls a method for each thing that happens, then drains
//! [`Session::poll`] and does what that says. The machine leaves to its driver what is not its
//! business: which server, which time-outs, what to show.
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
//! 4. A write that went out on an earlier connection goes out again only if the server still has
//!    *the session in which it went out*. Else it completes as [`Outcome::Unknown`].
//! 5. [`Outcome::NotApplied`] is reported of a write only if no attempt of it was or will be
//!    applied.
//!
//! `"resumed":true` alone is not enough for the fourth. Say that a write went out, the connection
//! broke, and the server forgot the session (it was evicted; the cluster was founded anew). The
//! client says `hello`: that opens the session again, empty; and the connection breaks before the
//! answer arrives. The next `hello` finds the session and says `"resumed":true`, but the outcome of
//! the write is not in it, and sending the write again would apply it twice. So `"opened"` is
//! compared, which names the `hello` that opened the session ([`HeldSession`]).

mod backoff;
mod frame;
mod held;
mod requests;
#[cfg(test)]
mod tests;
mod types;

pub use held::HeldSession;
pub use types::{Action, ConnState, SessionConfig, SubmitError};

use crate::api::json::decode_responses;
use crate::api::{
    ApiError, CLOSE_SESSION_TAKEN_OVER, ErrorCode, Op, OpKind, Outcome, Reply, Request,
};
use crate::ids::RequestId;
use backoff::Backoff;
use requests::Pending;
use std::collections::{BTreeMap, VecDeque};

/// A connection that was live for this long counts as good: the next failure is the first again.
const GOOD_MS: u64 = 1000;

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
    /// Every pending request below this was sent on this connection; at and above it, only `status`
    /// was.
    unsent_from: RequestId,
    /// How many of `pending` were sent on this connection.
    in_flight: usize,
    hello: Hello,
    /// Which session the server holds (invariant 4).
    held: HeldSession,
    refusal: Option<ApiError>,
    /// Since when something is awaited without a sign of life.
    silent_since_ms: Option<u64>,
    /// Silence that was counted until all that was awaited had been given up; it goes on with the next request.
    silent_before_ms: u64,
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
            held: HeldSession::default(),
            refusal: None,
            silent_since_ms: None,
            silent_before_ms: 0,
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

    /// Takes several requests, to be sent in one frame (more, where a frame's limit asks for it).
    /// All or none.
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

    /// Whether requests were given up and nothing was heard since: the driver asks for a sign of life as soon as
    /// it may.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.silent_before_ms > 0
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
        // Before requests: once none is left, nothing is awaited, and the silence would not be looked at.
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
        self.give_up_requests(now_ms);
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

    /// Ends the session here: everything unanswered completes (with outcome unknown, where the
    /// server may have seen it), nothing reconnects.
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
                opened,
                server,
                limits,
                ..
            }) => {
                self.hello = Hello::Idle;
                self.refusal = None;
                let same_session = self.held.answered(resumed, opened);
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
                if error.outcome == Outcome::Unknown {
                    self.held.answer_lost();
                }
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
        if matches!(self.hello, Hello::Sent { .. }) {
            self.held.answer_lost();
        }
        self.hello = Hello::Idle;
        self.refusal = None;
        self.silent_since_ms = None;
        self.silent_before_ms = 0;
        self.unsent_from = RequestId(1);
        self.in_flight = 0;
        for pending in self.pending.values_mut() {
            pending.sent_before |= pending.sent_here;
            pending.sent_here = false;
        }
    }

    /// Silence counts from the last sign of life, or from when something came to be awaited if that
    /// was later. To give a request up is no sign of life: else requests whose time is up before the silence is
    /// would hide for ever that the connection is dead.
    fn watch_silence(&mut self, heard: bool, now_ms: u64) {
        let awaiting = match self.state {
            ConnState::Connecting { .. } => true,
            ConnState::Greeting | ConnState::Live { .. } => {
                self.in_flight > 0 || matches!(self.hello, Hello::Sent { .. })
            }
            _ => false,
        };
        if heard {
            self.silent_since_ms = None;
            self.silent_before_ms = 0;
        }
        if awaiting {
            let before_ms = self.silent_before_ms;
            self.silent_since_ms
                .get_or_insert_with(|| now_ms.saturating_sub(before_ms));
        } else if let Some(since_ms) = self.silent_since_ms.take() {
            self.silent_before_ms = now_ms.saturating_sub(since_ms);
        }
    }

    fn silence_deadline_ms(&self) -> Option<u64> {
        let timeout_ms = self.config.silence_timeout_ms;
        let since_ms = self.silent_since_ms.filter(|_| timeout_ms > 0)?;
        Some(since_ms.saturating_add(timeout_ms))
    }
}
