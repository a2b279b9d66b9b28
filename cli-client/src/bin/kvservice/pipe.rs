//! The prompt's commands from a pipe: a line each, answers in the order of the lines.
//!
//! Lines are sent ahead of the answers to those before them, up to a window. That is safe because
//! the server keeps the order of one connection's requests, with one exception: after a failover
//! unanswered requests are sent again, and a read might then see a write that stands after it. So a
//! write waits here until the reads of its key before it are answered.

use crate::args::Output;
use crate::oneshot::first_failure;
use crate::output::{Exit, Failure, Style, to_stderr};
use kvservice_client::{ApiError, Call, Client, Config, Error, Op, Reply, Response};
use kvservice_shared::command::{Command, HELP, render};
use kvservice_shared::limits::{LIST_ENTRIES_MAX, VALUE_BYTES_MAX};
use std::collections::VecDeque;
use std::io::{self, BufRead, BufWriter, Read, Stdout, Write};
use tokio::sync::mpsc;

/// Requests under way at once.
const WINDOW_REQUESTS: usize = 256;
/// Bytes of lines whose requests are under way at once; passed by at most one line.
const WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// Longest line, in bytes: the longest command, all of it in escapes.
const LINE_BYTES_MAX: usize = 6 * 2 * VALUE_BYTES_MAX + 64 * 1024;
/// Lines read ahead of the requests.
const LINES_AHEAD: usize = 64;

pub async fn run(config: Config, output: Output) -> Result<Exit, Failure> {
    let client = Client::start(config);
    let mut state = client.watch();
    let session = Session {
        client: client.clone(),
        output,
        style: Style::for_stderr(),
        out: BufWriter::new(io::stdout()),
        pending: VecDeque::new(),
        pending_bytes: 0,
        failed: false,
    };
    let exit = tokio::select! {
        biased;
        // Where there was never a connection, no line will do better.
        failure = first_failure(&mut state) => return Err(failure.into()),
        exit = session.run(read_lines()) => exit?,
    };
    client.close().await;
    Ok(exit)
}

/// One line of input, or why it is none.
type Line = Result<String, String>;

/// Reads standard input on a thread of its own: it blocks.
fn read_lines() -> mpsc::Receiver<Line> {
    let (lines, receiver) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        // The receiver is gone after `exit`.
        while let Some(line) = next_line(&mut input) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The next line without its end; `None` at the end of the input. However long a line is, it takes
/// no more memory than the longest that makes sense.
fn next_line(input: &mut impl BufRead) -> Option<Line> {
    let mut bytes = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    match input.by_ref().take(limit).read_until(b'\n', &mut bytes) {
        Ok(0) => return None,
        Ok(_) => {}
        Err(error) => return Some(Err(format!("cannot read it: {error}"))),
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    } else if bytes.len() > LINE_BYTES_MAX {
        // If the rest cannot be read, the next call says so.
        let _ = input.skip_until(b'\n');
        return Some(Err(format!(
            "the line is longer than {LINE_BYTES_MAX} bytes"
        )));
    }
    Some(String::from_utf8(bytes).map_err(|_| "the line is not UTF-8".to_owned()))
}

/// A line that is not finished.
struct Pending {
    number: u64,
    bytes: usize,
    what: What,
}

enum What {
    /// A request under way.
    Asked { command: Command, call: Call },
    /// `help`.
    Help,
    /// A line that does not parse, or whose request is refused before it is sent.
    Failed(String),
}

struct Session {
    client: Client,
    output: Output,
    style: Style,
    out: BufWriter<Stdout>,
    /// In the order of the lines.
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    failed: bool,
}

impl Session {
    async fn run(mut self, mut lines: mpsc::Receiver<Line>) -> Result<Exit, Failure> {
        let mut number = 0;
        loop {
            let full = self.pending.len() >= WINDOW_REQUESTS || self.pending_bytes >= WINDOW_BYTES;
            tokio::select! {
                line = lines.recv(), if !full => {
                    let Some(line) = line else { break };
                    number += 1;
                    if self.take(number, line).await?.is_exit() {
                        break;
                    }
                }
                // Answers are printed as they come, also while the next line is awaited.
                answer = front(&mut self.pending), if !self.pending.is_empty() => {
                    self.finish(answer)?;
                }
            }
        }
        self.drain().await?;
        Ok(if self.failed {
            Exit::Error
        } else {
            Exit::Success
        })
    }

    async fn take(&mut self, number: u64, line: Line) -> Result<Next, Failure> {
        let line = match line {
            Ok(line) if line.trim().is_empty() => return Ok(Next::GoOn),
            Ok(line) => line,
            Err(reason) => {
                self.push(number, 0, What::Failed(reason));
                return Ok(Next::GoOn);
            }
        };
        let bytes = line.len();
        let command = match Command::parse(&line) {
            Ok(Command::Exit) => return Ok(Next::Exit),
            Ok(Command::Help) => {
                self.push(number, bytes, What::Help);
                return Ok(Next::GoOn);
            }
            Ok(command) => command,
            Err(error) => {
                self.push(number, bytes, What::Failed(error.to_string()));
                return Ok(Next::GoOn);
            }
        };
        if let Command::List { prefix } = &command {
            self.drain().await?;
            self.list(number, &command, prefix).await?;
            return Ok(Next::GoOn);
        }
        if let Some(key) = written_key(&command) {
            while self.pending.iter().any(|pending| pending.reads(key)) {
                let answer = front(&mut self.pending).await;
                self.finish(answer)?;
            }
        }
        if let Some(op) = command.to_op() {
            let what = match self.client.submit(op).await {
                Ok(call) => What::Asked { command, call },
                Err(error) => What::Failed(error.to_string()),
            };
            self.push(number, bytes, what);
        }
        Ok(Next::GoOn)
    }

    fn push(&mut self, number: u64, bytes: usize, what: What) {
        self.pending_bytes += bytes;
        self.pending.push_back(Pending {
            number,
            bytes,
            what,
        });
    }

    async fn drain(&mut self) -> Result<(), Failure> {
        while !self.pending.is_empty() {
            let answer = front(&mut self.pending).await;
            self.finish(answer)?;
        }
        Ok(())
    }

    /// Prints the first of the pending lines, now that its answer is here.
    fn finish(&mut self, answer: Option<Result<Response, Error>>) -> Result<(), Failure> {
        let Some(Pending {
            number,
            bytes,
            what,
        }) = self.pending.pop_front()
        else {
            return Ok(());
        };
        self.pending_bytes -= bytes;
        match (what, answer) {
            (What::Help, _) => writeln!(self.out, "{HELP}")?,
            (What::Failed(reason), _) => self.fail(number, &reason)?,
            (What::Asked { command, .. }, Some(Ok(response))) => {
                self.print(number, &command, &response)?;
            }
            (What::Asked { .. }, Some(Err(error))) => self.fail(number, &error.to_string())?,
            (What::Asked { .. }, None) => self.fail(number, &Error::Closed.to_string())?,
        }
        // What is here at once is written at once; whoever waits for an answer sees it.
        let next_is_here = match self.pending.front_mut() {
            Some(Pending {
                what: What::Asked { call, .. },
                ..
            }) => call.is_ready(),
            Some(_) => true,
            None => false,
        };
        if !next_is_here {
            self.out.flush()?;
        }
        Ok(())
    }

    fn print(
        &mut self,
        number: u64,
        command: &Command,
        response: &Response,
    ) -> Result<(), Failure> {
        match (self.output, &response.result) {
            (Output::Json, result) => {
                writeln!(self.out, "{}", response.to_json())?;
                self.failed |= result.is_err();
                Ok(())
            }
            (Output::Text, Ok(_)) => {
                Ok(writeln!(self.out, "{}", render(command, &response.result))?)
            }
            (Output::Text, Err(_)) => self.fail(number, &render(command, &response.result)),
        }
    }

    fn fail(&mut self, number: u64, reason: &str) -> Result<(), Failure> {
        // On a terminal that shows both, in the order of the lines.
        self.out.flush()?;
        to_stderr(&format!(
            "{} {reason}",
            self.style.error(&format!("line {number}:"))
        ));
        self.failed = true;
        Ok(())
    }

    /// All pages, each printed as it comes.
    async fn list(&mut self, number: u64, command: &Command, prefix: &str) -> Result<(), Failure> {
        let mut after = String::new();
        loop {
            let first = after.is_empty();
            let op = Op::List {
                prefix: prefix.to_owned(),
                after,
                limit: LIST_ENTRIES_MAX,
            };
            let response = match self.client.submit(op).await {
                Ok(call) => call.await,
                Err(error) => Err(error),
            };
            let response = match response {
                Ok(response) => response,
                Err(error) => return self.fail(number, &error.to_string()),
            };
            let next = next_page(&response.result);
            let empty =
                matches!(&response.result, Ok(Reply::List { entries, .. }) if entries.is_empty());
            if self.output == Output::Json {
                self.print(number, command, &response)?;
            } else if first || !empty {
                let result = unmarked(response.result);
                self.print(
                    number,
                    command,
                    &Response {
                        id: response.id,
                        result,
                    },
                )?;
            }
            match next {
                Some(next) => after = next,
                None => return Ok(self.out.flush()?),
            }
        }
    }
}

/// The key to go on after, if there are more pages.
pub fn next_page(result: &Result<Reply, ApiError>) -> Option<String> {
    match result {
        Ok(Reply::List {
            entries,
            more: true,
        }) => entries.last().map(|entry| entry.key.clone()),
        _ => None,
    }
}

/// A page without the mark that more follows: for those who print them all.
pub fn unmarked(mut result: Result<Reply, ApiError>) -> Result<Reply, ApiError> {
    if let Ok(Reply::List { more, .. }) = &mut result {
        *more = false;
    }
    result
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    Exit,
}

impl Next {
    fn is_exit(self) -> bool {
        self == Next::Exit
    }
}

impl Pending {
    fn reads(&self, key: &str) -> bool {
        matches!(&self.what, What::Asked { command: Command::Get { key: read }, .. } if read == key)
    }
}

fn written_key(command: &Command) -> Option<&str> {
    match command {
        Command::Set { key, .. } | Command::TestSet { key, .. } | Command::Delete { key } => {
            Some(key)
        }
        _ => None,
    }
}

/// The answer to the first pending line; `None` where it awaits none. Dropping the future loses
/// nothing.
async fn front(pending: &mut VecDeque<Pending>) -> Option<Result<Response, Error>> {
    match pending.front_mut() {
        Some(Pending {
            what: What::Asked { call, .. },
            ..
        }) => Some(call.await),
        _ => None,
    }
}
