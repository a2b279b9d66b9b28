//! The chain, head to tail, as the prompt prints it.

use super::is_steering;
use crate::api::{LearnerPhase, LearnerStatus, MemberStatus, Mode, Role, Status, StorageKind};

/// A line for the cluster, one for the front-end's pointers, one each for members and learners;
/// what is waited for last.
pub(super) fn render(status: &Status) -> String {
    let mut lines = vec![headline(status)];
    let mut rows = Vec::new();
    if status.mode == Mode::Chain {
        let front_end = &status.front_end;
        rows.push(vec![
            "front-end".to_owned(),
            String::new(),
            String::new(),
            format!("next {}", or_dash(front_end.head.as_deref())),
            format!("second {}", or_dash(front_end.second.as_deref())),
        ]);
    }
    rows.extend(
        status
            .members
            .iter()
            .map(|member| member_row(member, status.mode)),
    );
    lines.extend(table(&rows));
    let learners: Vec<_> = status.learners.iter().map(learner_row).collect();
    lines.extend(table(&learners));
    if status.members.is_empty() && status.waiting.is_none() {
        lines.push("no node has joined yet".to_owned());
    }
    if let Some(waiting) = &status.waiting {
        lines.push(format!("waiting: {waiting}"));
    }
    // Names and reasons come from elsewhere; one line stays one line.
    for line in &mut lines {
        if line.contains(is_steering) {
            *line = line.replace(is_steering, " ");
        }
    }
    lines.join("\n")
}

fn headline(status: &Status) -> String {
    let mode = match status.mode {
        Mode::Chain => "chain",
        Mode::Single => "single server",
    };
    let cluster = match &status.cluster {
        Some(cluster) => format!("cluster {cluster}"),
        None => "no cluster yet".to_owned(),
    };
    let members = match (status.mode, status.members.len()) {
        (Mode::Single, _) => String::new(),
        (Mode::Chain, 1) => ", 1 member".to_owned(),
        (Mode::Chain, count) => format!(", {count} members"),
    };
    format!("{mode}, {cluster}, epoch {}{members}", status.epoch)
}

fn member_row(member: &MemberStatus, mode: Mode) -> Vec<String> {
    let role = match member.role {
        Role::Head => "head",
        Role::Middle => "middle",
        Role::Tail => "tail",
        Role::Single => "single",
    };
    let storage = match member.storage {
        StorageKind::Disk => "disk",
        StorageKind::Memory => "memory",
    };
    let pointer = |name: &str, to: &Option<String>| match mode {
        Mode::Chain => format!("{name} {}", or_dash(to.as_deref())),
        Mode::Single => String::new(),
    };
    vec![
        member.node.clone(),
        role.to_owned(),
        member.address.clone(),
        pointer("next", &member.next),
        pointer("second", &member.second),
        format!("durable {}", member.durable),
        format!("stable {}", member.stable),
        format!("committed {}", member.committed),
        format!("applied {}", member.applied),
        format!("hash {}", member.hash),
        storage.to_owned(),
    ]
}

fn learner_row(learner: &LearnerStatus) -> Vec<String> {
    let phase = match learner.phase {
        LearnerPhase::Snapshot => "snapshot",
        LearnerPhase::Log => "log",
        LearnerPhase::Joint => "joint",
    };
    let bytes = match (learner.received_bytes, learner.total_bytes) {
        (0, 0) => String::new(),
        (received, total) => format!("{received} of {} bytes", total.max(received)),
    };
    vec![
        learner.node.clone(),
        "joining".to_owned(),
        learner.address.clone(),
        phase.to_owned(),
        format!("{} entries behind", learner.behind),
        bytes,
    ]
}

fn or_dash(text: Option<&str>) -> &str {
    text.unwrap_or("-")
}

/// Columns two spaces apart, indented by two; a column that is empty in every row takes no room.
fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths).filter(|&(_, &width)| width > 0) {
            line.push_str("  ");
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
        }
        line.truncate(line.trim_end().len());
        line
    };
    rows.iter().map(line).collect()
}
