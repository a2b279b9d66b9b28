//! What goes wrong in a walk, how often, and when it is undone.

use super::Walk;
use crate::cluster::Cluster;
use crate::net::Place;
use crate::rng::Rng;
use kvservice_shared::api::StorageKind;

/// How often what goes wrong, in ten-thousandths of a round.
#[derive(Debug)]
pub struct Rates {
    kill: u64,
    leave: u64,
    pause: u64,
    stall: u64,
    part: u64,
    hold: u64,
    front_end: u64,
    /// Everything at once, where nodes have disks.
    outage: u64,
    client: u64,
    /// Percent of rounds in which everything is delivered.
    pub calm: u64,
}

impl Rates {
    /// Each seed has its own weather: some faults often, some never.
    pub fn new(rng: &mut Rng) -> Rates {
        let mut rate = |most: usize| {
            if rng.chance(60) {
                rng.below(most) as u64
            } else {
                0
            }
        };
        Rates {
            kill: rate(300),
            leave: rate(100),
            pause: rate(200),
            stall: rate(200),
            part: rate(200),
            hold: rate(500),
            front_end: rate(100),
            outage: rate(60),
            client: rate(200),
            calm: 30 + rate(70),
        }
    }
}

/// Something that is undone later.
#[derive(Clone, Copy, Debug)]
pub enum Undo {
    StartNode(usize),
    StartFrontEnd,
    Resume(Place),
    Flow(Place, Place),
    Sync(usize),
}

impl Walk {
    fn later(&mut self, most_ms: usize, undo: Undo) {
        let at = self.cluster.now_ms + 20 + self.rng.below(most_ms) as u64;
        self.undo.push((at, undo));
    }

    pub(super) fn fail(&mut self) {
        let nodes = self.cluster.slots.len();
        let index = self.rng.below(nodes);
        if self.rng.rarely(self.rates.kill) && self.may_end(index) {
            let mut rng = Rng::new(self.rng.next());
            self.cluster.note(|| format!("! kill {index}"));
            let mut torn = Rng::new(self.rng.next());
            self.cluster
                .kill_node(index, &mut |sent| rng.below(sent + 1), &mut |written| {
                    torn.below(written + 1)
                });
            self.later(1500, Undo::StartNode(index));
        }
        if self.rng.rarely(self.rates.leave) && self.may_end(index) {
            self.cluster.note(|| format!("! leave {index}"));
            self.cluster.leave(index);
            self.left = true;
        }
        if self.rng.rarely(self.rates.pause) {
            let place = self.any_place();
            if self.cluster.set_paused(place, true) {
                let to = self.cluster.place_name(place);
                self.cluster.note(|| format!("! pause {to}"));
                self.later(1200, Undo::Resume(place));
            }
        }
        let (from, to) = (self.any_place(), self.any_place());
        if self.rng.rarely(self.rates.stall) && from != to && !self.cluster.net.is_stalled(from, to)
        {
            self.cluster.note(|| format!("! stall {from:?} {to:?}"));
            self.cluster.net.stall(from, to);
            self.later(1200, Undo::Flow(from, to));
        }
        if self.rng.rarely(self.rates.part) && from != to {
            self.cluster.note(|| format!("! break {from:?} {to:?}"));
            for (conn, _) in self.cluster.net.between(from, to) {
                self.cluster.net.break_off(conn);
            }
        }
        if self.rng.rarely(self.rates.hold)
            && let Some(node) = &mut self.cluster.slots[index].node
        {
            node.disk.held = true;
            self.later(300, Undo::Sync(index));
        }
        if self.storage == StorageKind::Disk && self.rng.rarely(self.rates.outage) {
            self.cluster.note(|| "! kill everything".to_owned());
            let mut rng = Rng::new(self.rng.next());
            let mut torn = Rng::new(self.rng.next());
            self.cluster.kill_front_end(&mut |sent| rng.below(sent + 1));
            self.later(1200, Undo::StartFrontEnd);
            for index in 0..self.cluster.slots.len() {
                self.cluster
                    .kill_node(index, &mut |sent| rng.below(sent + 1), &mut |written| {
                        torn.below(written + 1)
                    });
                self.later(3000, Undo::StartNode(index));
            }
        }
        if self.rng.rarely(self.rates.front_end) && self.cluster.front_end.is_some() {
            let wipe = self.rng.chance(30) && self.may_wipe();
            let mut rng = Rng::new(self.rng.next());
            self.cluster.note(|| format!("! kill fe, wipe {wipe}"));
            self.cluster.kill_front_end(&mut |sent| rng.below(sent + 1));
            if wipe {
                self.wiped = true;
                self.cluster.oracle.doubt_view();
                self.cluster.stored = kvservice_server::coordinator::Stored::default();
            }
            self.later(1200, Undo::StartFrontEnd);
        }
        if self.rng.rarely(self.rates.client) {
            let at = self.rng.below(self.clients.len());
            if let Some(conn) = self.clients[at].conn() {
                self.cluster.disconnect(conn);
                self.clients[at].lost(self.cluster.now_ms);
            }
        }
        if nodes < self.nodes_max && self.rng.rarely(100) {
            let retention = [0, 200, 2000][self.rng.below(3)];
            start_new_node(&mut self.cluster, self.storage, retention);
        }
    }

    fn any_place(&mut self) -> Place {
        match self.rng.below(self.cluster.slots.len() + 1) {
            0 => Place::FrontEnd,
            at => Place::Node(at - 1),
        }
    }

    /// Where nodes keep their data in memory, one member must live, or the data are gone, as promised. Without a
    /// stored view all of the members must.
    fn may_end(&self, index: usize) -> bool {
        if self.storage == StorageKind::Disk {
            return self.cluster.node(index).is_some();
        }
        let Some(view) = &self.cluster.stored.view else {
            return false;
        };
        let Some(node) = self.cluster.node(index) else {
            return false;
        };
        let stays = |id| {
            self.cluster
                .node_of(id)
                .is_some_and(|n| n.process != node.process && n.leave_by_ms.is_none())
        };
        node.leave_by_ms.is_none() && view.members.iter().any(|member| stays(member.id))
    }

    /// A front-end without its directory needs all of the last view's members.
    fn may_wipe(&self) -> bool {
        if self.storage == StorageKind::Disk {
            // All members report sooner or later.
            return true;
        }
        let Some(view) = &self.cluster.stored.view else {
            return false;
        };
        let known = |node: &crate::node::Node| {
            // An offered learner may be a member that nobody else knows of: it is awaited as they are.
            let offer = node.replica.registration().offer;
            node.replica.view() == Some(view)
                && node.leave_by_ms.is_none()
                && offer.is_none_or(|id| self.cluster.node_of(id).is_some())
        };
        let all = view
            .members
            .iter()
            .all(|member| self.cluster.node_of(member.id).is_some());
        all && self
            .cluster
            .slots
            .iter()
            .filter_map(|slot| slot.node.as_ref())
            .all(known)
    }

    pub(super) fn undo_due(&mut self, all: bool) {
        let now = self.cluster.now_ms;
        let (due, rest) = std::mem::take(&mut self.undo)
            .into_iter()
            .partition(|(at, _)| all || *at <= now);
        self.undo = rest;
        let due: Vec<(u64, Undo)> = due;
        for (_, undo) in due {
            self.cluster.note(|| format!("! {undo:?}"));
            match undo {
                Undo::StartNode(index) if self.cluster.node(index).is_none() => {
                    self.cluster.start_node(index);
                }
                Undo::StartFrontEnd if self.cluster.front_end.is_none() => {
                    self.cluster.start_front_end();
                }
                Undo::StartNode(_) | Undo::StartFrontEnd => {}
                Undo::Resume(place) => {
                    self.cluster.set_paused(place, false);
                }
                Undo::Flow(from, to) => self.cluster.net.unstall(from, to),
                Undo::Sync(index) => {
                    if let Some(node) = &mut self.cluster.slots[index].node {
                        node.disk.held = false;
                    }
                    self.cluster.sync(index);
                }
            }
        }
    }
}

/// Snapshots of some go in parts of one key each, so that much may happen between any two.
pub fn start_new_node(cluster: &mut Cluster, storage: StorageKind, retention: usize) {
    let index = cluster.add_slot(storage, retention);
    if retention < 2000 {
        cluster.slots[index].config.part_bytes = 1;
    }
    cluster.start_node(index);
}
