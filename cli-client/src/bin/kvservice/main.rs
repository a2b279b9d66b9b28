//! `kvservice`: the prompt, the same commands from a pipe and from a shell, dumps, and the benchmark.
//!
//! This crate holds what a terminal needs; connections, sessions and retries are the library's,
//! and the prompt's grammar is `kvservice_shared::command`.

mod args;
mod bench;
mod dump;
mod oneshot;
mod output;
mod pipe;
mod prompt;
mod restore;

use args::{Cli, Command, Output};
use clap::{CommandFactory, Parser};
use kvservice_client::{Config, Error, ServerAddress};
use output::{Exit, Failure};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let server = cli.server.clone();
    // One thread drives everything: a terminal client has little to do, and the benchmark shares
    // its machine with the servers that it measures.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            return Exit::Error.into();
        }
    };
    let exit = match runtime.block_on(run(cli)) {
        Ok(exit) => exit,
        Err(failure) => report(&failure, &server),
    };
    // A thread that still reads standard input would be waited for otherwise.
    runtime.shutdown_background();
    exit.into()
}

async fn run(cli: Cli) -> Result<Exit, Failure> {
    let timeout = cli.timeout;
    let connect_timeout = timeout.min(Config::CONNECT_TIMEOUT);
    let config = Config::new(cli.server.clone())
        .request_timeout(timeout)
        .connect_timeout(connect_timeout);
    match cli.command {
        None if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() => {
            prompt::run(&cli.server, config).await
        }
        None => pipe::run(config, cli.output).await,
        Some(Command::Bench(mut bench)) => {
            bench.json |= cli.output == Output::Json;
            bench::run(&cli.server, timeout, &bench).await
        }
        Some(Command::Dump { file }) => {
            dump::run(&cli.server, connect_timeout, file.as_deref()).await
        }
        Some(Command::Restore(args)) => restore::run(config, &args).await,
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kvservice", &mut script);
            std::io::stdout().lock().write_all(&script)?;
            Ok(Exit::Success)
        }
        Some(command) => oneshot::run(config, command, cli.output).await,
    }
}

fn report(failure: &Failure, server: &ServerAddress) -> Exit {
    match failure {
        // Whoever read our output has seen enough: `kvservice list | head`.
        Failure::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Success,
        Failure::Output(error) => {
            complain(&format!("cannot write the output: {error}"));
            Exit::Error
        }
        Failure::Usage(message) => {
            complain(message);
            Exit::Error
        }
        Failure::Incomplete(message) => {
            complain(message);
            Exit::No
        }
        Failure::Request(Error::Connect(reason)) => {
            complain(&output::unreachable(server, reason));
            Exit::Error
        }
        Failure::Request(error) => {
            complain(&error.to_string());
            Exit::Error
        }
    }
}

fn complain(message: &str) {
    let style = output::Style::for_stderr();
    output::to_stderr(&format!("{} {message}", style.error("kvservice:")));
}
