//! From an answer to what the prompt prints.

use super::{Command, HELP, Text, is_steering, status};
use crate::api::{ApiError, Outcome, Reply, Value};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// What the prompt prints for a command and its answer: one line, but for `list`, `status` and
/// `help`. No newline at the end.
///
/// An error prints as `command -> error CODE: message`, and says so where the outcome is unknown.
/// For `help` and `exit`, which nobody answers, the result does not matter.
#[must_use]
pub fn render(command: &Command, result: &Result<Reply, ApiError>) -> String {
    match (command, result) {
        (Command::Help, _) => HELP.to_owned(),
        (Command::Exit, _) => "exit".to_owned(),
        (command, Err(error)) => render_error(command, error),
        (Command::Get { .. }, Ok(Reply::Get { value, .. })) => {
            format!("{command} -> {}", Found(value.as_ref()))
        }
        (Command::Set { .. }, Ok(Reply::Set { value, .. })) => {
            format!("{command} -> {}", Found(Some(value)))
        }
        (Command::TestSet { .. }, Ok(Reply::TestSet { swapped, value, .. })) => {
            let set = if *swapped { "set" } else { "not set" };
            format!("{command} -> {} [{set}]", Found(value.as_ref()))
        }
        (Command::Delete { .. }, Ok(Reply::Delete { deleted, .. })) => {
            format!(
                "{command} -> {}",
                if *deleted { "deleted" } else { "(none)" }
            )
        }
        (Command::List { .. }, Ok(Reply::List { entries, more })) => {
            let mut lines: Vec<String> = entries
                .iter()
                .map(|entry| format!("{} -> {}", Text(&entry.key), Found(Some(&entry.value))))
                .collect();
            if entries.is_empty() {
                lines.push("(none)".to_owned());
            } else if *more {
                lines.push("(more)".to_owned());
            }
            lines.join("\n")
        }
        (Command::Status, Ok(Reply::Status(status))) => status::render(status),
        (command, Ok(_)) => {
            format!("{command} -> error internal: an answer to something else came")
        }
    }
}

fn render_error(command: &Command, error: &ApiError) -> String {
    let is_write = command.to_op().is_some_and(|op| op.kind().is_write());
    let outcome = match error.outcome {
        Outcome::Unknown if is_write => " (outcome unknown: it may have been written)",
        _ => "",
    };
    // The message comes from a server; it stays on its line and out of the terminal's control.
    let message: String = error
        .message
        .chars()
        .map(|c| if is_steering(c) { ' ' } else { c })
        .collect();
    format!("{command} -> error {}: {message}{outcome}", error.code)
}

/// A value, or that there is none.
struct Found<'a>(Option<&'a Value>);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("(none)"),
            Some(value) => match value.as_str() {
                Some(text) => write!(f, "{}", Text(text)),
                None => write!(f, "base64:{}", STANDARD.encode(&value.0)),
            },
        }
    }
}
