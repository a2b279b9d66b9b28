//! The link from the predecessor, or from the tail that this node learns from.
//!
//! A link is *settled* in an epoch once the predecessor has said, on this very link, where the two logs agree.
//! Before that nothing from above is taken, nothing is vouched for, and the own successor is left alone.

use super::effects::{LinkId, Message};
use super::log::Log;
use super::replica::{Replica, Role};
use crate::storage::State;
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::{
    Downstream, Incarnation, Resume, Run, SnapshotPart, Unfinished, Upstream,
};
use kvservice_shared::codec::Batch;
use kvservice_shared::ids::{Epoch, Seq, SessionSeq};

/// A member's upstream link.
#[derive(Debug)]
pub(super) struct Upline {
    link: Option<LinkId>,
    settled: bool,
    heard_ms: u64,
}

impl Upline {
    /// A head's: the front-end is its predecessor, there is nothing to settle.
    pub(super) fn head() -> Upline {
        Upline {
            link: None,
            settled: true,
            heard_ms: 0,
        }
    }

    pub(super) fn unsettled(now_ms: u64) -> Upline {
        Upline {
            link: None,
            settled: false,
            heard_ms: now_ms,
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    pub(super) fn is_head(&self) -> bool {
        self.settled && self.link.is_none()
    }
}

/// What a learner keeps.
#[derive(Debug)]
pub(super) struct Learning {
    link: LinkId,
    settled: bool,
    heard_ms: u64,
    said: Option<(Seq, bool)>,
    said_bytes: u64,
}

/// A snapshot that is being taken in. It outlives the link that it came by: whoever teaches next goes on with it.
#[derive(Debug, Default)]
pub(super) struct Taking {
    /// Where it goes on; `None` where it would have to begin again.
    next: Option<Resume>,
    /// Bytes of the parts taken in.
    received_bytes: u64,
    /// Where its last part was read: the state is complete once applied up to there.
    complete_at: Option<Seq>,
    /// The term that it began in. It goes on in no other: an operator may have let go of entries that it shows.
    term: u32,
}

impl Taking {
    fn note(&mut self, part: &SnapshotPart) {
        self.received_bytes += part_bytes(part);
        self.next = match part {
            SnapshotPart::Keys { through, .. } => Some(match through {
                Some(key) => Resume::Keys(key.clone()),
                None => Resume::Sessions(SessionSeq(Seq::ZERO)),
            }),
            // The last of the sessions, the names and the end are read at one point: it cannot go on between them.
            SnapshotPart::Sessions { through, .. } => through.map(Resume::Sessions),
            SnapshotPart::Begin { .. } | SnapshotPart::Evicted { .. } => None,
            SnapshotPart::End { .. } => Some(Resume::Ended),
        };
    }
}

impl<S: State> Replica<S> {
    pub(super) fn on_downstream_message(
        &mut self,
        link: LinkId,
        from: Incarnation,
        message: Downstream,
    ) {
        match message {
            Downstream::Link { view, learner } => self.on_link(link, from, view, learner),
            Downstream::Append {
                epoch,
                settle,
                committed,
                batches,
            } => {
                if self.hears(link, epoch) {
                    self.on_append(settle, committed, batches);
                } else {
                    self.close_abandoned(link, epoch);
                }
            }
            Downstream::Snapshot { epoch, part } => {
                if self.hears(link, epoch) {
                    self.on_snapshot(part);
                } else {
                    self.close_abandoned(link, epoch);
                }
            }
            Downstream::Beat { epoch, committed } => {
                if self.hears(link, epoch) {
                    if self.is_settled() {
                        self.learn_committed(committed);
                    }
                } else if epoch == self.epoch() {
                    // A predecessor that is not settled itself, and has not begun the handshake: it must not
                    // take this node for dead meanwhile.
                    self.send(Message::Up(link, Upstream::Beat { epoch }));
                } else if epoch < self.epoch() {
                    let epoch = self.epoch();
                    self.send(Message::Up(link, Upstream::Stale { epoch }));
                } else if epoch > self.epoch() {
                    self.ask_view();
                }
            }
        }
    }

    /// Somebody believes that this link is the one that counts, and it is not: a handshake on an older one came
    /// late, and took its place. Closed, it is dialled again, and all begins anew.
    fn close_abandoned(&mut self, link: LinkId, epoch: Epoch) {
        if epoch == self.epoch() {
            self.send(Message::CloseUp(link));
        }
    }

    /// Whether this comes from whom this node follows, in its own epoch. Notes the sign of life.
    fn hears(&mut self, link: LinkId, epoch: Epoch) -> bool {
        if epoch != self.epoch() && !canary::is_on(Canary::SkipFence) {
            return false;
        }
        let now = self.clock_ms;
        let heard = match &mut self.role {
            Role::Member(member) if member.upline.link == Some(link) => &mut member.upline.heard_ms,
            Role::Learner(learning) if learning.link == link => &mut learning.heard_ms,
            _ => return false,
        };
        *heard = now;
        true
    }

    fn is_settled(&self) -> bool {
        match &self.role {
            Role::Member(member) => member.upline.settled,
            Role::Learner(learning) => learning.settled,
            Role::Idle => false,
        }
    }

    pub(super) fn settled_link(&self) -> Option<LinkId> {
        match &self.role {
            Role::Member(member) if member.upline.settled => member.upline.link,
            Role::Learner(learning) if learning.settled => Some(learning.link),
            _ => None,
        }
    }

    fn on_link(
        &mut self,
        link: LinkId,
        from: Incarnation,
        view: kvservice_shared::chain::View,
        learner: bool,
    ) {
        let open = canary::is_on(Canary::SkipFence);
        if (view.epoch < self.epoch() || self.is_fenced(view.epoch)) && !open {
            let epoch = self.epoch();
            return self.send(Message::Up(link, Upstream::Stale { epoch }));
        }
        let of = view.epoch;
        if of > self.epoch() {
            self.on_view(view);
        }
        if self.epoch() != of && !open || self.out.halt.is_some() {
            return;
        }
        let Some(view) = &self.meta.view else { return };
        let predecessor = view.previous(self.config.id).map(|member| member.id);
        let tail = view.tail().map(|member| member.id);
        let member = view.position(self.config.id).is_some();
        let now = self.clock_ms;
        // What was said on an older link can come after what is said on a newer one, which is the one that lives.
        let newest = match &self.role {
            Role::Member(membership) => membership.upline.link,
            Role::Learner(learning) => Some(learning.link),
            Role::Idle => None,
        };
        if newest.is_some_and(|newest| link < newest) {
            return;
        }
        match &mut self.role {
            Role::Member(membership) if !learner && (predecessor == Some(from) || open) => {
                membership.upline.link = Some(link);
                membership.upline.heard_ms = now;
            }
            Role::Idle | Role::Learner(_) if learner && !member && tail == Some(from) => {
                self.stop_learning();
                self.role = Role::Learner(Learning {
                    link,
                    settled: false,
                    heard_ms: now,
                    said: None,
                    said_bytes: 0,
                });
            }
            _ => return,
        }
        let epoch = of;
        let unfinished = self.unfinished();
        let log = match unfinished {
            Some(_) => self.log.boundaries(),
            None => self.boundaries(),
        };
        let have = Upstream::Have {
            epoch,
            log,
            unfinished,
        };
        self.send(Message::Up(link, have));
    }

    fn unfinished(&self) -> Option<Unfinished> {
        let same_term =
            self.taking.term == self.epoch().term || canary::is_on(Canary::ResumeAnyTerm);
        let goes_on = !self.is_whole() && same_term;
        let next = self.taking.next.clone().filter(|_| goes_on)?;
        Some(Unfinished {
            next,
            received_bytes: self.taking.received_bytes,
        })
    }

    /// No longer anybody's learner. Half a snapshot counts for nothing, and stays where it can go on.
    pub(super) fn stop_learning(&mut self) {
        let had_data = self.has_data();
        self.role = Role::Idle;
        if self.unfinished().is_none() {
            self.forget_snapshot();
        }
        if had_data && !self.has_data() {
            // The front-end would wait for what this node is thought to hold.
            self.register();
        }
    }

    /// Half a snapshot goes, and with it the log beyond it.
    pub(super) fn forget_snapshot(&mut self) {
        self.taking = Taking::default();
        if !self.is_whole() {
            let base = Run::default();
            self.data.clear();
            self.log = Log::after(base);
            self.reset_journal(base);
            self.durable = Seq::ZERO;
            self.stable = Seq::ZERO;
        }
    }

    fn on_append(&mut self, settle: Option<Seq>, committed: Seq, batches: Vec<Batch>) {
        match settle {
            Some(common) => {
                if !self.settle(common) {
                    return;
                }
            }
            None if !self.is_settled() => return,
            None => {}
        }
        let mut new = Vec::with_capacity(batches.len());
        for batch in batches {
            if self.log.follows(&batch) {
                self.append(batch.clone());
                new.push(batch);
            } else if !self.log.holds(&batch) {
                return self.fatal(format!(
                    "the predecessor sent {batch:?} after {}@{}",
                    self.log.last(),
                    self.log.last_epoch()
                ));
            }
        }
        self.forward(&new);
        self.learn_committed(committed);
        self.recompute_stable();
    }

    /// The predecessor found where the logs agree: everything after it goes, the rest follows.
    fn settle(&mut self, common: Seq) -> bool {
        if common > self.log.last() {
            self.fatal(format!(
                "settled at {common}, past the log's end {}",
                self.log.last()
            ));
            return false;
        }
        if !self.cut(common) {
            return false;
        }
        let first = match &mut self.role {
            Role::Member(member) => !std::mem::replace(&mut member.upline.settled, true),
            Role::Learner(learning) => {
                learning.settled = true;
                learning.said = None;
                false
            }
            Role::Idle => false,
        };
        self.report_stable = true;
        self.report_soon();
        if first {
            self.start_link();
        }
        true
    }

    fn learn_committed(&mut self, committed: Seq) {
        self.commit(committed);
        let applied = self.data.applied();
        if self
            .taking
            .complete_at
            .take_if(|at| applied >= *at)
            .is_some()
        {
            self.data.end_snapshot();
        }
    }

    fn on_snapshot(&mut self, part: SnapshotPart) {
        if !matches!(self.role, Role::Learner(_)) {
            return;
        }
        let begins = matches!(part, SnapshotPart::Begin { .. });
        if !begins && !self.data.is_rolling() {
            return;
        }
        if begins {
            self.taking = Taking {
                term: self.epoch().term,
                ..Taking::default()
            };
        } else {
            self.taking.note(&part);
        }
        match &part {
            &SnapshotPart::Begin { at, at_epoch, .. } => {
                let base = Run {
                    epoch: at_epoch,
                    last: at,
                };
                self.log = Log::after(base);
                self.reset_journal(base);
                self.begin_learned_checkpoint(base);
                self.data.begin_snapshot(at);
                self.durable = at;
                self.stable = Seq::ZERO;
            }
            SnapshotPart::Keys {
                after,
                through,
                entries,
            } => {
                self.data
                    .replace_keys(after.as_deref(), through.as_deref(), entries);
            }
            SnapshotPart::Sessions {
                after,
                through,
                sessions,
            } => {
                self.data
                    .sessions_mut()
                    .replace(*after, *through, sessions.clone());
            }
            SnapshotPart::Evicted { names } => {
                for &(by, place, uuid) in names {
                    self.data.sessions_mut().remember_evicted(by, place, uuid);
                }
            }
            &SnapshotPart::End { at } => {
                self.taking.complete_at = Some(at);
                self.learn_committed(Seq::ZERO);
            }
        }
        if !begins {
            self.save_learned_part(part);
        }
    }

    /// Says upwards what is stable here and behind; a learner, what it holds durably.
    pub(super) fn say_stable(&mut self) {
        let epoch = self.epoch();
        let (durable, stable) = (self.durable, self.stable);
        let complete = self.is_whole();
        // The disk sets the pace, where there is one.
        let to_disk = self
            .saving
            .is_unsaved()
            .then(|| self.saving.written_bytes());
        match &mut self.role {
            Role::Member(member) => {
                if let Some(link) = member.upline.link
                    && (member.upline.settled || canary::is_on(Canary::StableUnsettled))
                    && self.report_stable
                {
                    self.report_stable = false;
                    let message = Upstream::Stable {
                        epoch,
                        stable,
                        complete,
                    };
                    self.send(Message::Up(link, message));
                }
            }
            Role::Learner(learning) => {
                let link = learning.link;
                let taken = self.taking.received_bytes;
                let mut messages = Vec::new();
                let bytes = to_disk.unwrap_or(taken);
                if bytes != learning.said_bytes {
                    learning.said_bytes = bytes;
                    messages.push(Upstream::Received { epoch, bytes });
                }
                if learning.settled && learning.said != Some((durable, complete)) {
                    learning.said = Some((durable, complete));
                    messages.push(Upstream::Stable {
                        epoch,
                        stable: durable,
                        complete,
                    });
                }
                for message in messages {
                    self.send(Message::Up(link, message));
                }
            }
            Role::Idle => {}
        }
    }

    pub(super) fn beat_up(&mut self) {
        let epoch = self.epoch();
        let link = match &self.role {
            Role::Member(member) => member.upline.link,
            Role::Learner(learning) => Some(learning.link),
            Role::Idle => None,
        };
        if let Some(link) = link {
            self.send(Message::Up(link, Upstream::Beat { epoch }));
        }
    }

    pub(super) fn on_predecessor_down(&mut self, link: LinkId) {
        match &mut self.role {
            Role::Member(member) if member.upline.link == Some(link) => {
                // It settled what it settled: a member changes nothing by itself, it asks.
                member.upline.link = None;
                if canary::is_on(Canary::CutAlone) {
                    let applied = self.data.applied();
                    let part = self.log.after_seq(applied).next();
                    let keep = part
                        .filter(|batch| batch.first() <= applied)
                        .map(Batch::last);
                    self.cut(keep.unwrap_or(applied));
                }
                self.ask_view();
            }
            Role::Learner(learning) if learning.link == link => {
                // Starts over from what it has, once it is assigned again.
                self.stop_learning();
                self.ask_view();
            }
            _ => {}
        }
    }

    pub(super) fn check_upline_silence(&mut self) {
        let (now, timeout) = (self.clock_ms, self.timeout_ms());
        match &mut self.role {
            Role::Member(member) if member.head.is_none() => {
                let silent_ms = now - member.upline.heard_ms;
                if silent_ms <= timeout {
                    return;
                }
                // A link may carry nothing down and everything up: its predecessor hears this node, and notices
                // nothing. Closed, it is dialled again.
                let dead = member.upline.link.take_if(|_| silent_ms > 2 * timeout);
                if let Some(link) = dead {
                    self.send(Message::CloseUp(link));
                }
                self.ask_view();
            }
            Role::Learner(learning) if now - learning.heard_ms > 2 * timeout => {
                let link = learning.link;
                self.stop_learning();
                self.send(Message::CloseUp(link));
                self.ask_view();
            }
            _ => {}
        }
    }
}

/// What a part counts for in flow control, in bytes: both ends count alike.
#[must_use]
pub fn part_bytes(part: &SnapshotPart) -> u64 {
    let bytes = match part {
        SnapshotPart::Begin { .. } | SnapshotPart::End { .. } => 0,
        SnapshotPart::Keys { entries, .. } => entries
            .iter()
            .map(|(key, value, _)| key.len() + value.0.len() + 16)
            .sum(),
        SnapshotPart::Sessions { sessions, .. } => sessions
            .iter()
            .map(|session| 64 + 64 * session.outcomes.len())
            .sum(),
        SnapshotPart::Evicted { names } => 28 * names.len(),
    };
    bytes as u64 + 64
}
