//! Registration, and who is connected.

use super::{Coordinator, NodeLink};
use kvservice_shared::api::EventKind;
use kvservice_shared::chain::{Incarnation, Refusal, Register, Report, ToNode};

/// A connected, registered node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) register: Register,
    pub(super) name: String,
    pub(super) report: Option<Report>,
    pub(super) heard_ms: u64,
    /// When it failed to join: it is not tried again at once.
    pub(super) failed_ms: Option<u64>,
    /// It asked to leave: it is not to come back by itself.
    pub(super) leaving: bool,
    /// The last term that this front-end claimed from it, on this connection.
    pub(super) claimed: Option<u32>,
}

impl Coordinator {
    pub(super) fn on_register(&mut self, link: NodeLink, register: Register) {
        if let Some(refusal) = self.refusal(link, &register) {
            self.news(format!(
                "a node at {} is refused: {refusal:?}",
                register.address
            ));
            self.send(link, ToNode::Refused(refusal));
            self.out.close.push(link);
            return;
        }
        let id = register.id;
        // The same process on an older connection, or an older process of the same node: gone.
        let older: Vec<(NodeLink, Incarnation)> = self
            .nodes
            .iter()
            .filter(|(other, node)| **other != link && node.register.id.node == id.node)
            .map(|(other, node)| (*other, node.register.id))
            .collect();
        for (other, _) in &older {
            self.nodes.remove(other);
            self.out.close.push(*other);
        }
        let known = self.nodes.contains_key(&link);
        let named = self.stored.names.contains_key(&id.node);
        let name = self.name_of(id.node);
        if !named {
            self.store();
        }
        let was_head = self.members().first().is_some_and(|head| head.id == id);
        let was_tail = self.members().last().is_some_and(|tail| tail.id == id);
        let member = self.members().iter().any(|member| member.id == id);
        if !known && !member {
            let back = self.members().iter().any(|m| m.id.node == id.node);
            let what = if back { "is back" } else { "wants to join" };
            self.news(format!("{name} at {} {what}", register.address));
            self.events.add(
                self.now_ms,
                self.epoch(),
                EventKind::Registered,
                Some(&name),
            );
        } else if !known {
            self.news(format!("{name} at {} is connected", register.address));
        }
        let has_data = register.cluster.is_some();
        let heard_ms = self.clock_ms;
        // The same process, on the same connection.
        let before = self.nodes.get(&link).filter(|n| n.register.id == id);
        let node = Node {
            failed_ms: before.and_then(|node| node.failed_ms),
            claimed: before.and_then(|node| node.claimed),
            register,
            name: name.clone(),
            report: None,
            heard_ms,
            leaving: false,
        };
        self.nodes.insert(link, node);
        self.clear_accusations(id);
        // Its last process was a member, maybe, and nobody else will say that it is gone.
        for (_, gone) in older.into_iter().filter(|(_, older)| *older != id) {
            self.suspect(gone);
        }
        if let Some(cluster) = self.stored.cluster {
            if !self.is_claiming() || has_data {
                self.send(link, ToNode::Welcome { cluster, name });
            }
            if let Some(view) = self.stored.view.clone() {
                self.send(link, ToNode::View(view));
            }
        }
        if was_head {
            // A new connection to the same head: what was sent on the old one may be lost.
            self.route = None;
        }
        if was_tail {
            // Nor may the tail have heard whom to teach.
            self.joining = None;
        }
        if member && let Some(nonce) = self.round_nonce() {
            self.send(link, ToNode::Probe { nonce });
        }
        if !member && !self.queue.contains(&id) {
            self.queue.push_back(id);
        }
        self.on_registered_outage(link);
    }

    fn refusal(&self, link: NodeLink, register: &Register) -> Option<Refusal> {
        if let (Some(ours), Some(yours)) = (self.stored.cluster, register.cluster)
            && ours != yours
        {
            return Some(Refusal::OtherCluster { ours, yours });
        }
        let taken = self.nodes.iter().find(|(other, node)| {
            **other != link
                && node.register.address == register.address
                && node.register.id.node != register.id.node
                && self.clock_ms - node.heard_ms <= self.timeout_ms()
        });
        taken.map(|(_, node)| Refusal::AddressTaken {
            address: register.address.clone(),
            by: node.name.clone(),
        })
    }

    pub(super) fn on_disconnected(&mut self, link: NodeLink) {
        let Some(node) = self.nodes.remove(&link) else {
            return;
        };
        let id = node.register.id;
        self.queue.retain(|waiting| *waiting != id);
        if self.members().iter().any(|member| member.id == id) {
            self.suspect(id);
        } else {
            self.on_learner_disconnected(id);
        }
    }

    pub(super) fn check_silence(&mut self) {
        let (clock, timeout) = (self.clock_ms, self.timeout_ms());
        let silent: Vec<NodeLink> = self
            .nodes
            .iter()
            .filter(|(_, node)| clock - node.heard_ms > timeout)
            .map(|(link, _)| *link)
            .collect();
        for link in silent {
            // Whoever gives up a peer closes the link.
            self.out.close.push(link);
            self.on_disconnected(link);
        }
    }
}
