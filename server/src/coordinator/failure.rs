//! Noticing failures, asking who is left, and the next view.

use super::outage::Phase;
use super::{Coordinator, NodeLink};
use kvservice_shared::api::EventKind;
use kvservice_shared::canary::{self, Canary};
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
    /// What this front-end saw itself: a connection that closed, or fell silent.
    failed: BTreeSet<Incarnation>,
    /// Accuser and accused: it counts if the accuser stays.
    accused: Vec<(Incarnation, Incarnation)>,
    /// The same, where the accuser was wrong before: whoever does not answer goes, and the accuser where both
    /// do.
    disputed: Vec<(Incarnation, Incarnation)>,
    answered: BTreeSet<Incarnation>,
}

/// A successor reported down.
#[derive(Debug)]
pub(super) struct Accusation {
    by: Incarnation,
    of: Incarnation,
    at_ms: u64,
    /// Its accuser was wrong a while before.
    doubtful: bool,
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
            accused: Vec::new(),
            disputed: Vec::new(),
            answered: BTreeSet::new(),
        })
    }

    /// The probe that is out, if there is one.
    pub(super) fn round_nonce(&self) -> Option<u64> {
        self.round.as_ref().map(|round| round.nonce)
    }

    pub(super) fn on_here(&mut self, id: Incarnation, nonce: u64) {
        let member = self.members().iter().any(|member| member.id == id);
        match &mut self.round {
            Some(round) if round.nonce == nonce => {
                round.answered.insert(id);
            }
            // Too late to stay, and proof that it lives.
            _ if !member => self.clear_accusations(id),
            _ => {}
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
        let doubtful = self.note_accusation(by, accused);
        let connected = self.link_of(accused).is_some();
        let round = self.open_round();
        let charges = match doubtful && connected {
            true => &mut round.disputed,
            false => &mut round.accused,
        };
        if !charges.contains(&(by, accused)) {
            charges.push((by, accused));
        }
    }

    /// Remembers who accuses whom. Whether the accuser was wrong a short while ago; a report that is repeated,
    /// as reports are, is judged as it was the first time.
    fn note_accusation(&mut self, by: Incarnation, accused: Incarnation) -> bool {
        let now = self.now_ms;
        self.accusations.retain(|a| now - a.at_ms <= ACCUSER_MS);
        let mut known = self.accusations.iter().filter(|a| a.by == by && !a.wrong);
        if let Some(repeated) = known.find(|a| a.of == accused) {
            return repeated.doubtful;
        }
        let wrong_before = self.accusations.iter().any(|a| a.by == by && a.wrong);
        let doubtful = wrong_before && !canary::is_on(Canary::AccuserBelieved);
        if self.accusations.len() < ACCUSATIONS_MAX {
            let at_ms = now;
            self.accusations.push_back(Accusation {
                by,
                of: accused,
                at_ms,
                doubtful,
                wrong: false,
            });
        }
        doubtful
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
        let silent_too = canary::is_on(Canary::ViewOfSilent);
        let lives = |id: &Incarnation| {
            (round.answered.contains(id) || silent_too) && !round.failed.contains(id)
        };
        let condemned = |id: &Incarnation| {
            round.failed.contains(id) || round.accused.iter().any(|(by, of)| of == id && lives(by))
        };
        let awaits = |member: &&Member| {
            let silent = !lives(&member.id) && !condemned(&member.id);
            // After a restart members get their grace to connect; a connected one answers or is overdue.
            silent && (!overdue || self.link_of(member.id).is_none() && self.is_in_grace())
        };
        if self.members().iter().any(|member| awaits(&member)) {
            return;
        }
        // From the head down, for accusers come before the accused: what somebody said who goes too counts
        // for nothing.
        let mut survivors: Vec<Member> = Vec::new();
        for member in self.members() {
            let id = member.id;
            let stays = |by: &Incarnation| survivors.iter().any(|survivor| survivor.id == *by);
            let accused = round.accused.iter().any(|(by, of)| *of == id && stays(by));
            let wrong =
                |(by, of): &(Incarnation, Incarnation)| *by == id && round.answered.contains(of);
            if lives(&id) && !accused && !round.disputed.iter().any(wrong) {
                survivors.push(member.clone());
            }
        }
        let alive: Vec<Incarnation> = round
            .accused
            .iter()
            .map(|(_, of)| *of)
            .filter(|of| round.answered.contains(of))
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
        for id in alive {
            self.clear_accusations(id);
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
        if self.stopping && !canary::is_on(Canary::ViewsWhileStopping) {
            // It serves until this front-end has answered what it has; the end of the connection is the answer.
            return;
        }
        if left.len() < wanted && !canary::is_on(Canary::LastMemberLeaves) || !serving {
            // It ends, whatever it answered before.
            if let Some(round) = &mut self.round {
                round.failed.insert(id);
            }
            if let Some(node) = self.nodes.get_mut(&link) {
                node.leaving = true;
            }
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
