//! How things stand, as a script shows it.

use super::{Failure, Script};
use kvservice_sim::show;
use std::fmt::Write as _;

impl Script {
    pub(super) fn nodes(&self) -> String {
        let mut text = String::new();
        for slot in &self.cluster.slots {
            let Some(node) = &slot.node else {
                let ended = slot.ended.as_deref().unwrap_or("not started");
                let _ = writeln!(text, "{}: {ended}", slot.config.name);
                continue;
            };
            let replica = &node.replica;
            let (durable, stable, applied, _) = replica.points();
            let role = if replica.is_member() {
                "member"
            } else {
                "no member"
            };
            let _ = writeln!(
                text,
                "{}: {role} in {}, log {}, durable {durable}, stable {stable}, applied {applied}{}",
                kvservice_sim::node::name(node.id),
                replica.view().map_or("no view".to_owned(), show::view),
                show::log(&replica.log().boundaries()),
                if replica.is_whole() {
                    ""
                } else {
                    ", unfinished snapshot"
                },
            );
        }
        text
    }

    pub(super) fn status(&self) -> Result<String, Failure> {
        let front_end = self
            .cluster
            .front_end
            .as_ref()
            .ok_or("the front-end does not run")?;
        let status = front_end.coordinator.status();
        let mut text = format!("epoch {}", status.epoch);
        let roles: Vec<String> = status
            .members
            .iter()
            .map(|m| format!("{} {:?}", m.node, m.role))
            .collect();
        let _ = writeln!(text, ": {}", roles.join(", "));
        for learner in &status.learners {
            let _ = writeln!(text, "learner {} {:?}", learner.node, learner.phase);
        }
        if let Some(waiting) = status.waiting {
            let _ = writeln!(text, "waiting: {waiting}");
        }
        for event in &status.events {
            let part = |name: &str, value: &Option<String>| {
                value
                    .as_ref()
                    .map_or(String::new(), |value| format!(" {name} {value}"))
            };
            let _ = writeln!(
                text,
                "event {} {:?}{}{}{}{}",
                event.epoch,
                event.kind,
                part("of", &event.node),
                part("from", &event.from),
                part("to", &event.to),
                event
                    .took_ms
                    .map_or(String::new(), |ms| format!(" in {ms} ms")),
            );
        }
        Ok(text)
    }
}
