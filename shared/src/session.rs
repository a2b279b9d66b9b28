//! The client's half of exactly-once: ids, what is unanswered, retry, backoff, resume.

use crate::api::{ApiError, Limits, Op, Reply};
use crate::ids::{RequestId, SessionUuid};

/// What a [`Session`] is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// The session's name: random, new for every process that has its own requests.
    pub uuid: SessionUuid,
    /// From submission to giving up, in milliseconds; 0 means never.
    pub request_timeout_ms: u64,
    /// How long the socket may stay silent while something is awaited from it, in milliseconds, before
    /// it is closed and opened anew; 0 means for ever.
    pub silence_timeout_ms: u64,
    /// Seed of the backoff's jitter: any number, different between clients.
    pub jitter_seed: u64,
}

/// A client's session: a pure state machine.
pub struct Session {
    state: ConnState,
}

/// What the driver must do. Drain [`Session::poll`] after every call.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Open a socket; then call [`Session::connected`] or [`Session::disconnected`].
    Connect,
    /// Send this text frame.
    Send(String),
    /// A request is done: exactly one for each id that was submitted.
    Completed {
        /// The id that `submit` gave.
        id: RequestId,
        /// Its answer.
        result: Result<Reply, ApiError>,
    },
    /// Close the socket (or give up opening it), and report nothing more of it.
    CloseSocket,
    /// [`Session::state`] changed.
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
    /// The socket is open, `hello` is sent.
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
    /// As many requests as a connection may have are unanswered.
    #[error("too many requests are unanswered")]
    Full,
    /// The session is closed or taken over.
    #[error("the session is closed")]
    Closed,
    /// `hello` is the session's own business.
    #[error("hello is sent by the session itself")]
    Hello,
}

impl Session {
    /// A new session; its first action is [`Action::Connect`].
    #[must_use]
    pub fn new(config: SessionConfig, now_ms: u64) -> Session {
        let _ = (config, now_ms);
        Session { state: ConnState::Connecting { attempt: 1 } }
    }

    /// Takes a request, to be sent as soon as the connection allows.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit(&mut self, op: Op, now_ms: u64) -> Result<RequestId, SubmitError> {
        let _ = (op, now_ms);
        Err(SubmitError::Closed)
    }

    /// Takes several requests, to be sent in one frame. All or none.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit_batch(
        &mut self,
        ops: Vec<Op>,
        now_ms: u64,
    ) -> Result<Vec<RequestId>, SubmitError> {
        let _ = (ops, now_ms);
        Err(SubmitError::Closed)
    }

    /// The socket is open.
    pub fn connected(&mut self, now_ms: u64) {
        let _ = now_ms;
    }

    /// A text frame came.
    pub fn received(&mut self, text: &str, now_ms: u64) {
        let _ = (text, now_ms);
    }

    /// Another sign of life came (a pong).
    pub fn heard(&mut self, now_ms: u64) {
        let _ = now_ms;
    }

    /// The socket closed, or could not be opened.
    pub fn disconnected(&mut self, code: Option<u16>, reason: &str, now_ms: u64) {
        let _ = (code, reason, now_ms);
    }

    /// Time passed.
    pub fn tick(&mut self, now_ms: u64) {
        let _ = now_ms;
    }

    /// When [`Session::tick`] is next needed.
    #[must_use]
    pub fn next_wake_ms(&self) -> Option<u64> {
        None
    }

    /// Ends the session here: everything unanswered completes, nothing reconnects.
    pub fn close(&mut self) {}

    /// Connects again after [`Session::close`] or a takeover.
    pub fn reopen(&mut self, now_ms: u64) {
        let _ = now_ms;
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        None
    }

    /// How the connection stands.
    #[must_use]
    pub fn state(&self) -> &ConnState {
        &self.state
    }

    /// Why the server does not take the session at the moment though it is connected
    /// ([`ConnState::Greeting`]): its answer to `hello`, which is sent again.
    #[must_use]
    pub fn refusal(&self) -> Option<&ApiError> {
        None
    }

    /// How many requests are submitted and not completed.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        0
    }
}
