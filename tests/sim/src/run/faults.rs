//! What goes wrong in a run, how often, and when it is undone.

use super::Run;
use crate::disk::{Crash, Disk};
use crate::net::Place;
use crate::node::{FRONT_END_SILENCE_MS, HANDSHAKE_MS, Node, node_id};
use crate::rng::Rng;
use kvservice_server::coordinator::Stored;
use kvservice_shared::api::StorageKind;
use kvservice_shared::ids::NodeId;

/// How often what goes wrong, in ten-thousandths of a step.
#[derive(Debug)]
pub struct Rates {
    kill: u64,
    /// Of those that are killed, how many in a hundred lose power with it, and their disk.
    power: u64,
    wipe: u64,
    leave: u64,
    pause: u64,
    slow: u64,
    stall: u64,
    /// A stalled link stays silent for ever, and new ones flow.
    unhook: u64,
    part: u64,
    hold: u64,
    /// A learner is lost just when its tail has offered it.
    offer: u64,
    /// Syncs that never end.
    hang: u64,
    disk: u64,
    front_end: u64,
    /// Everything at once, where nodes have disks.
    outage: u64,
    /// The same in good order.
    stop: u64,
    /// Nobody but the front-end is heard by one node.
    card: u64,
    client: u64,
    /// Percent of steps in which everything is delivered.
    pub calm: u64,
    /// Percent of steps in which a client asks.
    pub ask: u64,
}

impl Rates {
    /// Each seed has its own weather: some faults often, some never.
    pub fn new(rng: &mut Rng) -> Rates {
        // A fault alone shows what many at once hide.
        let share = match rng.chance(25) {
            true => 12,
            false => 60,
        };
        let mut rate = |most: usize| match rng.chance(share) {
            true => rng.below(most) as u64,
            false => 0,
        };
        Rates {
            kill: rate(300),
            power: rate(100),
            wipe: rate(100),
            leave: rate(100),
            pause: rate(200),
            slow: rate(100),
            stall: rate(200),
            unhook: rate(60),
            part: rate(200),
            hold: rate(500),
            offer: rate(3000),
            hang: rate(30),
            disk: rate(60),
            front_end: rate(100),
            outage: rate(60),
            stop: rate(20),
            card: rate(40),
            client: rate(400),
            calm: 30 + rng.below(70) as u64,
            ask: 5 + rng.below(40) as u64,
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
    Unhook(Place, Place),
    Sync(usize),
}

impl Run {
    fn later(&mut self, most_ms: usize, undo: Undo) {
        let at = self.cluster.now_ms + 20 + self.rng.below(most_ms) as u64;
        self.undo.push((at, undo));
    }

    /// Counts a fault, and notes who feels it.
    fn count(&mut self, fault: &'static str, places: &[Place]) {
        *self.done.faults.entry(fault).or_default() += 1;
        let names: Vec<String> = places
            .iter()
            .map(|at| self.cluster.place_name(*at))
            .collect();
        self.cluster
            .note(|| format!("! {fault} {}", names.join(" ")));
        for place in places {
            self.removals.touch(*place, self.cluster.now_ms);
        }
    }

    pub(super) fn fail(&mut self) {
        self.fail_nodes();
        self.fail_links();
        self.fail_offers();
        self.fail_disks();
        self.fail_front_end();
        if self.rng.rarely(self.rates.client) {
            let at = self.rng.below(self.clients.len());
            self.count("client breaks off", &[]);
            self.clients[at].break_off(&mut self.cluster, &mut self.rng, &mut self.history);
        }
        if self.cluster.slots.len() < self.plan.nodes && self.rng.rarely(100) {
            self.count("node joins", &[]);
            self.start_new_node();
        }
    }

    fn fail_nodes(&mut self) {
        let index = self.rng.below(self.cluster.slots.len());
        if self.rng.rarely(self.rates.kill) && self.may_end(index) {
            let power = self.rng.chance(self.rates.power);
            let fault = if power { "power cut" } else { "kill" };
            self.count(fault, &[Place::Node(index)]);
            self.kill(index, power);
            self.later(1500, Undo::StartNode(index));
        }
        if self.rng.rarely(self.rates.wipe) && self.may_wipe_node(index) {
            self.count("disk lost", &[Place::Node(index)]);
            self.kill(index, true);
            self.cluster.wipe_node(index);
            self.later(1500, Undo::StartNode(index));
        }
        if self.rng.rarely(self.rates.leave) && self.may_end(index) {
            self.count("leave", &[Place::Node(index)]);
            self.cluster.leave(index);
        }
        if self.rng.rarely(self.rates.pause) {
            let place = self.any_place();
            if self.cluster.set_paused(place, true) {
                self.count("pause", &[place]);
                self.later(1200, Undo::Resume(place));
            }
        }
        if self.storage == StorageKind::Disk && self.rng.rarely(self.rates.stop) {
            self.stop_everything();
        }
        if self.storage == StorageKind::Memory && self.rng.rarely(self.rates.outage / 4) {
            // All data are gone: nothing but a new cluster can follow.
            self.count("all in memory killed", &self.everybody());
            for index in 0..self.cluster.slots.len() {
                self.kill(index, true);
                self.later(1500, Undo::StartNode(index));
            }
        }
        if self.storage == StorageKind::Disk && self.rng.rarely(self.rates.outage) {
            let power = self.rng.chance(50);
            let all = self.everybody();
            self.count("outage", &all);
            let mut rng = Rng::new(self.rng.number());
            self.cluster.kill_front_end(&mut |sent| rng.below(sent + 1));
            self.later(1200, Undo::StartFrontEnd);
            for index in 0..self.cluster.slots.len() {
                self.kill(index, power);
                self.later(3000, Undo::StartNode(index));
            }
        }
    }

    /// As a service manager does that stops a machine: everybody at once, or the front-end a little earlier.
    fn stop_everything(&mut self) {
        let all = self.everybody();
        self.count("everything stopped", &all);
        self.cluster.stop_front_end();
        for index in 0..self.cluster.slots.len() {
            self.cluster.leave(index);
            self.later(4500, Undo::StartNode(index));
        }
        self.later(4500, Undo::StartFrontEnd);
    }

    fn everybody(&self) -> Vec<Place> {
        let nodes = (0..self.cluster.slots.len()).map(Place::Node);
        nodes.chain([Place::FrontEnd]).collect()
    }

    fn kill(&mut self, index: usize, power: bool) {
        let mut rng = Rng::new(self.rng.number());
        let mut torn = Rng::new(self.rng.number());
        self.cluster.kill_node(
            index,
            &mut |sent| rng.below(sent + 1),
            &mut |written| match power {
                true => Crash::Power(torn.number()),
                false => Crash::Process {
                    written: torn.below(written + 1),
                },
            },
        );
    }

    fn fail_links(&mut self) {
        let (from, to) = (self.any_place(), self.any_place());
        if from == to {
            return;
        }
        if self.rng.rarely(self.rates.slow) {
            let place = self.any_place();
            self.count("slow", &[place]);
            self.slow = Some((place, self.cluster.now_ms + 300));
        }
        if let Place::Node(deaf) = from
            && self.rng.rarely(self.rates.card)
        {
            self.count("bad card", &[from]);
            self.removals.bad_card(self.cluster.now_ms + 5000);
            for other in (0..self.cluster.slots.len()).filter(|other| *other != deaf) {
                self.cluster.net.stall(Place::Node(other), from);
                let at = self.cluster.now_ms + 5000;
                self.undo.push((at, Undo::Flow(Place::Node(other), from)));
            }
        }
        let stalled = self.cluster.net.is_stalled(from, to);
        if self.rng.rarely(self.rates.stall) && !stalled {
            self.count("stall", &[from, to]);
            self.cluster.net.stall(from, to);
            self.later(1200, Undo::Flow(from, to));
        }
        if self.rng.rarely(self.rates.unhook) && !stalled {
            self.count("black hole", &[from, to]);
            // A link that carries nothing one way is given up by the end that hears nothing: by a node, the
            // front-end's after a long while. One that was dialled into the hole is given up later still.
            for place in [from, to] {
                let until_ms = self.cluster.now_ms + FRONT_END_SILENCE_MS + HANDSHAKE_MS;
                self.removals.touch(place, until_ms);
            }
            self.cluster.net.stall(from, to);
            self.later(1200, Undo::Unhook(from, to));
        }
        if self.rng.rarely(self.rates.part) {
            self.count("reset", &[from, to]);
            for (conn, _) in self.cluster.net.between(from, to) {
                self.cluster.net.break_off(conn);
            }
        }
    }

    /// The moment that matters: the tail said that its learner is ready, and no view says so yet.
    fn fail_offers(&mut self) {
        if !self.rng.rarely(self.rates.offer) {
            return;
        }
        let slots = self.cluster.slots.iter().enumerate();
        let offers = slots.filter_map(|(tail, slot)| {
            let learner = slot.node.as_ref()?.replica.registration().offer?.id;
            let at = self
                .cluster
                .slots
                .iter()
                .position(|slot| slot.node.as_ref().is_some_and(|node| node.id == learner))?;
            let view = self.cluster.stored.view.as_ref();
            let open = view.is_none_or(|view| view.position(learner).is_none());
            open.then_some((Place::Node(tail), Place::Node(at)))
        });
        let Some((tail, learner)) = { offers }.next_back() else {
            return;
        };
        self.count("learner lost once offered", &[tail, learner]);
        for (conn, _) in self.cluster.net.between(tail, learner) {
            self.cluster.net.break_off(conn);
        }
        if !self.cluster.net.is_stalled(tail, Place::FrontEnd) {
            self.cluster.net.stall(tail, Place::FrontEnd);
            self.later(200, Undo::Flow(tail, Place::FrontEnd));
        }
    }

    fn fail_disks(&mut self) {
        let index = self.rng.below(self.cluster.slots.len());
        let calls = self.rng.below(12) as u64;
        let power = self.rng.chance(50);
        let may_end = self.may_end(index);
        let Some(node) = &mut self.cluster.slots[index].node else {
            return;
        };
        if self.rng.rarely(self.rates.hold) {
            node.disk.hold(true);
            self.count("slow sync", &[Place::Node(index)]);
            return self.later(300, Undo::Sync(index));
        }
        if let Disk::Real(real) = &mut node.disk
            && may_end
            && self.rng.rarely(self.rates.hang)
        {
            real.hang();
            return self.count("hung sync", &[Place::Node(index)]);
        }
        if let Disk::Real(real) = &mut node.disk
            && may_end
            && self.rng.rarely(self.rates.disk)
        {
            match power {
                true => real.cut_power_after(calls),
                false => real.fail_after(calls),
            }
            let fault = if power {
                "power cut within a write"
            } else {
                "disk call fails"
            };
            self.count(fault, &[Place::Node(index)]);
        }
    }

    fn fail_front_end(&mut self) {
        if !self.rng.rarely(self.rates.front_end) || self.cluster.front_end.is_none() {
            return;
        }
        let wipe = self.rng.chance(30) && self.may_wipe_front_end();
        let mut rng = Rng::new(self.rng.number());
        let fault = if wipe {
            "front-end wiped"
        } else {
            "front-end killed"
        };
        self.count(fault, &[Place::FrontEnd]);
        self.cluster.kill_front_end(&mut |sent| rng.below(sent + 1));
        if wipe {
            self.wiped = true;
            self.cluster.oracle.doubt_view();
            self.cluster.stored = Stored::default();
        }
        self.later(1200, Undo::StartFrontEnd);
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
            let other = self.cluster.node_of(id);
            other.is_some_and(|n| n.process != node.process && n.leave_by_ms.is_none())
        };
        node.leave_by_ms.is_none() && view.members.iter().any(|member| stays(member.id))
    }

    /// The disk with this node's data is somewhere.
    fn has_disk(&self, node: NodeId) -> bool {
        let slots = self.cluster.slots.iter().enumerate();
        slots
            .into_iter()
            .any(|(index, slot)| node_id(index, slot.lives, &slot.config) == node)
    }

    /// One member must keep its disk, and the front-end must know who that is. Not while another member fails too:
    /// the next view may be the one node that has just answered, and is just losing its disk.
    fn may_wipe_node(&self, index: usize) -> bool {
        let (Some(view), Some(node)) = (&self.cluster.stored.view, self.cluster.node(index)) else {
            return false;
        };
        let now = self.cluster.now_ms;
        let fails = |at: usize| {
            let slot = &self.cluster.slots[at];
            let member = view.members.iter().any(|m| m.address == slot.config.name);
            let place = Place::Node(at);
            at != index && member && (slot.node.is_none() || self.removals.is_touched(place, now))
        };
        if (0..self.cluster.slots.len()).any(fails)
            || self.removals.is_touched(Place::FrontEnd, now)
        {
            return false;
        }
        let kept = |id: NodeId| id != node.id.node && self.has_disk(id);
        self.storage == StorageKind::Disk && view.members.iter().any(|m| kept(m.id.node))
    }

    /// A front-end without its directory needs all of the last view's members.
    fn may_wipe_front_end(&self) -> bool {
        let Some(view) = &self.cluster.stored.view else {
            return self.storage == StorageKind::Disk
                && !self.done.faults.contains_key("disk lost");
        };
        if self.storage == StorageKind::Disk {
            // All report sooner or later, and whom an offer may have made a member too.
            let offers = self
                .cluster
                .slots
                .iter()
                .filter_map(|slot| slot.node.as_ref());
            let mut offers = offers.filter_map(|node| node.replica.registration().offer);
            return view
                .members
                .iter()
                .all(|member| self.has_disk(member.id.node))
                && (!self.done.faults.contains_key("disk lost")
                    || offers.all(|offer| self.has_disk(offer.id.node)) && self.all_know(view));
        }
        let known = |node: &Node| {
            // An offered learner may be a member that nobody else knows of: it is awaited as they are.
            let offer = node.replica.registration().offer;
            node.leave_by_ms.is_none() && offer.is_none_or(|m| self.cluster.node_of(m.id).is_some())
        };
        let all = view
            .members
            .iter()
            .all(|member| self.cluster.node_of(member.id).is_some());
        let mut running = self
            .cluster
            .slots
            .iter()
            .filter_map(|slot| slot.node.as_ref());
        all && self.all_know(view) && running.all(known)
    }

    /// Every node that runs holds this view, and all run.
    fn all_know(&self, view: &kvservice_shared::chain::View) -> bool {
        let knows = |node: &Node| node.replica.view() == Some(view);
        self.cluster
            .slots
            .iter()
            .all(|slot| slot.node.as_ref().is_some_and(knows))
    }

    pub(super) fn undo_due(&mut self, all: bool) {
        let now = self.cluster.now_ms;
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.undo)
            .into_iter()
            .partition(|(at, _)| all || *at <= now);
        self.undo = rest;
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
                Undo::Unhook(from, to) => self.cluster.net.unhook(from, to),
                Undo::Sync(index) => {
                    if let Some(node) = &mut self.cluster.slots[index].node {
                        node.disk.hold(false);
                    }
                    self.cluster.sync(index);
                }
            }
        }
    }

    /// Snapshots of some go in parts of one key each, so that much may happen between any two.
    pub(super) fn start_new_node(&mut self) {
        let retention = [0, 200, 2000, 20_000, 1 << 20][self.rng.below(5)];
        let real = self.storage == StorageKind::Disk && self.rng.chance(70);
        let index = self.cluster.add_slot(self.storage, retention);
        let config = &mut self.cluster.slots[index].config;
        config.real_disk = real;
        if retention < 2000 {
            config.part_bytes = 1;
        }
        self.cluster.slots[index].disk = Disk::new(real);
        self.cluster.start_node(index);
    }
}
