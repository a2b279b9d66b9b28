//! Chains to test with.

use kvservice_shared::api::{
    ChainEvent, EventKind, FrontEndStatus, LearnerPhase, LearnerStatus, MemberStatus, Mode, Role,
    Status, StorageKind,
};
use kvservice_shared::ids::Seq;

/// The address of `n3` and the like.
pub fn address(node: &str) -> String {
    format!("127.0.0.1:74{}", 10 + node[1..].parse::<u32>().unwrap())
}

/// A chain of these nodes, all at the same point.
pub fn chain(epoch: u64, nodes: &[&str], committed: u64) -> Status {
    let at = |i: usize| nodes.get(i).map(|node| address(node));
    let last = nodes.len().saturating_sub(1);
    let role = |i: usize| match i {
        _ if nodes.len() == 1 => Role::Single,
        0 => Role::Head,
        i if i == last => Role::Tail,
        _ => Role::Middle,
    };
    let member = |(i, node): (usize, &&str)| MemberStatus {
        node: (*node).to_owned(),
        address: address(node),
        role: role(i),
        next: at(i + 1),
        second: at(i + 2),
        durable: Seq(committed),
        stable: Seq(committed),
        committed: Seq(committed),
        applied: Seq(committed),
        hash: "0123456789abcdef".to_owned(),
        storage: StorageKind::Disk,
    };
    Status {
        mode: Mode::Chain,
        cluster: Some("c1".to_owned()),
        epoch,
        members: nodes.iter().enumerate().map(member).collect(),
        learners: Vec::new(),
        front_end: FrontEndStatus {
            head: at(0),
            second: at(1),
        },
        events: Vec::new(),
        waiting: None,
    }
}

/// A node on its way in.
pub fn learner(node: &str) -> LearnerStatus {
    LearnerStatus {
        node: node.to_owned(),
        address: address(node),
        phase: LearnerPhase::Snapshot,
        behind: 7,
        received_bytes: 10,
        total_bytes: 20,
    }
}

/// `node` failed at this time.
pub fn failed(at_ms: u64, node: &str) -> ChainEvent {
    ChainEvent {
        at_ms,
        epoch: 2,
        kind: EventKind::Failed,
        node: Some(node.to_owned()),
        from: Some("n1".to_owned()),
        to: Some("n3".to_owned()),
        took_ms: Some(38),
    }
}
