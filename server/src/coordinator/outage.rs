//! After a restart or a silence: whom to await; founding.
//!
//! One rule for all of it: the next view may be any non-empty subset of the last view's members that prove, by
//! stored node id and log, that they kept their data, in their old order, with their new boots.

use super::claim::Told;
use super::{Coordinator, NodeLink};
use kvservice_shared::api::{EventKind, StorageKind};
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::{Incarnation, Member, Register, ToNode};
use kvservice_shared::ids::{ClusterId, Epoch};

/// What clients are told before there is any node.
const NOBODY: &str = "no node has joined yet: start one with kvservice-backend";

/// What the coordinator is about.
#[derive(Debug)]
pub(super) enum Phase {
    /// There is a view, and somebody in it.
    Serving,
    /// There is a view, and its members are awaited since then.
    Awaiting {
        /// Observed time.
        since_ms: u64,
    },
    /// Nothing is stored; nodes with data are awaited since then.
    Empty {
        /// Observed time.
        since_ms: u64,
    },
    /// A node knows a newer view than this front-end does: its term was claimed from all.
    Claiming(Told),
}

/// Whether this is the same process, or one with the same disk. The id of a node is kept on its disk: one that
/// knows of no view has lost nothing, it never acted in any.
pub(super) fn is_same(register: &Register, id: Incarnation) -> bool {
    register.id == id || register.id.node == id.node && register.storage == StorageKind::Disk
}

impl Coordinator {
    pub(super) fn start(&mut self) {
        if self.stored.view.is_some() {
            self.phase = Phase::Awaiting { since_ms: 0 };
            self.events.add(0, self.epoch(), EventKind::Restarted, None);
            let names: Vec<String> = self.members().iter().map(|m| m.name.clone()).collect();
            self.news(format!(
                "took up view {}: {}",
                self.epoch(),
                names.join(" → ")
            ));
        } else {
            self.phase = Phase::Empty { since_ms: 0 };
            if self.config.init && self.stored.cluster.is_none() {
                self.found();
            }
        }
    }

    pub(super) fn found(&mut self) {
        // Another one each time: what an earlier cluster's nodes hold is not this one's.
        let random = self
            .config
            .fresh_cluster
            .0
            .as_u128()
            .wrapping_add(self.foundings);
        let cluster = ClusterId(uuid::Uuid::from_u128(random));
        self.foundings += 1;
        self.stored.cluster = Some(cluster);
        self.stored.view = None;
        self.news(format!("founded cluster {cluster}"));
        self.events
            .add(self.now_ms, Epoch::NONE, EventKind::Founded, None);
        self.store();
        let welcome: Vec<(NodeLink, String)> = self
            .nodes
            .iter()
            .map(|(link, node)| (*link, node.name.clone()))
            .collect();
        for (link, name) in welcome {
            self.send(link, ToNode::Welcome { cluster, name });
        }
    }

    /// Whether members that are not connected may still come.
    pub(super) fn is_in_grace(&self) -> bool {
        match self.phase {
            Phase::Awaiting { since_ms } => self.clock_ms - since_ms < self.config.grace_ms,
            _ => false,
        }
    }

    pub(super) fn begin_outage(&mut self) {
        if matches!(self.phase, Phase::Serving) {
            self.news("no member answers: nothing is served until one comes back");
            self.events
                .add(self.now_ms, self.epoch(), EventKind::Outage, None);
            self.joining = None;
        }
        if !matches!(self.phase, Phase::Awaiting { .. }) {
            self.phase = Phase::Awaiting {
                since_ms: self.clock_ms,
            };
        }
    }

    pub(super) fn advance_outage(&mut self) {
        match self.phase {
            Phase::Serving => {}
            Phase::Awaiting { since_ms } => self.advance_awaiting(since_ms),
            Phase::Empty { since_ms } => self.advance_empty(since_ms),
            Phase::Claiming(_) => self.advance_claiming(),
        }
    }

    /// The registration of a member that is back with its data, and stays.
    fn returned(&self, member: &Member) -> Option<&Register> {
        self.nodes
            .values()
            .filter(|node| !node.leaving)
            .map(|node| &node.register)
            .find(|register| {
                let placed = register.address == member.address;
                is_same(register, member.id) || placed && canary::is_on(Canary::WipedCounts)
            })
    }

    /// Whether a member's process is known to be gone for good: it ran in memory, and a new node without data
    /// has its address.
    pub(super) fn is_gone(&self, member: &Member) -> bool {
        member.storage == StorageKind::Memory
            && self.nodes.values().any(|node| {
                node.register.address == member.address && node.register.id.node != member.id.node
            })
    }

    fn advance_awaiting(&mut self, since_ms: u64) {
        let members = self.members().to_vec();
        let back: Vec<(Member, Register)> = members
            .iter()
            .filter_map(|member| Some((member.clone(), self.returned(member)?.clone())))
            .collect();
        if back.len() == members.len() && back.iter().all(|(m, r)| m.id == r.id) {
            // All are there, none restarted.
            self.phase = Phase::Serving;
            self.events
                .add(self.now_ms, self.epoch(), EventKind::Recovered, None);
            return;
        }
        let accounted = members
            .iter()
            .all(|m| self.returned(m).is_some() || self.is_gone(m));
        let over = self.clock_ms - since_ms >= self.config.grace_ms;
        if back.is_empty() {
            if accounted && self.clusters().is_empty() && !canary::is_on(Canary::NeverFoundedAgain)
            {
                self.news(
                    "every member of the last view ran in memory and was started anew: its data are gone, \
                     a new cluster is founded",
                );
                self.forget_cluster();
                self.out.forgotten = true;
                self.found();
                self.phase = Phase::Empty {
                    since_ms: self.clock_ms,
                };
            }
            return;
        }
        if accounted || over {
            let next = self.next_epoch();
            let survivors: Vec<Member> = back
                .into_iter()
                .map(|(m, r)| Member {
                    id: r.id,
                    address: r.address,
                    ..m
                })
                .collect();
            self.events
                .add(self.now_ms, next, EventKind::Recovered, None);
            let noticed = self.now_ms;
            self.record_removals(&members, &survivors, EventKind::Failed, next, noticed);
            self.make_view(survivors, next);
        }
    }

    /// With its last view go the questions about who of it lives, and the order to teach.
    pub(super) fn forget_cluster(&mut self) {
        self.round = None;
        self.joining = None;
        self.stored.cluster = None;
        self.stored.view = None;
        self.stored.term = 0;
    }

    fn advance_empty(&mut self, since_ms: u64) {
        let with_data = !self.clusters().is_empty();
        // The first node is the first view; the others join.
        let first = self.queue.iter().copied().find_map(|id| self.link_of(id));
        // Nobody is there: whoever comes late with data still tells of its cluster.
        let Some(link) = first else { return };
        if self.stored.cluster.is_none() {
            let over = self.clock_ms - since_ms >= self.config.grace_ms;
            if with_data || !over {
                return;
            }
            self.found();
        }
        let Some(register) = self.nodes.get(&link).map(|node| node.register.clone()) else {
            return;
        };
        let member = self.member_for(&register);
        let name = member.name.clone();
        let next = self.next_epoch();
        self.record_join(&name, self.now_ms, next);
        self.make_view(vec![member], next);
    }

    /// Why nothing is served, in words for people.
    pub(super) fn waiting_for(&self) -> Option<String> {
        match &self.phase {
            Phase::Serving => None,
            Phase::Empty { .. } if self.stored.cluster.is_some() => Some(NOBODY.to_owned()),
            Phase::Empty { since_ms } => {
                let left = self
                    .config
                    .grace_ms
                    .saturating_sub(self.clock_ms - since_ms);
                if left == 0 {
                    return Some(NOBODY.to_owned());
                }
                Some(format!(
                    "nothing is stored here: waiting {} s for nodes that hold data, then a new cluster is \
                     founded (--init founds it at once)",
                    left.div_ceil(1000)
                ))
            }
            Phase::Awaiting { .. } => self.awaited_members(),
            Phase::Claiming(told) => Some(self.claiming_reason(told)),
        }
    }

    fn awaited_members(&self) -> Option<String> {
        let away: Vec<&Member> = self
            .members()
            .iter()
            .filter(|m| self.returned(m).is_none())
            .collect();
        if away.len() < self.members().len() {
            // Somebody is there: the chain goes on, or a view is about to be made.
            return None;
        }
        let names: Vec<String> = away
            .iter()
            .map(|m| format!("{} ({})", m.name, m.address))
            .collect();
        let memory = away.iter().all(|m| m.storage == StorageKind::Memory);
        let advice = if memory {
            "they ran in memory: once all of their addresses are taken by new nodes, a new cluster is \
             founded; `kvservice-server recover` decides otherwise"
        } else {
            "one of them with its data is enough; `kvservice-server recover` decides without them"
        };
        Some(format!(
            "none of the members of view {} is here: {} awaited; {advice}",
            self.epoch().number,
            names.join(", ")
        ))
    }
}
