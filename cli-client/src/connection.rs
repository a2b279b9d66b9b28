//! How a connection stands, for those who show it.

use kvservice_shared::api::{ApiError, Limits};
use kvservice_shared::session::{ConnState, Session};
use tokio::time::{Duration, Instant};

/// How the connection stands. Watch it with [`crate::Client::watch`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Connection {
    /// A socket is being opened.
    Connecting {
        /// From 1; grows until a connection holds.
        attempt: u32,
    },
    /// The socket is open, and the server is asked to take up the session.
    Greeting {
        /// Why it does not at the moment (no node has joined yet, say); it is asked again.
        refusal: Option<ApiError>,
    },
    /// Requests flow.
    Live {
        /// Whether the server knew the session already: what was unanswered has been sent again.
        /// `false` on the first connection, and when the server has forgotten the session since.
        resumed: bool,
        /// Name and version of the server.
        server: String,
        /// What it accepts.
        limits: Limits,
    },
    /// Not connected; the next attempt is at `retry_at`.
    Waiting {
        /// The number of the attempt to come.
        attempt: u32,
        /// When it will be.
        retry_at: Instant,
        /// Why there is no connection, for people.
        reason: String,
    },
    /// Another connection took the session over. The client stays disconnected until
    /// [`crate::Client::reopen`].
    TakenOver,
    /// The client was closed.
    Closed,
}

impl Connection {
    /// As the session has it; its clock started at `epoch`.
    pub(crate) fn of(session: &Session, epoch: Instant) -> Connection {
        match session.state() {
            ConnState::Connecting { attempt } => Connection::Connecting { attempt: *attempt },
            ConnState::Greeting => Connection::Greeting {
                refusal: session.refusal().cloned(),
            },
            ConnState::Live {
                resumed,
                server,
                limits,
            } => Connection::Live {
                resumed: *resumed,
                server: server.clone(),
                limits: *limits,
            },
            ConnState::Waiting {
                attempt,
                retry_at_ms,
                reason,
            } => Connection::Waiting {
                attempt: *attempt,
                retry_at: epoch + Duration::from_millis(*retry_at_ms),
                reason: reason.clone(),
            },
            ConnState::TakenOver => Connection::TakenOver,
            ConnState::Closed => Connection::Closed,
        }
    }

    /// Whether requests flow.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, Connection::Live { .. })
    }
}
