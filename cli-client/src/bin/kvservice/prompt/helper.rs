//! What the line editor shows and completes while a command is typed.

use crate::output::Style;
use kvservice_shared::command::{COMMANDS, CommandHelp};
use rustyline::completion::{Candidate, Completer};
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::{Context, Helper, Validator};
use std::borrow::Cow;
use std::cell::Cell;

/// Completes the names of commands, and shows how the command goes on.
#[derive(Helper, Validator)]
pub struct GrammarHelper {
    style: Style,
    /// Whether the line is empty. The editor tells nobody what it held when ctrl-c is pressed.
    line_is_empty: Cell<bool>,
}

impl GrammarHelper {
    pub fn new(style: Style) -> GrammarHelper {
        GrammarHelper {
            style,
            line_is_empty: Cell::new(true),
        }
    }

    pub fn line_is_empty(&self) -> bool {
        self.line_is_empty.get()
    }

    pub fn start_line(&self) {
        self.line_is_empty.set(true);
    }
}

/// A command to complete a name to.
pub struct CommandCandidate(&'static CommandHelp);

impl Candidate for CommandCandidate {
    fn display(&self) -> &str {
        self.0.signature
    }

    /// The name, with the parenthesis if arguments follow.
    fn replacement(&self) -> &str {
        typed_part(self.0)
    }
}

impl Completer for GrammarHelper {
    type Candidate = CommandCandidate;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<CommandCandidate>)> {
        let typed = &line[..pos];
        let start = typed.len() - typed.trim_start().len();
        Ok((
            start,
            matching(&typed[start..]).map(CommandCandidate).collect(),
        ))
    }
}

/// How the command goes on: `id,val)`. Not inserted as it stands, for they are only names of
/// arguments; the rest of a command's name is.
pub struct GrammarHint {
    shown: String,
    inserted: Option<String>,
}

impl Hint for GrammarHint {
    fn display(&self) -> &str {
        &self.shown
    }

    fn completion(&self) -> Option<&str> {
        self.inserted.as_deref()
    }
}

impl Hinter for GrammarHelper {
    type Hint = GrammarHint;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<GrammarHint> {
        self.line_is_empty.set(line.is_empty());
        if pos < line.len() { None } else { hint(line) }
    }
}

impl Highlighter for GrammarHelper {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if self.style.color {
            Cow::Owned(self.style.dim(hint))
        } else {
            Cow::Borrowed(hint)
        }
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        if self.style.color {
            Cow::Owned(self.style.bold(prompt))
        } else {
            Cow::Borrowed(prompt)
        }
    }
}

fn matching(name: &str) -> impl Iterator<Item = &'static CommandHelp> {
    COMMANDS
        .iter()
        .filter(move |command| command.name.starts_with(name))
}

/// `set(` of `set(id,val)`; `status`.
fn typed_part(command: &CommandHelp) -> &'static str {
    match command.signature.find('(') {
        Some(at) => &command.signature[..=at],
        None => command.signature,
    }
}

fn hint(line: &str) -> Option<GrammarHint> {
    let typed = line.trim_start();
    if typed.is_empty() {
        return None;
    }
    let Some((name, arguments)) = typed.split_once('(') else {
        // The shortest command that begins so: `s` might become any of three, and says one of them.
        let command = matching(typed).min_by_key(|command| command.name.len())?;
        let shown = command.signature.strip_prefix(typed)?.to_owned();
        let inserted = typed_part(command).strip_prefix(typed).map(str::to_owned);
        return (!shown.is_empty()).then_some(GrammarHint { shown, inserted });
    };
    let command = COMMANDS
        .iter()
        .find(|command| command.name == name.trim_end())?;
    let names = command
        .signature
        .strip_suffix(')')?
        .split_once('(')?
        .1
        .split(',');
    let (complete, current_is_empty) = scan(arguments)?;
    let rest: Vec<&str> = names
        .skip(complete + usize::from(!current_is_empty))
        .collect();
    let shown = match (rest.is_empty(), current_is_empty) {
        // One argument too many: the parser will say so.
        (true, true) => return None,
        (true, false) => ")".to_owned(),
        (false, true) => format!("{})", rest.join(",")),
        (false, false) => format!(",{})", rest.join(",")),
    };
    Some(GrammarHint {
        shown,
        inserted: None,
    })
}

/// How many arguments are complete, and whether nothing is typed of the one after them. `None` once
/// the command is closed, or inside a string.
fn scan(arguments: &str) -> Option<(usize, bool)> {
    let (mut complete, mut current_is_empty) = (0, true);
    let (mut in_string, mut escaped) = (false, false);
    for c in arguments.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => {
                in_string = !in_string;
                current_is_empty = false;
            }
            _ if in_string => {}
            ')' => return None,
            ',' => {
                complete += 1;
                current_is_empty = true;
            }
            c if c.is_whitespace() => {}
            _ => current_is_empty = false,
        }
    }
    (!in_string).then_some((complete, current_is_empty))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustyline::history::DefaultHistory;

    fn shown(line: &str) -> String {
        hint(line).map(|hint| hint.shown).unwrap_or_default()
    }

    #[test]
    fn the_hint_is_the_rest_of_the_grammar() {
        assert_eq!(shown(""), "");
        assert_eq!(shown("te"), "stset(id,testVal,newVal)");
        assert_eq!(shown("testset"), "(id,testVal,newVal)");
        assert_eq!(shown("testset("), "id,testVal,newVal)");
        assert_eq!(shown("testset(color"), ",testVal,newVal)");
        assert_eq!(shown("testset(color,"), "testVal,newVal)");
        assert_eq!(shown("testset(color,,"), "newVal)");
        assert_eq!(shown("testset(color,,blue"), ")");
        assert_eq!(shown("testset(color,,blue)"), "");
        assert_eq!(shown(" set( \"a,b)\" ,"), "val)");
        assert_eq!(shown("set(\"a,"), "");
        assert_eq!(shown("set(\"a\\\","), "");
        assert_eq!(shown("get(a,"), "");
        assert_eq!(shown("status"), "");
        assert_eq!(shown("nonsense"), "");
        assert_eq!(shown("nonsense("), "");
    }

    #[test]
    fn the_right_arrow_inserts_a_name_but_no_placeholders() {
        assert_eq!(hint("te").unwrap().inserted.as_deref(), Some("stset("));
        assert_eq!(hint("st").unwrap().inserted.as_deref(), Some("atus"));
        assert_eq!(hint("testset(").unwrap().inserted, None);
    }

    #[test]
    fn tab_completes_commands() {
        let (history, helper) = (
            DefaultHistory::new(),
            GrammarHelper::new(Style { color: false }),
        );
        let complete = |line: &str| {
            let (start, found) = helper
                .complete(line, line.len(), &Context::new(&history))
                .unwrap();
            (
                start,
                found
                    .iter()
                    .map(|c| c.replacement().to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(complete("ge"), (0, vec!["get(".to_owned()]));
        assert_eq!(
            complete("  s"),
            (2, vec!["set(".to_owned(), "status".to_owned()])
        );
        assert_eq!(complete("").1.len(), COMMANDS.len());
        assert_eq!(complete("get(a").1, Vec::<String>::new());
    }
}
