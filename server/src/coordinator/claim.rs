//! A front-end that knows less than the nodes do: it claims a term, and adopts what they report.
//!
//! # Invariants
//! 1. A view is adopted once all of its members, and a learner that one of them offered, have reported under the
//!    claimed term: whoever might act in a higher one is among them.
//! 2. What nodes told of is not forgotten with them: it is given up only when each of them that held data ran in
//!    memory and was started anew.

use super::outage::{Phase, is_same};
use super::{Coordinator, NodeLink};
use kvservice_shared::api::{EventKind, StorageKind};
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::{Incarnation, Member, Register, ToNode, View};
use kvservice_shared::ids::{ClusterId, Epoch, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// What nodes told of since a term was claimed. Whoever told it may be gone.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The highest view of each cluster.
    views: BTreeMap<ClusterId, View>,
    /// Whoever registered with data, and learners that were offered.
    holders: BTreeMap<NodeId, Member>,
    /// Since when all of these are known to be gone for good, in observed time.
    gone_since_ms: Option<u64>,
}

impl Coordinator {
    pub(super) fn is_claiming(&self) -> bool {
        matches!(self.phase, Phase::Claiming(_))
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
        let awaited = self.adoption().map(|(_, awaited)| awaited);
        let awaited = awaited.unwrap_or_default();
        let asked: Vec<NodeLink> = self
            .nodes
            .iter()
            .filter(|(link, node)| {
                let important = awaited.iter().any(|m| is_same(&node.register, m.id));
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
        if !self.is_claiming() {
            self.phase = Phase::Claiming(Told::default());
        }
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

    /// The cluster ids that nodes report.
    pub(super) fn clusters(&self) -> BTreeSet<ClusterId> {
        self.nodes
            .values()
            .filter_map(|node| node.register.cluster)
            .collect()
    }

    /// Who reported under the claimed term.
    fn reports(&self) -> impl Iterator<Item = &Register> {
        let term = self.stored.term;
        let registers = self.nodes.values().map(|node| &node.register);
        registers.filter(move |register| register.term == term)
    }

    fn reported(&self, id: Incarnation) -> bool {
        self.reports().any(|register| is_same(register, id))
    }

    /// The highest view that anyone reported since the claim, and whom its adoption still awaits: its members, and
    /// a learner that one of them offered.
    fn adoption(&self) -> Option<(&View, Vec<&Member>)> {
        let views = self.reports().filter_map(|r| r.view.as_ref());
        let best = views.max_by_key(|view| view.epoch)?;
        let holding = |register: &&Register| {
            let view = register.view.as_ref();
            view.is_some_and(|view| view.epoch == best.epoch)
        };
        let offers = self.reports().filter(holding);
        let offered = offers.filter_map(|r| r.offer.as_ref());
        let offered = offered.filter(|_| !canary::is_on(Canary::OfferIgnored));
        let needed = best.members.iter().chain(offered);
        let awaited = needed.filter(|member| !self.reported(member.id)).collect();
        Some((best, awaited))
    }

    /// Keeps what nodes tell of.
    fn hear(&mut self) {
        let Phase::Claiming(told) = &mut self.phase else {
            return;
        };
        for node in self.nodes.values() {
            let register = &node.register;
            if let Some(view) = &register.view {
                let highest = told
                    .views
                    .entry(view.cluster)
                    .or_insert_with(|| view.clone());
                if highest.epoch < view.epoch {
                    highest.clone_from(view);
                }
            }
            let itself = register.cluster.is_some().then(|| Member {
                id: register.id,
                name: node.name.clone(),
                address: register.address.clone(),
                storage: register.storage,
            });
            for holder in itself.into_iter().chain(register.offer.clone()) {
                told.holders.entry(holder.id.node).or_insert(holder);
            }
        }
        // It is here, and has nothing (any more).
        for node in self.nodes.values().filter(|n| n.register.cluster.is_none()) {
            told.holders.remove(&node.register.id.node);
        }
    }

    /// Whether nobody holds anything of what was told: all that did ran in memory, and new nodes without data have
    /// their addresses.
    fn told_is_gone(&self) -> bool {
        let Phase::Claiming(told) = &self.phase else {
            return false;
        };
        let members = told.views.values().flat_map(|view| &view.members);
        let holders = members.chain(told.holders.values()).chain(self.members());
        self.clusters().is_empty()
            && { holders }.all(|m| self.is_gone(m) || canary::is_on(Canary::GivesUpTold))
            && !canary::is_on(Canary::ClaimsForEver)
    }

    pub(super) fn advance_claiming(&mut self) {
        self.hear();
        let gone = self.told_is_gone();
        let clock = self.clock_ms;
        if let Phase::Claiming(told) = &mut self.phase {
            told.gone_since_ms = gone.then(|| told.gone_since_ms.unwrap_or(clock));
            // Somebody may hold data whom nobody told of: a learner whose tail died before it could.
            if let Some(since_ms) = told.gone_since_ms
                && clock - since_ms >= self.config.grace_ms
            {
                self.give_up_told();
            }
        }
        if !gone {
            self.adopt();
        }
    }

    fn give_up_told(&mut self) {
        self.news(
            "every node that held data ran in memory and was started anew: their data are gone, a new cluster is \
             founded",
        );
        // Promised by nodes that may yet come.
        let term = self.stored.term;
        self.forget_cluster();
        self.stored.term = term;
        self.out.forgotten = true;
        self.found();
        self.phase = Phase::Empty {
            since_ms: self.clock_ms,
        };
        // Whoever is there already joins.
        self.advance_outage();
    }

    fn adopt(&mut self) {
        if self.clusters().len() > 1 {
            return;
        }
        let Some(best) = self
            .adoption()
            .filter(|(_, awaited)| awaited.is_empty())
            .map(|(best, _)| best.clone())
        else {
            return;
        };
        let members: Vec<Member> = best
            .members
            .iter()
            .filter_map(|member| {
                let report = self.reports().find(|r| r.id.node == member.id.node)?;
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

    /// Why nothing is served meanwhile, in words for people.
    pub(super) fn claiming_reason(&self, told: &Told) -> String {
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
        if let Some(since_ms) = told.gone_since_ms {
            let passed_ms = self.clock_ms - since_ms;
            let left_ms = self.config.grace_ms.saturating_sub(passed_ms);
            return format!(
                "every node that held data ran in memory and was started anew: waiting {} s for one that holds \
                 some, then a new cluster is founded",
                left_ms.div_ceil(1000)
            );
        }
        // Whoever told of it may be gone.
        let Some(best) = told.views.values().max_by_key(|view| view.epoch) else {
            return "waiting for nodes to report what they hold".to_owned();
        };
        // A learner that was offered may be a member of a view that nobody told of.
        let learners = told.holders.values();
        // Members by the names that their cluster gave them.
        let known = learners.chain(&best.members);
        let away: BTreeMap<NodeId, &Member> = known
            .filter(|member| !self.reported(member.id))
            .map(|member| (member.id.node, member))
            .collect();
        let in_memory = away.values().all(|m| m.storage == StorageKind::Memory);
        let advice = match clusters.is_empty() && in_memory {
            true => {
                "; once new nodes have taken all of their addresses, their data being in memory, a new cluster is \
                 founded"
            }
            false => "",
        };
        let names: Vec<String> = away
            .values()
            .map(|member| {
                let learner = best.members.iter().all(|m| m.id.node != member.id.node);
                let role = if learner { ", a learner" } else { "" };
                format!("{} ({}{role})", member.name, member.address)
            })
            .collect();
        format!(
            "adopting view {} of cluster {} needs all of its members: {} awaited{advice}; \
             `kvservice-server recover` decides without them",
            best.epoch.number,
            best.cluster,
            names.join(", ")
        )
    }
}
