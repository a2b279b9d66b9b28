//! What is told to people: status, events, how long repairs took.

use super::Coordinator;
use kvservice_shared::api::{
    ChainEvent, EventKind, FrontEndStatus, LearnerPhase, LearnerStatus, MemberStatus, Mode, Role,
    Status,
};
use kvservice_shared::chain::Member;
use kvservice_shared::ids::Epoch;
use kvservice_shared::limits;
use std::collections::VecDeque;

/// The last events.
#[derive(Debug)]
pub(super) struct Events {
    wall_ms: u64,
    events: VecDeque<ChainEvent>,
    /// Joins under way: name and since when.
    joins: Vec<(String, u64)>,
}

/// A view that repaired something, and is not settled yet.
#[derive(Debug)]
pub struct Repair {
    epoch: Epoch,
    noticed_ms: u64,
}

impl Events {
    pub(super) fn new(wall_ms: u64) -> Events {
        Events {
            wall_ms,
            events: VecDeque::new(),
            joins: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, now_ms: u64, epoch: Epoch, kind: EventKind, node: Option<&str>) {
        if kind == EventKind::Joining
            && let Some(name) = node
        {
            self.joins.push((name.to_owned(), now_ms));
        }
        self.push(ChainEvent {
            at_ms: self.wall_ms + now_ms,
            epoch: epoch.number,
            kind,
            node: node.map(str::to_owned),
            from: None,
            to: None,
            took_ms: None,
        });
    }

    fn push(&mut self, event: ChainEvent) {
        if self.events.len() == limits::EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Since when this node has been joining, over view changes.
    pub(super) fn open_join(&self, name: &str) -> Option<u64> {
        self.joins
            .iter()
            .find(|(joining, _)| joining == name)
            .map(|(_, since)| *since)
    }

    pub(super) fn close_join(&mut self, name: &str) {
        self.joins.retain(|(joining, _)| joining != name);
    }

    fn settle(&mut self, epoch: Epoch, took_ms: u64) {
        let repairs = self.events.iter_mut().filter(|event| {
            event.epoch <= epoch.number
                && event.took_ms.is_none()
                && matches!(event.kind, EventKind::Failed | EventKind::Left)
        });
        for event in repairs {
            event.took_ms = Some(took_ms);
        }
    }
}

impl Coordinator {
    /// Records who went, and who links to whom instead.
    pub(super) fn record_removals(
        &mut self,
        old: &[Member],
        left: &[Member],
        kind: EventKind,
        epoch: Epoch,
        noticed_ms: u64,
    ) {
        let stays = |member: &&Member| left.iter().any(|m| m.id.node == member.id.node);
        for (at, gone) in old.iter().enumerate().filter(|(_, member)| !stays(member)) {
            let before = old[..at].iter().rev().find(&stays);
            let after = old[at + 1..].iter().find(stays);
            let from = before.map_or("front-end", |member| member.name.as_str());
            let took = match kind {
                EventKind::Left => "left",
                _ => "failed",
            };
            match after {
                Some(after) => self
                    .out
                    .news
                    .push(format!("{} {took}; {from} → {}", gone.name, after.name)),
                None => self
                    .out
                    .news
                    .push(format!("{} {took}; {from} is the tail", gone.name)),
            }
            let event = ChainEvent {
                at_ms: self.events.wall_ms + self.now_ms,
                epoch: epoch.number,
                kind,
                node: Some(gone.name.clone()),
                from: Some(from.to_owned()),
                to: after.map(|member| member.name.clone()),
                took_ms: None,
            };
            self.events.push(event);
        }
        if left.len() < old.len() {
            let noticed_ms = self
                .repair
                .as_ref()
                .map_or(noticed_ms, |r| r.noticed_ms.min(noticed_ms));
            self.repair = Some(Repair { epoch, noticed_ms });
        }
    }

    pub(super) fn record_join(&mut self, name: &str, since_ms: u64, epoch: Epoch) {
        self.events.close_join(name);
        let event = ChainEvent {
            at_ms: self.events.wall_ms + self.now_ms,
            epoch: epoch.number,
            kind: EventKind::Joined,
            node: Some(name.to_owned()),
            from: self.members().last().map(|tail| tail.name.clone()),
            to: Some(name.to_owned()),
            took_ms: Some(self.now_ms - since_ms),
        };
        self.events.push(event);
    }

    /// Writes flow again once every link of the new view is settled.
    pub(super) fn check_repair(&mut self) {
        let Some(repair) = &self.repair else { return };
        let epoch = self.epoch();
        let settled = epoch >= repair.epoch
            && self.members().iter().all(|member| {
                let report = self
                    .link_of(member.id)
                    .and_then(|link| self.nodes.get(&link))
                    .and_then(|node| node.report.as_ref());
                report.is_some_and(|report| report.epoch == epoch && report.settled)
            });
        if settled {
            let took_ms = self.now_ms - repair.noticed_ms;
            self.repair = None;
            self.events.settle(epoch, took_ms);
            self.news(format!("chain repaired in {took_ms} ms"));
        }
    }

    /// The whole status.
    #[must_use]
    pub fn status(&self) -> Status {
        let members = self.members();
        let address = |at: usize| members.get(at).map(|member| member.address.clone());
        let member_status = |(at, member): (usize, &Member)| {
            let report = self
                .link_of(member.id)
                .and_then(|link| self.nodes.get(&link))
                .and_then(|node| node.report.clone());
            let role = match (members.len(), at) {
                (1, _) => Role::Single,
                (_, 0) => Role::Head,
                (n, at) if at + 1 == n => Role::Tail,
                _ => Role::Middle,
            };
            MemberStatus {
                node: member.name.clone(),
                address: member.address.clone(),
                role,
                next: address(at + 1),
                second: address(at + 2),
                durable: report.as_ref().map_or_else(Default::default, |r| r.durable),
                stable: report.as_ref().map_or_else(Default::default, |r| r.stable),
                committed: report
                    .as_ref()
                    .map_or_else(Default::default, |r| r.committed),
                applied: report.as_ref().map_or_else(Default::default, |r| r.applied),
                hash: format!("{:016x}", report.as_ref().map_or(0, |r| r.hash)),
                storage: member.storage,
            }
        };
        Status {
            mode: if self.config.single {
                Mode::Single
            } else {
                Mode::Chain
            },
            cluster: self.stored.cluster.map(|cluster| cluster.to_string()),
            epoch: self.epoch().number,
            members: members.iter().enumerate().map(member_status).collect(),
            learners: self.learners(),
            front_end: FrontEndStatus {
                head: address(0),
                second: address(1),
            },
            events: self.events.events.iter().cloned().collect(),
            waiting: self.waiting_for(),
        }
    }

    fn learners(&self) -> Vec<LearnerStatus> {
        let tail = self.members().last().and_then(|tail| self.link_of(tail.id));
        let report = tail
            .and_then(|link| self.nodes.get(&link))
            .and_then(|node| node.report.as_ref())
            .and_then(|report| report.learner.as_ref());
        // While a term is claimed it is not known yet who is a member.
        let queue = self.queue.iter().filter(|_| !self.is_claiming());
        let waiting = queue.filter_map(|id| {
            let node = self.nodes.get(&self.link_of(*id)?)?;
            let report = report.filter(|report| report.id == *id);
            Some(LearnerStatus {
                node: node.name.clone(),
                address: node.register.address.clone(),
                phase: report.map_or(LearnerPhase::Snapshot, |r| r.phase),
                behind: report.map_or(0, |r| r.behind),
                received_bytes: report.map_or(0, |r| r.received_bytes),
                total_bytes: report.map_or(0, |r| r.total_bytes),
            })
        });
        waiting.collect()
    }
}
