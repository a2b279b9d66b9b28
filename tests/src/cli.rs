//! `kvservice`, run as a shell runs it.

use crate::PATIENCE;
use crate::process::binary;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The exit status; `None` where a signal ended it.
    pub status: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// Runs `kvservice` against the server at `address` with `input` on its standard input.
///
/// # Panics
/// Where it cannot be run, prints what is no text, or does not end.
#[must_use]
pub fn kvservice(address: SocketAddr, args: &[&str], input: &[u8]) -> Ran {
    let mut command = Command::new(binary("kvservice"));
    command
        .env("KVSERVICE_SERVER", address.to_string())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = child.id();
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // A program that does not read its input to the end is welcome to.
        thread::spawn(move || drop(stdin.write_all(&input)));
    }
    let (done, output) = mpsc::channel();
    thread::spawn(move || {
        // Nobody waits for it any more: the test has failed.
        let _ = done.send(child.wait_with_output());
    });
    let Ok(output) = output.recv_timeout(PATIENCE) else {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id is small"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        panic!("{command:?} does not end");
    };
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes| String::from_utf8(bytes).expect("text was asked for, and text is printed");
    Ran {
        status: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}
