//! `cargo xtask net`: many seeds, or one with what happened in it.

use anyhow::{Result, bail};
use clap::Parser;
use kvservice_net::hunt::{DONE, Hunt, Totals, hunt, words};
use kvservice_net::run::{Traced, run, watch_panics};
use kvservice_net::scenario::{NAMED, RANDOM};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Lines of trace that a failure prints.
const TRACE_LINES: usize = 100;

/// Runs what ships, sockets and all, over a simulated network with faults that a seed decides
#[derive(Parser)]
#[command(name = "cargo xtask net")]
struct Args {
    /// Run this seed alone, and print what happened
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// How many seeds to run
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// This scenario, whatever the seed stands for: `random`, or one of the named ones
    #[arg(long, value_name = "NAME", value_parser = names())]
    scenario: Option<String>,
    /// Runs at once [default: one for each core]
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
    /// Go on after a failure
    #[arg(long)]
    keep_going: bool,
    /// Of a single seed: write the clients' history here, as JSON lines
    #[arg(long, value_name = "FILE", requires = "seed")]
    history: Option<PathBuf>,
    /// Of a single seed: what the servers log, from this level on
    #[arg(long, value_name = "LEVEL", requires = "seed", default_value = "off")]
    log: LevelFilter,
}

fn names() -> Vec<&'static str> {
    let named = NAMED.iter().map(|(name, _)| *name);
    named.chain([RANDOM]).collect()
}

/// Simulated seconds.
struct Simulated;

impl FormatTime for Simulated {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        write!(w, "{:9.3}", elapsed.as_secs_f64())
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let ran = match args.seed {
        Some(seed) => one(&args, seed),
        None => many(&args),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn one(args: &Args, seed: u64) -> Result<()> {
    watch_panics();
    tracing_subscriber::fmt()
        .with_max_level(args.log)
        .with_timer(Simulated)
        .with_writer(std::io::stderr)
        .init();
    let mut traced = Traced::default();
    let say = args.log != LevelFilter::OFF;
    let verdict = run(seed, args.scenario.as_deref(), say, &mut traced);
    if !say {
        let skip = traced.trace.len().saturating_sub(TRACE_LINES);
        for line in &traced.trace[skip..] {
            println!("{line}");
        }
    }
    if let Some(path) = &args.history {
        let lines = traced.history.iter().map(|call| call.to_line() + "\n");
        std::fs::write(path, lines.collect::<String>())?;
    }
    match verdict {
        Ok(done) => {
            println!("{DONE}{}", serde_json::to_string(&done)?);
            Ok(())
        }
        Err(what) => bail!("seed {seed}: {what}"),
    }
}

fn many(args: &Args) -> Result<()> {
    let started = Instant::now();
    let jobs = args
        .jobs
        .or_else(|| std::thread::available_parallelism().ok());
    let plan = Hunt {
        first: args.first,
        seeds: args.seeds,
        jobs: jobs.map_or(1, NonZero::get),
        scenario: args.scenario.clone(),
        keep_going: args.keep_going,
    };
    let totals = hunt(&plan)?;
    print_totals(&totals, started);
    let Some((seed, said)) = totals.failed.first_key_value() else {
        return Ok(());
    };
    let words = words(*seed, args.scenario.as_deref()).join(" ");
    let seeds: Vec<_> = totals.failed.keys().map(u64::to_string).collect();
    bail!(
        "{said}\nfailed: {}\nTo see it again, with what the servers log:\n  cargo xtask net {words} --log info",
        seeds.join(", ")
    );
}

fn print_totals(totals: &Totals, started: Instant) {
    let took = started.elapsed().as_secs_f64();
    let hours = totals.simulated_ms as f64 / 3_600_000.0;
    println!(
        "{} seeds in {took:.1} s: {hours:.2} hours simulated",
        totals.seeds
    );
    println!(
        "{} calls, {} writes acknowledged, {} of unknown outcome, {} refused; {} whole dumps",
        totals.calls, totals.writes, totals.unknown, totals.refused, totals.dumps
    );
    let (heal_ms, seed) = totals.longest_heal;
    println!("the longest time to heal: {heal_ms} ms, seed {seed}");
    if totals.abandoned > 0 {
        println!(
            "{} runs ended with all data gone, which nodes in memory may",
            totals.abandoned
        );
    }
    println!(
        "faults: {}, and {} that could not be",
        totals.faults.values().sum::<u64>(),
        totals.skipped
    );
    for (fault, times) in &totals.faults {
        println!("  {fault:<28}{times:>8}");
    }
    println!("scenarios:");
    for (scenario, times) in &totals.scenarios {
        println!("  {scenario:<28}{times:>8}");
    }
}
