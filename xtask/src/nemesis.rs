//! Real processes under faults of all kinds, at random: builds what that needs, and runs it.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::interrupt;
use crate::run::{Line, Runner};
use crate::workspace::{Profile, Workspace};

/// How long, with which dice, and on how much.
#[derive(clap::Args)]
#[command(after_help = "\
Starts a chain on this machine, each process behind a proxy, and clients that write, read, count and list. Processes
are killed, stopped and told to leave, disks are lost and filled, links are cut, stalled and black-holed, several
at once; now and then all of it is undone, and the chain must be whole again by itself. At the end everything that
the clients were told is checked: could a linearizable store have answered so?

It prints what it does, with seconds since the start. The exit status is 1 where anything was wrong; then the logs,
the data and the schedule are kept, and named. Ctrl-c ends it early, with the verdict on what was.
docs/testing-nemesis.md tells more, and describes the history's file.")]
pub struct Options {
    /// For how long; 0.5 is half a minute
    #[arg(long, value_name = "M", default_value_t = 1.0, value_parser = minutes)]
    minutes: f64,
    /// The same dice again [default: another each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Back-ends
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(2..=9))]
    nodes: u16,
    /// Clients: of four, two wait as long as it takes, one gives up after 5 s, and one has no session
    #[arg(long, value_name = "C", default_value_t = 12)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=100))]
    clients: u16,
    /// Calls in a second, of all clients, while all is well
    #[arg(long, value_name = "CALLS", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Where the history goes, as JSON lines [default: in target/nemesis, in the run's own directory]
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

impl Options {
    /// A short run, as a part of the tests.
    pub fn short() -> Self {
        Self {
            minutes: 1.0,
            seed: None,
            nodes: 3,
            clients: 12,
            rate: 1000,
            history: None,
        }
    }
}

/// Runs it.
///
/// # Errors
/// If anything cannot be built, or anything was wrong.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = since.map_or(0, |since| since.as_secs());
    let seed = options.seed.unwrap_or(now);
    let dir = workspace.target.join(format!("nemesis/{now}-seed-{seed}"));
    let build = "build --package kvservice-server --package kvservice-backend --package kvservice-tests --bins";
    Runner::Foreground.run(&Line::new("cargo").words(build).dir(&workspace.root))?;
    // Interrupted, it ends by itself, with its verdict.
    interrupt::count()?;
    let mut line = Line::new(workspace.bin(Profile::Debug, "nemesis"))
        .env("KVSERVICE_BIN_DIR", workspace.bin_dir(Profile::Debug))
        .words(&format!("--minutes {} --seed {seed}", options.minutes))
        .words(&format!(
            "--nodes {} --clients {}",
            options.nodes, options.clients
        ))
        .words(&format!("--rate {} --dir", options.rate))
        .arg(dir);
    if let Some(history) = &options.history {
        line = line.arg("--history").arg(history);
    }
    Runner::Foreground.run(&line)
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "a number, please".to_owned())?;
    match minutes {
        0.01..=10_000.0 => Ok(minutes),
        _ => Err("between 0.01 and 10000, please".to_owned()),
    }
}
