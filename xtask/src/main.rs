//! `cargo xtask`: the one entry point for working on kvservice.
//!
//! - `up` builds and runs a whole system on this machine, and opens a prompt on it
//! - `web` builds the page that the front-end serves
//! - `test` runs every check there is, as CI does
//! - `fuzz` feeds every decoder of bytes from outside what nobody would send
//! - `sim` runs the code that ships under a simulated network, disks and clock that a seed decides
//! - `net` runs all of it, sockets too, over a simulated network that a seed decides
//! - `coverage` says which lines of the state machines tests and seeds do not run
//! - `nemesis` runs real processes under faults of all kinds, for as long as one likes
//! - `instructions` counts what the hot paths cost, and compares it with what they did
//! - `bench` measures a system beside Redis, etcd and a bare WebSocket hop
//!
//! It talks to the rest of the project only as a user would: through cargo, the binaries and
//! their command lines. It depends on none of the project's crates, so it is there, and quick
//! to compile, before they are.

mod bench;
mod coverage;
mod example;
mod fuzz;
mod instructions;
mod interrupt;
mod nemesis;
mod net;
mod page;
mod run;
mod sim;
mod system;
mod test;
mod tools;
mod up;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::run::Runner;
use crate::workspace::Workspace;

/// Run, build and test kvservice.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build and run a whole system here: front-end, back-ends, page and prompt
    Up(up::Options),
    /// Build the page, precompress it and put it where the front-end looks for it
    Web,
    /// Run every check and every test; stops at the first that fails
    Test(test::Options),
    /// Fuzz the decoders, each for a while, and print what came of it; needs nightly Rust
    Fuzz(fuzz::Options),
    /// Simulate many seeds, or one: `cargo xtask sim --help` tells more
    Sim(sim::Options),
    /// Simulate the network under everything, sockets too: `cargo xtask net --help` tells more
    Net(net::Options),
    /// Which lines of the state machines tests, scripts and seeds do not run
    Coverage(coverage::Options),
    /// Harm real processes, disks and links at random, and check what clients were told meanwhile
    Nemesis(nemesis::Options),
    /// Count the instructions of the hot paths, and compare them with those that are kept
    Instructions(instructions::Options),
    /// Compare kvservice with Redis, etcd and a bare WebSocket hop on this machine
    Bench(Box<bench::Options>),
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Up(options) => up::run(&workspace, &options),
        Task::Web => page::build(&workspace, &Runner::Foreground).map(|sizes| print!("{sizes}")),
        Task::Test(options) => test::run(&workspace, &options),
        Task::Fuzz(options) => fuzz::run(&workspace, &options),
        Task::Sim(options) => sim::run(&workspace, &options),
        Task::Net(options) => net::run(&workspace, &options),
        Task::Coverage(options) => coverage::run(&workspace, &options),
        Task::Nemesis(options) => nemesis::run(&workspace, &options),
        Task::Instructions(options) => instructions::run(&workspace, &options),
        Task::Bench(_) => bench::run(&workspace),
    }
}
