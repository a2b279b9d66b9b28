//! Runs the nemesis (`kvservice_tests::nemesis`); `cargo xtask nemesis` builds what it needs, and calls it.

use clap::Parser;
use kvservice_tests::nemesis::{Options, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Faults of all kinds on real processes, and whether what clients were told can have been so
#[derive(Parser)]
struct Flags {
    /// For how long
    #[arg(long)]
    minutes: f64,
    /// Of all dice
    #[arg(long)]
    seed: u64,
    /// Back-ends
    #[arg(long)]
    nodes: usize,
    /// Clients
    #[arg(long)]
    clients: usize,
    /// Calls in a second
    #[arg(long)]
    rate: u64,
    /// Where everything goes: logs, data, the schedule, and the history unless it has a place of its own
    #[arg(long)]
    dir: PathBuf,
    /// Where the history goes
    #[arg(long)]
    history: Option<PathBuf>,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    fs::create_dir_all(&flags.dir).expect("the run's directory can be made");
    let history = flags.history.clone();
    let options = Options {
        lasts: Duration::from_secs_f64(flags.minutes * 60.0),
        seed: flags.seed,
        nodes: flags.nodes,
        clients: flags.clients,
        rate: flags.rate,
        history: history.unwrap_or_else(|| flags.dir.join("history.jsonl")),
        dir: flags.dir,
    };
    println!("seed {}; files in {}", options.seed, options.dir.display());
    // The processes are started on this thread, and end with it; its clients work on others.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let wrong = runtime.block_on(run(&options, interrupted()));
    println!("history: {}", options.history.display());
    if wrong.is_empty() {
        tidy(&options.dir);
        println!("seed {}: nothing was wrong", options.seed);
        return ExitCode::SUCCESS;
    }
    for what in &wrong {
        eprintln!("WRONG: {what}");
    }
    eprintln!(
        "seed {}: the logs, the data and the schedule are in {}",
        options.seed,
        options.dir.display()
    );
    ExitCode::FAILURE
}

async fn interrupted() {
    let signal = |kind| signal(kind).expect("signals can be heard");
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Keeps what tells of a good run: its history, its schedule and its logs. The data go.
fn tidy(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            // What cannot be removed stays.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
