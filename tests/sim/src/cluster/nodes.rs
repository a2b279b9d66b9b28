//! What nodes say: to their disks, to their links, to each other.

use super::*;
use kvservice_shared::ids::Epoch;

impl Cluster {
    /// Gives a node's replica an event.
    pub(super) fn step_node(&mut self, index: usize, event: Event) {
        let now = self.now_ms;
        if let Some(node) = &mut self.slots[index].node {
            node.step(now, event);
            match node.replica.epoch() == node.stored_epoch {
                true => self.oracle.observe(node),
                false => self.oracle.look_ahead(node),
            }
            self.dirty.insert(Place::Node(index));
        }
    }

    /// Lets everyone speak who has something to say, and carries it out.
    pub fn flush(&mut self) {
        while let Some(place) = self.dirty.pop_first() {
            match place {
                Place::FrontEnd => self.flush_front_end(),
                Place::Node(index) => self.flush_node(index),
            }
        }
    }

    pub(super) fn flush_node(&mut self, index: usize) {
        loop {
            let Some(node) = &mut self.slots[index].node else {
                return;
            };
            let out = node.replica.flush();
            if out.is_empty() {
                break;
            }
            let mut stored = Ok(());
            if let Some(meta) = out.meta {
                node.cluster = meta.cluster;
                node.stored_epoch = meta.view.as_ref().map_or(Epoch::NONE, |view| view.epoch);
                stored = node.disk.store_meta(meta);
            }
            if let Err(trouble) = stored.and_then(|()| node.disk.write(out.journal)) {
                return self.end_node(index, &format!("disk: {trouble}"));
            }
            self.oracle.observe(node);
            if let Some(links) = out.links {
                self.keep_links(index, links);
            }
            for message in out.messages {
                self.carry(index, message);
            }
            if let Some(halt) = out.halt {
                let reason = match halt {
                    Halt::Left => "left".to_owned(),
                    Halt::InPlace => "stopped in place".to_owned(),
                    Halt::Fatal(reason) => format!("fatal: {reason}"),
                };
                return self.end_node(index, &reason);
            }
            let Some(node) = &mut self.slots[index].node else {
                return;
            };
            let news = match node.news() {
                Ok(news) => news,
                Err(trouble) => return self.end_node(index, &format!("disk: {trouble}")),
            };
            if news.is_empty() {
                break;
            }
            for event in news {
                self.step_node(index, event);
            }
        }
        self.dirty.remove(&Place::Node(index));
        self.tell_lost(index);
        let nodes: Vec<Option<&Node>> = self.slots.iter().map(|slot| slot.node.as_ref()).collect();
        self.oracle.check(index, &nodes, &self.net);
    }

    /// What a node wrote and held back becomes durable.
    pub fn sync(&mut self, index: usize) {
        let Some(node) = &mut self.slots[index].node else {
            return;
        };
        let synced = node.disk.sync();
        self.hear_of_disk(index, synced);
        self.flush();
    }

    /// What a node's disk does in the background goes on a little.
    pub(super) fn tick_disk(&mut self, index: usize) {
        if let Some(node) = &mut self.slots[index].node {
            let ticked = node.disk.tick();
            self.hear_of_disk(index, ticked);
        }
    }

    fn hear_of_disk(&mut self, index: usize, worked: Result<(), Trouble>) {
        let Some(node) = &mut self.slots[index].node else {
            return;
        };
        match worked.and_then(|()| node.news()) {
            Ok(news) => {
                for event in news {
                    self.step_node(index, event);
                }
            }
            Err(trouble) => self.end_node(index, &format!("disk: {trouble}")),
        }
    }

    pub(super) fn end_node(&mut self, index: usize, reason: &str) {
        let name = self.traced_name(Place::Node(index));
        self.note(|| format!("{name} ends: {reason}"));
        if let Some(mut node) = self.slots[index].node.take() {
            self.end_connections(node.process, &mut |in_flight| in_flight);
            let how = Crash::Process {
                written: usize::MAX,
            };
            self.leave_disk(index, &mut node, how);
        }
        self.slots[index].ended = Some(reason.to_owned());
        self.slots[index].ended_ms = self.now_ms;
        self.dirty.remove(&Place::Node(index));
    }

    pub(super) fn keep_links(&mut self, index: usize, wanted: Vec<Member>) {
        let Some(node) = &mut self.slots[index].node else {
            return;
        };
        let mut dropped = Vec::new();
        node.dialled.retain(|_, dialler| {
            let keep = wanted.contains(&dialler.peer);
            if !keep {
                dropped.extend(dialler.conn);
            }
            keep
        });
        let mut new = Vec::new();
        for peer in wanted {
            let id = peer.id;
            if let std::collections::btree_map::Entry::Vacant(place) = node.dialled.entry(id) {
                place.insert(Dialler::new(peer));
                new.push(id);
            }
        }
        for conn in dropped {
            self.net.close(conn, Way::Forth, usize::MAX);
        }
        for peer in new {
            self.dial(index, peer);
        }
    }

    pub(super) fn carry(&mut self, index: usize, message: Message) {
        let Some(node) = &mut self.slots[index].node else {
            return;
        };
        match message {
            Message::FrontEnd(message) => {
                if let Some(conn) = node.front_end.conn.filter(|_| node.front_end.up) {
                    self.net
                        .send(conn, Way::Forth, Frame::Data(message.encode()));
                }
            }
            Message::Down(peer, message) => {
                if let Some(dialler) = node.dialled.get(&peer).filter(|dialler| dialler.up)
                    && let Some(conn) = dialler.conn
                {
                    self.net
                        .send(conn, Way::Forth, Frame::Data(message.encode()));
                }
            }
            Message::Up(link, message) => {
                if let Some(conn) = node.inbound.get(&link) {
                    self.net
                        .send(*conn, Way::Back, Frame::Data(message.encode()));
                }
            }
            Message::CloseDown(peer) => {
                if let Some(dialler) = node.dialled.get_mut(&peer)
                    && std::mem::take(&mut dialler.up)
                    && let Some(conn) = dialler.conn
                {
                    self.net.close(conn, Way::Forth, usize::MAX);
                    node.lost.push_back(peer);
                }
            }
            Message::CloseUp(link) => {
                if let Some(conn) = node.inbound.remove(&link) {
                    self.net.close(conn, Way::Back, usize::MAX);
                }
            }
        }
    }
}
