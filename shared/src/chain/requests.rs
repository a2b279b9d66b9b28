//! What the front-end asks of the head, and what the head answers.

use crate::api::{ListEntry, Value};
use crate::ids::{ConnId, RequestId, Seq, SessionSeq, SessionUuid, Ticket};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One request to the head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainRequest {
    /// Pairs the answer with the request; grows in the order of sending.
    pub ticket: Ticket,
    /// The client connection it came from: a read waits for that connection's own earlier writes.
    pub conn: ConnId,
    /// What is asked.
    pub op: ChainOp,
}

/// What the front-end asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChainOp {
    /// Open a session, or find it again.
    Open {
        /// Its name.
        uuid: SessionUuid,
        /// Tells a repetition of this very request from a later `hello`.
        token: OpenToken,
    },
    /// Change a key, once.
    Write {
        /// The session as the log knows it.
        session: SessionSeq,
        /// The client's id: with the session it names the write for ever.
        request: RequestId,
        /// What to change.
        write: Write,
    },
    /// Read a key.
    Get {
        /// The key.
        key: String,
    },
    /// Read a page of keys.
    List {
        /// Only keys that start with this.
        prefix: String,
        /// Only keys after this; empty for all.
        after: String,
        /// Entries at most.
        limit: u32,
    },
    /// Start a dump of all keys as they are now. This request's ticket is its name; the answer is its first
    /// page. A new view, or another connection of the front-end, ends it.
    DumpStart,
    /// Read the next page of a dump.
    DumpNext {
        /// Its name.
        dump: Ticket,
    },
    /// Nobody reads a dump any more. Is not answered.
    DumpEnd {
        /// Its name.
        dump: Ticket,
    },
}

/// A front-end's own name for one `hello`: its boot and the ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OpenToken {
    /// The front-end process.
    pub front_end: u64,
    /// Its ticket.
    pub ticket: u64,
}

impl fmt::Display for OpenToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.front_end, self.ticket)
    }
}

/// A change to one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    /// Write it.
    Set {
        /// The key.
        key: String,
        /// The new value.
        value: Value,
    },
    /// Write it if it holds `test` (`None`: if it is absent).
    TestSet {
        /// The key.
        key: String,
        /// What it must hold.
        test: Option<Value>,
        /// The new value.
        value: Value,
    },
    /// Remove it.
    Delete {
        /// The key.
        key: String,
    },
}

/// The head's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Of the request.
    pub ticket: Ticket,
    /// What came of it.
    pub body: AnswerBody,
}

impl AnswerBody {
    /// What the answer weighs while it waits, in bytes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const OVERHEAD: usize = 32;
        OVERHEAD
            + match self {
                AnswerBody::Value {
                    value: Some(value), ..
                }
                | AnswerBody::NotSwapped {
                    found: Some(value), ..
                } => value.0.len(),
                AnswerBody::List { entries, .. } | AnswerBody::DumpPage { entries, .. } => entries
                    .iter()
                    .map(|e| e.key.len() + e.value.0.len() + OVERHEAD)
                    .sum(),
                _ => 0,
            }
    }
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnswerBody {
    /// The session is open.
    Opened {
        /// How the log knows it.
        session: SessionSeq,
        /// Whether it was there before, so that unanswered writes may be sent again.
        resumed: bool,
        /// The `hello` that opened it.
        opened: OpenToken,
    },
    /// A set was applied. (The front-end knows the value.)
    Set {
        /// Its revision.
        revision: Seq,
    },
    /// A test held, and the value was written. (The front-end knows the value.)
    Swapped {
        /// Its revision.
        revision: Seq,
    },
    /// A test failed.
    NotSwapped {
        /// What was found.
        found: Option<Value>,
        /// The revision that wrote it; 0 where nothing was found.
        revision: Seq,
    },
    /// A delete was applied.
    Deleted {
        /// The revision of the removal; `None` where there was nothing.
        revision: Option<Seq>,
    },
    /// What a key holds.
    Value {
        /// The value, if any.
        value: Option<Value>,
        /// The revision that wrote it; 0 where there is nothing.
        revision: Seq,
    },
    /// A page of keys.
    List {
        /// In key order.
        entries: Vec<ListEntry>,
        /// Whether there are more after the last.
        more: bool,
    },
    /// The id is at or below the highest one forgotten: whether it was applied is not known any more.
    Forgotten,
    /// The log does not hold the session (any more): not applied by this attempt.
    NoSession,
    /// The id was used before, for another request.
    IdReused,
    /// Fewer members than `--min-replicas`: not applied.
    TooFewReplicas {
        /// Members now.
        members: u32,
        /// Members wanted.
        wanted: u32,
    },
    /// A page of a dump.
    DumpPage {
        /// The point that the whole dump shows.
        revision: Seq,
        /// In key order; may be none although there are more.
        entries: Vec<ListEntry>,
        /// Whether there are more pages. After the last the head forgets the dump.
        more: bool,
    },
    /// There is no such dump, or no more of it.
    NoDump {
        /// Why, for people.
        reason: String,
    },
}
