//! Many runs, on all cores; and of one that fails, the shortest.

use crate::canaries::switch;
use crate::run::{Done, Failure, Plan, Traced, run};
use kvservice_shared::canary::Canary;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Totals {
    pub seeds: u64,
    pub entries: u64,
    pub answers: u64,
    pub unknown: u64,
    pub ms: u64,
    pub abandoned: u64,
    pub faults: BTreeMap<&'static str, u64>,
}

impl Totals {
    fn add(&mut self, done: &Done) {
        self.seeds += 1;
        self.entries += done.entries;
        self.answers += done.answers;
        self.unknown += done.unknown;
        self.ms += done.ms;
        self.abandoned += u64::from(done.abandoned);
        for (fault, times) in &done.faults {
            *self.faults.entry(fault).or_default() += times;
        }
    }
}

/// A run that failed.
#[derive(Debug)]
pub struct Found {
    pub plan: Plan,
    pub failure: Failure,
}

/// Runs so many seeds from the plan's on, until one fails; of several at once the lowest is told. `each` hears of
/// every run that is done.
pub fn hunt(
    plan: Plan,
    seeds: u64,
    jobs: Option<NonZero<usize>>,
    each: &(dyn Fn(&Totals) + Sync),
) -> (Totals, Option<Found>) {
    hunt_with(None, plan, seeds, jobs, each)
}

/// The same with a bug switched on.
pub(crate) fn hunt_with(
    canary: Option<Canary>,
    plan: Plan,
    seeds: u64,
    jobs: Option<NonZero<usize>>,
    each: &(dyn Fn(&Totals) + Sync),
) -> (Totals, Option<Found>) {
    let jobs = jobs.or_else(|| std::thread::available_parallelism().ok());
    let next = AtomicU64::new(0);
    let stop_at = AtomicU64::new(seeds);
    let totals = Mutex::new(Totals::default());
    let found: Mutex<Option<Found>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..jobs.map_or(1, NonZero::get) {
            scope.spawn(|| {
                switch(canary);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= stop_at.load(Ordering::Relaxed) {
                        return;
                    }
                    let plan = Plan {
                        seed: plan.seed + number,
                        ..plan
                    };
                    match run(plan, None) {
                        Ok(done) => {
                            let mut totals = totals.lock().expect("no run panics");
                            totals.add(&done);
                            each(&totals);
                        }
                        Err(failure) => {
                            stop_at.fetch_min(number, Ordering::Relaxed);
                            let mut found = found.lock().expect("no run panics");
                            if found
                                .as_ref()
                                .is_none_or(|other| other.plan.seed > plan.seed)
                            {
                                *found = Some(Found { plan, failure });
                            }
                        }
                    }
                }
            });
        }
    });
    let totals = totals.into_inner().expect("no run panics");
    (totals, found.into_inner().expect("no run panics"))
}

/// The run with the fewest steps that fails, as far as halving finds it; and how that one fails, with what
/// happened.
pub fn shortest(found: &Found) -> (Found, Traced) {
    let with = |steps| Plan {
        steps,
        ..found.plan
    };
    let mut fails = match found.failure.step {
        // Whatever came after this step cannot be needed.
        Some(step) => step + 1,
        None => found.plan.steps,
    };
    let mut passes = 0;
    while passes + 1 < fails {
        let middle = passes + (fails - passes) / 2;
        match run(with(middle), None) {
            Ok(_) => passes = middle,
            Err(_) => fails = middle,
        }
    }
    let mut traced = Traced::default();
    let plan = with(fails);
    let failure = match run(plan, Some(&mut traced)) {
        Err(failure) => failure,
        Ok(_) => Failure {
            what: "it failed, and then it did not: the simulator is not deterministic".to_owned(),
            step: None,
        },
    };
    (Found { plan, failure }, traced)
}
