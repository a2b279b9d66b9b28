//! What goes into the replica, and what comes out.

use kvservice_shared::chain::{
    Downstream, FromNode, Incarnation, Member, Run, SnapshotPart, ToNode, Upstream, View,
};
use kvservice_shared::codec::Batch;
use kvservice_shared::ids::{ClusterId, Seq};
use serde::{Deserialize, Serialize};

/// One inbound link, numbered by the runtime. A node that dials again gets another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What happens to a replica.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passed. Comes often: several times in each heartbeat.
    Tick,
    /// The connection to the front-end stands.
    FrontEndUp,
    /// It broke.
    FrontEndDown,
    /// The front-end says something.
    FrontEnd(ToNode),
    /// A link that this node dialled stands.
    PeerUp(Incarnation),
    /// It broke, or could not be made.
    PeerDown(Incarnation),
    /// A successor or learner says something, on a link that this node dialled.
    FromSuccessor(Incarnation, Upstream),
    /// Somebody who dialled this node says something.
    FromPredecessor {
        /// The link it came on.
        link: LinkId,
        /// Who dialled.
        from: Incarnation,
        /// What it says.
        message: Downstream,
    },
    /// Such a link broke.
    PredecessorDown(LinkId),
    /// The log is durable up to here.
    Durable(Seq),
    /// How far the checkpoint under way is, and which one is durable.
    Saved {
        /// Bytes of its parts that the disk took, as [`JournalOp::Part`] counts them.
        written: u64,
        /// The last whole and durable checkpoint: the log up to this base is not needed to start again.
        durable: Option<Seq>,
    },
    /// The process was asked to stop: leave the chain first.
    Leave,
}

/// What a replica remembers beside its log: durable before anything that was decided with it leaves the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The cluster that this node has data of.
    pub cluster: Option<ClusterId>,
    /// The highest term that a front-end claimed.
    pub term: u32,
    /// The view that it acts in, or acted in last.
    pub view: Option<View>,
    /// The learner that it offered in that view, as its tail.
    pub offer: Option<Member>,
}

/// A change to the durable log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalOp {
    /// Add a batch.
    Append(Batch),
    /// Drop everything after this entry.
    Cut {
        /// The last entry kept.
        keep: Seq,
    },
    /// Drop everything, checkpoints too; a snapshot takes its place, and the log goes on after this. Until a
    /// checkpoint is whole, there is nothing here to start again from.
    Reset {
        /// The entry that the snapshot starts at; zero for none.
        base: Run,
    },
    /// A checkpoint begins; one that was under way is dropped. With the log after `base` it will make the
    /// state again.
    Begin {
        /// The entry after which the log is needed with it.
        base: Run,
    },
    /// The checkpoint's next part. Counts as [`part_bytes`](super::part_bytes) says.
    Part(SnapshotPart),
    /// The checkpoint is whole: with the log applied up to `whole_at` it is the state there. Parts of it may
    /// show the state at any point from its base to there.
    End {
        /// Where all parts were read at the latest.
        whole_at: Seq,
    },
    /// All entries up to here are committed. Worth remembering with what is written next, not worth a write.
    Committed {
        /// The last of them.
        seq: Seq,
    },
    /// The replica keeps the log only after this entry. What the last durable checkpoint needs stays all the
    /// same.
    Trim {
        /// The last entry dropped.
        up_to: Seq,
    },
}

/// A message, and to whom.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// To the front-end.
    FrontEnd(FromNode),
    /// To a successor or learner, on the link that this node dialled.
    Down(Incarnation, Downstream),
    /// To whoever dialled this link.
    Up(LinkId, Upstream),
    /// Close the link that this node dialled: it gave the other end up.
    CloseDown(Incarnation),
    /// Close a link that somebody dialled.
    CloseUp(LinkId),
}

/// Why a replica stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// It left the chain, as it was asked to.
    Left,
    /// It stops in its place, as it was asked to: it is the last, or is needed.
    InPlace,
    /// It was told something that a correct cluster never says. Its data are left as they are.
    Fatal(String),
}

/// What is to be done, in this order: store `meta` and wait until it is durable; hand `journal` on (and do not
/// wait: [`Event::Durable`] comes later); set `links`; send `messages`; stop.
///
/// Messages that may leave only once the *log* is durable do not exist yet when it is not: they come with
/// the [`Event::Durable`] that allows them.
#[derive(Debug, Default)]
pub struct Output {
    /// Durable before anything else here happens.
    pub meta: Option<Meta>,
    /// In order; need not be durable before the messages leave.
    pub journal: Vec<JournalOp>,
    /// The peers to hold a link to, if that changed. Links to others are closed.
    pub links: Option<Vec<Member>>,
    /// In order.
    pub messages: Vec<Message>,
    /// Stop after the rest.
    pub halt: Option<Halt>,
}

impl Output {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.meta.is_none()
            && self.journal.is_empty()
            && self.links.is_none()
            && self.messages.is_empty()
            && self.halt.is_none()
    }
}
