//! What connections count, and what is made of it.

use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// The longest latency that is told apart from longer ones, in microseconds: ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// The time in which operations count.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// From here.
    pub start: Instant,
    /// To here, which is no part of it.
    pub end: Instant,
}

impl Window {
    fn holds(self, at: Instant) -> bool {
        self.start <= at && at < self.end
    }
}

/// What an operation's answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Done,
    /// Done, but there was nothing to read, or the condition did not hold.
    Missed,
    /// Not done: what the system said.
    Error(String),
}

/// The counts of some connections.
#[derive(Clone, Debug)]
pub struct Stats {
    window: Window,
    /// Operations whose answers came within the window, without errors.
    pub done: u64,
    /// Of these, those that read nothing, or whose condition did not hold.
    pub missed: u64,
    /// Operations answered with an error, at any time, and those that were never answered.
    pub errors: u64,
    /// The first error.
    pub first_error: Option<String>,
    /// Microseconds from when an operation was due to its answer, of those that were due within the window where
    /// there is a rate, and of those answered within it otherwise.
    pub latency: Histogram<u64>,
}

impl Stats {
    /// Nothing yet.
    pub fn new(window: Window) -> Stats {
        Stats {
            window,
            done: 0,
            missed: 0,
            errors: 0,
            first_error: None,
            latency: Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS)
                .expect("the bounds are constants that the library allows"),
        }
    }

    /// An operation is answered.
    pub fn answered(&mut self, answer: Answer, due: Instant, now: Instant, at_a_rate: bool) {
        let missed = match answer {
            Answer::Error(error) => return self.failed(1, error),
            Answer::Missed => true,
            Answer::Done => false,
        };
        let in_window = self.window.holds(now);
        if in_window {
            self.done += 1;
            self.missed += u64::from(missed);
        }
        let counts = match at_a_rate {
            true => self.window.holds(due),
            false => in_window,
        };
        if counts {
            let latency = now.saturating_duration_since(due).as_micros();
            let latency = u64::try_from(latency).unwrap_or(u64::MAX);
            self.latency.saturating_record(latency.max(1));
        }
    }

    /// Operations that failed.
    pub fn failed(&mut self, count: u64, error: String) {
        self.errors += count;
        self.first_error.get_or_insert(error);
    }

    /// Adds what others counted.
    pub fn add(&mut self, other: Stats) {
        self.done += other.done;
        self.missed += other.missed;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.latency
            .add(&other.latency)
            .expect("all have the same bounds");
    }

    /// Operations a second.
    pub fn per_second(&self) -> f64 {
        let length = self.window.end - self.window.start;
        self.done as f64 / length.as_secs_f64()
    }
}

/// The median, the mean of the two in the middle for an even number; `None` of nothing.
pub fn median(numbers: &[f64]) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[half]),
        _ => Some(f64::midpoint(sorted[half - 1], sorted[half])),
    }
}

/// The least and the greatest; `None` of nothing.
pub fn range(numbers: &[f64]) -> Option<(f64, f64)> {
    let least = numbers.iter().copied().min_by(f64::total_cmp)?;
    let greatest = numbers.iter().copied().max_by(f64::total_cmp)?;
    Some((least, greatest))
}

/// The longest time between acknowledgements on any connection.
#[derive(Clone, Copy, Debug)]
pub struct Gaps {
    last: Instant,
    longest: Duration,
    /// Acknowledgements so far.
    pub count: u64,
}

impl Gaps {
    /// From now on.
    pub fn start(now: Instant) -> Gaps {
        Gaps {
            last: now,
            longest: Duration::ZERO,
            count: 0,
        }
    }

    /// Something is acknowledged.
    pub fn acknowledged(&mut self, now: Instant) {
        self.longest = self.longest.max(now.saturating_duration_since(self.last));
        self.last = now;
        self.count += 1;
    }

    /// The longest, the time since the last acknowledgement included.
    pub fn longest(&self, now: Instant) -> Duration {
        self.longest.max(self.since_last(now))
    }

    /// The time since the last acknowledgement.
    pub fn since_last(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn medians_and_ranges() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[5.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(range(&[2.0, 1.0, 3.0]), Some((1.0, 3.0)));
        assert_eq!(range(&[]), None);
    }

    #[test]
    fn only_what_is_answered_in_the_window_counts_and_an_error_never() {
        let start = Instant::now();
        let window = Window {
            start: start + 10 * MS,
            end: start + 110 * MS,
        };
        let mut stats = Stats::new(window);
        for (answer, ms) in [
            (Answer::Done, 9),
            (Answer::Done, 10),
            (Answer::Missed, 109),
            (Answer::Error("no".to_owned()), 50),
            (Answer::Done, 110),
        ] {
            stats.answered(answer, start, start + ms * MS, false);
        }
        assert_eq!((stats.done, stats.missed, stats.errors), (2, 1, 1));
        assert_eq!(stats.first_error.as_deref(), Some("no"));
        assert_eq!(stats.per_second(), 20.0);
        assert_eq!(stats.latency.len(), 2);
    }

    #[test]
    fn at_a_rate_what_was_due_in_the_window_has_its_whole_wait_counted() {
        let start = Instant::now();
        let window = Window {
            start,
            end: start + 100 * MS,
        };
        let mut stats = Stats::new(window);
        stats.answered(Answer::Done, start + 99 * MS, start + 599 * MS, true);
        assert_eq!(stats.done, 0);
        assert_eq!(stats.latency.value_at_quantile(0.5) / 1000, 500);
    }

    #[test]
    fn a_gap_ends_with_an_acknowledgement_or_now() {
        let start = Instant::now();
        let mut gaps = Gaps::start(start);
        gaps.acknowledged(start + 5 * MS);
        gaps.acknowledged(start + 6 * MS);
        assert_eq!(gaps.longest(start + 7 * MS), 5 * MS);
        assert_eq!(gaps.longest(start + 20 * MS), 14 * MS);
        assert_eq!(gaps.count, 2);
    }
}
