//! After a restart or a silence: whom to await; adopting what nodes report; founding.
//!
//! One rule for all of it: the next view may be any non-empty subset of the last view's members that prove, by
//! stored node id and log, that they kept their data, in their old order, with their new boots.

use super::{Coordinator, NodeLink};
use kvservice_shared::api::{EventKind, StorageKind};
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::{Incarnation, Member, Register, ToNode, View};
use kvservice_shared::ids::{ClusterId, Epoch};
use std::collections::BTreeSet;

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
    Claiming,
}

/// Whether this is the same process, or one with the same disk. The id of a node is kept on its disk: one that
/// knows of no view has lost nothing, it never acted in any.
fn is_same(register: &Register, id: Incarnation) -> bool {
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

    fn found(&mut self) {
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

    pub(super) fn is_claiming(&self) -> bool {
        matches!(self.phase, Phase::Claiming)
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

    /// A node registered: it may know more than this front-end, or be awaited.
    pub(super) fn on_registered_outage(&mut self, link: NodeLink) {
        let Some(node) = self.nodes.get(&link) else {
            return;
        };
        let theirs = node
            .register
            .view
            .as_ref()
            .map_or(Epoch::NONE, |view| view.epoch);
        // What a node without data was told of terms does not count.
        let bound = node.register.cluster.is_some();
        if self.is_claiming() {
            // A promise that was not asked for here was given to another front-end, which lost its directory too:
            // it may have made a view in that term.
            let elsewhere = node.register.term == self.stored.term
                && node.claimed != Some(self.stored.term)
                && !canary::is_on(Canary::OthersPromise);
            if bound && (node.register.term > self.stored.term || elsewhere) {
                self.claim();
            }
            self.claim_awaited(link);
        } else if bound && (theirs > self.epoch() || node.register.term > self.stored.term) {
            self.claim();
        }
    }

    /// Claims the term from the node that registered on this link, and from whoever its registration made
    /// important: a learner that it offered may have registered before it had any data.
    fn claim_awaited(&mut self, registered: NodeLink) {
        let term = self.stored.term;
        let awaited = self.adoption_awaits().unwrap_or_default();
        let asked: Vec<NodeLink> = self
            .nodes
            .iter()
            .filter(|(link, node)| {
                let important = awaited.iter().any(|id| is_same(&node.register, *id));
                let bound = node.register.cluster.is_some() && **link == registered;
                node.register.term < term && (important || bound)
            })
            .map(|(link, _)| *link)
            .collect();
        for link in asked {
            self.send_claim(link, term);
        }
    }

    /// Takes over: from now on nodes obey no older term.
    fn claim(&mut self) {
        let terms = self.nodes.values().map(|node| {
            let of_view = node
                .register
                .view
                .as_ref()
                .map_or(0, |view| view.epoch.term);
            node.register.term.max(of_view)
        });
        let highest = terms.max().unwrap_or(0).max(self.stored.term);
        self.stored.term = highest + 1;
        self.store();
        self.phase = Phase::Claiming;
        self.round = None;
        self.joining = None;
        let term = self.stored.term;
        self.news(format!(
            "nodes know more than this front-end's directory: claiming term {term}"
        ));
        for link in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.send_claim(link, term);
        }
    }

    fn send_claim(&mut self, link: NodeLink, term: u32) {
        if let Some(node) = self.nodes.get_mut(&link) {
            node.claimed = Some(term);
        }
        self.send(link, ToNode::Claim { term });
    }

    pub(super) fn advance_outage(&mut self) {
        match self.phase {
            Phase::Serving => {}
            Phase::Awaiting { since_ms } => self.advance_awaiting(since_ms),
            Phase::Empty { since_ms } => self.advance_empty(since_ms),
            Phase::Claiming => self.advance_claiming(),
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
    fn is_gone(&self, member: &Member) -> bool {
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
            let data_elsewhere = self
                .nodes
                .values()
                .any(|node| node.register.cluster.is_some());
            if accounted && !data_elsewhere && !canary::is_on(Canary::NeverFoundedAgain) {
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
    fn forget_cluster(&mut self) {
        self.round = None;
        self.joining = None;
        self.stored.cluster = None;
        self.stored.view = None;
        self.stored.term = 0;
    }

    fn advance_empty(&mut self, since_ms: u64) {
        let with_data = self
            .nodes
            .values()
            .any(|node| node.register.cluster.is_some());
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

    /// The highest view that anyone reported since the claim.
    fn highest_reported(&self) -> Option<(&View, Vec<&Register>)> {
        let term = self.stored.term;
        let reports: Vec<&Register> = self
            .nodes
            .values()
            .map(|n| &n.register)
            .filter(|r| r.term == term)
            .collect();
        let best = reports
            .iter()
            .filter_map(|r| r.view.as_ref())
            .max_by_key(|view| view.epoch)?;
        Some((best, reports))
    }

    /// The cluster ids that nodes report.
    fn clusters(&self) -> BTreeSet<ClusterId> {
        self.nodes
            .values()
            .filter_map(|node| node.register.cluster)
            .collect()
    }

    /// Whom an adoption still awaits: members of the highest view, and a learner that one of them offered.
    fn adoption_awaits(&self) -> Option<Vec<Incarnation>> {
        let (best, reports) = self.highest_reported()?;
        let kept = |id: Incarnation| reports.iter().any(|register| is_same(register, id));
        let offers = reports
            .iter()
            .filter(|r| r.view.as_ref().is_some_and(|v| v.epoch == best.epoch));
        let offered =
            offers.filter_map(|r| r.offer.filter(|_| !canary::is_on(Canary::OfferIgnored)));
        let needed = best.members.iter().map(|m| m.id).chain(offered);
        Some(needed.filter(|id| !kept(*id)).collect())
    }

    fn advance_claiming(&mut self) {
        if self.clusters().len() > 1 || self.adoption_awaits().is_none_or(|ids| !ids.is_empty()) {
            return;
        }
        let Some((best, reports)) = self.highest_reported() else {
            return;
        };
        let best = best.clone();
        let members: Vec<Member> = best
            .members
            .iter()
            .filter_map(|member| {
                let report = reports.iter().find(|r| r.id.node == member.id.node)?;
                Some(Member {
                    id: report.id,
                    address: report.address.clone(),
                    ..member.clone()
                })
            })
            .collect();
        let number = best.epoch.number.max(self.epoch().number) + 1;
        let epoch = Epoch {
            term: self.stored.term,
            number,
        };
        self.stored.cluster = Some(best.cluster);
        // The adopted names count; whoever is no member is named anew.
        self.stored.names = members
            .iter()
            .map(|member| (member.id.node, member.name.clone()))
            .collect();
        let numbers = members
            .iter()
            .filter_map(|m| m.name.strip_prefix('n')?.parse::<u64>().ok());
        self.stored.next_name = numbers.max().unwrap_or(0);
        self.news(format!(
            "adopted cluster {} as its nodes report it",
            best.cluster
        ));
        self.events
            .add(self.now_ms, epoch, EventKind::Recovered, None);
        let cluster = best.cluster;
        let links: Vec<(NodeLink, Incarnation)> = self
            .nodes
            .iter()
            .map(|(link, node)| (*link, node.register.id))
            .collect();
        for (link, id) in links {
            let name = self.name_of(id.node);
            if let Some(node) = self.nodes.get_mut(&link) {
                node.name.clone_from(&name);
            }
            self.send(link, ToNode::Welcome { cluster, name });
        }
        self.make_view(members, epoch);
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
            Phase::Claiming => Some(self.claiming_reason()),
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

    fn claiming_reason(&self) -> String {
        let clusters = self.clusters();
        if clusters.len() > 1 {
            let ids: Vec<String> = clusters.iter().map(ToString::to_string).collect();
            return format!(
                "nodes of {} clusters report here ({}): stop those that do not belong, or use \
                 `kvservice-server recover`",
                ids.len(),
                ids.join(", ")
            );
        }
        let Some((best, _)) = self.highest_reported() else {
            return "waiting for nodes to report what they hold".to_owned();
        };
        let away: BTreeSet<Incarnation> = self.adoption_awaits().into_iter().flatten().collect();
        let names: Vec<String> = away
            .iter()
            .map(|id| {
                let member = best.members.iter().find(|m| m.id.node == id.node);
                member.map_or_else(
                    || format!("node {} (offered as a learner)", id.node),
                    |m| format!("{} ({})", m.name, m.address),
                )
            })
            .collect();
        format!(
            "adopting view {} of cluster {} needs all of its members: {} awaited; \
             `kvservice-server recover` decides without them",
            best.epoch.number,
            best.cluster,
            names.join(", ")
        )
    }
}
