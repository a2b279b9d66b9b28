//! The same load on kvservice, Redis, etcd and a bare WebSocket hop, in turn, on one machine.
//!
//! `cargo xtask bench` builds and runs this; docs/benchmarks.md says what is measured and how. Each system is started
//! here, from its own program, and driven in its own protocol by the same loops ([`load`]) over the same keys
//! ([`work`]). [`plan`] says what is measured, [`measure`] takes the systems in turn, [`failover`] harms them,
//! [`report`] writes it all down.

mod cli;
mod failover;
mod interrupt;
mod load;
mod machine;
mod measure;
mod options;
mod plan;
mod process;
mod procfs;
mod quiet;
mod report;
mod stats;
mod systems;
mod wire;
mod work;

use crate::cli::{Command, Options};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match &options.command {
        Some(Command::Hop { listen }) => systems::hop::serve(*listen),
        None => run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    options.check()?;
    interrupt::catch()?;
    let mut report = report::Report::new(options);
    // What was measured until something failed is worth keeping.
    let result = measure::run(options, &mut report);
    report.finish(options)?;
    result
}
