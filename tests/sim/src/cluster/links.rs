//! Links: dialled, accepted, lost, and dialled again, as `backend/src/link` does.

use super::*;

impl Cluster {
    /// Dials whomever it is time for; gives up handshakes that last too long.
    pub(super) fn dial_due(&mut self, index: usize) {
        let now = self.now_ms;
        let Some(node) = &mut self.slots[index].node else {
            return;
        };
        let front_end = &mut node.front_end;
        if let Some(conn) = front_end
            .conn
            .filter(|_| !front_end.up && now >= front_end.since_ms + HANDSHAKE_MS)
        {
            self.net.close(conn, Way::Forth, usize::MAX);
            front_end.conn = None;
            front_end.retry_ms = Some(now);
        }
        let silent = front_end.up && now >= front_end.heard_ms + FRONT_END_SILENCE_MS;
        if let Some(conn) = front_end.conn.filter(|_| silent) {
            self.net.close(conn, Way::Forth, usize::MAX);
            front_end.conn = None;
            front_end.up = false;
            front_end.retry_ms = Some(now + front_end.wait_ms);
            self.step_node(index, Event::FrontEndDown);
        }
        let Some(node) = &mut self.slots[index].node else {
            return;
        };
        let front_end = &mut node.front_end;
        if front_end.retry_ms.is_some_and(|at| at <= now) {
            match self.front_end.as_ref().map(|fe| fe.process) {
                Some(process) => {
                    let conn =
                        self.net
                            .open(Purpose::FrontEnd, node.process, process, Frame::Greeting);
                    front_end.conn = Some(conn);
                    front_end.retry_ms = None;
                    front_end.since_ms = now;
                }
                None => {
                    front_end.retry_ms = Some(now + front_end.wait_ms);
                    front_end.wait_ms = (2 * front_end.wait_ms).min(RETRY_FRONT_END_MAX_MS);
                }
            }
        }
        let mut late = Vec::new();
        let mut due = Vec::new();
        for (peer, dialler) in &node.dialled {
            if dialler.conn.is_some() && !dialler.up && now >= dialler.since_ms + HANDSHAKE_MS {
                late.push((*peer, dialler.conn));
            } else if dialler.retry_ms.is_some_and(|at| at <= now) {
                due.push(*peer);
            }
        }
        for (peer, conn) in late {
            if let Some(conn) = conn {
                self.net.close(conn, Way::Forth, usize::MAX);
            }
            self.peer_down(index, peer);
        }
        for peer in due {
            self.dial(index, peer);
        }
    }

    pub(super) fn dial(&mut self, index: usize, peer: Incarnation) {
        let now = self.now_ms;
        let Some(node) = &mut self.slots[index].node else {
            return;
        };
        let (process, from, cluster) = (node.process, node.id, node.cluster);
        let Some(dialler) = node.dialled.get_mut(&peer) else {
            return;
        };
        dialler.retry_ms = None;
        let address = dialler.peer.address.clone();
        let target = self
            .slots
            .iter()
            .position(|slot| slot.config.name == address);
        let target = target
            .and_then(|at| self.slots[at].node.as_ref())
            .map(|node| node.process);
        match (target, cluster) {
            (Some(target), Some(cluster)) => {
                let hello = LinkHello {
                    cluster,
                    from,
                    to: peer,
                };
                let conn =
                    self.net
                        .open(Purpose::Peer, process, target, Frame::Data(hello.encode()));
                if let Some(dialler) = self.slots[index]
                    .node
                    .as_mut()
                    .and_then(|node| node.dialled.get_mut(&peer))
                {
                    dialler.conn = Some(conn);
                    dialler.since_ms = now;
                }
            }
            _ => {
                let node = self.slots[index].node.as_mut();
                if let Some(node) = node {
                    node.lost.push_back(peer);
                    self.dirty.insert(Place::Node(index));
                }
            }
        }
    }

    /// A dialled link broke, or could not be made; it is dialled again after a while.
    pub(super) fn peer_down(&mut self, index: usize, peer: Incarnation) {
        let now = self.now_ms;
        let Some(node) = &mut self.slots[index].node else {
            return;
        };
        let Some(dialler) = node.dialled.get_mut(&peer) else {
            return;
        };
        dialler.conn = None;
        dialler.up = false;
        dialler.retry_ms = Some(now + dialler.wait_ms);
        dialler.wait_ms = (2 * dialler.wait_ms).min(RETRY_PEER_MAX_MS);
        self.step_node(index, Event::PeerDown(peer));
    }

    pub(super) fn node_hears_front_end(&mut self, index: usize, id: u64, frame: Frame) {
        let now = self.now_ms;
        let name = self.traced_name(Place::Node(index));
        let Some(node) = &mut self.slots[index].node else {
            return;
        };
        if node.front_end.conn != Some(id) {
            return;
        }
        node.front_end.heard_ms = now;
        match frame {
            Frame::Greeted => {
                node.front_end.up = true;
                node.front_end.since_ms = now;
                if let Some(conn) = self.net.get_mut(id) {
                    conn.dialler.up = true;
                }
                self.step_node(index, Event::FrontEndUp);
            }
            Frame::Data(bytes) => {
                let message = ToNode::decode(bytes).expect("the front-end sends what decodes");
                self.note_message("fe", &name, || show::to_node(&message));
                self.step_node(index, Event::FrontEnd(message));
            }
            Frame::Fin => {
                let was_up = node.front_end.up;
                if was_up && now > node.front_end.since_ms + LINK_LASTED_MS {
                    node.front_end.wait_ms = RETRY_MIN_MS;
                }
                node.front_end.conn = None;
                node.front_end.up = false;
                node.front_end.retry_ms = Some(now + node.front_end.wait_ms);
                node.front_end.wait_ms = (2 * node.front_end.wait_ms).min(RETRY_FRONT_END_MAX_MS);
                if was_up {
                    self.note(|| format!("fe → {name}: closed"));
                    self.step_node(index, Event::FrontEndDown);
                }
            }
            Frame::Greeting => unreachable!("nodes are not dialled as a front-end"),
        }
    }

    pub(super) fn acceptor_takes(
        &mut self,
        index: usize,
        id: u64,
        from: Place,
        frame: Frame,
        was_up: bool,
    ) {
        let (sender, name) = (self.traced_name(from), self.traced_name(Place::Node(index)));
        let Some(node) = &mut self.slots[index].node else {
            return;
        };
        let link = LinkId(id);
        match frame {
            Frame::Data(bytes) if !was_up => {
                let hello = LinkHello::decode(bytes).expect("nodes send what decodes");
                let known = node.cluster.is_none_or(|mine| mine == hello.cluster);
                if hello.to == node.id && known {
                    self.net
                        .send(id, Way::Back, Frame::Data(LinkReply::Accepted.encode()));
                    if let Some(conn) = self.net.get_mut(id) {
                        conn.acceptor.up = true;
                    }
                    node.inbound.insert(link, id);
                    node.dialled_by.insert(link, hello.from);
                } else {
                    let reason = "another node, or another cluster".to_owned();
                    let reply = LinkReply::Refused { reason };
                    self.net.send(id, Way::Back, Frame::Data(reply.encode()));
                    self.net.close(id, Way::Back, usize::MAX);
                }
            }
            Frame::Data(bytes) => {
                let message = Downstream::decode(bytes).expect("nodes send what decodes");
                let Some(from) = node.dialled_by.get(&link).copied() else {
                    return;
                };
                if !node.inbound.contains_key(&link) {
                    return;
                }
                self.note_message(&sender, &name, || show::downstream(&message));
                self.step_node(
                    index,
                    Event::FromPredecessor {
                        link,
                        from,
                        message,
                    },
                );
            }
            Frame::Fin => {
                node.dialled_by.remove(&link);
                if node.inbound.remove(&link).is_some() {
                    self.step_node(index, Event::PredecessorDown(link));
                }
            }
            Frame::Greeting | Frame::Greeted => unreachable!("peers greet with a hello"),
        }
    }

    pub(super) fn dialler_takes(
        &mut self,
        index: usize,
        id: u64,
        from: Place,
        frame: Frame,
        was_up: bool,
    ) {
        let (sender, name) = (self.traced_name(from), self.traced_name(Place::Node(index)));
        let Some(node) = &mut self.slots[index].node else {
            return;
        };
        let Some((peer, dialler)) = node.dialled_on(id) else {
            return;
        };
        match frame {
            Frame::Data(bytes) if !was_up => {
                match LinkReply::decode(bytes).expect("nodes send what decodes") {
                    LinkReply::Accepted => {
                        dialler.up = true;
                        dialler.wait_ms = RETRY_MIN_MS;
                        if let Some(conn) = self.net.get_mut(id) {
                            conn.dialler.up = true;
                        }
                        self.step_node(index, Event::PeerUp(peer));
                    }
                    LinkReply::Refused { .. } => {
                        self.net.close(id, Way::Forth, usize::MAX);
                        self.peer_down(index, peer);
                    }
                }
            }
            Frame::Data(bytes) => {
                let message = Upstream::decode(bytes).expect("nodes send what decodes");
                let up = dialler.up;
                self.note_message(&sender, &name, || show::upstream(&message));
                if up {
                    self.step_node(index, Event::FromSuccessor(peer, message));
                }
            }
            Frame::Fin => self.peer_down(index, peer),
            Frame::Greeting | Frame::Greeted => unreachable!("peers greet with a hello"),
        }
    }
}
