//! The client protocol, version 1: what any client may rely on. `docs/client-protocol.md` is its
//! reference; the types here are what the front-end, the terminal and the browser compile.
//!
//! [`json`] turns them into frames and back. A request that the server does not know is refused by
//! name; a client ignores what it does not know in a response: that is how version 1 grows.

mod dump;
pub mod json;
#[cfg(feature = "schema")]
pub mod schema;
mod status;

pub use dump::{DumpEnd, DumpLine, DumpLineError};
pub use status::{
    ChainEvent, EventKind, FrontEndStatus, LearnerPhase, LearnerStatus, MemberStatus, Mode, Role,
    Status, StorageKind,
};

use crate::ids::{RequestId, Seq, SessionUuid};
use crate::limits;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The WebSocket sub-protocol.
pub const SUBPROTOCOL: &str = "kvservice.v1.json";
/// The path of the WebSocket end point.
pub const WS_PATH: &str = "/v1/ws";
/// The path of the dump: all keys, as JSON lines.
pub const DUMP_PATH: &str = "/v1/dump";
/// The protocol version that `hello` answers with.
pub const PROTOCOL_VERSION: u32 = 1;
/// Close code for a connection whose session another connection took over.
pub const CLOSE_SESSION_TAKEN_OVER: u16 = 4000;

/// A value: any bytes. In JSON a string where they are UTF-8, `{"base64":"…"}` otherwise.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Value(pub Bytes);

impl Value {
    /// The value as text, if it is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value(Bytes::from(text))
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Value {
        Value(Bytes::from(bytes))
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the client; the response carries it.
    pub id: RequestId,
    /// What is asked.
    pub op: Op,
}

/// What a request asks. Keys are non-empty, at most [`limits::KEY_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read one key.
    Get {
        /// The key.
        key: String,
    },
    /// Write one key.
    Set {
        /// The key.
        key: String,
        /// Its new value.
        value: Value,
    },
    /// Write one key if it holds what is expected.
    TestSet {
        /// The key.
        key: String,
        /// What it must hold; `None` means "only if absent".
        test: Option<Value>,
        /// Its new value then.
        value: Value,
    },
    /// Remove one key.
    Delete {
        /// The key.
        key: String,
    },
    /// One page of keys in order of their bytes.
    List {
        /// Only keys that start with this; empty for all.
        prefix: String,
        /// Only keys after this one; empty for the first page.
        after: String,
        /// Entries on the page, 1 to [`limits::LIST_ENTRIES_MAX`].
        limit: u32,
    },
    /// The chain as the front-end sees it.
    Status,
    /// Names the session of this connection. First on a connection.
    Hello {
        /// The client's own name for it.
        session: SessionUuid,
    },
}

/// Which kind of request an [`Op`] is; a response can be read only by one who knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// [`Op::Get`]
    Get,
    /// [`Op::Set`]
    Set,
    /// [`Op::TestSet`]
    TestSet,
    /// [`Op::Delete`]
    Delete,
    /// [`Op::List`]
    List,
    /// [`Op::Status`]
    Status,
    /// [`Op::Hello`]
    Hello,
}

impl Op {
    /// Which kind of request this is.
    #[must_use]
    pub fn kind(&self) -> OpKind {
        match self {
            Op::Get { .. } => OpKind::Get,
            Op::Set { .. } => OpKind::Set,
            Op::TestSet { .. } => OpKind::TestSet,
            Op::Delete { .. } => OpKind::Delete,
            Op::List { .. } => OpKind::List,
            Op::Status => OpKind::Status,
            Op::Hello { .. } => OpKind::Hello,
        }
    }
}

impl OpKind {
    /// Every kind.
    pub const ALL: [OpKind; 7] = [
        OpKind::Get,
        OpKind::Set,
        OpKind::TestSet,
        OpKind::Delete,
        OpKind::List,
        OpKind::Status,
        OpKind::Hello,
    ];

    /// The name of the op in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OpKind::Get => "get",
            OpKind::Set => "set",
            OpKind::TestSet => "testset",
            OpKind::Delete => "delete",
            OpKind::List => "list",
            OpKind::Status => "status",
            OpKind::Hello => "hello",
        }
    }

    /// The op of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<OpKind> {
        OpKind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether such a request changes the replicated state, so that a retry must be recognised.
    #[must_use]
    pub fn is_write(self) -> bool {
        matches!(self, OpKind::Set | OpKind::TestSet | OpKind::Delete)
    }
}

/// One response.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The request's id; `None` where no id could be read (`"id":null`).
    pub id: Option<RequestId>,
    /// The answer.
    pub result: Result<Reply, ApiError>,
}

/// The answer to a request that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Op::Get`]. A key that was never set, or deleted, has no value and revision 0.
    Get {
        /// The value, if any.
        value: Option<Value>,
        /// The revision that wrote it.
        revision: Seq,
    },
    /// To [`Op::Set`].
    Set {
        /// The value now.
        value: Value,
        /// Its revision.
        revision: Seq,
    },
    /// To [`Op::TestSet`].
    TestSet {
        /// Whether the test held and the value was written.
        swapped: bool,
        /// The new value, or what was found.
        value: Option<Value>,
        /// Its revision; 0 where nothing was found.
        revision: Seq,
    },
    /// To [`Op::Delete`].
    Delete {
        /// Whether there was anything.
        deleted: bool,
        /// The revision of the removal; 0 where there was nothing.
        revision: Seq,
    },
    /// To [`Op::List`].
    List {
        /// In order of their keys' bytes.
        entries: Vec<ListEntry>,
        /// Whether there are keys after the last.
        more: bool,
    },
    /// To [`Op::Status`].
    Status(Box<Status>),
    /// To [`Op::Hello`].
    Hello {
        /// The session's name.
        session: SessionUuid,
        /// Whether the log held it already: only then may unanswered writes be sent again.
        resumed: bool,
        /// Names the `hello` that opened the session: as long as it stays the same, so does the
        /// session. `None` from a server that does not say.
        opened: Option<Box<str>>,
        /// [`PROTOCOL_VERSION`].
        protocol: u32,
        /// Name and version of the server.
        server: String,
        /// What the server accepts.
        limits: Limits,
    },
}

/// One key on a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ListEntry {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// The revision that wrote it.
    pub revision: Seq,
}

/// What the server accepts, in `hello`'s answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Limits {
    /// Longest key, in bytes.
    pub key_bytes_max: u64,
    /// Longest value, in bytes.
    pub value_bytes_max: u64,
    /// Longest frame, in bytes.
    pub frame_bytes_max: u64,
    /// Most requests in a frame.
    pub batch_max: u64,
    /// Most unanswered requests of a connection.
    pub in_flight_max: u64,
}

impl Limits {
    /// This build's limits.
    pub const CURRENT: Limits = Limits {
        key_bytes_max: limits::KEY_BYTES_MAX as u64,
        value_bytes_max: limits::VALUE_BYTES_MAX as u64,
        frame_bytes_max: limits::CLIENT_FRAME_BYTES_MAX as u64,
        batch_max: limits::BATCH_REQUESTS_MAX as u64,
        in_flight_max: limits::IN_FLIGHT_REQUESTS_MAX as u64,
    };
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApiError {
    /// What kind of failure.
    pub code: ErrorCode,
    /// For people: what is wrong and what to do.
    pub message: String,
    /// Whether *this attempt* may have been applied. Of an earlier attempt under the same id it
    /// says nothing.
    pub outcome: Outcome,
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ErrorCode {
    /// The request is malformed.
    BadRequest,
    /// A key, value or batch is over its limit.
    TooLarge,
    /// The id is at or below the highest one forgotten, or the log no longer holds the session.
    TooOld,
    /// Not applied: the chain cannot take it now.
    Unavailable,
    /// Passed on, and not committed in time.
    Timeout,
    /// A limit of the whole server is reached.
    Busy,
    /// Not allowed (later).
    Unauthorized,
    /// A bug.
    Internal,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [ErrorCode; 8] = [
        ErrorCode::BadRequest,
        ErrorCode::TooLarge,
        ErrorCode::TooOld,
        ErrorCode::Unavailable,
        ErrorCode::Timeout,
        ErrorCode::Busy,
        ErrorCode::Unauthorized,
        ErrorCode::Internal,
    ];

    /// The code as it is written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::BadRequest => "bad_request",
            ErrorCode::TooLarge => "too_large",
            ErrorCode::TooOld => "too_old",
            ErrorCode::Unavailable => "unavailable",
            ErrorCode::Timeout => "timeout",
            ErrorCode::Busy => "busy",
            ErrorCode::Unauthorized => "unauthorized",
            ErrorCode::Internal => "internal",
        }
    }

    /// The code of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<ErrorCode> {
        ErrorCode::ALL
            .into_iter()
            .find(|code| code.as_str() == name)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ApiError {
    /// An error of an attempt that was not applied, and will not be.
    #[must_use]
    pub fn not_applied(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError {
            code,
            message: message.into(),
            outcome: Outcome::NotApplied,
        }
    }

    /// An error of an attempt that may have been applied, or may yet be.
    #[must_use]
    pub fn unknown(code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError {
            code,
            message: message.into(),
            outcome: Outcome::Unknown,
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        match self.outcome {
            Outcome::NotApplied => Ok(()),
            Outcome::Unknown => f.write_str(" (outcome unknown)"),
        }
    }
}

impl std::error::Error for ApiError {}

impl Outcome {
    /// The outcome as it is written in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::NotApplied => "not_applied",
            Outcome::Unknown => "unknown",
        }
    }
}

/// Whether an attempt may have been applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Outcome {
    /// It was not, and will not be.
    NotApplied,
    /// It may have been, or may yet be.
    Unknown,
}
