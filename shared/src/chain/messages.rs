//! The messages between front-end and nodes, and between nodes.

use super::{Answer, ChainRequest, Incarnation, Member, SnapshotPart, View};
use crate::api::StorageKind;
use crate::codec::Batch;
use crate::ids::{ClusterId, Epoch, Seq, SessionSeq};
use serde::{Deserialize, Serialize};

/// Where a log's ordering epochs end, oldest first: enough for a predecessor to find the last entry that
/// both have in common. (Lengths alone are not: after a crash two logs of one length can differ.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boundaries {
    /// What lies at and before the log's start: the entry that the oldest kept one follows.
    pub base: Run,
    /// One for each ordering epoch with an entry in the log, growing in both fields.
    pub runs: Vec<Run>,
}

/// The last entry of one ordering epoch in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The epoch whose head ordered it.
    pub epoch: Epoch,
    /// Its sequence number.
    pub last: Seq,
}

impl Boundaries {
    /// The last entry's sequence number.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.runs.last().map_or(self.base.last, |run| run.last)
    }

    /// Whether there is nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last() == Seq::ZERO
    }
}

/// What a node tells the front-end of itself, first on each connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The cluster it has data of; `None` for an empty node.
    pub cluster: Option<ClusterId>,
    /// Who it is.
    pub id: Incarnation,
    /// `HOST:PORT` where its neighbours reach it.
    pub address: String,
    /// Where it keeps its data.
    pub storage: StorageKind,
    /// The highest term that a front-end claimed of it.
    pub term: u32,
    /// The view that it stored last.
    pub view: Option<View>,
    /// The learner that it offered in that view, as its tail.
    pub offer: Option<Member>,
    /// Its log. Empty too where its state is an unfinished snapshot.
    pub log: Boundaries,
}

/// How a node is, said at each heartbeat and whenever it settles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The view that it acts in; [`Epoch::NONE`] before the first.
    pub epoch: Epoch,
    /// Whether its upstream link (a head has none to wait for) and its downstream link are settled in
    /// this epoch.
    pub settled: bool,
    /// Its durable point.
    pub durable: Seq,
    /// Its stable point.
    pub stable: Seq,
    /// Its committed point.
    pub committed: Seq,
    /// Its applied point.
    pub applied: Seq,
    /// Hash of its state at `applied`.
    pub hash: u64,
    /// Keys in its state.
    pub keys: u64,
    /// As a tail: its learner.
    pub learner: Option<LearnerReport>,
}

/// How a tail's learner is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnerReport {
    /// Who.
    pub id: Incarnation,
    /// How far.
    pub phase: crate::api::LearnerPhase,
    /// Entries that it lacks.
    pub behind: u64,
    /// Bytes of the snapshot that it acknowledged.
    pub received_bytes: u64,
    /// Bytes of the snapshot in all, about.
    pub total_bytes: u64,
}

/// Front-end to node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToNode {
    /// Registration is accepted; the cluster's id and the node's name. Followed by the view, if there is one.
    Welcome {
        /// The cluster.
        cluster: ClusterId,
        /// The node's name.
        name: String,
    },
    /// Registration is not accepted. The front-end closes the link.
    Refused(Refusal),
    /// A front-end without a stored view claims this term: obey no older one, and register again.
    Claim {
        /// The term.
        term: u32,
    },
    /// The current view.
    View(View),
    /// To the tail: this node shall learn from you.
    Learner {
        /// The view that this is said in.
        epoch: Epoch,
        /// The node.
        learner: Member,
    },
    /// Are you there? A member answers with [`FromNode::Here`].
    Probe {
        /// Comes back with the answer.
        nonce: u64,
    },
    /// To the head: requests, oldest first.
    Requests {
        /// The view that this is said in.
        epoch: Epoch,
        /// At most [`crate::limits::CHAIN_REQUESTS_MAX`].
        requests: Vec<ChainRequest>,
    },
    /// You asked to leave: stop in your place.
    StopInPlace,
    /// The front-end lives.
    Beat,
}

/// Why a node is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The node has data of another cluster.
    OtherCluster {
        /// The front-end's cluster.
        ours: ClusterId,
        /// The node's.
        yours: ClusterId,
    },
    /// Another live node has this address.
    AddressTaken {
        /// The address.
        address: String,
        /// The other node's name.
        by: String,
    },
    /// A newer process of this node registered.
    Replaced,
    /// Any other reason, in words.
    Other(String),
}

/// Node to front-end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromNode {
    /// First on each connection, and after a claim.
    Register(Box<Register>),
    /// At each heartbeat.
    Report(Report),
    /// This successor, or learner, does not answer me. Repeated while it holds.
    Down {
        /// The view that this is said in.
        epoch: Epoch,
        /// Who.
        id: Incarnation,
        /// For a learner: whether it had been offered, so that only a new view sets the tail free.
        offered: bool,
    },
    /// My learner holds everything that I ever called stable. Repeated while it holds.
    Ready {
        /// The view that this is said in.
        epoch: Epoch,
        /// The learner.
        id: Incarnation,
    },
    /// To a probe.
    Here {
        /// The probe's.
        nonce: u64,
    },
    /// The head's answers.
    Answers {
        /// The view that this is said in.
        epoch: Epoch,
        /// In the order of deciding.
        answers: Vec<Answer>,
    },
    /// Which view are we in?
    AskView,
    /// I want to leave the chain.
    Leave,
}

/// First on a link between nodes, said by the dialler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkHello {
    /// The cluster.
    pub cluster: ClusterId,
    /// Who dials.
    pub from: Incarnation,
    /// Whom it wants.
    pub to: Incarnation,
}

/// The other end's answer to [`LinkHello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkReply {
    /// The link stands.
    Accepted,
    /// It does not.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Predecessor to successor (or tail to learner).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Downstream {
    /// I am your predecessor in this view (or, as its tail, teach you). Answered with [`Upstream::Have`].
    Link {
        /// The view.
        view: View,
        /// Whether you are my learner.
        learner: bool,
    },
    /// Entries, and how far all is committed.
    Append {
        /// The view that this is said in.
        epoch: Epoch,
        /// Whether this is the first after [`Upstream::Have`]: it settles the link, and the receiver cuts
        /// its log where it differs or goes past the last batch here.
        settle: Option<Seq>,
        /// The committed point.
        committed: Seq,
        /// In order, without gaps.
        batches: Vec<Batch>,
    },
    /// A part of a snapshot, to a learner.
    Snapshot {
        /// The view that this is said in.
        epoch: Epoch,
        /// The part.
        part: SnapshotPart,
    },
    /// The sender lives.
    Beat {
        /// Its view.
        epoch: Epoch,
        /// The committed point.
        committed: Seq,
    },
}

/// A snapshot that a learner holds the first parts of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// What it lacks.
    pub next: Resume,
    /// Bytes of the parts taken in, as the sender counts them.
    pub received_bytes: u64,
}

/// Where an unfinished snapshot goes on, whoever sends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resume {
    /// With the keys after this one.
    Keys(String),
    /// With the sessions opened after this.
    Sessions(SessionSeq),
    /// All parts were taken in: it lacks entries of the log, or its disk is not done.
    Ended,
}

/// Successor (or learner) to predecessor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upstream {
    /// My log's boundaries, to [`Downstream::Link`].
    Have {
        /// The view that this is said in.
        epoch: Epoch,
        /// Empty too where the state is an unfinished snapshot that cannot go on.
        log: Boundaries,
        /// From a learner whose state is an unfinished snapshot that can.
        unfinished: Option<Unfinished>,
    },
    /// What I and all behind me hold durably.
    Stable {
        /// The view that this is said in.
        epoch: Epoch,
        /// From a member its stable point, from a learner its durable point.
        stable: Seq,
        /// From a learner: whether its state is complete up to its applied point.
        complete: bool,
    },
    /// Bytes of snapshot parts taken in since its beginning.
    Received {
        /// The view that this is said in.
        epoch: Epoch,
        /// Bytes, as the sender counts them.
        bytes: u64,
    },
    /// I do not follow you: I know a newer view.
    Stale {
        /// Its epoch.
        epoch: Epoch,
    },
    /// The sender lives.
    Beat {
        /// Its view.
        epoch: Epoch,
    },
}
