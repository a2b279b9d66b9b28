//! The `kvservice` prompt that `up` opens, and the news that `up` has meanwhile.

use std::io::{self, IsTerminal, Write};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::Pid;

use crate::run::{Line, POLL};

/// What the client prints in front of the line that is edited.
const PROMPT: &str = "kvservice> ";

/// The terminal, with the prompt in it or without.
pub struct Prompt {
    child: Option<Child>,
    /// The terminal's settings before the prompt changed them; `None` if it is no terminal.
    settings: Option<Termios>,
}

impl Prompt {
    /// No prompt: news are lines like any other.
    pub fn none() -> Self {
        Self {
            child: None,
            settings: None,
        }
    }

    /// Starts the prompt with `line`. It shares our process group: the terminal is its own.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn open(line: &Line) -> Result<Self> {
        let interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
        let settings = interactive.then(|| tcgetattr(io::stdin()).ok()).flatten();
        let child = line
            .command()
            .spawn()
            .with_context(|| format!("cannot start {line}"))?;
        Ok(Self {
            child: Some(child),
            settings,
        })
    }

    /// How the prompt has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// Prints a line; where somebody may be typing, above what they type.
    pub fn tell(&self, text: &str) {
        let mut out = io::stdout().lock();
        // If nobody can read it any more, that is no reason to leave servers behind.
        let _ = match (&self.child, &self.settings) {
            // Over the line that is being edited. Its editor draws it anew with the next key, in
            // the row where it finds the cursor; until then the prompt alone has to do.
            (Some(_), Some(_)) => {
                let text = text.replace('\n', "\r\n");
                write!(out, "\r\x1b[J{text}\r\n{PROMPT}").and_then(|()| out.flush())
            }
            _ => writeln!(out, "{text}"),
        };
    }

    /// Ends the prompt if it still runs, and leaves the terminal as it was before.
    pub fn close(&mut self) {
        if let Some(mut child) = self.child.take() {
            if matches!(child.try_wait(), Ok(None)) {
                let pid = i32::try_from(child.id()).expect("process ids fit an i32 on Unix");
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                let deadline = Instant::now() + Duration::from_secs(2);
                while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                    thread::sleep(POLL);
                }
                let _ = child.kill();
                let _ = child.wait();
                // It was in the middle of a line.
                let _ = writeln!(io::stdout());
            }
            if let Some(settings) = &self.settings {
                let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, settings);
            }
        }
    }
}
