//! Who this node is: its view and role, and what is durable, stable and committed.
//!
//! # Invariants, asserted
//! 1. applied = committed ≤ the log's end, and committed ≤ durable here (a committed entry is on every member).
//! 2. The epoch never goes down, and no message of another epoch than the view's is acted on.
//! 3. Committed entries are never cut. (A peer that asks for it does not belong to this cluster's history:
//!    the node halts and leaves its data as they are.)

use super::data::Data;
use super::downstream::Successor;
use super::effects::{Event, Halt, JournalOp, LinkId, Message, Meta, Output};
use super::log::Log;
use super::order::Head;
use super::save::Saving;
use super::teach::Teaching;
use super::upstream::{Learning, Upline};
use crate::storage::State;
use kvservice_shared::api::StorageKind;
use kvservice_shared::chain::{
    Boundaries, FromNode, Incarnation, Refusal, Register, Report, Settings, ToNode, View,
};
use kvservice_shared::codec::Batch;
use kvservice_shared::ids::{ClusterId, Epoch, Seq};
use std::collections::BTreeSet;

/// Heartbeats in one failure time-out.
const BEATS_PER_TIMEOUT: u64 = 8;
/// Reports of progress between heartbeats are at least this far apart.
const REPORT_MS_MIN: u64 = 20;
/// One tick counts as at most this much observed time: a process that was paused suspects nobody for it.
const TICK_MS_MAX: u64 = 50;

/// A node whose address is said to be taken for longer ends.
const REFUSED_MS_MAX: u64 = 10_000;

/// What the process knows of itself.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node, this start.
    pub id: Incarnation,
    /// Where its neighbours reach it.
    pub address: String,
    /// Where it keeps its data.
    pub storage: StorageKind,
    /// Log kept beyond what is needed, in bytes, for nodes that come back.
    pub log_retention_bytes: usize,
    /// A checkpoint is made once the log has grown by so many bytes since the last (or by half of the state,
    /// where that is more).
    pub checkpoint_bytes: usize,
}

/// What a node is in its view.
#[derive(Debug)]
pub(super) enum Role {
    /// No member, and nobody's learner.
    Idle,
    /// A member.
    Member(Box<Membership>),
    /// The tail's learner.
    Learner(Learning),
}

/// What a member keeps for one view.
#[derive(Debug)]
pub(super) struct Membership {
    /// The link from the predecessor, settled or not. A head has none, and is settled.
    pub(super) upline: Upline,
    /// The link to the successor; `None` on a tail.
    pub(super) successor: Option<Successor>,
    /// The tail's learner.
    pub(super) teaching: Option<Teaching>,
    /// What a head keeps.
    pub(super) head: Option<Head>,
}

/// A chain node's replica.
#[derive(Debug)]
pub struct Replica<S> {
    pub(super) config: Config,
    pub(super) meta: Meta,
    pub(super) log: Log,
    pub(super) data: Data<S>,
    pub(super) durable: Seq,
    pub(super) stable: Seq,
    pub(super) saving: Saving,
    pub(super) role: Role,
    pub(super) out: Output,
    /// Observed time in milliseconds: grows only while this process runs and reads its events.
    pub(super) clock_ms: u64,
    /// The committed point that was last sent down.
    pub(super) announced: Seq,
    /// Peers to whom a dialled link stands.
    pub(super) up: BTreeSet<Incarnation>,
    /// Say the stable point with the next flush, changed or not.
    pub(super) report_stable: bool,
    front_end_up: bool,
    leaving: bool,
    last_tick_ms: Option<u64>,
    last_beat_ms: u64,
    last_ask_ms: u64,
    /// Since when the front-end refuses this node.
    refused_ms: Option<u64>,
    report: bool,
    /// When the last report was made, and the durable and applied points in it.
    reported: (u64, (Seq, Seq)),
}

impl<S: State> Replica<S> {
    /// A node without data: new, or in memory.
    pub fn new(config: Config, state: S) -> Replica<S> {
        Replica::empty(config, Data::new(state))
    }

    /// Knows nothing but its data.
    pub(super) fn empty(config: Config, data: Data<S>) -> Replica<S> {
        Replica {
            config,
            meta: Meta::default(),
            log: Log::default(),
            data,
            durable: Seq::ZERO,
            stable: Seq::ZERO,
            saving: Saving::default(),
            role: Role::Idle,
            out: Output::default(),
            clock_ms: 0,
            announced: Seq::ZERO,
            up: BTreeSet::new(),
            report_stable: false,
            front_end_up: false,
            leaving: false,
            last_tick_ms: None,
            last_beat_ms: 0,
            last_ask_ms: 0,
            refused_ms: None,
            report: false,
            reported: (0, (Seq::ZERO, Seq::ZERO)),
        }
    }

    /// Who this node is.
    pub fn id(&self) -> Incarnation {
        self.config.id
    }

    /// The cluster that it has data of, or waits to join.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.meta.cluster
    }

    /// The epoch of the view that this node acts in.
    pub fn epoch(&self) -> Epoch {
        self.meta
            .view
            .as_ref()
            .map_or(Epoch::NONE, |view| view.epoch)
    }

    /// The view that this node acts in, or acted in last.
    pub fn view(&self) -> Option<&View> {
        self.meta.view.as_ref()
    }

    /// Whether it is a member of it.
    pub fn is_member(&self) -> bool {
        matches!(self.role, Role::Member(_))
    }

    /// The link from the predecessor, or from the tail that this node learns from, once it is settled.
    pub fn upstream(&self) -> Option<LinkId> {
        self.settled_link()
    }

    /// Whether the state is whole at the applied point, and would be again after a restart: no snapshot is under
    /// way, or on its way to the disk.
    pub fn is_whole(&self) -> bool {
        !self.data.is_rolling() && !self.saving.is_unsaved()
    }

    /// Durable, stable and applied point, and the hash of the state there.
    pub fn points(&self) -> (Seq, Seq, Seq, u64) {
        (
            self.durable,
            self.stable,
            self.data.applied(),
            self.data.hash(),
        )
    }

    /// Whether it is news that the log is durable up to here.
    pub fn is_news(&self, durable: Seq) -> bool {
        durable.min(self.log.last()) > self.durable
    }

    /// Keys, and bytes of keys and values.
    pub fn size(&self) -> (u64, u64) {
        (self.data.keys(), self.data.bytes())
    }

    /// The log, as far as it is kept.
    pub fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn settings(&self) -> Settings {
        self.meta
            .view
            .as_ref()
            .map_or_else(Settings::default, |view| view.settings)
    }

    pub(super) fn timeout_ms(&self) -> u64 {
        u64::from(self.settings().failure_timeout_ms)
    }

    pub(super) fn send(&mut self, message: Message) {
        self.out.messages.push(message);
    }

    pub(super) fn tell_front_end(&mut self, message: FromNode) {
        if self.front_end_up {
            self.out.messages.push(Message::FrontEnd(message));
        }
    }

    pub(super) fn halt(&mut self, halt: Halt) {
        self.note_committed();
        self.out.halt.get_or_insert(halt);
    }

    pub(super) fn fatal(&mut self, reason: String) {
        self.halt(Halt::Fatal(reason));
    }

    pub(super) fn report_soon(&mut self) {
        self.report = true;
    }

    pub(super) fn member(&self) -> Option<&Membership> {
        match &self.role {
            Role::Member(member) => Some(member),
            _ => None,
        }
    }

    /// Takes one event. `now_ms` is any clock that does not go back.
    pub fn step(&mut self, now_ms: u64, event: Event) {
        match event {
            Event::Tick => self.tick(now_ms),
            Event::FrontEndUp => {
                self.front_end_up = true;
                self.data.dumps_mut().clear();
                // Tickets are one process's own. The front-end sends everything that is unanswered again, and
                // another one must not hear of this one's.
                if let Role::Member(member) = &mut self.role
                    && let Some(head) = &mut member.head
                {
                    head.forget_waiting();
                }
                self.register();
            }
            Event::FrontEndDown => {
                self.front_end_up = false;
                self.data.dumps_mut().clear();
                if self.leaving {
                    self.halt(Halt::InPlace);
                }
            }
            Event::FrontEnd(message) => self.on_front_end(message),
            Event::PeerUp(peer) => self.on_peer_up(peer),
            Event::PeerDown(peer) => self.on_peer_down(peer),
            Event::FromSuccessor(peer, message) => self.on_upstream_message(peer, message),
            Event::FromPredecessor {
                link,
                from,
                message,
            } => {
                self.on_downstream_message(link, from, message);
            }
            Event::PredecessorDown(link) => self.on_predecessor_down(link),
            Event::Durable(seq) => self.on_durable(seq),
            Event::Saved { written, durable } => self.on_saved(written, durable),
            Event::Leave => {
                self.leaving = true;
                match (self.is_member(), self.front_end_up) {
                    (true, true) => self.tell_front_end(FromNode::Leave),
                    // Nobody is there to ask: everything stops, most likely.
                    (true, false) => self.halt(Halt::InPlace),
                    (false, _) => self.halt(Halt::Left),
                }
            }
        }
    }

    /// What is to be done because of all events since the last flush.
    pub fn flush(&mut self) -> Output {
        self.seal_batch();
        self.pump_learner();
        self.pump_checkpoint();
        self.say_stable();
        self.flush_answers();
        if std::mem::take(&mut self.report) {
            let report = self.make_report();
            self.reported = (self.clock_ms, (report.durable, report.applied));
            self.tell_front_end(FromNode::Report(report));
        }
        self.trim_log();
        std::mem::take(&mut self.out)
    }

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
            offer: self.meta.offer,
            log: self.boundaries(),
        }
    }

    fn register(&mut self) {
        let register = self.registration();
        self.tell_front_end(FromNode::Register(Box::new(register)));
        self.report_soon();
        self.repeat_reports();
        if self.leaving {
            self.tell_front_end(FromNode::Leave);
        }
    }

    /// Whether this node holds anything of a cluster: entries, a place in its view, or a tail's lessons.
    fn has_data(&self) -> bool {
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

    fn on_front_end(&mut self, message: ToNode) {
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
        epoch.term < self.meta.term
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
        let head = match std::mem::replace(&mut self.role, Role::Idle) {
            Role::Member(member) => member.head,
            _ => None,
        };
        self.meta.cluster = Some(view.cluster);
        self.meta.term = self.meta.term.max(view.epoch.term);
        self.meta.offer = None;
        self.meta.view = Some(view);
        self.out.meta = Some(self.meta.clone());
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
                if !self.is_whole() {
                    return self.fatal("named a member with an unfinished snapshot".to_owned());
                }
                self.become_member(position, head);
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

    fn on_durable(&mut self, seq: Seq) {
        // After a cut, a report of what was written before it may still be under way.
        let seq = seq.min(self.log.last());
        if seq > self.durable {
            self.durable = seq;
            self.recompute_stable();
        }
    }

    /// Adds batches to the log and hands them to the journal.
    pub(super) fn append(&mut self, batch: Batch) {
        self.note_committed();
        self.saving.count_append(batch.bytes().len());
        self.log.append(batch.clone());
        self.out.journal.push(JournalOp::Append(batch));
    }

    /// Recomputes the stable point; a head commits, others report upwards with the flush.
    pub(super) fn recompute_stable(&mut self) {
        let Role::Member(member) = &self.role else {
            return;
        };
        if !member.upline.is_settled() {
            return;
        }
        let behind = match (&member.successor, &member.teaching) {
            (Some(successor), _) => successor.stable(),
            (None, Some(teaching)) => teaching.holds_stable_at(self.durable),
            (None, None) => self.durable,
        };
        let stable = self.durable.min(behind);
        if stable > self.stable {
            self.stable = stable;
            self.report_stable = true;
        }
        if member.head.is_some() {
            self.commit(self.stable);
        }
    }

    /// Applies everything up to `seq`, as far as the log has it; answers what that decides.
    pub(super) fn commit(&mut self, seq: Seq) {
        let end = seq.min(self.log.last());
        let applied = self.data.applied();
        if end <= applied {
            return;
        }
        let batches: Vec<Batch> = self.log.after_seq(applied).cloned().collect();
        for batch in batches {
            for entry in batch.entries() {
                if entry.seq <= applied {
                    continue;
                }
                if entry.seq > end {
                    return;
                }
                self.data.apply(&entry);
                if let Role::Member(member) = &mut self.role
                    && let Some(head) = &mut member.head
                {
                    head.on_applied(&mut self.data, &entry);
                }
            }
        }
    }

    /// Cuts the log after `keep`.
    pub(super) fn cut(&mut self, keep: Seq) -> bool {
        if keep >= self.log.last() {
            return true;
        }
        if keep < self.data.applied() {
            self.fatal(format!(
                "told to cut the log to {keep}, below the committed point {}: this node's data belong to \
                 another history; keep them for inspection, or wipe the node to let it join anew",
                self.data.applied()
            ));
            return false;
        }
        if let Err(error) = self.log.cut(keep) {
            self.fatal(error.to_string());
            return false;
        }
        self.out.journal.push(JournalOp::Cut { keep });
        self.durable = self.durable.min(keep);
        self.stable = self.stable.min(keep);
        true
    }

    fn trim_log(&mut self) {
        let mut up_to = self.data.applied();
        if let Some(member) = self.member() {
            up_to = up_to.min(self.stable);
            if let Some(teaching) = &member.teaching {
                up_to = up_to.min(teaching.needs_after(up_to));
            }
            if let Some(successor) = &member.successor {
                up_to = up_to.min(successor.stable());
            }
        }
        let before = self.log.bytes();
        self.log.trim(up_to, self.config.log_retention_bytes);
        self.count_trimmed(before - self.log.bytes());
    }

    fn tick(&mut self, now_ms: u64) {
        let passed = self
            .last_tick_ms
            .map_or(0, |last| now_ms.saturating_sub(last));
        self.last_tick_ms = Some(now_ms);
        self.clock_ms += passed.min(TICK_MS_MAX);
        self.data.dumps_mut().tick(self.clock_ms);
        self.check_silence();
        if self.clock_ms - self.last_beat_ms >= self.timeout_ms() / BEATS_PER_TIMEOUT {
            self.last_beat_ms = self.clock_ms;
            self.beat();
        } else {
            self.announce_committed();
            let points = (self.durable, self.data.applied());
            if points != self.reported.1 && self.clock_ms - self.reported.0 >= REPORT_MS_MIN {
                self.report_soon();
            }
        }
    }

    fn beat(&mut self) {
        self.report_soon();
        self.repeat_reports();
        self.beat_down();
        self.beat_up();
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

    fn make_report(&self) -> Report {
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
