//! One command from the shell's command line: `kvservice get KEY` and its siblings.

use crate::args::{Command, Output, TestSet};
use crate::output::{Exit, Failure, Style, to_stderr};
use crate::pipe::next_page;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use kvservice_client::{
    Client, Config, Connection, Error, ListEntry, Op, Reader, Reply, Response, Value,
};
use kvservice_shared::command;
use kvservice_shared::limits::{LIST_ENTRIES_MAX, VALUE_BYTES_MAX};
use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use tokio::sync::watch;

pub async fn run(config: Config, command: Command, output: Output) -> Result<Exit, Failure> {
    match command {
        Command::Get { key } => {
            let response = read(config, Op::Get { key }).await?;
            finish(&response, output, |reply, out| match reply {
                Reply::Get {
                    value: Some(value), ..
                } => {
                    print_value(value, out)?;
                    Ok(Exit::Success)
                }
                _ => Ok(Exit::No),
            })
        }
        Command::Set { key, value } => {
            let value = value_of(value)?;
            let response = write(config, Op::Set { key, value }).await?;
            finish(&response, output, |_, out| {
                writeln!(out, "OK")?;
                Ok(Exit::Success)
            })
        }
        Command::Testset(args) => {
            let op = test_set(args)?;
            let response = write(config, op).await?;
            finish(&response, output, |reply, out| match reply {
                Reply::TestSet { swapped: true, .. } => {
                    writeln!(out, "OK")?;
                    Ok(Exit::Success)
                }
                Reply::TestSet {
                    value: Some(found), ..
                } => {
                    print_value(found, out)?;
                    Ok(Exit::No)
                }
                _ => Ok(Exit::No),
            })
        }
        Command::Delete { key } => {
            let response = write(config, Op::Delete { key }).await?;
            finish(&response, output, |reply, out| match reply {
                Reply::Delete { deleted: true, .. } => {
                    writeln!(out, "deleted")?;
                    Ok(Exit::Success)
                }
                _ => Ok(Exit::No),
            })
        }
        Command::List { prefix } => list(config, prefix, output).await,
        Command::Status => {
            let response = read(config, Op::Status).await?;
            finish(&response, output, |reply, out| {
                let answer = Ok(reply.clone());
                writeln!(
                    out,
                    "{}",
                    command::render(&command::Command::Status, &answer)
                )?;
                Ok(Exit::Success)
            })
        }
        Command::Bench(_)
        | Command::Dump { .. }
        | Command::Restore(_)
        | Command::Completions { .. } => {
            Err(Failure::Usage("this command has its own way".to_owned()))
        }
    }
}

/// Prints a response: as JSON whatever it is, or as the command prints its reply.
fn finish(
    response: &Response,
    output: Output,
    print: impl FnOnce(&Reply, &mut dyn Write) -> io::Result<Exit>,
) -> Result<Exit, Failure> {
    let mut out = io::stdout().lock();
    let exit = match (output, &response.result) {
        (Output::Json, result) => {
            writeln!(out, "{}", response.to_json())?;
            match result {
                // The exit status is the same; what would be printed is not wanted.
                Ok(reply) => print(reply, &mut io::sink())?,
                Err(_) => Exit::Error,
            }
        }
        (Output::Text, Ok(reply)) => {
            let exit = print(reply, &mut out)?;
            // Standard output stays empty, which on a terminal is said beside it.
            if says_nothing(reply) && out.is_terminal() {
                to_stderr(&Style::for_stderr().dim("(none)"));
            }
            exit
        }
        (Output::Text, Err(error)) => return Err(Error::Api(error.clone()).into()),
    };
    out.flush()?;
    Ok(exit)
}

/// Whether a command prints nothing for the reply, because there is nothing.
fn says_nothing(reply: &Reply) -> bool {
    match reply {
        Reply::Get { value, .. } => value.is_none(),
        Reply::TestSet { swapped, value, .. } => !swapped && value.is_none(),
        Reply::Delete { deleted, .. } => !deleted,
        _ => false,
    }
}

/// A read needs no session.
async fn read(config: Config, op: Op) -> Result<Response, Failure> {
    let mut reader = Reader::connect(config).await?;
    let response = reader.ask(op).await;
    reader.close().await;
    Ok(response?)
}

/// A write goes under a session, so that it is applied once even if the connection breaks under it.
/// A server that cannot be reached at all, or takes no session, is an error at once.
async fn write(config: Config, op: Op) -> Result<Response, Failure> {
    let client = Client::start(config);
    let mut state = client.watch();
    let call = client.submit(op).await?;
    let response = tokio::select! {
        biased;
        failure = first_failure(&mut state) => return Err(failure.into()),
        response = call => response?,
    };
    client.close().await;
    Ok(response)
}

/// Why the first connection came to nothing; never, once it stands.
pub async fn first_failure(state: &mut watch::Receiver<Connection>) -> Error {
    loop {
        match &*state.borrow_and_update() {
            Connection::Live { .. } => break,
            Connection::Waiting { reason, .. } => return Error::Connect(reason.clone()),
            Connection::Greeting {
                refusal: Some(error),
            } => return Error::Api(error.clone()),
            _ => {}
        }
        if state.changed().await.is_err() {
            return Error::Closed;
        }
    }
    std::future::pending().await
}

async fn list(config: Config, prefix: String, output: Output) -> Result<Exit, Failure> {
    let mut reader = Reader::connect(config).await?;
    let mut after = String::new();
    loop {
        let op = Op::List {
            prefix: prefix.clone(),
            after,
            limit: LIST_ENTRIES_MAX,
        };
        let response = reader.ask(op).await?;
        let exit = finish(&response, output, |reply, out| {
            if let Reply::List { entries, .. } = reply {
                print_entries(entries, out)?;
            }
            Ok(Exit::Success)
        })?;
        match next_page(&response.result) {
            Some(next) => after = next,
            None => {
                reader.close().await;
                return Ok(exit);
            }
        }
    }
}

fn print_value(value: &Value, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&value.0)?;
    out.write_all(b"\n")
}

/// A line each: key, tab, value. What would break the line or steer the terminal is quoted as JSON,
/// and what is not UTF-8 is `base64:…`, as at the prompt.
fn print_entries(entries: &[ListEntry], out: &mut dyn Write) -> io::Result<()> {
    let mut lines = String::new();
    for entry in entries {
        lines += &on_one_line(&entry.key);
        lines.push('\t');
        match entry.value.as_str() {
            Some(text) => lines += &on_one_line(text),
            None => {
                lines += "base64:";
                BASE64.encode_string(&entry.value.0, &mut lines);
            }
        }
        lines.push('\n');
    }
    out.write_all(lines.as_bytes())
}

fn on_one_line(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        Cow::Owned(serde_json::Value::from(text).to_string())
    } else {
        Cow::Borrowed(text)
    }
}

fn test_set(args: TestSet) -> Result<Op, Failure> {
    let TestSet {
        key,
        absent,
        first,
        second,
    } = args;
    let usage = |problem: &str| {
        Failure::Usage(format!(
            "{problem}\n  usage: kvservice testset KEY TEST VALUE\n         \
             kvservice testset KEY --absent VALUE"
        ))
    };
    let (test, value) = match (absent, second) {
        (false, Some(value)) => (Some(argument_bytes(first)), value),
        (true, None) => (None, first),
        (true, Some(_)) => return Err(usage("with --absent there is no TEST")),
        (false, None) => return Err(usage("TEST or --absent is missing")),
    };
    Ok(Op::TestSet {
        key,
        test,
        value: value_of(value)?,
    })
}

/// A VALUE argument: itself, or all of standard input for `-`.
fn value_of(argument: OsString) -> Result<Value, Failure> {
    if argument != "-" {
        return Ok(argument_bytes(argument));
    }
    let mut bytes = Vec::new();
    // One byte more than is allowed is enough to see that it is too long.
    io::stdin()
        .lock()
        .take(VALUE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Usage(format!("cannot read standard input: {error}")))?;
    if bytes.len() > VALUE_BYTES_MAX {
        return Err(Failure::Usage(format!(
            "standard input is longer than a value may be ({VALUE_BYTES_MAX} bytes)"
        )));
    }
    Ok(Value::from(bytes))
}

#[cfg(unix)]
fn argument_bytes(argument: OsString) -> Value {
    use std::os::unix::ffi::OsStringExt;
    Value::from(argument.into_vec())
}

#[cfg(not(unix))]
fn argument_bytes(argument: OsString) -> Value {
    Value::from(argument.to_string_lossy().into_owned())
}
