//! What goes into a session and what comes out of it.

use crate::api::{ApiError, Limits, Reply};
use crate::ids::{RequestId, SessionUuid};

/// What a [`Session`](super::Session) is told once.
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
    /// Open a socket; then call [`Session::connected`](super::Session::connected) or
    /// [`Session::disconnected`](super::Session::disconnected).
    Connect,
    /// Send this text frame. If that fails, [`Session::disconnected`](super::Session::disconnected)
    /// says so.
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
    /// [`Session::state`](super::Session::state) or [`Session::refusal`](super::Session::refusal)
    /// changed.
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
    /// ([`Session::refusal`](super::Session::refusal)); it is then sent again, and `status` is
    /// answered meanwhile.
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
    /// Another connection took the session over (close code 4000). Only
    /// [`Session::reopen`](super::Session::reopen) leaves it.
    TakenOver,
    /// [`Session::close`](super::Session::close) was called. Only
    /// [`Session::reopen`](super::Session::reopen) leaves it.
    Closed,
}

/// Why a request was not taken. Nothing of it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// More would be unanswered than a connection may have
    /// ([`IN_FLIGHT_REQUESTS_MAX`](crate::limits::IN_FLIGHT_REQUESTS_MAX)).
    #[error("too many requests are unanswered")]
    Full,
    /// The session is closed or taken over.
    #[error("the session is closed")]
    Closed,
    /// `hello` is the session's own business.
    #[error("hello is sent by the session itself")]
    Hello,
}
