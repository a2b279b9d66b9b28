//! What `status` answers with: the chain as the front-end sees it, ready to be drawn.

use crate::ids::Seq;
use serde::{Deserialize, Serialize};

/// The chain as the front-end sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Status {
    /// Which variation this is.
    pub mode: Mode,
    /// The cluster's id; `None` (null) before it is founded.
    pub cluster: Option<String>,
    /// The number of the current view; 0 before the first.
    pub epoch: u64,
    /// Head to tail.
    pub members: Vec<MemberStatus>,
    /// Nodes on their way in.
    pub learners: Vec<LearnerStatus>,
    /// The front-end's own pointer table.
    pub front_end: FrontEndStatus,
    /// The last [`EVENTS_MAX`](crate::limits::EVENTS_MAX) events, oldest first.
    pub events: Vec<ChainEvent>,
    /// Why nothing is served, in words for people (which nodes are awaited, what an operator must
    /// decide); absent while the chain serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
}

/// The two variations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Mode {
    /// A front-end and a chain of back-ends.
    Chain,
    /// The front-end alone.
    Single,
}

/// One member of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MemberStatus {
    /// The name that the front-end gave it: `n3`.
    pub node: String,
    /// Where its neighbours reach it.
    pub address: String,
    /// Its place.
    pub role: Role,
    /// The address of its successor.
    pub next: Option<String>,
    /// The address of its successor's successor.
    pub second: Option<String>,
    /// Its own durable point.
    pub durable: Seq,
    /// Durable here and on every member behind it.
    pub stable: Seq,
    /// The committed point that it knows.
    pub committed: Seq,
    /// The point that `hash` is of.
    pub applied: Seq,
    /// Hash of its state at `applied`: 16 hex digits.
    pub hash: String,
    /// Where it keeps its data.
    pub storage: StorageKind,
}

/// A member's place in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Role {
    /// First: orders writes, serves reads.
    Head,
    /// Between.
    Middle,
    /// Last.
    Tail,
    /// The only one.
    Single,
}

/// Where a node keeps its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum StorageKind {
    /// On disk: survives its process.
    Disk,
    /// In memory: gone with its process.
    Memory,
}

/// A node on its way into the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LearnerStatus {
    /// The name that the front-end gave it.
    pub node: String,
    /// Where it is reached.
    pub address: String,
    /// How far it is.
    pub phase: LearnerPhase,
    /// Entries that it still lacks.
    pub behind: u64,
    /// Bytes of the snapshot received.
    pub received_bytes: u64,
    /// Bytes of the snapshot in all, as far as known.
    pub total_bytes: u64,
}

/// How far a learner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum LearnerPhase {
    /// Receives a snapshot (or waits for its turn).
    Snapshot,
    /// Receives what it lacks of the log.
    Log,
    /// Holds nearly everything; the tail's answers wait for it too.
    Joint,
}

/// The front-end's pointer table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FrontEndStatus {
    /// The address of the head.
    pub head: Option<String>,
    /// The address of the second member.
    pub second: Option<String>,
}

/// Something that happened to the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChainEvent {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The number of the view that it made, or happened in.
    pub epoch: u64,
    /// What.
    pub kind: EventKind,
    /// Whom it is about.
    pub node: Option<String>,
    /// Who links anew ("n2"; "front-end").
    pub from: Option<String>,
    /// To whom.
    pub to: Option<String>,
    /// For a repair, from the failure noticed to writes flowing again, in milliseconds; for a join,
    /// from the assignment to membership. `None` (null) until it is over.
    pub took_ms: Option<u64>,
}

/// Kinds of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum EventKind {
    /// A cluster was founded.
    Founded,
    /// A node registered and waits for its turn to join.
    Registered,
    /// A node began to learn.
    Joining,
    /// A learner became the tail.
    Joined,
    /// A member failed; `from` linked to `to`.
    Failed,
    /// A member left gracefully; `from` linked to `to`.
    Left,
    /// A learner was lost, or gave up.
    JoinFailed,
    /// Members of the last view came back after an outage or a restart.
    Recovered,
    /// Nobody answers: nothing is served.
    Outage,
    /// The front-end took up its stored view.
    Restarted,
}
