//! Views: who is in the chain, in which order, since which epoch.

use crate::api::StorageKind;
use crate::canary::{self, Canary};
use crate::ids::{Boot, ClusterId, Epoch, NodeId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One life of a node. A restarted process is another incarnation, and not the member that it was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation {
    /// The node.
    pub node: NodeId,
    /// Its start.
    pub boot: Boot,
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.boot)
    }
}

/// One member of a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub id: Incarnation,
    /// The front-end's name for the node: `n3`.
    pub name: String,
    /// `HOST:PORT` where its neighbours reach it.
    pub address: String,
    /// Where it keeps its data.
    pub storage: StorageKind,
}

/// What the front-end's flags say and the nodes act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Silence after which a peer is given up, in milliseconds.
    pub failure_timeout_ms: u32,
    /// Members below which the head refuses new writes.
    pub min_replicas: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            failure_timeout_ms: 1000,
            min_replicas: 1,
        }
    }
}

/// The chain in one epoch, head to tail. Only the front-end makes views; consecutive ones differ by
/// removals (possibly none, with new boots), or by one joined tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The cluster.
    pub cluster: ClusterId,
    /// When.
    pub epoch: Epoch,
    /// Head first; never empty.
    pub members: Vec<Member>,
    /// The front-end's flags.
    pub settings: Settings,
}

impl View {
    /// The place of this very incarnation.
    #[must_use]
    pub fn position(&self, id: Incarnation) -> Option<usize> {
        let same =
            |m: &Member| m.id == id || canary::is_on(Canary::BootIgnored) && m.id.node == id.node;
        self.members.iter().position(same)
    }

    /// The place of this node, whatever its boot.
    #[must_use]
    pub fn position_of_node(&self, node: NodeId) -> Option<usize> {
        self.members.iter().position(|m| m.id.node == node)
    }

    /// The first member.
    #[must_use]
    pub fn head(&self) -> Option<&Member> {
        self.members.first()
    }

    /// The last member.
    #[must_use]
    pub fn tail(&self) -> Option<&Member> {
        self.members.last()
    }

    /// The member before `id`.
    #[must_use]
    pub fn previous(&self, id: Incarnation) -> Option<&Member> {
        self.members.get(self.position(id)?.checked_sub(1)?)
    }

    /// The successors of `id`: its pointer table.
    #[must_use]
    pub fn pointers(&self, id: Incarnation) -> PointerTable {
        match self.position(id) {
            Some(at) => self.pointers_from(at + 1),
            None => PointerTable::default(),
        }
    }

    /// The front-end's pointer table: it is position 0 of the chain.
    #[must_use]
    pub fn front_end_pointers(&self) -> PointerTable {
        self.pointers_from(0)
    }

    fn pointers_from(&self, first: usize) -> PointerTable {
        PointerTable {
            next: self.members.get(first).cloned(),
            second: self.members.get(first + 1).cloned(),
        }
    }
}

/// The two successors that each node and the front-end hold: a live link to `next`, a warm one to
/// `second`, so that linking past a dead neighbour costs no connection set-up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PointerTable {
    /// The successor.
    pub next: Option<Member>,
    /// The successor's successor.
    pub second: Option<Member>,
}
