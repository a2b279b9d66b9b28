//! Learners: one at a time, first come first; one that fails goes to the back.

use super::outage::Phase;
use super::{Coordinator, Incarnation};
use kvservice_shared::api::EventKind;
use kvservice_shared::chain::ToNode;
use kvservice_shared::ids::Epoch;
use kvservice_shared::limits;

/// The current learner.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) id: Incarnation,
    pub(super) since_ms: u64,
}

impl Coordinator {
    /// Assigns the next learner to the tail.
    pub(super) fn advance_join(&mut self) {
        if self.joining.is_some()
            || self.round.is_some()
            || !matches!(self.phase, Phase::Serving)
            || self.members().len() >= limits::MEMBERS_MAX
        {
            return;
        }
        let Some(tail) = self.members().last().map(|tail| tail.id) else {
            return;
        };
        let Some(to) = self.link_of(tail) else { return };
        let next = self.queue.iter().copied().find(|id| self.may_join(*id));
        let Some(id) = next else { return };
        let Some(register) = self
            .link_of(id)
            .and_then(|link| self.nodes.get(&link))
            .map(|n| n.register.clone())
        else {
            return;
        };
        let learner = self.member_for(&register);
        let since_ms = match self.events.open_join(&learner.name) {
            Some(since_ms) => since_ms,
            None => {
                self.events.add(
                    self.now_ms,
                    self.epoch(),
                    EventKind::Joining,
                    Some(&learner.name),
                );
                self.now_ms
            }
        };
        self.joining = Some(Joining { id, since_ms });
        let epoch = self.epoch();
        self.send(to, ToNode::Learner { epoch, learner });
    }

    /// Whether a node is connected, and did not fail a moment ago: one that the tail cannot reach is not tried
    /// without end.
    fn may_join(&self, id: Incarnation) -> bool {
        let node = self.link_of(id).and_then(|link| self.nodes.get(&link));
        let rested = |failed_ms| self.clock_ms - failed_ms >= self.timeout_ms();
        node.is_some_and(|node| node.failed_ms.is_none_or(rested))
    }

    /// The tail says that the learner holds everything.
    pub(super) fn on_ready(&mut self, by: Incarnation, epoch: Epoch, learner: Incarnation) {
        let tail = self.members().last().map(|tail| tail.id);
        if epoch != self.epoch() || tail != Some(by) || self.stopping {
            return;
        }
        if self
            .members()
            .iter()
            .any(|member| member.id.node == learner.node)
        {
            return;
        }
        let mut members = self.members().to_vec();
        let next = self.next_epoch();
        let register = self
            .link_of(learner)
            .and_then(|l| self.nodes.get(&l))
            .map(|n| n.register.clone());
        match register {
            Some(register) if self.round.is_none() => {
                let member = self.member_for(&register);
                let since = self
                    .joining
                    .as_ref()
                    .map_or(self.now_ms, |joining| joining.since_ms);
                self.record_join(&member.name, since, next);
                members.push(member);
                self.make_view(members, next);
            }
            Some(_) => {}
            // It is gone, and the tail must not answer without it until a new view says that it may.
            None => self.make_view(members, next),
        }
    }

    /// The tail lost its learner.
    pub(super) fn on_learner_lost(&mut self, by: Incarnation, learner: Incarnation, offered: bool) {
        if self.members().last().map(|tail| tail.id) != Some(by) || self.stopping {
            return;
        }
        if self
            .joining
            .as_ref()
            .is_some_and(|joining| joining.id == learner)
        {
            self.joining = None;
            self.fail_join(learner);
        }
        if offered && self.round.is_none() {
            let (members, next) = (self.members().to_vec(), self.next_epoch());
            self.make_view(members, next);
        }
    }

    pub(super) fn on_learner_disconnected(&mut self, id: Incarnation) {
        if self
            .joining
            .as_ref()
            .is_some_and(|joining| joining.id == id)
        {
            self.joining = None;
            self.fail_join(id);
        }
    }

    fn fail_join(&mut self, id: Incarnation) {
        let name = self.name_of(id.node);
        self.news(format!("{name} did not join"));
        self.events.close_join(&name);
        self.events.add(
            self.now_ms,
            self.epoch(),
            EventKind::JoinFailed,
            Some(&name),
        );
        let clock = self.clock_ms;
        if let Some(node) = self.link_of(id).and_then(|link| self.nodes.get_mut(&link)) {
            node.failed_ms = Some(clock);
        }
        if self.queue.contains(&id) {
            self.queue.retain(|waiting| *waiting != id);
            self.queue.push_back(id);
        }
    }
}
