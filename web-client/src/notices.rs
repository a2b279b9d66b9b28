//! What stands above the picture when something is to be known or done: pure, from the state.

use crate::state::State;
use crate::state::link::Link;
use crate::state::picture::{divergence, storage_warning};
use crate::text;
use kvservice_shared::api::{Mode, Status};

/// One notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// A name that tests and style sheets know it by.
    pub name: &'static str,
    /// How urgent it is.
    pub urgency: Urgency,
    /// In a few words.
    pub title: String,
    /// What it means, and what to do.
    pub text: String,
    /// A line to type in a terminal.
    pub command: Option<String>,
}

/// How urgent a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Somebody must act, or nothing goes.
    Act,
    /// Something is amiss, and mends itself or not.
    Warn,
    /// Good to know.
    Know,
}

/// The line that starts a node beside a front-end with its usual ports.
const START_NODE: &str =
    "kvservice-backend --listen 127.0.0.1:7411 --frontend 127.0.0.1:7401 --memory";

/// The operator's way out.
const RECOVER: &str = "kvservice-server recover --data-dir DIR";

/// Everything worth a notice, the most urgent first.
#[must_use]
pub fn notices(state: &State, now_ms: u64) -> Vec<Notice> {
    let mut notices = Vec::new();
    notices.extend(connection(state, now_ms));
    if let Some(status) = &state.picture.status {
        notices.extend(service(status));
        notices.extend(health(status));
    }
    notices.sort_by_key(|notice| notice.urgency);
    notices
}

fn connection(state: &State, now_ms: u64) -> Option<Notice> {
    let connection = &state.connection;
    if let Some(silent) = connection.silent_ms(now_ms) {
        return Some(Notice {
            name: "silent",
            urgency: Urgency::Warn,
            title: format!("No answer for {}.", text::age(silent)),
            text: "The connection is open, but nothing comes.".to_owned(),
            command: None,
        });
    }
    let (urgency, title, text) = match &connection.link {
        Link::Live => return None,
        Link::Connecting { .. } if !connection.was_live => return None,
        Link::Greeting { refusal: None } => return None,
        Link::Greeting { refusal: Some(why) } => (
            Urgency::Warn,
            "Connected, but not served.".to_owned(),
            text::sentence(why),
        ),
        Link::Connecting { .. } => (
            Urgency::Warn,
            "Connection lost.".to_owned(),
            "Trying again now.".to_owned(),
        ),
        Link::Waiting {
            retry_at_ms,
            reason,
            ..
        } => {
            let title = if connection.was_live {
                "Connection lost."
            } else {
                "The server cannot be reached."
            };
            let next = match retry_at_ms.saturating_sub(now_ms) {
                0..1000 => "Trying again now.".to_owned(),
                ms => format!("The next attempt is in {}.", text::age(ms)),
            };
            (
                Urgency::Warn,
                title.to_owned(),
                format!("{} {next}", text::sentence(reason)),
            )
        }
        Link::TakenOver => (
            Urgency::Act,
            "Taken over.".to_owned(),
            "Another window goes on with this session.".to_owned(),
        ),
        Link::Closed => (
            Urgency::Act,
            "Connection closed.".to_owned(),
            "You closed it at the prompt.".to_owned(),
        ),
    };
    let text = text.trim().to_owned();
    Some(Notice {
        name: "connection",
        urgency,
        title,
        text,
        command: None,
    })
}

/// Nothing is served: nobody has joined yet, or somebody must decide.
fn service(status: &Status) -> Option<Notice> {
    if status.waiting.is_none() && !status.members.is_empty() {
        return None;
    }
    let why = status
        .waiting
        .as_deref()
        .unwrap_or("The chain begins with the first one you start");
    // A cluster with a view waits for its members, or for an operator: the front-end says for whom, and
    // what they can do.
    let (urgency, title, command) = if status.members.is_empty() {
        (Urgency::Warn, "Waiting for the first node.", START_NODE)
    } else {
        (Urgency::Act, "The cluster waits.", RECOVER)
    };
    Some(Notice {
        name: "waiting",
        urgency,
        title: title.to_owned(),
        text: text::sentence(why),
        command: Some(command.to_owned()),
    })
}

fn health(status: &Status) -> Vec<Notice> {
    let mut notices = Vec::new();
    if let Some((a, b)) = divergence(status) {
        notices.push(Notice {
            name: "divergence",
            urgency: Urgency::Act,
            title: "Nodes differ.".to_owned(),
            text: format!(
                "{} and {} have applied the same {} entries and hold different states. This is a \
                 bug, or damaged memory: stop writing, and keep their data.",
                a.node,
                b.node,
                text::count(a.applied.0)
            ),
            command: None,
        });
    }
    // While nothing is served, that is what matters.
    let warning = storage_warning(status).filter(|_| status.waiting.is_none());
    if status.mode == Mode::Chain && status.members.len() == 1 && status.waiting.is_none() {
        let storage = warning.map_or_else(String::new, |warning| format!(" {warning}"));
        notices.push(Notice {
            name: "lone",
            urgency: Urgency::Know,
            title: "One node.".to_owned(),
            text: format!("There is no second copy yet: start another node.{storage}"),
            command: None,
        });
    } else if let Some(text) = warning {
        let title = "Kept in memory.".to_owned();
        notices.push(Notice {
            name: "memory",
            urgency: Urgency::Know,
            title,
            text,
            command: None,
        });
    }
    notices
}

#[cfg(test)]
#[path = "notices_tests.rs"]
mod tests;
