//! From a line to a [`Command`].

use super::{COMMANDS, Command, is_word_char};

/// What is wrong with a line, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at character {})", .at + 1)]
pub struct ParseError {
    /// Index of the character at fault, counted in `char`s from 0; the line's length for its end.
    pub at: usize,
    /// For people.
    pub message: String,
}

fn error<T>(at: usize, message: impl Into<String>) -> Result<T, ParseError> {
    Err(ParseError {
        at,
        message: message.into(),
    })
}

pub(super) fn parse(line: &str) -> Result<Command, ParseError> {
    let mut reader = Reader::new(line);
    reader.skip_space();
    let name_at = reader.at;
    let name = reader.word();
    let Some(known) = COMMANDS.iter().find(|known| known.name == name) else {
        return error(name_at, unknown_command(&name, reader.peek()));
    };
    let brackets = reader.brackets()?;
    let end = reader.at;
    reader.skip_space();
    if let Some(c) = reader.peek() {
        return error(
            reader.at,
            format!("nothing may follow the command, but here is {}", show(c)),
        );
    }
    let arguments = Arguments {
        signature: known.signature,
        brackets,
        end,
    };
    match name.as_str() {
        "get" => {
            let [key] = arguments.exactly(["id"])?;
            Ok(Command::Get { key: key.key()? })
        }
        "set" => {
            let [key, value] = arguments.exactly(["id", "val"])?;
            Ok(Command::Set {
                key: key.key()?,
                value: value.required()?,
            })
        }
        "testset" => {
            let [key, test, value] = arguments.exactly(["id", "testVal", "newVal"])?;
            Ok(Command::TestSet {
                key: key.key()?,
                test: test.text,
                value: value.required()?,
            })
        }
        "delete" => {
            let [key] = arguments.exactly(["id"])?;
            Ok(Command::Delete { key: key.key()? })
        }
        "list" => {
            let [prefix] = arguments.exactly(["prefix"])?;
            Ok(Command::List {
                prefix: prefix.text.unwrap_or_default(),
            })
        }
        "status" => arguments.none().map(|()| Command::Status),
        "help" => arguments.none().map(|()| Command::Help),
        "exit" => arguments.none().map(|()| Command::Exit),
        name => unreachable!("{name} is in COMMANDS and not read here"),
    }
}

fn unknown_command(name: &str, next: Option<char>) -> String {
    let names = COMMANDS
        .iter()
        .map(|known| known.name)
        .collect::<Vec<_>>()
        .join(", ");
    match (name, next) {
        ("", None) => format!("a command is missing; there are {names}"),
        ("", Some(c)) => format!("a line begins with a command, not with {}", show(c)),
        (name, _) => {
            let short: String = name.chars().take(32).collect();
            format!(
                "there is no command {}; there are {names}",
                super::Text(&short)
            )
        }
    }
}

/// A character as a message names it.
fn show(c: char) -> String {
    if c == '"' {
        "a double quote".to_owned()
    } else {
        super::Text(c.encode_utf8(&mut [0; 4])).to_string()
    }
}

/// What stands between two separators.
struct Argument {
    /// Where it begins, or would begin.
    at: usize,
    /// `None` where nothing stands.
    text: Option<String>,
    name: &'static str,
}

impl Argument {
    fn required(self) -> Result<String, ParseError> {
        match self.text {
            Some(text) => Ok(text),
            None => error(
                self.at,
                format!("{} is missing; the empty string is written \"\"", self.name),
            ),
        }
    }

    fn key(self) -> Result<String, ParseError> {
        match self.text {
            Some(text) if text.is_empty() => error(self.at, "a key is not empty"),
            Some(text) => Ok(text),
            None => error(self.at, format!("{} is missing", self.name)),
        }
    }
}

/// What a command's brackets hold.
struct Brackets {
    open_at: usize,
    arguments: Vec<Argument>,
}

/// What follows a command's name.
struct Arguments {
    signature: &'static str,
    brackets: Option<Brackets>,
    /// Where the command ends.
    end: usize,
}

impl Arguments {
    /// As many as have names here.
    fn exactly<const N: usize>(
        self,
        names: [&'static str; N],
    ) -> Result<[Argument; N], ParseError> {
        let signature = self.signature;
        let Some(Brackets { arguments, .. }) = self.brackets else {
            return error(self.end, format!("it is written {signature}"));
        };
        if let Some(extra) = arguments.get(N) {
            return error(
                extra.at,
                format!("too many arguments; it is written {signature}"),
            );
        }
        match <[Argument; N]>::try_from(arguments) {
            Ok(mut arguments) => {
                for (argument, name) in arguments.iter_mut().zip(names) {
                    argument.name = name;
                }
                Ok(arguments)
            }
            Err(arguments) => {
                // The closing bracket stands where the next one was due.
                let name = names[arguments.len()];
                error(
                    self.end - 1,
                    format!("{name} is missing; it is written {signature}"),
                )
            }
        }
    }

    fn none(self) -> Result<(), ParseError> {
        match self.brackets {
            None => Ok(()),
            Some(Brackets { open_at, .. }) => error(
                open_at,
                format!("it is written {}, without brackets", self.signature),
            ),
        }
    }
}

struct Reader {
    chars: Vec<char>,
    at: usize,
}

impl Reader {
    fn new(line: &str) -> Reader {
        Reader {
            chars: line.chars().collect(),
            at: 0,
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    /// The longest word from here; empty if there is none.
    fn word(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(is_word_char) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    /// `( … )`, or `None` if there is no bracket.
    fn brackets(&mut self) -> Result<Option<Brackets>, ParseError> {
        let after_name = self.at;
        self.skip_space();
        if self.peek() != Some('(') {
            if self.peek().is_some() && self.at > after_name {
                return error(self.at, "nothing may follow the command but its brackets");
            }
            return Ok(None);
        }
        let open_at = self.at;
        self.at += 1;
        let mut arguments = Vec::new();
        loop {
            self.skip_space();
            let at = self.at;
            let text = match self.peek() {
                Some('"') => Some(self.string()?),
                Some(c) if is_word_char(c) => Some(self.word()),
                _ => None,
            };
            arguments.push(Argument { at, text, name: "" });
            self.skip_space();
            match self.peek() {
                Some(',') => self.at += 1,
                Some(')') => {
                    self.at += 1;
                    return Ok(Some(Brackets { open_at, arguments }));
                }
                None => {
                    let place = open_at + 1;
                    let message = format!("the bracket at character {place} is not closed");
                    return error(self.at, message);
                }
                Some(c) => {
                    let message = format!(
                        "expected , or ) but here is {}; text with spaces, commas or brackets goes in \
                         double quotes",
                        show(c)
                    );
                    return error(self.at, message);
                }
            }
        }
    }

    /// A string in double quotes.
    fn string(&mut self) -> Result<String, ParseError> {
        let open = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let at = self.at;
            let Some(c) = self.peek() else {
                let place = open + 1;
                return error(
                    at,
                    format!("the double quote at character {place} is not closed"),
                );
            };
            self.at += 1;
            match c {
                '"' => return Ok(text),
                '\\' => text.push(self.escape(at)?),
                c => text.push(c),
            }
        }
    }

    /// What follows a backslash, which was at `at`.
    fn escape(&mut self, at: usize) -> Result<char, ParseError> {
        let c = self.peek();
        self.at += 1;
        Ok(match c {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => return self.unicode(at),
            _ => {
                let known = "\\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX";
                return error(at, format!("no such escape; there are {known}"));
            }
        })
    }

    /// The digits of a `\uXXXX` that began at `at`, and those of its other half where there must be
    /// one.
    fn unicode(&mut self, at: usize) -> Result<char, ParseError> {
        let first = self.hex4(at)?;
        let lone = "half of a character: \\uD800 to \\uDBFF and \\uDC00 to \\uDFFF go in pairs";
        let code = match first {
            0xD800..=0xDBFF => {
                if self.chars.get(self.at..self.at + 2) != Some(&['\\', 'u']) {
                    return error(at, lone);
                }
                self.at += 2;
                match self.hex4(self.at - 2)? {
                    second @ 0xDC00..=0xDFFF => {
                        0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)
                    }
                    _ => return error(at, lone),
                }
            }
            code => code,
        };
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => error(at, lone),
        }
    }

    fn hex4(&mut self, at: usize) -> Result<u32, ParseError> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(16)) else {
                return error(at, "\\u takes four hex digits");
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }
}
