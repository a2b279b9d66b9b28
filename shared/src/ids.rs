//! Newtypes of fixed width for everything that is counted or named. None is a `usize`: each means the
//! same on a 32-bit browser and a 64-bit server.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// A chain node: random, made once where its data live. A process without its data has a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub Uuid);

/// One start of a node's process: random, new with every start. A view names (node, boot) pairs, so a
/// restarted process is not the member that it was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Boot(pub u64);

/// A cluster: random, made when the front-end founds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub Uuid);

/// The name of a client's session: a random UUID of the client's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionUuid(pub Uuid);

/// A view's place in time. Ordered by term, then number; both only ever grow.
///
/// The number grows with every view, across terms too, so that it alone can be shown to people. The
/// term grows when a front-end that lost its disk takes over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch {
    /// Grows when a front-end without its disk takes over. Zero at the founding of a cluster.
    pub term: u32,
    /// Grows with every view. Zero means "no view yet".
    pub number: u64,
}

impl Epoch {
    /// Before any view.
    pub const NONE: Epoch = Epoch { term: 0, number: 0 };

    /// The epoch of the view after this one, in the same term.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch {
            term: self.term,
            number: self.number + 1,
        }
    }
}

/// The place of an entry in the chain's log, and the revision that clients see. The first entry has 1;
/// zero means "before any entry".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Before any entry.
    pub const ZERO: Seq = Seq(0);

    /// The next sequence number.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

/// The `id` of a client's request: 1 to 2^53 - 1, so that a JavaScript number holds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

impl RequestId {
    /// The highest id: 2^53 - 1.
    pub const MAX: RequestId = RequestId((1 << 53) - 1);

    /// The id, if it is in range.
    #[must_use]
    pub fn new(id: u64) -> Option<RequestId> {
        (1..=RequestId::MAX.0)
            .contains(&id)
            .then_some(RequestId(id))
    }
}

/// A session as the log knows it: the sequence number of the entry that opened it. A request that
/// outlived its session cannot slip into the next one of the same name, for that one has another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionSeq(pub Seq);

/// One client connection of one front-end process, numbered from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConnId(pub u64);

/// The front-end's own number for one request that it passed on, growing; it pairs answers with requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticket(pub u64);

macro_rules! display {
    ($($name:ident => $format:literal),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, $format, self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
        }
    )*};
}
display!(NodeId => "{}", Boot => "{:x}", ClusterId => "{}", SessionUuid => "{}", Seq => "{}",
    RequestId => "{}", SessionSeq => "s{}", ConnId => "c{}", Ticket => "t{}");

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.number)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
