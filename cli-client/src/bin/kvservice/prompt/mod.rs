//! The prompt: a line editor on its own thread, requests and connection news on the main one.

mod editor;
mod helper;
mod history;
mod news;

use crate::output::{Exit, Failure, Style};
use crate::pipe::{next_page, unmarked};
use editor::{Editor, Input};
use kvservice_client::{Client, Config, Connection, Error, Op, Reply, ServerAddress};
use kvservice_shared::command::{Command, HELP, ParseError, render};
use kvservice_shared::limits::LIST_ENTRIES_MAX;
use news::News;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::sync::watch;

/// What stands before the line that is edited.
const PROMPT: &str = "kvservice> ";
/// How long the first prompt waits for word of the connection, so that the greeting stands above
/// it.
const GREETING_WAIT: Duration = Duration::from_millis(700);

pub async fn run(server: &ServerAddress, config: Config) -> Result<Exit, Failure> {
    let style = Style::for_stdout();
    let client = Client::start(config);
    let mut state = client.watch();
    let mut news = News::new(server.clone());
    // Later news goes above the line that is edited; until there is one, it is printed here.
    let _ = tokio::time::timeout(GREETING_WAIT, async {
        while !news.has_spoken() && state.changed().await.is_ok() {
            tell(&mut news, &mut state, style, &mut |line| print_line(&line));
        }
    })
    .await;

    let mut editor = Editor::start(style).map_err(Failure::Usage)?;
    let printer = editor.printer();
    let told = tokio::spawn(async move {
        while state.changed().await.is_ok() {
            tell(&mut news, &mut state, style, &mut |line| {
                printer.print(line)
            });
        }
    });
    let prompt = Prompt {
        client: client.clone(),
        style,
    };
    let result = prompt.run(&mut editor).await;
    told.abort();
    client.close().await;
    result?;
    Ok(Exit::Success)
}

fn tell(
    news: &mut News,
    state: &mut watch::Receiver<Connection>,
    style: Style,
    print: &mut dyn FnMut(String),
) {
    let connection = state.borrow_and_update().clone();
    if let Some(line) = news.on(&connection, tokio::time::Instant::now()) {
        print(if connection.is_live() {
            style.dim(&line)
        } else {
            style.news(&line)
        });
    }
}

/// Standard output that cannot be written is noticed by the editor, which ends then.
fn print_line(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

struct Prompt {
    client: Client,
    style: Style,
}

impl Prompt {
    async fn run(&self, editor: &mut Editor) -> Result<(), Failure> {
        loop {
            match editor.next_line(PROMPT).await {
                // What was pasted at once may be several lines.
                Input::Line(text) => {
                    for line in text.lines().filter(|line| !line.trim().is_empty()) {
                        if self.line(line).await?.is_break() {
                            return Ok(());
                        }
                    }
                }
                Input::Discarded => {}
                Input::End => return Ok(()),
                Input::Broken(reason) => return Err(Failure::Usage(reason)),
            }
        }
    }

    async fn line(&self, line: &str) -> Result<ControlFlow<()>, Failure> {
        match Command::parse(line) {
            Ok(Command::Exit) => return Ok(ControlFlow::Break(())),
            Ok(Command::Help) => writeln!(io::stdout().lock(), "{HELP}")?,
            Ok(command) => self.carry_out(&command).await?,
            Err(error) => self.point_at(line, &error)?,
        }
        Ok(ControlFlow::Continue(()))
    }

    /// ctrl-c ends the waiting, not the program. What was sent stays sent.
    async fn carry_out(&self, command: &Command) -> Result<(), Failure> {
        let interrupted = tokio::select! {
            biased;
            signal = tokio::signal::ctrl_c() => signal.is_ok(),
            printed = self.answer(command) => {
                printed?;
                false
            }
        };
        if interrupted {
            let is_write = command.to_op().is_some_and(|op| op.kind().is_write());
            let rest = if is_write {
                "; it may have been written"
            } else {
                ""
            };
            self.complain(&format!("interrupted before the answer came{rest}"))?;
        }
        Ok(())
    }

    async fn answer(&self, command: &Command) -> Result<(), Failure> {
        if let Command::List { prefix } = command {
            return self.list(command, prefix).await;
        }
        if let Some(op) = command.to_op() {
            self.print(command, self.client.call(op).await)?;
        }
        Ok(())
    }

    fn print(&self, command: &Command, answer: Result<Reply, Error>) -> Result<(), Failure> {
        match answer {
            Ok(reply) => writeln!(io::stdout().lock(), "{}", render(command, &Ok(reply)))?,
            Err(Error::Api(error)) => self.complain(&render(command, &Err(error)))?,
            Err(error) => self.complain(&error.to_string())?,
        }
        Ok(())
    }

    fn complain(&self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(io::stdout().lock(), "{}", self.style.error(text))?)
    }

    /// All pages, each printed as it comes.
    async fn list(&self, command: &Command, prefix: &str) -> Result<(), Failure> {
        let mut after = String::new();
        loop {
            let first = after.is_empty();
            let op = Op::List {
                prefix: prefix.to_owned(),
                after,
                limit: LIST_ENTRIES_MAX,
            };
            let answer = match self.client.call(op).await {
                Ok(reply) => Ok(reply),
                Err(Error::Api(error)) => Err(error),
                Err(error) => return self.complain(&error.to_string()),
            };
            let next = next_page(&answer);
            let empty = matches!(&answer, Ok(Reply::List { entries, .. }) if entries.is_empty());
            if first || !empty {
                self.print(command, unmarked(answer).map_err(Error::Api))?;
            }
            match next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }

    /// A caret under the character at fault, where the line is short enough to have stayed on one
    /// row.
    fn point_at(&self, line: &str, error: &ParseError) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let column = PROMPT.len() + error.at;
        let plain = line.is_ascii() && PROMPT.len() + line.len() < terminal_columns();
        let text = if plain {
            format!("{}^ {}", " ".repeat(column), error.message)
        } else {
            error.to_string()
        };
        Ok(writeln!(out, "{}", self.style.error(&text))?)
    }
}

/// Columns that every terminal has; the shell's variable says if there are more.
fn terminal_columns() -> usize {
    std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok())
        .unwrap_or(80)
}
