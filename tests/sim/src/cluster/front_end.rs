//! What the front-end hears, and what it says.

use super::*;
use crate::node::node_id;
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::View;

impl Cluster {
    pub(super) fn front_end_takes(&mut self, id: u64, from: Place, frame: Frame, was_up: bool) {
        let now = self.now_ms;
        let sender = self.traced_name(from);
        let Some(front_end) = &mut self.front_end else {
            return;
        };
        match frame {
            Frame::Greeting => self.net.send(id, Way::Back, Frame::Greeted),
            Frame::Data(bytes) => {
                let message = FromNode::decode(bytes).expect("nodes send what decodes");
                if let (FromNode::Here { .. }, Some(conn)) = (&message, self.net.get(id)) {
                    let process = conn.dialler.process;
                    let nodes = self.slots.iter().filter_map(|slot| slot.node.as_ref());
                    let sender = nodes.into_iter().find(|node| node.process == process);
                    self.answered_ms.extend(sender.map(|node| (node.id, now)));
                }
                self.note_message(&sender, "fe", || show::from_node(&message));
                let Some(front_end) = &mut self.front_end else {
                    return;
                };
                if !was_up {
                    assert!(
                        matches!(message, FromNode::Register(_)),
                        "a node registers first"
                    );
                    front_end.nodes.insert(id);
                    if let Some(conn) = self.net.get_mut(id) {
                        conn.acceptor.up = true;
                    }
                }
                if !front_end.nodes.contains(&id) {
                    return;
                }
                let link = NodeLink(id);
                if let FromNode::Register(register) = &message {
                    let node = register.id.node;
                    match register.cluster {
                        Some(cluster) => front_end.told_by.insert(node, cluster),
                        None => front_end.told_by.remove(&node),
                    };
                }
                if let FromNode::Answers { epoch, answers } = message {
                    if front_end.head == Some(link) || canary::is_on(Canary::FormerHeadAnswers) {
                        front_end.serve(now, gateway::Input::Answers(epoch, answers));
                    }
                } else {
                    front_end.coordinate(now, coordinator::Input::Message(link, message));
                }
                self.dirty.insert(Place::FrontEnd);
            }
            Frame::Fin => {
                if front_end.nodes.remove(&id) {
                    front_end.coordinate(now, coordinator::Input::Disconnected(NodeLink(id)));
                    self.note(|| format!("{sender} → fe: closed"));
                    self.dirty.insert(Place::FrontEnd);
                }
            }
            Frame::Greeted => unreachable!("the front-end dials nobody"),
        }
    }

    pub(super) fn flush_front_end(&mut self) {
        let now = self.now_ms;
        let Some(front_end) = &mut self.front_end else {
            return;
        };
        let out = front_end.coordinator.flush();
        // A new cluster's first view may have the epoch of the old one's last.
        let which = |stored: &Stored| stored.view.as_ref().map(|view| (view.cluster, view.epoch));
        let before = which(&self.stored);
        if let Some(stored) = out.store {
            self.stored = stored;
        }
        if which(&self.stored) != before {
            assert!(
                !front_end.stopping,
                "a front-end that is stopping makes a view"
            );
            self.view_made();
        }
        let send = |net: &mut Net, nodes: &BTreeSet<u64>, link: NodeLink, message: &ToNode| {
            if nodes.contains(&link.0) {
                net.send(link.0, Way::Back, Frame::Data(message.encode()));
            }
        };
        let Some(front_end) = &mut self.front_end else {
            return;
        };
        for (link, message) in &out.messages {
            send(&mut self.net, &front_end.nodes, *link, message);
        }
        for link in out.close {
            if front_end.nodes.remove(&link.0) {
                self.net.close(link.0, Way::Back, usize::MAX);
                front_end.coordinate(now, coordinator::Input::Disconnected(link));
                self.dirty.insert(Place::FrontEnd);
            }
        }
        if out.forgotten {
            front_end.serve(now, gateway::Input::Forget);
        }
        if let Some(route) = out.route {
            front_end.head = None;
            let route = match route {
                coordinator::Route::Head(link, epoch) => {
                    front_end.head = Some(link);
                    front_end.epoch = epoch;
                    gateway::Route::Head(epoch)
                }
                coordinator::Route::Wait => gateway::Route::Wait,
                coordinator::Route::Closed(reason) => gateway::Route::Closed(reason),
            };
            front_end.serve(now, gateway::Input::Route(route));
        }
        let out = front_end.gateway.flush();
        if let Some(head) = front_end.head {
            let mut frame = Vec::new();
            let mut bytes = 0;
            let epoch = front_end.epoch;
            for request in out.requests {
                bytes += gateway::request_bytes(&request);
                frame.push(request);
                if frame.len() == limits::CHAIN_REQUESTS_MAX
                    || bytes > limits::CHAIN_BATCH_BYTES_TARGET
                {
                    bytes = 0;
                    let requests = std::mem::take(&mut frame);
                    send(
                        &mut self.net,
                        &front_end.nodes,
                        head,
                        &ToNode::Requests { epoch, requests },
                    );
                }
            }
            if !frame.is_empty() {
                let message = ToNode::Requests {
                    epoch,
                    requests: frame,
                };
                send(&mut self.net, &front_end.nodes, head, &message);
            }
        }
        let mut responses = out.responses;
        if !out.status.is_empty() {
            let status = front_end.coordinator.status();
            for (conn, id) in out.status {
                responses.push((conn, Gateway::status_response(id, status.clone())));
            }
        }
        // What was given up here, heard or not, may be sent again, after what was not.
        let late = |response: &Response| {
            let code = response.result.as_ref().err().map(|error| error.code);
            matches!(code, Some(ErrorCode::Timeout | ErrorCode::Unavailable))
        };
        self.oracle.any_order |= responses.iter().any(|(_, response)| late(response));
        responses.retain(|(conn, _)| front_end.clients.contains(conn));
        for (conn, code, reason) in out.close {
            if front_end.clients.remove(&conn) {
                self.closed.push((conn, code, reason));
            }
        }
        let dumps = out.dumps;
        let drained = front_end.stopping && front_end.gateway.unanswered() == 0;
        for (conn, response) in &responses {
            self.note(|| format!("{conn} ← {}", show::response(response)));
        }
        for (conn, answer) in &dumps {
            self.note(|| format!("{conn} ← dump: {}", show::dump(answer)));
        }
        self.responses.extend(responses);
        if drained {
            self.note(|| "fe ends: drained".to_owned());
            if let Some(front_end) = self.front_end.take() {
                self.end_connections(front_end.process, &mut |in_flight| in_flight);
            }
        }
    }

    /// A front-end that lost its directory founds no cluster while a node that told it of data has them.
    fn gives_up_nobody(&self, view: &View) {
        let Some(front_end) = &self.front_end else {
            return;
        };
        if !self.oracle.looks_for_data() {
            return;
        }
        let given_up = front_end
            .told_by
            .iter()
            .filter(|(_, of)| **of != view.cluster);
        for (told, cluster) in given_up {
            for (index, slot) in self.slots.iter().enumerate() {
                let holds = match &slot.node {
                    Some(node) => {
                        node.id.node == *told
                            && node.replica.registration().cluster == Some(*cluster)
                    }
                    None => {
                        slot.config.storage == StorageKind::Disk
                            && node_id(index, slot.lives, &slot.config) == *told
                    }
                };
                assert!(
                    !holds,
                    "{} told of its data, and a new cluster is founded",
                    slot.config.name
                );
            }
        }
    }

    pub(super) fn view_made(&mut self) {
        self.view_ms = self.now_ms;
        if let Some(view) = self.stored.view.clone() {
            self.note(|| format!("fe makes view {}", show::view(&view)));
            self.gives_up_nobody(&view);
            let nodes: Vec<&Node> = self
                .slots
                .iter()
                .filter_map(|slot| slot.node.as_ref())
                .collect();
            self.oracle.view_made(&view, &nodes);
        }
    }
}
