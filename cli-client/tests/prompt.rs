//! The prompt on a terminal, as a user meets it: through a pseudo-terminal, key by key.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    reason = "test code: a failure here is the test's"
)]

mod common;

use common::{Fault, PATIENCE, Server};
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PROMPT: &str = "kvservice> ";

/// A prompt that runs in a terminal.
struct Terminal {
    child: Child,
    keys: File,
    output: Receiver<Vec<u8>>,
    /// What came and was not looked at yet.
    shown: String,
}

impl Terminal {
    fn start(server: &Server, home: &TempDir, settings: &[(&str, &str)]) -> Terminal {
        let size = Winsize {
            ws_row: 24,
            ws_col: 200,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let terminal = openpty(Some(&size), None).unwrap();
        let stdio = || Stdio::from(terminal.slave.try_clone().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_kvservice"))
            .env("KVSERVICE_SERVER", server.address.to_string())
            .env("XDG_STATE_HOME", home.path())
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .envs(settings.iter().copied())
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        let keys = File::from(terminal.master);
        let mut screen = keys.try_clone().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The terminal ends with an error once its last user is gone.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal {
            child,
            keys,
            output,
            shown: String::new(),
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the text appears, and returns what was shown up to its end.
    #[track_caller]
    fn until(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.find(text) {
                let rest = self.shown.split_off(at + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.shown += &String::from_utf8_lossy(&bytes),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{text:?} does not appear in {:?}", self.shown)
                }
            }
        }
    }

    #[track_caller]
    fn exit_status(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                Instant::now() < deadline,
                "it does not end; it shows {:?}",
                self.shown
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Has ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn terminal(server: &Server, settings: &[(&str, &str)]) -> (Terminal, TempDir) {
    let home = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(server, &home, settings);
    terminal.until("connected to ws://");
    terminal.until(PROMPT);
    (terminal, home)
}

#[test]
fn commands_are_hinted_completed_answered_and_remembered() {
    let server = Server::start([]);
    let (mut terminal, home) = terminal(&server, &[]);
    terminal.press("te");
    terminal.until("stset(id,testVal,newVal)");
    terminal.press("\t");
    terminal.until("id,testVal,newVal)");
    terminal.press("color,,red)\r");
    terminal.until("testset(color,,red) -> red [set]\r\n");
    terminal.until(PROMPT);
    terminal.press("set(a\r");
    terminal.until("^ ");
    terminal.until(PROMPT);
    terminal.press("help\r");
    terminal.until("testset(id,testVal,newVal)  write newVal");
    terminal.until(PROMPT);
    terminal.press("exit\r");
    assert_eq!(terminal.exit_status(), Some(0));
    assert_eq!(server.value("color"), Some("red".into()));

    let history = std::fs::read_to_string(home.path().join("kvservice/history")).unwrap();
    assert!(history.contains("testset(color,,red)\n"), "{history}");
    // The arrow up brings back what an earlier prompt was told.
    let mut terminal = Terminal::start(&server, &home, &[]);
    terminal.until(PROMPT);
    terminal.press("\x1b[A\x1b[A\x1b[A\x1b[A\r");
    terminal.until("testset(color,,red) -> red [not set]\r\n");
    terminal.until(PROMPT);
    terminal.press("\x04");
    assert_eq!(terminal.exit_status(), Some(0));
}

#[test]
fn what_is_typed_ahead_is_not_lost() {
    let server = Server::start([]);
    let (mut terminal, _home) = terminal(&server, &[]);
    terminal.press("set(a,1)\rset(b,2)\rget(a)\rget(b)\r");
    for answer in [
        "set(a,1) -> 1",
        "set(b,2) -> 2",
        "get(a) -> 1",
        "get(b) -> 2",
    ] {
        terminal.until(answer);
    }
    terminal.press("\x04");
    assert_eq!(terminal.exit_status(), Some(0));
}

/// While a command runs the terminal is not the editor's: it takes ctrl-d for the end of a file, and hands on
/// a NUL once it is the editor's again.
#[test]
fn ctrl_d_typed_ahead_ends_the_prompt() {
    let server = Server::start([]);
    let (mut terminal, _home) = terminal(&server, &[]);
    terminal.press("set(a,1)\r");
    terminal.until("set(a,1) -> 1");
    terminal.until(PROMPT);
    terminal.press("\0");
    assert_eq!(terminal.exit_status(), Some(0));
}

#[test]
fn news_of_the_connection_stands_above_the_line_that_is_typed() {
    let server = Server::start([Fault::None, Fault::DropAfter]);
    let (mut terminal, _home) = terminal(&server, &[]);
    terminal.press("set(a,1)\r");
    terminal.until("set(a,1) -> 1");
    terminal.press("testset(a,1,2)\r");
    terminal.until("connection lost: ");
    // Applied before the connection broke, and not again after it.
    terminal.until("testset(a,1,2) -> 2 [set]");
    terminal.press("get(");
    terminal.until("get(");
    server.break_connections();
    terminal.until("connection lost: ");
    terminal.until("connected again");
    terminal.press("a)\r");
    terminal.until("get(a) -> 2");
    terminal.press("\x04");
    assert_eq!(terminal.exit_status(), Some(0));
}

#[test]
fn ctrl_c_gives_up_a_line_and_then_the_prompt() {
    let server = Server::start([]);
    let (mut terminal, _home) = terminal(&server, &[]);
    terminal.press("set(a,1)");
    terminal.until("set(a,1)");
    terminal.press("\x03");
    terminal.until(PROMPT);
    terminal.press("\x03");
    assert_eq!(terminal.exit_status(), Some(0));
    assert_eq!(server.value("a"), None);
}

#[test]
fn colors_only_where_they_are_wanted() {
    let server = Server::start([]);
    let shown = |settings: &[(&str, &str)]| {
        let (mut terminal, _home) = terminal(&server, settings);
        terminal.press("nonsense\rexit\r");
        let shown = terminal.until("nonsense") + &terminal.until("exit");
        assert_eq!(terminal.exit_status(), Some(0));
        shown
    };
    assert!(shown(&[]).contains("\x1b[31m"));
    let plain = shown(&[("NO_COLOR", "1")]);
    assert!(
        !plain.contains("\x1b[31m") && !plain.contains("\x1b[2m"),
        "{plain:?}"
    );
}

#[test]
fn a_dumb_terminal_works_too() {
    let server = Server::start([]);
    let home = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::start(&server, &home, &[("TERM", "dumb")]);
    terminal.until(PROMPT);
    terminal.press("set(a,1)\n");
    terminal.until("set(a,1) -> 1");
    terminal.press("exit\n");
    assert_eq!(terminal.exit_status(), Some(0));
}
