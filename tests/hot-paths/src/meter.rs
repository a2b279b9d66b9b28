//! CPU time of this thread by stage: what the machine's host or other processes take away does not count.

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Where a request's time goes, in the order in which it passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Parse,
    Admit,
    SendRequests,
    TakeRequests,
    Order,
    Durable,
    SendBatch,
    TakeBatch,
    Follow,
    Stable,
    Commit,
    SendAnswers,
    TakeAnswers,
    Answer,
    Print,
}

/// All stages, each with where it runs and what it does.
pub const STAGES: [(Stage, &str, &str); 15] = [
    (Stage::Parse, "front-end", "JSON to requests"),
    (Stage::Admit, "front-end", "gateway takes requests"),
    (Stage::SendRequests, "front-end", "requests to a frame"),
    (Stage::TakeRequests, "head", "frame to requests"),
    (Stage::Order, "head", "put in order, or read"),
    (Stage::Durable, "each node", "the journal is done"),
    (Stage::SendBatch, "head, middle", "batch to a frame"),
    (Stage::TakeBatch, "middle, tail", "frame to batch"),
    (Stage::Follow, "middle, tail", "append, forward, apply"),
    (Stage::Stable, "tail, middle", "what is stable goes up"),
    (Stage::Commit, "head", "apply and answer"),
    (Stage::SendAnswers, "head", "answers to a frame"),
    (Stage::TakeAnswers, "front-end", "frame to answers"),
    (Stage::Answer, "front-end", "gateway gives answers"),
    (Stage::Print, "front-end", "answers to JSON"),
];

/// Adds up CPU time.
#[derive(Default)]
pub struct Meter {
    on: bool,
    spent: [Duration; STAGES.len()],
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .expect("Linux counts a thread's CPU time")
        .into()
}

impl Meter {
    /// Counts from now on, or no more.
    pub fn set(&mut self, on: bool) {
        self.on = on;
    }

    /// Runs a stage.
    pub fn time<T>(&mut self, stage: Stage, run: impl FnOnce() -> T) -> T {
        if !self.on {
            return run();
        }
        let before = cpu_time();
        let result = run();
        self.spent[stage as usize] += cpu_time() - before;
        result
    }

    /// Nanoseconds of each stage for one of `requests`.
    pub fn per_request(&self, requests: u64) -> [f64; STAGES.len()] {
        self.spent
            .map(|spent| spent.as_nanos() as f64 / requests as f64)
    }
}
