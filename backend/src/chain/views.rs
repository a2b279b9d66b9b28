//! Between this node and the front-end: what it says of itself, what it is told, and what a new view makes of it.

use super::downstream::Successor;
use super::effects::{Halt, Message, Meta};
use super::order::Head;
use super::replica::{Membership, Replica, Role};
use super::upstream::Upline;
use crate::storage::State;
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::{
    Boundaries, FromNode, Incarnation, Refusal, Register, Report, ToNode, View,
};
use kvservice_shared::ids::{ClusterId, Epoch, Seq};

/// A node whose address is said to be taken for longer ends.
const REFUSED_MS_MAX: u64 = 10_000;

impl<S: State> Replica<S> {
    /// What this node says of itself, first on each connection to a front-end.
    pub fn registration(&self) -> Register {
        let bound = self.has_data();
        Register {
            cluster: self.meta.cluster.filter(|_| bound),
            id: self.config.id,
            address: self.config.address.clone(),
            storage: self.config.storage,
            term: self.meta.term,
            view: self.meta.view.clone().filter(|_| bound),
            offer: self.meta.offer.clone(),
            log: self.boundaries(),
        }
    }

    pub(super) fn register(&mut self) {
        let register = self.registration();
        self.tell_front_end(FromNode::Register(Box::new(register)));
        self.report_soon();
        self.repeat_reports();
        if self.leaving {
            self.tell_front_end(FromNode::Leave);
        }
    }

    /// Whether this node holds anything of a cluster: entries, a place in its view, or a tail's lessons.
    pub(super) fn has_data(&self) -> bool {
        let node = self.config.id.node;
        self.is_whole() && self.log.last() > Seq::ZERO
            || matches!(self.role, Role::Learner(_))
            || self
                .meta
                .view
                .as_ref()
                .is_some_and(|view| view.position_of_node(node).is_some())
    }

    /// The log's boundaries as others may rely on them: an unfinished snapshot counts for nothing.
    pub(super) fn boundaries(&self) -> Boundaries {
        if self.is_whole() {
            self.log.boundaries()
        } else {
            Boundaries::default()
        }
    }

    pub(super) fn on_front_end(&mut self, message: ToNode) {
        match message {
            ToNode::Welcome { cluster, .. } => self.on_welcome(cluster),
            ToNode::Refused(refusal) => self.on_refused(&refusal),
            ToNode::Claim { term } => {
                if term >= self.meta.term {
                    self.meta.term = term;
                    self.out.meta = Some(self.meta.clone());
                    self.register();
                }
            }
            ToNode::View(view) => self.on_view(view),
            ToNode::Learner { epoch, learner } => {
                if epoch == self.epoch() && !self.is_fenced(epoch) {
                    self.teach(learner);
                }
            }
            ToNode::Probe { nonce } => self.tell_front_end(FromNode::Here { nonce }),
            ToNode::Requests { epoch, requests } => {
                if self.is_fenced(epoch) {
                    // A former front-end's.
                } else if epoch == self.epoch() {
                    self.on_requests(requests);
                } else if epoch > self.epoch() {
                    self.tell_front_end(FromNode::AskView);
                }
            }
            ToNode::StopInPlace => {
                if self.leaving {
                    self.halt(Halt::InPlace);
                }
            }
            ToNode::Beat => {}
        }
    }

    fn on_welcome(&mut self, cluster: ClusterId) {
        self.refused_ms = None;
        match self.meta.cluster {
            Some(mine) if mine == cluster => {}
            // It waits to join, or waited to join a cluster that was given up since, and holds nothing: what
            // it was told of views and terms is void.
            _ if !self.has_data() => {
                self.meta = Meta {
                    cluster: Some(cluster),
                    ..Meta::default()
                };
                self.out.meta = Some(self.meta.clone());
                self.stop_learning();
                self.forget_snapshot();
                self.set_links();
            }
            None => {
                self.meta.cluster = Some(cluster);
                self.out.meta = Some(self.meta.clone());
            }
            Some(mine) => {
                self.fatal(format!(
                    "this node has data of cluster {mine}, the front-end is {cluster}'s"
                ));
            }
        }
    }

    /// The front-end closes the link now, and it is dialled again. A front-end that has not noticed yet that
    /// this node's last process is gone thinks that the address is taken: that passes.
    fn on_refused(&mut self, refusal: &Refusal) {
        let since = *self.refused_ms.get_or_insert(self.clock_ms);
        if !matches!(refusal, Refusal::AddressTaken { .. })
            || self.clock_ms - since > REFUSED_MS_MAX
        {
            self.fatal(format!("the front-end refuses this node: {refusal:?}"));
        }
    }

    /// Whether a claim by a newer front-end rules this epoch out.
    pub(super) fn is_fenced(&self, epoch: Epoch) -> bool {
        epoch.term < self.meta.term && !canary::is_on(Canary::TermIgnored)
    }

    /// Takes up a view, from the front-end or from a predecessor that has it already.
    pub(super) fn on_view(&mut self, view: View) {
        if view.epoch < self.epoch() || self.is_fenced(view.epoch) || view.members.is_empty() {
            return;
        }
        if self.meta.cluster.is_some_and(|mine| mine != view.cluster) {
            return self.fatal(format!(
                "a view of cluster {} was sent to a node of another",
                view.cluster
            ));
        }
        let position = view.position(self.config.id);
        if view.epoch == self.epoch() {
            if self.meta.view.as_ref() != Some(&view) {
                return self.fatal(format!("two different views with epoch {}", view.epoch));
            }
            match &self.role {
                Role::Member(_) => self.repeat_reports(),
                // A front-end that came back may not know of us.
                _ if position.is_none() => {}
                _ => self.fatal(format!(
                    "named a member of view {} after leaving it",
                    view.epoch
                )),
            }
            return;
        }
        // What was ordered so far was ordered in the old epoch.
        self.seal_batch();
        self.data.dumps_mut().clear();
        let links_before = self.wanted_links();
        let before = std::mem::replace(&mut self.role, Role::Idle);
        let learned = matches!(before, Role::Learner(_));
        let mut kept = None;
        let head = match before {
            Role::Member(member) => {
                kept = Some((member.upline, member.successor));
                member.head
            }
            _ => None,
        };
        self.meta.cluster = Some(view.cluster);
        self.meta.term = self.meta.term.max(view.epoch.term);
        self.meta.offer = None;
        self.meta.view = Some(view);
        if !canary::is_on(Canary::ViewNotStored) {
            self.out.meta = Some(self.meta.clone());
        }
        self.report_soon();
        match position {
            None => {
                // Fenced, or not yet in. What is not committed stays: the handshake cuts what must be cut.
                self.stop_learning();
                self.stable = Seq::ZERO;
                if self.leaving {
                    self.halt(Halt::Left);
                }
            }
            Some(position) => {
                if learned && !self.is_whole() {
                    return self.fatal("named a member with an unfinished snapshot".to_owned());
                }
                // It said that it holds nothing, and was named with nothing.
                self.forget_snapshot();
                self.become_member(position, head);
                if canary::is_on(Canary::KeepLink) {
                    self.keep_links(kept);
                }
            }
        }
        if self.wanted_links() != links_before {
            self.set_links();
        }
    }

    /// Says which links are wanted now; the others are closed.
    pub(super) fn set_links(&mut self) {
        let links = self.wanted_links();
        self.up
            .retain(|peer| links.iter().any(|link| link.id == *peer));
        self.out.links = Some(links);
    }

    /// Closes a dialled link: whoever gives up a peer does.
    pub(super) fn close_down(&mut self, peer: Incarnation) {
        self.up.remove(&peer);
        if canary::is_on(Canary::KeepsGivenUpLink) {
            return;
        }
        self.send(Message::CloseDown(peer));
    }

    fn become_member(&mut self, position: usize, head: Option<Head>) {
        let pointers = match &self.meta.view {
            Some(view) => view.pointers(self.config.id),
            None => return,
        };
        let is_head = position == 0;
        let head = is_head.then(|| match head {
            Some(mut head) => {
                // The front-end sends all that is unanswered again.
                head.forget_waiting();
                head
            }
            None => Head::take_over(&self.log, &self.data),
        });
        let now = self.clock_ms;
        self.role = Role::Member(Box::new(Membership {
            upline: if is_head {
                Upline::head()
            } else {
                Upline::unsettled(now)
            },
            successor: pointers.next.map(|member| {
                let connected = self.up.contains(&member.id);
                Successor::new(member, connected, now)
            }),
            teaching: None,
            head,
        }));
        if is_head {
            // What was stable before is durable on all that are left.
            self.commit(self.stable);
            self.start_link();
        }
        self.recompute_stable();
        self.report_stable = !is_head;
    }

    /// A bug that a test can switch on: what was settled in the last view stays so.
    fn keep_links(&mut self, kept: Option<(Upline, Option<Successor>)>) {
        if let (Role::Member(member), Some((upline, successor))) = (&mut self.role, kept) {
            if member.head.is_none() && upline.is_settled() && !upline.is_head() {
                member.upline = upline;
            }
            if let (Some(now), Some(before)) = (&mut member.successor, successor)
                && now.is_to(&before)
            {
                *now = before;
            }
        }
    }

    /// The peers that this node dials: `next`, `second`, and its learner.
    pub(super) fn wanted_links(&self) -> Vec<kvservice_shared::chain::Member> {
        let (Some(member), Some(view)) = (self.member(), &self.meta.view) else {
            return Vec::new();
        };
        let pointers = view.pointers(self.config.id);
        let learner = member
            .teaching
            .as_ref()
            .map(|teaching| teaching.member().clone());
        pointers
            .next
            .into_iter()
            .chain(pointers.second)
            .chain(learner)
            .collect()
    }

    /// Asks for the current view, at most once in a failure time-out.
    pub(super) fn ask_view(&mut self) {
        if self.clock_ms.saturating_sub(self.last_ask_ms) >= self.timeout_ms()
            || self.last_ask_ms == 0
        {
            self.last_ask_ms = self.clock_ms.max(1);
            self.tell_front_end(FromNode::AskView);
        }
    }

    pub(super) fn make_report(&self) -> Report {
        let settled = self.member().is_some_and(|member| {
            member.upline.is_settled() && member.successor.as_ref().is_none_or(Successor::is_linked)
        });
        Report {
            epoch: if self.is_member() {
                self.epoch()
            } else {
                Epoch::NONE
            },
            settled,
            durable: self.durable,
            stable: self.stable,
            committed: self.data.applied(),
            applied: self.data.applied(),
            hash: self.data.hash(),
            keys: self.data.keys(),
            learner: self.learner_report(),
        }
    }
}
