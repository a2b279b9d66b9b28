//! Noticing failures, asking who is left, and the next view.

use super::outage::Phase;
use super::{Coordinator, NodeLink};
use kvservice_shared::api::EventKind;
use kvservice_shared::chain::{Incarnation, Member, ToNode};
use kvservice_shared::ids::Epoch;
use std::collections::BTreeSet;

/// An accuser whose last victim turned out to be alive is not believed for this long.
const ACCUSER_MS: u64 = 10_000;
const ACCUSATIONS_MAX: usize = 64;

/// After a failure was noticed: who answers?
///
/// The next view is made of members that answered *after* that: many that died at once do not end in a view
/// of one arbitrary corpse.
#[derive(Debug)]
pub(super) struct Round {
    nonce: u64,
    since_ms: u64,
    noticed_ms: u64,
    failed: BTreeSet<Incarnation>,
    /// Accuser and accused, where the accuser was wrong before: whoever does not answer goes, and the accuser
    /// where both do.
    disputed: Vec<(Incarnation, Incarnation)>,
    answered: BTreeSet<Incarnation>,
}

/// A successor reported down.
#[derive(Debug)]
pub(super) struct Accusation {
    by: Incarnation,
    of: Incarnation,
    at_ms: u64,
    wrong: bool,
}

impl Coordinator {
    /// A member seems to have failed.
    pub(super) fn suspect(&mut self, id: Incarnation) {
        if self.members().iter().all(|member| member.id != id) || self.is_claiming() {
            return;
        }
        let round = self.open_round();
        round.failed.insert(id);
    }

    fn open_round(&mut self) -> &mut Round {
        if self.round.is_none() {
            self.rounds += 1;
            let nonce = self.rounds;
            let asked: Vec<NodeLink> = self
                .members()
                .iter()
                .filter_map(|member| self.link_of(member.id))
                .collect();
            for link in asked {
                self.send(link, ToNode::Probe { nonce });
            }
        }
        let (nonce, since_ms, noticed_ms) = (self.rounds, self.clock_ms, self.now_ms);
        self.round.get_or_insert_with(|| Round {
            nonce,
            since_ms,
            noticed_ms,
            failed: BTreeSet::new(),
            disputed: Vec::new(),
            answered: BTreeSet::new(),
        })
    }

    /// The probe that is out, if there is one.
    pub(super) fn round_nonce(&self) -> Option<u64> {
        self.round.as_ref().map(|round| round.nonce)
    }

    pub(super) fn on_here(&mut self, id: Incarnation, nonce: u64) {
        if let Some(round) = &mut self.round
            && round.nonce == nonce
        {
            round.answered.insert(id);
        }
    }

    pub(super) fn on_down(
        &mut self,
        by: Incarnation,
        epoch: Epoch,
        accused: Incarnation,
        offered: bool,
    ) {
        if epoch != self.epoch() || self.members().iter().all(|member| member.id != by) {
            return;
        }
        if self.members().iter().all(|member| member.id != accused) {
            return self.on_learner_lost(by, accused, offered);
        }
        let now = self.now_ms;
        self.accusations.retain(|a| now - a.at_ms <= ACCUSER_MS);
        if self
            .accusations
            .iter()
            .any(|a| a.by == by && a.of == accused && !a.wrong)
        {
            // Repeated, as reports are. Its round is under way, or waits for the grace to end.
            self.suspect(accused);
            return;
        }
        let doubtful = self.accusations.iter().any(|a| a.by == by && a.wrong);
        if self.accusations.len() < ACCUSATIONS_MAX {
            self.accusations.push_back(Accusation {
                by,
                of: accused,
                at_ms: now,
                wrong: false,
            });
        }
        if doubtful && self.link_of(accused).is_some() {
            let round = self.open_round();
            if !round.disputed.contains(&(by, accused)) {
                round.disputed.push((by, accused));
            }
        } else {
            self.suspect(accused);
        }
    }

    /// A node shows that it lives: who called it dead was wrong.
    pub(super) fn clear_accusations(&mut self, id: Incarnation) {
        for accusation in self.accusations.iter_mut().filter(|a| a.of == id) {
            accusation.wrong = true;
        }
    }

    /// Ends the round once everyone has answered that may, or had the time to.
    pub(super) fn advance_round(&mut self) {
        let Some(round) = &self.round else { return };
        if self.is_claiming() {
            return;
        }
        let overdue = self.clock_ms - round.since_ms > self.timeout_ms();
        let awaits = |member: &&Member| {
            let silent = !round.answered.contains(&member.id) && !round.failed.contains(&member.id);
            // After a restart members get their grace to connect; a connected one answers or is overdue.
            silent && (!overdue || self.link_of(member.id).is_none() && self.is_in_grace())
        };
        if self.members().iter().any(|member| awaits(&member)) {
            return;
        }
        let disputed_away = |id: &Incarnation| {
            round
                .disputed
                .iter()
                .any(|(by, of)| by == id && round.answered.contains(of))
        };
        let survivors: Vec<Member> = self
            .members()
            .iter()
            .filter(|m| round.answered.contains(&m.id) && !round.failed.contains(&m.id))
            .filter(|m| !disputed_away(&m.id))
            .cloned()
            .collect();
        let noticed_ms = round.noticed_ms;
        if survivors.is_empty() {
            // Nobody answers: no view. Whoever comes back is awaited.
            self.round = None;
            self.begin_outage();
            return;
        }
        if survivors.len() == self.members().len() {
            self.round = None;
            return;
        }
        let old = self.members().to_vec();
        let epoch = self.next_epoch();
        self.record_removals(&old, &survivors, EventKind::Failed, epoch, noticed_ms);
        self.make_view(survivors, epoch);
    }

    /// A member asks to leave.
    pub(super) fn on_leave(&mut self, link: NodeLink, id: Incarnation) {
        let members = self.members().to_vec();
        if members.iter().all(|member| member.id != id) {
            // Not (or no longer) in the chain: the view says so.
            if let Some(view) = self.stored.view.clone() {
                self.send(link, ToNode::View(view));
            }
            return;
        }
        let left: Vec<Member> = members.iter().filter(|m| m.id != id).cloned().collect();
        let wanted = self.config.settings.min_replicas.max(1) as usize;
        let serving = matches!(self.phase, Phase::Serving) && self.round.is_none();
        if self.stopping || left.len() < wanted || !serving {
            return self.send(link, ToNode::StopInPlace);
        }
        let epoch = self.next_epoch();
        self.record_removals(&members, &left, EventKind::Left, epoch, self.now_ms);
        if let Some(node) = self.nodes.get_mut(&link) {
            node.leaving = true;
        }
        self.make_view(left, epoch);
    }
}
