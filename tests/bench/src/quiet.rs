//! Waiting for the machine's host to leave it alone, and taking a disturbed turn again: within limits.

use crate::interrupt;
use crate::options::Run;
use crate::procfs::CpuTimes;
use anyhow::Result;
use std::thread;
use std::time::{Duration, Instant};

/// For so long all CPUs are kept busy to see how much of them is to be had.
const PROBE: Duration = Duration::from_millis(200);
/// So long nothing is asked of a host that was busy.
const PAUSE: Duration = Duration::from_secs(1);

/// How much longer is waited, in all.
#[derive(Debug)]
pub struct Patience {
    left: Duration,
    /// The share of the CPU that the host may take, from 0 to 1.
    steal_max: f64,
    /// When last looked at, the host took no more.
    quiet: bool,
    /// Spent on waiting.
    pub waited: Duration,
    /// Turns that were taken again.
    pub repeated: u32,
}

impl Patience {
    /// As much as was asked for.
    pub fn new(run: &Run) -> Patience {
        Patience {
            left: Duration::from_secs_f64(run.patience()),
            steal_max: run.steal_max / 100.0,
            quiet: true,
            waited: Duration::ZERO,
            repeated: 0,
        }
    }

    /// Whether so much is too much.
    pub fn disturbs(&self, steal: f64) -> bool {
        steal > self.steal_max
    }

    /// Waits for a quiet machine, if it was not quiet and there is patience left.
    ///
    /// # Errors
    /// We were told to stop, or the kernel does not say what the host takes.
    pub fn wait(&mut self) -> Result<()> {
        if self.quiet || self.left.is_zero() {
            return Ok(());
        }
        let started = Instant::now();
        while !self.quiet && started.elapsed() < self.left {
            interrupt::check()?;
            self.quiet = !self.disturbs(probe()?);
            if !self.quiet {
                thread::sleep(PAUSE);
            }
        }
        self.waited += started.elapsed();
        self.left = self.left.saturating_sub(started.elapsed());
        Ok(())
    }

    /// Hears how much was taken in a turn that took so long. Whether it is to be taken again.
    pub fn again(&mut self, steal: f64, took: Duration) -> bool {
        self.quiet = !self.disturbs(steal);
        if self.quiet || self.left.is_zero() {
            return false;
        }
        self.left = self.left.saturating_sub(took);
        self.repeated += 1;
        true
    }
}

/// The share that the host takes while every CPU is asked for, from 0 to 1: nothing can be taken of one that is idle.
fn probe() -> Result<f64> {
    let before = CpuTimes::now()?;
    let until = Instant::now() + PROBE;
    let busy = || while Instant::now() < until {};
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cpus {
            scope.spawn(busy);
        }
    });
    Ok(CpuTimes::now()?.steal_since(before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Options;
    use clap::Parser;

    fn patience(words: &str) -> Patience {
        Patience::new(&Options::parse_from(words.split(' ')).run)
    }

    #[test]
    fn a_disturbed_turn_is_taken_again_until_patience_ends() {
        let mut patience = patience("bench --patience 5 --steal-max 3");
        assert!(!patience.again(0.03, Duration::from_secs(2)));
        assert!(patience.again(0.04, Duration::from_secs(2)));
        assert!(patience.again(0.9, Duration::from_secs(4)));
        assert!(!patience.again(0.9, Duration::from_secs(2)));
        assert_eq!(patience.repeated, 2);
        // Nobody waits any more.
        patience.wait().unwrap();
        assert!(patience.waited < Duration::from_secs(1));
    }

    #[test]
    fn a_quiet_machine_is_not_waited_for() {
        let mut patience = patience("bench --patience 3600");
        patience.wait().unwrap();
        assert_eq!(patience.waited, Duration::ZERO);
    }
}
