//! `cargo xtask sim`: many seeds, one seed with its trace, or the canaries.

use anyhow::{Result, bail};
use clap::Parser;
use kvservice_sim::canaries;
use kvservice_sim::hunt::{Found, Totals, hunt, shortest};
use kvservice_sim::run::{Plan, Traced, run};
use std::io::{IsTerminal, Write};
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Many small pieces, in many threads, all day.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lines of trace that a failure prints.
const TRACE_LINES: usize = 200;

/// Runs the code that ships under faults that a seed decides
#[derive(Parser)]
#[command(name = "cargo xtask sim")]
struct Args {
    /// Run this seed alone, and print what happened
    #[arg(long, conflicts_with_all = ["seeds", "canaries"])]
    seed: Option<u64>,
    /// How many seeds to run
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Steps of ten milliseconds with faults, in each run
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// Nodes, at most
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// Clients
    #[arg(long, default_value_t = 10)]
    clients: u64,
    /// Runs at once [default: one for each core]
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
    /// Write the clients' history of a single seed, or of a failure, here: JSON lines
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Switch bugs on, one after the other, and see that each is found
    #[arg(long)]
    canaries: bool,
    /// With sessions that are evicted soon and forget soon
    #[arg(long)]
    small_limits: bool,
    /// Of the canaries, this one alone
    #[arg(long, value_name = "NAME", requires = "canaries")]
    canary: Option<String>,
}

fn main() -> ExitCode {
    // A run that panics failed; its words are in the verdict.
    if std::env::var_os("KVSERVICE_PANICS").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
    match try_main(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_main(args: &Args) -> Result<()> {
    if args.nodes == 0 || args.clients == 0 || args.nodes > 20 {
        bail!("a run needs 1 to 20 nodes, and at least one client");
    }
    if args.small_limits && !cfg!(feature = "small-limits") {
        bail!(
            "this simulator was built with the limits that ship: `cargo xtask sim --small-limits` builds another"
        );
    }
    let plan = Plan {
        seed: args.seed.unwrap_or(args.first),
        steps: args.steps,
        nodes: args.nodes,
        clients: args.clients,
    };
    if args.canaries {
        return canaries::hunt_all(plan, args.jobs, args.canary.as_deref());
    }
    if args.seed.is_some() {
        return one(args, plan);
    }
    let started = Instant::now();
    let progress = |totals: &Totals| {
        if std::io::stderr().is_terminal() && totals.seeds.is_multiple_of(10) {
            eprint!("\r{} of {} seeds ", totals.seeds, args.seeds);
        }
    };
    let (totals, found) = hunt(plan, args.seeds, args.jobs, &progress);
    if std::io::stderr().is_terminal() {
        eprint!("\r");
    }
    print_totals(&totals, started);
    match found {
        None => Ok(()),
        Some(found) => fail(args, &found),
    }
}

fn one(args: &Args, plan: Plan) -> Result<()> {
    let mut traced = Traced::default();
    let result = run(plan, Some(&mut traced));
    let mut out = std::io::stdout().lock();
    for line in &traced.trace {
        writeln!(out, "{line}")?;
    }
    write_history(args, &traced)?;
    match result {
        Ok(done) => {
            writeln!(out, "seed {}: {done:?}", plan.seed)?;
            Ok(())
        }
        Err(failure) => bail!("seed {}: {}", plan.seed, failure.what),
    }
}

fn fail(args: &Args, found: &Found) -> Result<()> {
    println!(
        "seed {} fails: {}\nlooking for the shortest run that does …",
        found.plan.seed, found.failure.what
    );
    std::io::stdout().flush()?;
    let (short, traced) = shortest(found);
    for line in &traced.trace[traced.trace.len().saturating_sub(TRACE_LINES)..] {
        println!("{line}");
    }
    write_history(args, &traced)?;
    let Plan {
        seed,
        steps,
        nodes,
        clients,
    } = short.plan;
    bail!(
        "seed {seed}, after {steps} steps with faults: {}\nTo see all of it:\n  cargo xtask sim --seed {seed} --steps {steps} \
         --nodes {nodes} --clients {clients}",
        short.failure.what
    );
}

fn write_history(args: &Args, traced: &Traced) -> Result<()> {
    let Some(path) = &args.history else {
        return Ok(());
    };
    let mut text = String::new();
    for call in &traced.history {
        text += &call.to_line();
        text.push('\n');
    }
    std::fs::write(path, text)?;
    Ok(())
}

fn print_totals(totals: &Totals, started: Instant) {
    let took = started.elapsed().as_secs_f64();
    let Totals {
        seeds,
        entries,
        answers,
        unknown,
        ms,
        abandoned,
        faults,
    } = totals;
    let hours = *ms as f64 / 3_600_000.0;
    println!("{seeds} seeds in {took:.1} s: {hours:.2} hours simulated");
    println!(
        "{answers} requests answered, {unknown} of unknown outcome, {entries} entries committed"
    );
    println!("{abandoned} runs ended with all data gone, which nodes in memory may");
    println!("faults: {}", faults.values().sum::<u64>());
    for (fault, times) in faults {
        println!("  {fault:<26}{times:>10}");
    }
}
