//! A tail and its learner.
//!
//! The learner gets what it lacks of the log, or a rolling snapshot where the log does not reach back far
//! enough, at a pace that it acknowledges. Once it is close the tail goes *joint*: its stable point needs
//! the learner's too. Once the learner holds everything that the tail ever called stable, the tail stores the
//! offer and reports it *ready*. From then on only a new view sets the tail free: the front-end may have
//! made the learner a member already, and then nothing may be acknowledged without it.

use super::data::Cursor;
use super::downstream::Stage;
use super::effects::Message;
use super::log::Common;
use super::replica::{Replica, Role};
use super::upstream::part_bytes;
use crate::storage::State;
use kvservice_shared::api::LearnerPhase;
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::{
    Boundaries, Downstream, FromNode, Incarnation, LearnerReport, Member, Resume, SnapshotPart,
    Unfinished, Upstream,
};
use kvservice_shared::codec::Batch;
use kvservice_shared::ids::Seq;
use std::collections::VecDeque;

/// Unacknowledged bytes of a snapshot, at most.
const SNAPSHOT_WINDOW_BYTES: u64 = 512 * 1024;
/// Unacknowledged bytes of log before the learner is joint, at most.
const LOG_WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// A learner that lacks no more than this becomes joint.
const JOINT_BYTES: usize = 512 * 1024;
/// Failure time-outs without progress before a learner is sent to the back.
const PATIENCE_TIMEOUTS: u64 = 10;
/// Log kept for a learner beyond the ordinary retention, in bytes; past that it is given up.
const LEARNER_LOG_BYTES_MAX: usize = 512 * 1024 * 1024;

/// The learner, as its tail sees it.
#[derive(Debug)]
pub(super) struct Teaching {
    member: Member,
    connected: bool,
    stage: Stage,
    /// The last entry sent to it.
    sent: Seq,
    /// Batches sent and not acknowledged: last entry, bytes.
    in_flight: VecDeque<(Seq, usize)>,
    in_flight_bytes: usize,
    /// What it holds durably.
    durable: Seq,
    complete: bool,
    snapshot: Option<Snapshot>,
    joint: bool,
    offered: bool,
    lost: bool,
    heard_ms: u64,
    progress_ms: u64,
}

#[derive(Debug)]
struct Snapshot {
    cursor: Cursor,
    ended: bool,
    /// The end is not read before all of this is applied: whoever sent its first parts may have been further.
    end_after: Seq,
    sent_bytes: u64,
    received_bytes: u64,
    total_bytes: u64,
}

impl Snapshot {
    /// Goes on with one whose first parts were sent earlier, perhaps by another tail. What that one had applied was
    /// committed, so it is in this one's log, up to `last`.
    fn resumed(unfinished: Unfinished, last: Seq, total_bytes: u64) -> Snapshot {
        let Unfinished {
            next,
            received_bytes,
        } = unfinished;
        let (cursor, ended) = match next {
            Resume::Keys(after) => (Cursor::Keys(Some(after)), false),
            Resume::Sessions(after) => (Cursor::Sessions(after), false),
            Resume::Ended => (Cursor::End, true),
        };
        Snapshot {
            cursor,
            ended,
            end_after: last,
            sent_bytes: received_bytes,
            received_bytes,
            total_bytes,
        }
    }
}

impl Teaching {
    fn new(member: Member, connected: bool, now_ms: u64) -> Teaching {
        Teaching {
            member,
            connected,
            stage: Stage::Apart,
            sent: Seq::ZERO,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            durable: Seq::ZERO,
            complete: false,
            snapshot: None,
            joint: false,
            offered: false,
            lost: false,
            heard_ms: now_ms,
            progress_ms: now_ms,
        }
    }

    pub(super) fn member(&self) -> &Member {
        &self.member
    }

    /// Who to send heartbeats to.
    pub(super) fn connected(&self) -> Option<Incarnation> {
        self.connected.then_some(self.member.id)
    }

    /// What the tail may call stable, given its own durable point.
    pub(super) fn holds_stable_at(&self, durable: Seq) -> Seq {
        if self.joint && !canary::is_on(Canary::NotJoint) {
            durable.min(self.durable)
        } else {
            durable
        }
    }

    /// The log after this entry is still needed for the learner.
    pub(super) fn needs_after(&self, otherwise: Seq) -> Seq {
        if self.stage == Stage::Linked {
            self.sent
        } else {
            otherwise
        }
    }
}

impl<S: State> Replica<S> {
    fn teaching_mut(&mut self, peer: Incarnation) -> Option<&mut Teaching> {
        match &mut self.role {
            Role::Member(member) => member.teaching.as_mut().filter(|t| t.member.id == peer),
            _ => None,
        }
    }

    /// The front-end assigns a learner.
    pub(super) fn teach(&mut self, learner: Member) {
        let now = self.clock_ms;
        let is_member = self
            .view()
            .is_some_and(|view| view.position(learner.id).is_some());
        let Role::Member(member) = &mut self.role else {
            return;
        };
        if member.successor.is_some() || is_member || learner.id == self.config.id {
            return;
        }
        match &member.teaching {
            Some(known) if known.member == learner => return,
            // An offer holds until a new view.
            Some(known) if known.offered => return,
            _ => {}
        }
        let connected = self.up.contains(&learner.id);
        member.teaching = Some(Teaching::new(learner, connected, now));
        self.set_links();
        self.recompute_stable();
    }

    pub(super) fn learner_up(&mut self, peer: Incarnation) {
        let now = self.clock_ms;
        let Some(teaching) = self.teaching_mut(peer) else {
            return;
        };
        teaching.connected = true;
        teaching.heard_ms = now;
        teaching.stage = Stage::Apart;
    }

    /// The handshake with a learner starts once the tail itself is settled.
    fn start_teaching(&mut self) {
        let Some(view) = self.meta.view.clone() else {
            return;
        };
        let Role::Member(member) = &mut self.role else {
            return;
        };
        let settled = member.upline.is_settled();
        let Some(teaching) = &mut member.teaching else {
            return;
        };
        if settled && teaching.connected && !teaching.lost && teaching.stage == Stage::Apart {
            teaching.stage = Stage::Asked;
            let to = teaching.member.id;
            self.send(Message::Down(
                to,
                Downstream::Link {
                    view,
                    learner: true,
                },
            ));
        }
    }

    pub(super) fn learner_down(&mut self, peer: Incarnation) {
        let Some(teaching) = self.teaching_mut(peer) else {
            return;
        };
        teaching.connected = false;
        teaching.stage = Stage::Apart;
        self.lose_learner();
    }

    /// Gives the learner up. One that was offered may be a member by now: the tail waits for a view.
    fn lose_learner(&mut self) {
        let epoch = self.epoch();
        let Role::Member(member) = &mut self.role else {
            return;
        };
        let Some(teaching) = &mut member.teaching else {
            return;
        };
        let id = teaching.member.id;
        let offered = teaching.offered && !canary::is_on(Canary::LearnerForgotten);
        teaching.lost = true;
        if !offered {
            member.teaching = None;
            self.set_links();
            self.recompute_stable();
        }
        self.close_down(id);
        self.tell_front_end(FromNode::Down { epoch, id, offered });
    }

    pub(super) fn repeat_learner_reports(&mut self) {
        let epoch = self.epoch();
        let Some(teaching) = self.member().and_then(|m| m.teaching.as_ref()) else {
            return;
        };
        let (id, lost, offered) = (teaching.member.id, teaching.lost, teaching.offered);
        if offered && lost {
            self.tell_front_end(FromNode::Down { epoch, id, offered });
        } else if offered {
            self.tell_front_end(FromNode::Ready { epoch, id });
        }
    }

    pub(super) fn on_learner_message(&mut self, peer: Incarnation, message: Upstream) {
        let (now, epoch) = (self.clock_ms, self.epoch());
        let Some(teaching) = self.teaching_mut(peer) else {
            return;
        };
        teaching.heard_ms = now;
        match message {
            Upstream::Have {
                epoch: of,
                log,
                unfinished,
            } if of == epoch => self.on_learner_have(&log, unfinished),
            Upstream::Received { epoch: of, bytes } if of == epoch => {
                if let Some(snapshot) = &mut teaching.snapshot {
                    snapshot.received_bytes = bytes;
                    teaching.progress_ms = now;
                }
            }
            Upstream::Stable {
                epoch: of,
                stable,
                complete,
            } if of == epoch => {
                if teaching.stage != Stage::Linked {
                    return;
                }
                if stable > teaching.durable || complete != teaching.complete {
                    teaching.progress_ms = now;
                }
                teaching.durable = teaching.durable.max(stable);
                teaching.complete = complete;
                while let Some(&(last, bytes)) = teaching.in_flight.front()
                    && last <= stable
                {
                    teaching.in_flight_bytes -= bytes;
                    teaching.in_flight.pop_front();
                }
                self.recompute_stable();
            }
            Upstream::Stale { epoch: theirs } if theirs > epoch => self.ask_view(),
            _ => {}
        }
    }

    fn on_learner_have(&mut self, log: &Boundaries, unfinished: Option<Unfinished>) {
        let common = self.log.common(log);
        let (at, total_bytes) = (self.data.applied(), self.data.bytes());
        let at_epoch = self.log.epoch_at(at);
        let (epoch, last) = (self.epoch(), self.log.last());
        let Role::Member(member) = &mut self.role else {
            return;
        };
        let Some(teaching) = &mut member.teaching else {
            return;
        };
        if teaching.stage != Stage::Asked {
            return;
        }
        teaching.stage = Stage::Linked;
        teaching.in_flight.clear();
        teaching.in_flight_bytes = 0;
        let to = teaching.member.id;
        match common {
            Common::At(common) => {
                teaching.sent = common;
                teaching.snapshot =
                    unfinished.map(|unfinished| Snapshot::resumed(unfinished, last, total_bytes));
                self.send_batches(to, Some(common), Vec::new());
            }
            Common::BeforeBase => {
                let Some(at_epoch) = at_epoch else { return };
                teaching.sent = at;
                teaching.snapshot = Some(Snapshot {
                    cursor: Cursor::Keys(None),
                    ended: false,
                    end_after: Seq::ZERO,
                    sent_bytes: 0,
                    received_bytes: 0,
                    total_bytes,
                });
                let part = SnapshotPart::Begin {
                    at,
                    at_epoch,
                    total_bytes,
                };
                self.send(Message::Down(to, Downstream::Snapshot { epoch, part }));
                self.send_batches(to, Some(at), Vec::new());
            }
        }
    }

    /// Sends the learner as much as it may have in flight; then sees whether it is close enough.
    pub(super) fn pump_learner(&mut self) {
        self.start_teaching();
        self.pump_snapshot();
        self.pump_log();
        self.offer();
    }

    fn pump_snapshot(&mut self) {
        let epoch = self.epoch();
        let Role::Member(member) = &mut self.role else {
            return;
        };
        let Some(teaching) = &mut member.teaching else {
            return;
        };
        if teaching.stage != Stage::Linked {
            return;
        }
        let to = teaching.member.id;
        let Some(snapshot) = &mut teaching.snapshot else {
            return;
        };
        while !snapshot.ended {
            // The sessions' last part, the names and the end are read at one point and go together: a session
            // opened after them must find the names complete.
            let closing = matches!(snapshot.cursor, Cursor::Evicted | Cursor::End);
            let last_part = !matches!(snapshot.cursor, Cursor::Keys(_));
            if last_part && self.data.applied() < snapshot.end_after {
                return;
            }
            let in_flight = snapshot.sent_bytes.saturating_sub(snapshot.received_bytes);
            if in_flight > SNAPSHOT_WINDOW_BYTES && !closing {
                return;
            }
            snapshot.ended = snapshot.cursor == Cursor::End;
            let part = self
                .data
                .snapshot_part(&mut snapshot.cursor, self.config.part_bytes);
            snapshot.sent_bytes += part_bytes(&part);
            let message = Downstream::Snapshot { epoch, part };
            self.out.messages.push(Message::Down(to, message));
        }
    }

    fn pump_log(&mut self) {
        let Role::Member(member) = &mut self.role else {
            return;
        };
        let Some(teaching) = &mut member.teaching else {
            return;
        };
        if teaching.stage != Stage::Linked || teaching.sent >= self.log.last() {
            return;
        }
        let mut batches: Vec<Batch> = Vec::new();
        for batch in self.log.after_seq(teaching.sent) {
            if !teaching.joint && teaching.in_flight_bytes > LOG_WINDOW_BYTES {
                break;
            }
            teaching.in_flight_bytes += batch.bytes().len();
            teaching
                .in_flight
                .push_back((batch.last(), batch.bytes().len()));
            teaching.sent = batch.last();
            batches.push(batch.clone());
        }
        let to = teaching.member.id;
        if !batches.is_empty() {
            self.send_batches(to, None, batches);
        }
        if self.log.bytes() > self.config.log_retention_bytes + LEARNER_LOG_BYTES_MAX {
            self.lose_learner();
        }
    }

    fn offer(&mut self) {
        let (epoch, stable, last) = (self.epoch(), self.stable, self.log.last());
        let Role::Member(member) = &mut self.role else {
            return;
        };
        let settled = member.upline.is_settled();
        let Some(teaching) = &mut member.teaching else {
            return;
        };
        if !settled || teaching.stage != Stage::Linked || !teaching.complete || teaching.lost {
            return;
        }
        let close = teaching.sent == last && teaching.in_flight_bytes <= JOINT_BYTES;
        if close || canary::is_on(Canary::PromoteEarly) {
            teaching.joint = true;
        }
        let holds_all = teaching.durable >= stable;
        let ready =
            holds_all || canary::is_on(Canary::PromoteEarly) || canary::is_on(Canary::ReadyBehind);
        if teaching.joint && !teaching.offered && ready {
            teaching.offered = true;
            let id = teaching.member.id;
            self.meta.offer = Some(teaching.member.clone());
            self.out.meta = Some(self.meta.clone());
            self.tell_front_end(FromNode::Ready { epoch, id });
            self.report_soon();
        }
    }

    pub(super) fn check_learner_silence(&mut self) {
        let (now, timeout) = (self.clock_ms, self.timeout_ms());
        let Some(teaching) = self.member().and_then(|m| m.teaching.as_ref()) else {
            return;
        };
        if teaching.lost {
            return;
        }
        let silent = now - teaching.heard_ms > timeout;
        let stuck = !teaching.offered && now - teaching.progress_ms > PATIENCE_TIMEOUTS * timeout;
        if silent || stuck {
            self.lose_learner();
        }
    }

    pub(super) fn learner_report(&self) -> Option<LearnerReport> {
        let teaching = self.member()?.teaching.as_ref()?;
        let snapshot = teaching.snapshot.as_ref();
        let phase = match () {
            () if teaching.joint => LearnerPhase::Joint,
            () if teaching.stage != Stage::Linked || snapshot.is_some() && !teaching.complete => {
                LearnerPhase::Snapshot
            }
            () => LearnerPhase::Log,
        };
        Some(LearnerReport {
            id: teaching.member.id,
            phase,
            behind: self.log.last().0.saturating_sub(teaching.durable.0),
            received_bytes: snapshot.map_or(0, |s| s.received_bytes),
            total_bytes: snapshot.map_or(0, |s| s.total_bytes.max(s.received_bytes)),
        })
    }
}
