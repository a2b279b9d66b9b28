//! The simulated cluster: one front-end, any number of nodes, the links between them, clients, and one clock.
//!
//! Nothing happens by itself: frames are delivered one by one, time passes when told. What a process does
//! with an event is what its runtime does: all that is waiting is taken in, then the machine speaks, then the
//! effects are carried out in their order. Every frame goes through the real codec.

mod front_end;
mod links;
mod nodes;

use crate::disk::{Crash, Disk, Trouble};
use crate::front_end::{Flags, FrontEnd};
use crate::net::{Frame, Net, Place, Process, Purpose, Way};
use crate::node::{
    Dialler, FRONT_END_SILENCE_MS, HANDSHAKE_MS, LEAVE_MS, LINK_LASTED_MS, Node,
    RETRY_FRONT_END_MAX_MS, RETRY_MIN_MS, RETRY_PEER_MAX_MS, SlotConfig,
};
use crate::oracle::Oracle;
use crate::show::{self, Weight};
use kvservice_backend::chain::{Event, Halt, LinkId, Message};
use kvservice_server::coordinator::{self, NodeLink, Stored};
use kvservice_server::gateway::{self, Gateway};
use kvservice_shared::api::{ErrorCode, Request, Response, StorageKind};
use kvservice_shared::chain::{
    Downstream, FromNode, Incarnation, LinkHello, LinkReply, Member, Register, ToNode, Upstream,
};
use kvservice_shared::codec::ChainMessage;
use kvservice_shared::ids::{ConnId, Seq};
use kvservice_shared::limits;
use std::collections::{BTreeMap, BTreeSet};

/// How often processes hear that time passes.
pub const TICK_MS: u64 = 10;

/// A place for a node, and what runs there.
#[derive(Debug)]
pub struct Slot {
    pub config: SlotConfig,
    pub lives: u32,
    pub node: Option<Node>,
    /// How its last process ended, and when.
    pub ended: Option<String>,
    pub ended_ms: u64,
    /// What the last process left.
    pub disk: Disk,
}

/// Everything.
#[derive(Debug)]
pub struct Cluster {
    pub now_ms: u64,
    pub net: Net,
    pub flags: Flags,
    pub front_end: Option<FrontEnd>,
    pub front_end_lives: u32,
    /// The front-end's directory, and when the view in it was made.
    pub stored: Stored,
    pub view_ms: u64,
    /// When the front-end last heard a node answer that it is there.
    pub answered_ms: BTreeMap<Incarnation, u64>,
    pub slots: Vec<Slot>,
    /// Responses that no client has looked at.
    pub responses: Vec<(ConnId, Response)>,
    /// Client connections that the front-end closed: code and reason.
    pub closed: Vec<(ConnId, u16, String)>,
    pub oracle: Oracle,
    /// What happened, if anybody wants to know.
    pub trace: Option<Vec<String>>,
    /// Heartbeats too.
    pub verbose: bool,
    last_client: u64,
    dirty: BTreeSet<Place>,
}

impl Cluster {
    pub fn new(flags: Flags) -> Cluster {
        Cluster {
            now_ms: 0,
            net: Net::default(),
            flags,
            front_end: None,
            front_end_lives: 0,
            stored: Stored::default(),
            view_ms: 0,
            answered_ms: BTreeMap::new(),
            slots: Vec::new(),
            responses: Vec::new(),
            closed: Vec::new(),
            oracle: Oracle::default(),
            trace: None,
            verbose: false,
            last_client: 0,
            dirty: BTreeSet::new(),
        }
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(text());
        }
    }

    /// The same, or nothing where nobody will see it.
    fn traced_name(&self, place: Place) -> String {
        match self.trace {
            Some(_) => self.place_name(place),
            None => String::new(),
        }
    }

    /// Notes a message that arrives.
    fn note_message(&mut self, from: &str, to: &str, show: impl FnOnce() -> (Weight, String)) {
        if self.trace.is_some() {
            let (weight, text) = show();
            if self.verbose || weight == Weight::Message {
                self.note(|| format!("{from} → {to}: {text}"));
            }
        }
    }

    pub fn place_name(&self, place: Place) -> String {
        match place {
            Place::FrontEnd => "fe".to_owned(),
            Place::Node(index) => match self.slots[index].lives {
                0 | 1 => self.slots[index].config.name.clone(),
                life => format!("{}{life}", self.slots[index].config.name),
            },
        }
    }

    // ---- processes ----

    /// Starts the front-end on what its directory holds.
    pub fn start_front_end(&mut self) {
        assert!(self.front_end.is_none(), "the front-end runs");
        self.front_end_lives += 1;
        let process = Process {
            place: Place::FrontEnd,
            life: self.front_end_lives,
        };
        let front_end = FrontEnd::start(process, self.flags, self.stored.clone(), self.now_ms);
        self.front_end = Some(front_end);
        self.dirty.insert(Place::FrontEnd);
        self.flush();
    }

    /// Ends the front-end at once. Of what it had sent on each connection, only the first `keep` frames arrive.
    pub fn kill_front_end(&mut self, keep: &mut dyn FnMut(usize) -> usize) {
        let Some(front_end) = self.front_end.take() else {
            return;
        };
        self.end_connections(front_end.process, keep);
        self.responses.clear();
        self.closed.clear();
    }

    /// A place for a node; nothing runs there yet.
    pub fn add_slot(&mut self, storage: StorageKind, retention: usize) -> usize {
        let index = self.slots.len();
        let name = char::from(b'a' + u8::try_from(index).expect("few nodes")).to_string();
        self.slots.push(Slot {
            config: SlotConfig {
                name,
                storage,
                retention,
                part_bytes: 64 * 1024,
                real_disk: false,
                wiped: 0,
            },
            lives: 0,
            node: None,
            ended: None,
            ended_ms: 0,
            disk: Disk::default(),
        });
        index
    }

    pub fn start_node(&mut self, index: usize) {
        let now = self.now_ms;
        let slot = &mut self.slots[index];
        assert!(slot.node.is_none(), "{} runs", slot.config.name);
        slot.lives += 1;
        slot.ended = None;
        let process = Process {
            place: Place::Node(index),
            life: slot.lives,
        };
        let disk = std::mem::take(&mut slot.disk);
        match Node::start(process, index, &slot.config, disk, now) {
            Ok(node) => slot.node = Some(node),
            Err(failed) => {
                let (mut disk, trouble) = *failed;
                disk.crash(Crash::Process {
                    written: usize::MAX,
                });
                slot.disk = disk;
                slot.ended = Some(format!("fatal: cannot read its disk: {trouble}"));
                slot.ended_ms = now;
            }
        }
        self.dial_due(index);
    }

    /// Ends a node at once. `keep` says how many arrive of the frames under way on each of its connections,
    /// `crash` what becomes of what it wrote to its disk and did not sync, of which it hears how much it is.
    pub fn kill_node(
        &mut self,
        index: usize,
        keep: &mut dyn FnMut(usize) -> usize,
        crash: &mut dyn FnMut(usize) -> Crash,
    ) {
        let Some(mut node) = self.slots[index].node.take() else {
            return;
        };
        self.end_connections(node.process, keep);
        let unsynced = node.disk.unsynced();
        self.leave_disk(index, &mut node, crash(unsynced));
        self.slots[index].ended = Some("killed".to_owned());
        self.slots[index].ended_ms = self.now_ms;
    }

    fn end_connections(&mut self, process: Process, keep: &mut dyn FnMut(usize) -> usize) {
        for (conn, way) in self.net.of(process) {
            let in_flight = self.net.in_flight(conn, way);
            self.net.close(conn, way, keep(in_flight));
        }
    }

    /// Empties the disk of a node that does not run: with the next start it is another node.
    pub fn wipe_node(&mut self, index: usize) {
        assert!(self.slots[index].node.is_none(), "the node runs");
        self.slots[index].disk = Disk::new(self.slots[index].config.real_disk);
        self.slots[index].config.wiped = self.slots[index].lives;
    }

    fn leave_disk(&mut self, index: usize, node: &mut Node, how: Crash) {
        if self.slots[index].config.storage == StorageKind::Disk {
            node.disk.crash(how);
            self.slots[index].disk = std::mem::take(&mut node.disk);
        }
    }

    /// Asks a node to stop, as SIGTERM does.
    pub fn leave(&mut self, index: usize) {
        let now = self.now_ms;
        if let Some(node) = &mut self.slots[index].node {
            node.leave_by_ms = Some(now + LEAVE_MS);
        }
        self.step_node(index, Event::Leave);
        self.flush();
    }

    /// Asks the front-end to stop, as SIGTERM does: it answers what it has, then ends.
    pub fn stop_front_end(&mut self) {
        let now = self.now_ms;
        if let Some(front_end) = &mut self.front_end {
            front_end.stopping = true;
            front_end.coordinate(now, coordinator::Input::Stop);
            self.dirty.insert(Place::FrontEnd);
        }
        self.flush();
    }

    /// Stops a process for a while, or lets it go on. `false`: nothing changed.
    pub fn set_paused(&mut self, place: Place, paused: bool) -> bool {
        let now = self.now_ms;
        let slot = match place {
            Place::FrontEnd => self.front_end.as_mut().map(|fe| &mut fe.paused),
            Place::Node(index) => self.slots[index].node.as_mut().map(|node| {
                // What came meanwhile is read before the clock is looked at.
                node.front_end.heard_ms = now;
                &mut node.paused
            }),
        };
        slot.is_some_and(|slot| std::mem::replace(slot, paused) != paused)
    }

    pub fn is_running(&self, process: Process) -> bool {
        match process.place {
            Place::FrontEnd => self
                .front_end
                .as_ref()
                .is_some_and(|fe| fe.process == process && !fe.paused),
            Place::Node(index) => self.slots[index]
                .node
                .as_ref()
                .is_some_and(|node| node.process == process && !node.paused),
        }
    }

    pub fn node(&self, index: usize) -> Option<&Node> {
        self.slots.get(index)?.node.as_ref()
    }

    /// The running node of this incarnation.
    pub fn node_of(&self, id: Incarnation) -> Option<&Node> {
        self.slots
            .iter()
            .filter_map(|slot| slot.node.as_ref())
            .find(|node| node.id == id)
    }

    // ---- clients ----

    /// Somebody listens for clients, and reads.
    pub fn serves_clients(&self) -> bool {
        self.front_end
            .as_ref()
            .is_some_and(|fe| !fe.paused && !fe.stopping)
    }

    /// A client connects.
    pub fn connect(&mut self) -> Option<ConnId> {
        let now = self.now_ms;
        let front_end = self.front_end.as_mut()?;
        self.last_client += 1;
        let conn = ConnId(self.last_client);
        front_end.clients.insert(conn);
        front_end.serve(now, gateway::Input::Opened(conn));
        self.dirty.insert(Place::FrontEnd);
        Some(conn)
    }

    pub fn disconnect(&mut self, conn: ConnId) {
        let now = self.now_ms;
        if let Some(front_end) = &mut self.front_end
            && front_end.clients.remove(&conn)
        {
            front_end.serve(now, gateway::Input::Closed(conn));
            self.dirty.insert(Place::FrontEnd);
        }
    }

    /// One frame of a client's. `false`: it is not connected.
    pub fn request(&mut self, conn: ConnId, requests: Vec<Request>) -> bool {
        let now = self.now_ms;
        let Some(front_end) = &mut self.front_end else {
            return false;
        };
        if !front_end.clients.contains(&conn) {
            return false;
        }
        front_end.serve(now, gateway::Input::Requests(conn, requests));
        self.dirty.insert(Place::FrontEnd);
        true
    }

    /// A client wants a dump, or its next page. `false`: it is not connected.
    pub fn dump(&mut self, conn: ConnId, input: gateway::Input) -> bool {
        let now = self.now_ms;
        match &mut self.front_end {
            Some(front_end) if front_end.clients.contains(&conn) => front_end.serve(now, input),
            _ => return false,
        }
        self.dirty.insert(Place::FrontEnd);
        true
    }

    // ---- delivery ----

    /// What can be delivered now.
    pub fn deliverable(&self) -> Vec<(u64, Way)> {
        let waiting = self.net.waiting().filter(|(_, _, to)| self.is_running(*to));
        waiting.map(|(conn, way, _)| (conn, way)).collect()
    }

    /// Delivers the next frame of a connection, and lets nobody speak yet.
    pub fn take_in(&mut self, id: u64, way: Way) {
        let Some(conn) = self.net.get(id) else { return };
        let (purpose, to, was_up) = (conn.purpose, conn.to(way).process, conn.to(way).up);
        let from = conn.from(way).process.place;
        let Some(frame) = self.net.take(id, way) else {
            return;
        };
        match (purpose, to.place) {
            (Purpose::FrontEnd, Place::FrontEnd) => self.front_end_takes(id, from, frame, was_up),
            (Purpose::FrontEnd, Place::Node(index)) => self.node_hears_front_end(index, id, frame),
            (Purpose::Peer, Place::Node(index)) if way == Way::Forth => {
                self.acceptor_takes(index, id, from, frame, was_up);
            }
            (Purpose::Peer, Place::Node(index)) => {
                self.dialler_takes(index, id, from, frame, was_up)
            }
            (Purpose::Peer, Place::FrontEnd) => {
                unreachable!("nodes do not dial the front-end as a peer")
            }
        }
    }

    /// Tells replicas of dialled links that their own end closed.
    fn tell_lost(&mut self, index: usize) {
        while let Some(peer) = self.slots[index]
            .node
            .as_mut()
            .filter(|n| !n.paused)
            .and_then(|n| n.lost.pop_front())
        {
            self.peer_down(index, peer);
        }
    }

    /// Delivers one frame, and lets everyone speak who has something to say.
    pub fn deliver(&mut self, conn: u64, way: Way) {
        self.take_in(conn, way);
        self.flush();
    }

    /// Delivers until nothing is in flight that can be delivered. Gives the number of frames.
    pub fn settle(&mut self) -> usize {
        let mut delivered = 0;
        self.flush();
        loop {
            let ready = self.deliverable();
            if ready.is_empty() {
                return delivered;
            }
            for (conn, way) in ready {
                self.deliver(conn, way);
                delivered += 1;
                assert!(delivered < 1_000_000, "messages without end");
            }
        }
    }

    /// Delivers some frames, from each connection in turn.
    pub fn deliver_some(&mut self, mut frames: usize) {
        self.flush();
        while frames > 0 {
            let ready = self.deliverable();
            if ready.is_empty() {
                return;
            }
            for (conn, way) in ready.into_iter().take(frames) {
                self.deliver(conn, way);
                frames -= 1;
            }
        }
    }

    /// Lets time pass, delivering everything after each tick.
    pub fn run(&mut self, ms: u64) {
        self.settle();
        for _ in 0..ms.div_ceil(TICK_MS) {
            self.tick();
            self.settle();
        }
    }

    /// Lets time pass until something holds. `false`: it did not within `ms`.
    pub fn run_until(&mut self, ms: u64, holds: impl Fn(&Cluster) -> bool) -> bool {
        self.settle();
        for _ in 0..ms.div_ceil(TICK_MS) {
            if holds(self) {
                return true;
            }
            self.tick();
            self.settle();
        }
        holds(self)
    }

    /// Time passes, and nothing is delivered.
    pub fn tick(&mut self) {
        self.now_ms += TICK_MS;
        let now = self.now_ms;
        if let Some(front_end) = self.front_end.as_mut().filter(|fe| !fe.paused) {
            front_end.coordinate(now, coordinator::Input::Tick);
            front_end.serve(now, gateway::Input::Tick);
            self.dirty.insert(Place::FrontEnd);
        }
        for index in 0..self.slots.len() {
            if self.node(index).is_none_or(|node| node.paused) {
                continue;
            }
            self.tick_disk(index);
            self.step_node(index, Event::Tick);
            if self
                .node(index)
                .is_some_and(|node| node.leave_by_ms.is_some_and(|by| by <= now))
            {
                self.end_node(index, "stopped in place: no answer from the front-end");
            } else {
                self.dial_due(index);
            }
        }
        self.flush();
    }

    /// What nodes say of themselves to whoever asks for it: what `recover` sees.
    pub fn registers(&mut self) -> Vec<Register> {
        let nodes = self.slots.iter().filter_map(|slot| slot.node.as_ref());
        nodes
            .filter(|node| !node.paused)
            .map(|node| node.replica.registration())
            .collect()
    }

    /// Everyone that can be a member is, no write is under way, and all hold the same.
    pub fn is_healed(&self) -> Result<(), String> {
        let Some(front_end) = &self.front_end else {
            return Err("no front-end".to_owned());
        };
        let Some(view) = front_end.coordinator.view() else {
            return Err("no view".to_owned());
        };
        let nodes: Vec<&Node> = self
            .slots
            .iter()
            .filter_map(|slot| slot.node.as_ref())
            .collect();
        let mut held: Option<(Seq, u64)> = None;
        for node in &nodes {
            let name = crate::node::name(node.id);
            if view.position(node.id).is_none() {
                return Err(format!("{name} is not in view {}", show::view(view)));
            }
            if node.replica.epoch() != view.epoch {
                return Err(format!(
                    "{name} is in {}, not in {}",
                    node.replica.epoch(),
                    view.epoch
                ));
            }
            let (durable, stable, applied, hash) = node.replica.points();
            let last = node.replica.log().last();
            if durable != last || stable != last || applied != last {
                return Err(format!(
                    "{name} holds {last}: durable {durable}, stable {stable}, applied {applied}"
                ));
            }
            let here = (applied, hash);
            if *held.get_or_insert(here) != here {
                return Err(format!("{name} holds {here:?}, others {held:?}"));
            }
        }
        if view.members.len() != nodes.len() {
            return Err(format!(
                "view {} has members that do not run",
                show::view(view)
            ));
        }
        Ok(())
    }
}
