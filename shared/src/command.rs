//! The text grammar of the terminal's and the browser's prompt.

use crate::api::{ApiError, Op, Reply};
use std::fmt;

/// One line of the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `get(id)`
    Get {
        /// The key.
        key: String,
    },
    /// `set(id,val)`
    Set {
        /// The key.
        key: String,
        /// Its new value.
        value: String,
    },
    /// `testset(id,testVal,newVal)`
    TestSet {
        /// The key.
        key: String,
        /// What it must hold; `None` (left out) means "absent".
        test: Option<String>,
        /// Its new value then.
        value: String,
    },
    /// `delete(id)`
    Delete {
        /// The key.
        key: String,
    },
    /// `list(prefix)`, `list()`
    List {
        /// Empty for all keys.
        prefix: String,
    },
    /// `status`
    Status,
    /// `help`
    Help,
    /// `exit`
    Exit,
}

/// What is wrong with a line, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at character {})", .at + 1)]
pub struct ParseError {
    /// Index of the character at fault, from 0, counted in `char`s; the line's length for its end.
    pub at: usize,
    /// For people.
    pub message: String,
}

/// What completion and hints need to know of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandHelp {
    /// `testset`
    pub name: &'static str,
    /// `testset(id,testVal,newVal)`
    pub signature: &'static str,
    /// One line.
    pub help: &'static str,
}

/// Every command.
pub const COMMANDS: &[CommandHelp] =
    &[CommandHelp { name: "get", signature: "get(id)", help: "print the value of a key" }];

/// What `help` prints.
pub const HELP: &str = "";

impl Command {
    /// Reads one line.
    ///
    /// # Errors
    /// What is wrong, and at which character.
    pub fn parse(line: &str) -> Result<Command, ParseError> {
        let _ = line;
        Ok(Command::Help)
    }

    /// The request that it stands for; `None` for `help` and `exit`.
    #[must_use]
    pub fn to_op(&self) -> Option<Op> {
        None
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("help")
    }
}

/// What the prompt prints for a command and its answer. No newline at the end.
#[must_use]
pub fn render(command: &Command, result: &Result<Reply, ApiError>) -> String {
    let _ = (command, result);
    String::new()
}
