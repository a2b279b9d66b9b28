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
use super::upstream::{Learning, Taking, Upline};
use crate::storage::State;
use kvservice_shared::api::StorageKind;
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::{FromNode, Incarnation, Settings, View};
use kvservice_shared::codec::{Batch, Entry};
use kvservice_shared::ids::{ClusterId, Epoch, Seq};
use std::collections::BTreeSet;

/// Heartbeats in one failure time-out.
const BEATS_PER_TIMEOUT: u64 = 8;
/// Reports of progress between heartbeats are at least this far apart.
const REPORT_MS_MIN: u64 = 20;
/// One tick counts as at most this much observed time: a process that was paused suspects nobody for it.
const TICK_MS_MAX: u64 = 50;

/// Entries whose keys are fetched from memory together before they are applied: more do not stay near.
const WARM_AT_ONCE: usize = 64;

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
    /// Bytes of one part of a snapshot or a checkpoint, about.
    pub part_bytes: usize,
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
    pub(super) taking: Taking,
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
    pub(super) front_end_up: bool,
    pub(super) leaving: bool,
    last_tick_ms: Option<u64>,
    last_beat_ms: u64,
    pub(super) last_ask_ms: u64,
    /// Since when the front-end refuses this node.
    pub(super) refused_ms: Option<u64>,
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
            taking: Taking::default(),
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

    /// What a key holds at the applied point.
    pub fn held(&self, key: &str) -> Option<crate::storage::Record> {
        self.data.get(key)
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
        if canary::is_on(Canary::AnswerBeforeSync) {
            self.durable = self.log.last();
        }
    }

    /// Recomputes the stable point; a head commits, others report upwards with the flush.
    pub(super) fn recompute_stable(&mut self) {
        let Role::Member(member) = &self.role else {
            return;
        };
        if !member.upline.is_settled() && !canary::is_on(Canary::StableUnsettled) {
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
        if member.head.is_some() || canary::is_on(Canary::ApplyStable) {
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
            let entries = batch.entries();
            let mut entries = entries
                .skip_while(|entry| entry.seq <= applied)
                .take_while(|entry| entry.seq <= end)
                .peekable();
            while entries.peek().is_some() {
                let some: Vec<Entry<'_>> = entries.by_ref().take(WARM_AT_ONCE).collect();
                if some.len() > 1 {
                    self.data.warm(&some);
                }
                for entry in &some {
                    self.data.apply(entry);
                    if let Role::Member(member) = &mut self.role
                        && let Some(head) = &mut member.head
                    {
                        head.on_applied(&mut self.data, entry);
                    }
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
        if !canary::is_on(Canary::CutKeepsStable) {
            self.stable = self.stable.min(keep);
        }
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
        if canary::is_on(Canary::TrimTooMuch) {
            up_to = self.data.applied().max(self.log.last());
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
        self.clock_ms += match canary::is_on(Canary::CountPause) {
            true => passed,
            false => passed.min(TICK_MS_MAX),
        };
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
}
