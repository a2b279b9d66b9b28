//! What the commands share on their way out: exit statuses, failures, colours.

use kvservice_client::{Error, ServerAddress};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Success,
    /// 1: the key is not there, the test failed, or a dump is incomplete.
    No,
    /// 2
    Error,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Success => 0,
            Exit::No => 1,
            Exit::Error => 2,
        })
    }
}

/// Why a command came to nothing.
#[derive(Debug)]
pub enum Failure {
    /// Standard output could not be written.
    Output(io::Error),
    /// What was given to the command makes no sense; nothing was sent.
    Usage(String),
    /// A dump is not whole.
    Incomplete(String),
    /// The request failed.
    Request(Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Request(error)
    }
}

/// Colours, where they are wanted: on a terminal, without `NO_COLOR`.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub color: bool,
}

impl Style {
    pub fn for_stdout() -> Style {
        Style {
            color: io::stdout().is_terminal() && colors_wanted(),
        }
    }

    pub fn for_stderr() -> Style {
        Style {
            color: io::stderr().is_terminal() && colors_wanted(),
        }
    }

    pub fn error(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub fn news(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// <https://no-color.org>: set and not empty.
fn colors_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A line for standard error. Where even that cannot be written, there is nobody to tell.
pub fn to_stderr(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A line on standard error that says how far it is: on a terminal, and not too often. Gone when this is.
#[derive(Debug)]
pub struct Progress {
    /// When it is written next; `None` where nobody looks.
    due: Option<Instant>,
    shown: bool,
}

impl Progress {
    const INTERVAL: Duration = Duration::from_millis(250);

    /// For a command that prints to standard output all the while, it is for a terminal that shows nothing else.
    pub fn new(prints: bool) -> Progress {
        let watched = io::stderr().is_terminal() && !(prints && io::stdout().is_terminal());
        Progress {
            due: watched.then(|| Instant::now() + Progress::INTERVAL),
            shown: false,
        }
    }

    pub fn show(&mut self, line: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.due.is_some_and(|due| due <= now) {
            self.due = Some(now + Progress::INTERVAL);
            self.shown = true;
            let _ = write!(io::stderr().lock(), "\r{}\x1b[K", line());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// What to say, and what to do, when there is no connection.
pub fn unreachable(server: &ServerAddress, reason: &str) -> String {
    let mut message = format!("cannot reach {server}: {reason}");
    if reason.contains("connection refused") {
        message += &format!(
            "\n  start a server there:  kvservice-server single --listen {}\
             \n  or name another:       kvservice --server HOST:PORT (or KVSERVICE_SERVER)",
            server.host_port()
        );
    }
    message
}
