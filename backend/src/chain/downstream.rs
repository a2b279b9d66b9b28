//! The link to the successor: handshake, forwarding, and noticing that it fails.

use super::effects::Message;
use super::log::Common;
use super::replica::{Replica, Role};
use crate::storage::State;
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::{Boundaries, Downstream, FromNode, Incarnation, Member, Upstream};
use kvservice_shared::codec::Batch;
use kvservice_shared::ids::Seq;
use kvservice_shared::limits;

/// How far the handshake with a successor or learner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No connection, or nothing said on it.
    Apart,
    /// [`Downstream::Link`] was sent.
    Asked,
    /// The common entry was found; the rest flows.
    Linked,
}

/// The successor in this view.
#[derive(Debug)]
pub(super) struct Successor {
    member: Member,
    stage: Stage,
    connected: bool,
    /// The last entry sent to it.
    sent: Seq,
    /// What it called stable.
    stable: Seq,
    heard_ms: u64,
    /// It was reported down; repeated while this view lasts.
    down: bool,
}

impl Successor {
    pub(super) fn new(member: Member, connected: bool, now_ms: u64) -> Successor {
        Successor {
            member,
            stage: Stage::Apart,
            connected,
            sent: Seq::ZERO,
            stable: Seq::ZERO,
            heard_ms: now_ms,
            down: false,
        }
    }

    pub(super) fn is_to(&self, other: &Successor) -> bool {
        self.member.id == other.member.id
    }

    pub(super) fn is_linked(&self) -> bool {
        self.stage == Stage::Linked
    }

    /// What it and all behind it hold durably; nothing before the link is settled.
    pub(super) fn stable(&self) -> Seq {
        if self.is_linked() || canary::is_on(Canary::StableUnsettled) {
            self.stable
        } else {
            Seq::ZERO
        }
    }
}

impl<S: State> Replica<S> {
    /// Starts the handshake with the successor, once the own upstream link is settled and a connection
    /// stands. From the top of the chain down: a node vouches for what is behind it only after its own
    /// predecessor has settled what it holds.
    pub(super) fn start_link(&mut self) {
        let Some(view) = self.meta.view.clone() else {
            return;
        };
        let Role::Member(member) = &mut self.role else {
            return;
        };
        if !member.upline.is_settled() && !canary::is_on(Canary::StableUnsettled) {
            return;
        }
        let Some(successor) = &mut member.successor else {
            return;
        };
        if successor.connected && successor.stage == Stage::Apart {
            successor.stage = Stage::Asked;
            let to = successor.member.id;
            self.send(Message::Down(
                to,
                Downstream::Link {
                    view,
                    learner: false,
                },
            ));
        }
    }

    pub(super) fn on_peer_up(&mut self, peer: Incarnation) {
        let now = self.clock_ms;
        self.up.insert(peer);
        if let Role::Member(member) = &mut self.role
            && let Some(successor) = &mut member.successor
            && successor.member.id == peer
        {
            successor.connected = true;
            successor.stage = Stage::Apart;
            successor.heard_ms = now;
            self.start_link();
        }
        self.learner_up(peer);
    }

    pub(super) fn on_peer_down(&mut self, peer: Incarnation) {
        self.up.remove(&peer);
        if let Role::Member(member) = &mut self.role
            && let Some(successor) = &mut member.successor
            && successor.member.id == peer
        {
            successor.connected = false;
            successor.stage = Stage::Apart;
            self.successor_down();
        }
        self.learner_down(peer);
    }

    /// Reports the successor down; the front-end makes the next view.
    fn successor_down(&mut self) {
        let epoch = self.epoch();
        let Role::Member(member) = &mut self.role else {
            return;
        };
        let Some(successor) = &mut member.successor else {
            return;
        };
        successor.down = true;
        let id = successor.member.id;
        self.tell_front_end(FromNode::Down {
            epoch,
            id,
            offered: false,
        });
    }

    /// Says again, on a new connection to the front-end, what still holds.
    pub(super) fn repeat_reports(&mut self) {
        if self
            .member()
            .and_then(|m| m.successor.as_ref())
            .is_some_and(|s| s.down)
            && !canary::is_on(Canary::ReportOnce)
        {
            self.successor_down();
        }
        self.repeat_learner_reports();
    }

    pub(super) fn on_upstream_message(&mut self, peer: Incarnation, message: Upstream) {
        let epoch = self.epoch();
        let now = self.clock_ms;
        if let Role::Member(member) = &mut self.role
            && let Some(successor) = &mut member.successor
            && successor.member.id == peer
        {
            successor.heard_ms = now;
            match message {
                Upstream::Have { epoch: of, log, .. } if of == epoch => self.on_have(&log),
                Upstream::Stable {
                    epoch: of, stable, ..
                } if of == epoch => {
                    if successor.is_linked() && stable > successor.stable {
                        successor.stable = stable;
                        self.recompute_stable();
                    }
                }
                Upstream::Stale { epoch: theirs } if theirs > epoch => self.ask_view(),
                _ => {}
            }
            return;
        }
        self.on_learner_message(peer, message);
    }

    fn on_have(&mut self, log: &Boundaries) {
        let Role::Member(member) = &mut self.role else {
            return;
        };
        let Some(successor) = &mut member.successor else {
            return;
        };
        if successor.stage != Stage::Asked {
            return;
        }
        let to = successor.member.id;
        match self.log.common(log) {
            Common::At(common) => {
                successor.stage = Stage::Linked;
                // A report that it is down does not hold any more.
                successor.down = false;
                successor.stable = Seq::ZERO;
                successor.sent = self.log.last();
                let batches: Vec<Batch> = self.log.after_seq(common).cloned().collect();
                self.send_batches(to, Some(common), batches);
                self.report_soon();
            }
            Common::BeforeBase => {
                // A member holds all that is stable, so this is no member's log: let it join anew.
                self.close_down(to);
                self.successor_down();
            }
        }
    }

    /// Sends batches to a successor or learner, in frames within their limit.
    pub(super) fn send_batches(
        &mut self,
        to: Incarnation,
        settle: Option<Seq>,
        batches: Vec<Batch>,
    ) {
        let epoch = self.epoch();
        let committed = self.data.applied();
        let mut settle = settle;
        let mut frame: Vec<Batch> = Vec::new();
        let mut bytes = 0;
        for batch in batches {
            if bytes + batch.bytes().len() > limits::CHAIN_FRAME_BYTES_MAX / 2 && !frame.is_empty()
            {
                let batches = std::mem::take(&mut frame);
                bytes = 0;
                let append = Downstream::Append {
                    epoch,
                    settle: settle.take(),
                    committed,
                    batches,
                };
                self.send(Message::Down(to, append));
            }
            bytes += batch.bytes().len();
            frame.push(batch);
        }
        if settle.is_some() || !frame.is_empty() {
            let append = Downstream::Append {
                epoch,
                settle,
                committed,
                batches: frame,
            };
            self.send(Message::Down(to, append));
        }
    }

    /// Passes new batches on as they are. One frame a batch: each was a batch because it came at once.
    pub(super) fn forward(&mut self, batches: &[Batch]) {
        let Role::Member(member) = &mut self.role else {
            return;
        };
        let Some(successor) = &mut member.successor else {
            return;
        };
        let Some(last) = batches.last() else { return };
        if successor.is_linked() && last.last() > successor.sent {
            successor.sent = last.last();
            let to = successor.member.id;
            self.announced = self.data.applied();
            self.send_batches(to, None, batches.to_vec());
        }
    }

    /// Says how far all is committed, where no batch has carried it since.
    pub(super) fn announce_committed(&mut self) {
        if self.data.applied() > self.announced {
            self.beat_down();
        }
    }

    pub(super) fn beat_down(&mut self) {
        let (epoch, committed) = (self.epoch(), self.data.applied());
        self.announced = committed;
        let Role::Member(member) = &self.role else {
            return;
        };
        let next = member
            .successor
            .as_ref()
            .filter(|s| s.connected)
            .map(|s| s.member.id);
        let learner = member
            .teaching
            .as_ref()
            .and_then(super::teach::Teaching::connected);
        for to in next.into_iter().chain(learner) {
            self.send(Message::Down(to, Downstream::Beat { epoch, committed }));
        }
    }

    /// Gives up whoever has been silent for the failure time-out while this process ran.
    pub(super) fn check_silence(&mut self) {
        let (now, timeout) = (self.clock_ms, self.timeout_ms());
        if let Role::Member(member) = &mut self.role
            && let Some(successor) = &mut member.successor
            && !successor.down
            && now - successor.heard_ms > timeout
        {
            let to = successor.member.id;
            successor.connected = false;
            successor.stage = Stage::Apart;
            // Whoever gives up a peer closes the link.
            self.close_down(to);
            self.successor_down();
        }
        self.check_learner_silence();
        self.check_upline_silence();
    }
}
