//! The text grammar of the terminal's and the browser's prompt, and what the prompt prints.
//!
//! ```text
//! line     = command, with white space around every part ignored
//! command  = name [ "(" [ argument { "," argument } ] ")" ]
//! argument = word | string | nothing
//! word     = one or more characters other than white space and , ( ) "
//! string   = '"', JSON's escapes and any other characters, '"'
//! ```
//!
//! Nothing as an argument means something in one place only: `testset(id,,newVal)` writes if the
//! key is absent. The empty string is `""`. [`Command`]'s `Display` is the canonical form, which
//! parses to the same command again.

mod parse;
mod render;
mod status;
#[cfg(test)]
mod tests;

pub use parse::ParseError;
pub use render::render;

use crate::api::{Op, Value};
use crate::limits::LIST_ENTRIES_DEFAULT;
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

/// What completion and hints need to know of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandHelp {
    /// The word that it begins with: `testset`.
    pub name: &'static str,
    /// How it is written: `testset(id,testVal,newVal)`.
    pub signature: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
}

/// Every command, in the order in which `help` shows them.
pub const COMMANDS: &[CommandHelp] = &[
    CommandHelp {
        name: "get",
        signature: "get(id)",
        help: "print the value of a key",
    },
    CommandHelp {
        name: "set",
        signature: "set(id,val)",
        help: "write a value",
    },
    CommandHelp {
        name: "testset",
        signature: "testset(id,testVal,newVal)",
        help: "write newVal if the key holds testVal; testset(id,,newVal): if it is absent",
    },
    CommandHelp {
        name: "delete",
        signature: "delete(id)",
        help: "remove a key",
    },
    CommandHelp {
        name: "list",
        signature: "list(prefix)",
        help: "print the keys that start with a prefix; list(): all keys",
    },
    CommandHelp {
        name: "status",
        signature: "status",
        help: "print the chain, head to tail",
    },
    CommandHelp {
        name: "help",
        signature: "help",
        help: "print this",
    },
    CommandHelp {
        name: "exit",
        signature: "exit",
        help: "close the connection",
    },
];

/// What `help` prints. No newline at the end.
pub const HELP: &str = "\
get(id)                     print the value of a key
set(id,val)                 write a value
testset(id,testVal,newVal)  write newVal if the key holds testVal; testset(id,,newVal): if it is absent
delete(id)                  remove a key
list(prefix)                print the keys that start with a prefix; list(): all keys
status                      print the chain, head to tail
help                        print this
exit                        close the connection
A word is anything but white space , ( ) and \"; anything else goes in double quotes, with JSON's
escapes: set(motto,\"to be, or not\"). The empty string is \"\".";

impl Command {
    /// Reads one line.
    ///
    /// # Errors
    /// What is wrong, and at which character. An empty line is an error too.
    pub fn parse(line: &str) -> Result<Command, ParseError> {
        parse::parse(line)
    }

    /// The request that it stands for; `None` for `help` and `exit`. For `list` it is the first
    /// page.
    #[must_use]
    pub fn to_op(&self) -> Option<Op> {
        Some(match self {
            Command::Get { key } => Op::Get { key: key.clone() },
            Command::Set { key, value } => Op::Set {
                key: key.clone(),
                value: Value::from(value.as_str()),
            },
            Command::TestSet { key, test, value } => Op::TestSet {
                key: key.clone(),
                test: test.as_deref().map(Value::from),
                value: Value::from(value.as_str()),
            },
            Command::Delete { key } => Op::Delete { key: key.clone() },
            Command::List { prefix } => Op::List {
                prefix: prefix.clone(),
                after: String::new(),
                limit: LIST_ENTRIES_DEFAULT,
            },
            Command::Status => Op::Status,
            Command::Help | Command::Exit => return None,
        })
    }
}

/// The canonical form.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Get { key } => write!(f, "get({})", Text(key)),
            Command::Set { key, value } => write!(f, "set({},{})", Text(key), Text(value)),
            Command::TestSet {
                key,
                test: Some(test),
                value,
            } => {
                write!(f, "testset({},{},{})", Text(key), Text(test), Text(value))
            }
            Command::TestSet {
                key,
                test: None,
                value,
            } => {
                write!(f, "testset({},,{})", Text(key), Text(value))
            }
            Command::Delete { key } => write!(f, "delete({})", Text(key)),
            Command::List { prefix } if prefix.is_empty() => f.write_str("list()"),
            Command::List { prefix } => write!(f, "list({})", Text(prefix)),
            Command::Status => f.write_str("status"),
            Command::Help => f.write_str("help"),
            Command::Exit => f.write_str("exit"),
        }
    }
}

/// Whether a word may hold this character.
fn is_word_char(c: char) -> bool {
    !c.is_whitespace() && !matches!(c, ',' | '(' | ')' | '"')
}

/// Whether a character could steer a terminal or end a line: one answer is one line.
fn is_steering(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

/// A key or value as the prompt prints it: bare if it is a word, else quoted with JSON's escapes.
///
/// A word with control characters in it parses, but is printed quoted: what is in the store must
/// not steer anybody's terminal.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |c: char| is_word_char(c) && !is_steering(c);
        if !self.0.is_empty() && self.0.chars().all(bare) {
            return f.write_str(self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\u{8}' => f.write_str("\\b")?,
                '\u{c}' => f.write_str("\\f")?,
                c if is_steering(c) => write!(f, "\\u{:04x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}
