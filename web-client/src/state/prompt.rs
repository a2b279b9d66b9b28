//! The prompt pane: the lines so far, the line being typed, the history.

use super::link::Link;
use super::{Effect, Outbox, Purpose};
use crate::text;
use kvservice_shared::api::{ApiError, ListEntry, Op, Reply};
use kvservice_shared::command::{self, Command, CommandHelp};
use std::collections::VecDeque;

/// Lines that the pane keeps.
const ENTRIES_MAX: usize = 200;
/// Lines that the history keeps.
const HISTORY_MAX: usize = 200;
/// What one answer may take of the pane, in bytes.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;
/// Keys on a page of `list`, and in all that it prints.
const LIST_PAGE: u32 = 500;
const LIST_MAX: usize = 1_000;

/// The prompt pane.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// The line being typed.
    pub input: String,
    /// What was entered, and what came of it; oldest first.
    pub entries: VecDeque<Entry>,
    history: VecDeque<String>,
    /// The place in the history that `input` shows; `None`: a line of its own.
    at: Option<usize>,
    /// The line of its own, while the history is leafed through.
    kept: String,
    last_number: u64,
}

/// A line that was entered, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Tells it from the others.
    pub number: u64,
    /// As entered.
    pub line: String,
    /// What came of it.
    pub output: Output,
    /// What it says, once it is understood.
    command: Option<Command>,
    /// Of a `list`: the pages so far.
    listed: Vec<ListEntry>,
}

/// What came of a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Nothing yet.
    Pending,
    /// An answer.
    Printed(String),
    /// An error answer.
    Failed(String),
    /// It does not parse.
    Unparsed {
        /// Index of the character at fault.
        at: usize,
        /// What is wrong.
        message: String,
    },
}

/// What the reader can do here.
#[derive(Clone, Debug, PartialEq)]
pub enum PromptAction {
    /// Typed.
    Input(String),
    /// Entered the line.
    Enter,
    /// Went back in the history.
    Older,
    /// Went forward in it.
    Newer,
    /// Chose a command from the hint.
    Start(&'static CommandHelp),
    /// Cleared the pane.
    Clear,
}

impl Entry {
    /// Whether its output is a table, whose lines must not be broken.
    #[must_use]
    pub fn is_table(&self) -> bool {
        matches!(self.command, Some(Command::Status))
    }
}

impl Prompt {
    /// Takes in an action of the reader's.
    pub fn act(&mut self, action: PromptAction, link: &Link, out: &mut Outbox) {
        match action {
            PromptAction::Input(input) => {
                self.input = input;
                self.at = None;
            }
            PromptAction::Enter => self.enter(link, out),
            PromptAction::Older => {
                let at = match self.at {
                    None => self.history.len().checked_sub(1),
                    Some(at) => Some(at.saturating_sub(1)),
                };
                if let Some(at) = at {
                    if self.at.is_none() {
                        self.kept = std::mem::take(&mut self.input);
                    }
                    self.input = self.history[at].clone();
                    self.at = Some(at);
                }
            }
            PromptAction::Newer => {
                let Some(at) = self.at else { return };
                if at + 1 < self.history.len() {
                    self.input = self.history[at + 1].clone();
                    self.at = Some(at + 1);
                } else {
                    self.input = std::mem::take(&mut self.kept);
                    self.at = None;
                }
            }
            PromptAction::Start(help) => {
                self.at = None;
                // Up to where the first argument begins.
                self.input = match help.signature.find('(') {
                    Some(i) => help.signature[..=i].to_owned(),
                    None => help.signature.to_owned(),
                };
                out.push(Effect::Focus("[data-focus=prompt]"));
            }
            PromptAction::Clear => {
                // Lines that wait for their answer stay.
                self.entries.retain(|entry| entry.output == Output::Pending);
            }
        }
    }

    /// Takes in the answer to the line of this number.
    pub fn answered(&mut self, number: u64, result: Result<Reply, ApiError>, out: &mut Outbox) {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.number == number) else {
            return;
        };
        let Some(command) = entry.command.clone() else {
            return;
        };
        let mut cut = false;
        let result = match (&command, result) {
            (Command::List { prefix }, Ok(Reply::List { entries, more })) => {
                entry.listed.extend(entries);
                if more && entry.listed.len() < LIST_MAX {
                    let after = entry
                        .listed
                        .last()
                        .map(|e| e.key.clone())
                        .unwrap_or_default();
                    let op = Op::List {
                        prefix: prefix.clone(),
                        after,
                        limit: LIST_PAGE,
                    };
                    out.submit(Purpose::Prompt(number), op);
                    return;
                }
                cut = more;
                Ok(Reply::List {
                    entries: std::mem::take(&mut entry.listed),
                    more: false,
                })
            }
            (_, result) => result,
        };
        let mut printed = command::render(&command, &result);
        if printed.len() > OUTPUT_BYTES_MAX {
            let all = printed.len() as u64;
            printed.truncate(text::head_of(&printed, OUTPUT_BYTES_MAX).len());
            printed.push_str(&format!("\n… cut here: {} in all", text::size(all)));
        } else if cut {
            let count = text::count(LIST_MAX as u64);
            printed.push_str(&format!(
                "\n… more than {count} keys: choose a longer prefix"
            ));
        }
        entry.output = if result.is_ok() {
            Output::Printed(printed)
        } else {
            Output::Failed(printed)
        };
    }

    fn enter(&mut self, link: &Link, out: &mut Outbox) {
        let line = std::mem::take(&mut self.input);
        self.at = None;
        if line.trim().is_empty() {
            return;
        }
        if self.history.back() != Some(&line) {
            self.history.push_back(line.clone());
            if self.history.len() > HISTORY_MAX {
                self.history.pop_front();
            }
        }
        self.last_number += 1;
        let number = self.last_number;
        let (output, command) = match Command::parse(&line) {
            Err(e) => (
                Output::Unparsed {
                    at: e.at,
                    message: e.message,
                },
                None,
            ),
            Ok(Command::Help) => (Output::Printed(command::HELP.trim_end().to_owned()), None),
            Ok(Command::Exit) => {
                out.push(Effect::Close);
                (
                    Output::Printed("The connection is closed.".to_owned()),
                    None,
                )
            }
            Ok(command) => match (command.to_op(), link) {
                (_, Link::Closed | Link::TakenOver) => {
                    let why = "The connection is closed: nothing was sent.".to_owned();
                    (Output::Failed(why), None)
                }
                (Some(op), _) => {
                    let op = match op {
                        Op::List { prefix, after, .. } => Op::List {
                            prefix,
                            after,
                            limit: LIST_PAGE,
                        },
                        op => op,
                    };
                    out.submit(Purpose::Prompt(number), op);
                    (Output::Pending, Some(command))
                }
                (None, _) => return,
            },
        };
        self.entries.push_back(Entry {
            number,
            line,
            output,
            command,
            listed: Vec::new(),
        });
        if self.entries.len() > ENTRIES_MAX {
            self.entries.pop_front();
        }
    }
}

/// What the line being typed may become: the commands that begin like it; of one with its arguments
/// begun, that one alone.
#[must_use]
pub fn hints(input: &str) -> Vec<&'static CommandHelp> {
    let input = input.trim_start();
    let word: String = input
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .collect();
    let whole = input.len() > word.len();
    command::COMMANDS
        .iter()
        .filter(|c| {
            if whole {
                c.name == word
            } else {
                c.name.starts_with(&word)
            }
        })
        .collect()
}

/// What is wrong with the line so far, once it is certain that more typing will not mend it: the fault
/// lies before the line's end.
#[must_use]
pub fn fault(input: &str) -> Option<(usize, String)> {
    let begun = input.trim();
    // A command's name that is half typed.
    if begun.chars().all(|c| c.is_ascii_alphabetic()) && !hints(begun).is_empty() {
        return None;
    }
    let e = Command::parse(input).err()?;
    (e.at < input.trim_end().chars().count()).then_some((e.at, e.message))
}

#[cfg(test)]
#[path = "prompt_tests.rs"]
mod tests;
