//! Many seeds, each in a process of its own: some of what `tokio` draws depends on how much was drawn before, and a
//! panic ends one run alone.

use crate::run::Done;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A child's last line begins so where all was well.
pub const DONE: &str = "done: ";

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Totals {
    pub seeds: u64,
    pub simulated_ms: u64,
    pub calls: usize,
    pub writes: u64,
    pub unknown: u64,
    pub refused: u64,
    pub dumps: u64,
    pub abandoned: u64,
    pub skipped: u64,
    pub longest_heal: (u64, u64),
    pub faults: BTreeMap<String, u64>,
    pub scenarios: BTreeMap<String, u64>,
    /// Lowest first: the seed, and what its run said.
    pub failed: BTreeMap<u64, String>,
}

impl Totals {
    fn add(&mut self, seed: u64, done: Done) {
        self.seeds += 1;
        self.simulated_ms += done.simulated_ms;
        self.calls += done.calls;
        self.writes += done.writes;
        self.unknown += done.unknown;
        self.refused += done.refused;
        self.dumps += done.dumps;
        self.abandoned += u64::from(done.abandoned);
        self.skipped += done.skipped;
        self.longest_heal = self.longest_heal.max((done.healed_ms, seed));
        *self.scenarios.entry(done.scenario).or_default() += 1;
        for (fault, times) in done.faults {
            *self.faults.entry(fault).or_default() += times;
        }
    }
}

/// Which seeds, and how.
#[derive(Clone, Debug)]
pub struct Hunt {
    pub first: u64,
    pub seeds: u64,
    pub jobs: usize,
    pub scenario: Option<String>,
    /// Goes on after a failure.
    pub keep_going: bool,
}

/// The words for one seed.
pub fn words(seed: u64, scenario: Option<&str>) -> Vec<String> {
    let mut words = vec!["--seed".to_owned(), seed.to_string()];
    if let Some(scenario) = scenario {
        words.extend(["--scenario".to_owned(), scenario.to_owned()]);
    }
    words
}

/// Runs them.
///
/// # Errors
/// No process can be started.
pub fn hunt(hunt: &Hunt) -> Result<Totals> {
    let next = AtomicU64::new(hunt.first);
    let end = hunt.first + hunt.seeds;
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..hunt.jobs.max(1))
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= end {
                            return Ok(());
                        }
                        let told = one(seed, hunt.scenario.as_deref())?;
                        let mut totals = totals.lock().expect("no worker panics");
                        match told {
                            Ok(done) => totals.add(seed, done),
                            Err(said) => {
                                totals.failed.insert(seed, said);
                                if !hunt.keep_going {
                                    next.store(end, Ordering::Relaxed);
                                }
                            }
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().expect("no worker panics")?;
        }
        Ok::<(), anyhow::Error>(())
    })?;
    Ok(totals.into_inner().expect("no worker panics"))
}

/// One seed, in a process of its own: what it came to, or all that it said.
fn one(seed: u64, scenario: Option<&str>) -> Result<Result<Done, String>> {
    let me = std::env::current_exe().context("this program's own file")?;
    let output = Command::new(me)
        .args(words(seed, scenario))
        .stdin(Stdio::null())
        .output()
        .context("a process for a seed")?;
    let out = String::from_utf8_lossy(&output.stdout);
    let done = out
        .lines()
        .find_map(|line| line.strip_prefix(DONE))
        .and_then(|line| serde_json::from_str(line).ok());
    Ok(match done {
        Some(done) if output.status.success() => Ok(done),
        _ => Err(format!("{out}{}", String::from_utf8_lossy(&output.stderr))),
    })
}
