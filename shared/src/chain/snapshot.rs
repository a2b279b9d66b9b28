//! A snapshot on its way to a learner, in parts.
//!
//! The snapshot *rolls*: each part shows a range of the state as it was when that part was read, while
//! the log goes on beside it on the same link. Every effect in the log names its sequence number and
//! every value the one that wrote it, so the learner tells which of the two is newer; once it has applied
//! the log up to the point where the last part was read, its state is the sender's state at that point. No
//! copy of the state is held on either side, and the sender goes on serving.

use crate::api::Value;
use crate::chain::OpenToken;
use crate::ids::{Epoch, RequestId, Seq, SessionSeq, SessionUuid};
use serde::{Deserialize, Serialize};

/// One part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotPart {
    /// The receiver drops what it has; the log that follows starts after `at`.
    Begin {
        /// The sender's applied point.
        at: Seq,
        /// The epoch that ordered the entry at `at`.
        at_epoch: Epoch,
        /// Bytes of keys and values in all, about.
        total_bytes: u64,
    },
    /// All keys in a range: whatever else the receiver has there goes.
    Keys {
        /// The range starts after this key; `None` for the very start.
        after: Option<String>,
        /// The range ends with this key; `None` for the very end.
        through: Option<String>,
        /// Key, value and the revision that wrote it, in key order.
        entries: Vec<(String, Value, Seq)>,
    },
    /// All sessions opened in a range of sequence numbers: whatever else the receiver has there goes.
    Sessions {
        /// The range starts after this.
        after: SessionSeq,
        /// The range ends with this; `None` for the very end.
        through: Option<SessionSeq>,
        /// The sessions, in order.
        sessions: Vec<SessionRecord>,
    },
    /// Names of sessions evicted lately, by the entry that evicted them.
    Evicted {
        /// Sequence number of the entry, place in its list, name.
        names: Vec<(Seq, u32, SessionUuid)>,
    },
    /// The last part was read at this point: with the log up to here the state is complete.
    End {
        /// The sender's applied point.
        at: Seq,
    },
}

/// A session as it is replicated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The entry that opened it.
    pub session: SessionSeq,
    /// Its name.
    pub uuid: SessionUuid,
    /// The `hello` that opened it.
    pub token: OpenToken,
    /// Whether an older session of this name had been evicted lately.
    pub reopened: bool,
    /// Its last write, or its opening.
    pub last_used: Seq,
    /// The highest id whose outcome was forgotten; 0 for none.
    pub forgotten: u64,
    /// What came of its recent writes, by id.
    pub outcomes: Vec<(RequestId, OutcomeRecord)>,
}

/// What came of one write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeRecord {
    /// The hash of the request: an id with another request is refused.
    pub hash: u64,
    /// The entry that decided it.
    pub seq: Seq,
    /// The decision.
    pub outcome: StoredOutcome,
}

/// The decision on one write, as a retry needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoredOutcome {
    /// A set.
    Set,
    /// A test that held.
    Swapped,
    /// A test that failed.
    NotSwapped {
        /// What was found.
        found: Option<Value>,
        /// The revision that wrote it.
        revision: Seq,
    },
    /// A delete of something.
    Deleted,
    /// A delete of nothing.
    NothingToDelete,
}
