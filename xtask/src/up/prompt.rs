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
            (Some(child), Some(_)) => {
                // Over the line that is being edited; then the editor is told that the window
                // has changed, on which it draws its line anew.
                let written = write!(out, "\r\x1b[J{}\r\n", text.replace('\n', "\r\n"));
                let _ = out.flush();
                let _ = signal(child, Signal::SIGWINCH);
                written
            }
            _ => writeln!(out, "{text}"),
        };
    }

    /// Ends the prompt if it still runs, and leaves the terminal as it was before.
    pub fn close(&mut self) {
        if let Some(mut child) = self.child.take() {
            if matches!(child.try_wait(), Ok(None)) {
                let _ = signal(&child, Signal::SIGTERM);
                let deadline = Instant::now() + Duration::from_secs(2);
                while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                    thread::sleep(POLL);
                }
                let _ = child.kill();
                let _ = child.wait();
            }
            if let Some(settings) = &self.settings {
                let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, settings);
            }
        }
    }
}

fn signal(child: &Child, signal: Signal) -> nix::Result<()> {
    let pid = i32::try_from(child.id()).expect("process ids fit an i32 on Unix");
    kill(Pid::from_raw(pid), signal)
}
