//! What all connections of one test count together.

use super::frames::Answer;
use hdrhistogram::Histogram;
use kvservice_client::{ApiError, ErrorCode};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The longest latency that is told apart from longer ones, in microseconds: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Significant digits of a latency.
const LATENCY_DIGITS: u8 = 3;

/// When a test is over.
#[derive(Clone, Copy, Debug)]
pub enum Extent {
    /// After so many requests.
    Requests(u64),
    /// After so long; requests under way then are awaited.
    Time(Duration),
}

/// The counts of one test.
pub struct Stats {
    extent: Extent,
    started: Instant,
    /// Requests handed out to connections.
    claimed: u64,
    stopped: bool,
    /// Acknowledged requests: answered, and not with an error.
    pub done: u64,
    /// Of these, those that found nothing, or whose test failed.
    pub missed: u64,
    pub errors: u64,
    /// How often each kind of error came, with the first message.
    pub error_kinds: BTreeMap<&'static str, (u64, String)>,
    pub reconnects: u64,
    /// Microseconds from the first sending of a request to its answer.
    pub latency: Histogram<u64>,
    last_done: Instant,
    longest_gap: Duration,
}

impl Stats {
    pub fn start(extent: Extent, now: Instant) -> Stats {
        Stats {
            extent,
            started: now,
            claimed: 0,
            stopped: false,
            done: 0,
            missed: 0,
            errors: 0,
            error_kinds: BTreeMap::new(),
            reconnects: 0,
            latency: Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS)
                .expect("the bounds are constants that the library allows"),
            last_done: now,
            longest_gap: Duration::ZERO,
        }
    }

    /// Takes up to `most` requests for a connection to send; 0 when the test is over.
    pub fn claim(&mut self, most: u64, now: Instant) -> u64 {
        let left = match self.extent {
            _ if self.stopped => 0,
            Extent::Requests(total) => total - self.claimed,
            Extent::Time(length) if now.duration_since(self.started) < length => most,
            Extent::Time(_) => 0,
        };
        let claimed = left.min(most);
        self.claimed += claimed;
        claimed
    }

    /// Nothing more is handed out.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// One request is answered.
    pub fn answered(&mut self, answer: Answer, sent: Instant, now: Instant) {
        match answer {
            Answer::Error(error) => return self.failed(error),
            Answer::Missed => self.missed += 1,
            Answer::Done => {}
        }
        self.done += 1;
        let latency = u64::try_from(now.duration_since(sent).as_micros()).unwrap_or(u64::MAX);
        self.latency.saturating_record(latency.max(1));
        self.longest_gap = self.longest_gap.max(now.duration_since(self.last_done));
        self.last_done = now;
    }

    pub fn failed(&mut self, error: ApiError) {
        self.errors += 1;
        self.error_kinds
            .entry(code_name(error.code))
            .or_insert((0, error.message))
            .0 += 1;
    }

    /// Requests that are handed out and not answered.
    pub fn under_way(&self) -> u64 {
        self.claimed - self.done - self.errors
    }

    /// From the first request to the last acknowledgement.
    pub fn elapsed(&self) -> Duration {
        self.last_done.duration_since(self.started)
    }

    pub fn last_done(&self) -> Instant {
        self.last_done
    }

    /// The longest time without an acknowledgement on any connection, up to `now`: while requests
    /// are under way, the time since the last one counts.
    pub fn longest_gap(&self, now: Instant) -> Duration {
        if self.under_way() > 0 {
            self.longest_gap.max(now.duration_since(self.last_done))
        } else {
            self.longest_gap
        }
    }

    /// How much of the test is done, from 0 to 1.
    pub fn progress(&self, now: Instant) -> f64 {
        match self.extent {
            Extent::Requests(total) => (self.done + self.errors) as f64 / total as f64,
            Extent::Time(length) => {
                (now.duration_since(self.started).as_secs_f64() / length.as_secs_f64()).min(1.0)
            }
        }
    }

    /// When the test should be over at the latest, if its end is a time.
    pub fn ends_at(&self) -> Option<Instant> {
        match self.extent {
            Extent::Requests(_) => None,
            Extent::Time(length) => Some(self.started + length),
        }
    }
}

fn code_name(code: ErrorCode) -> &'static str {
    code.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_number_of_requests_is_handed_out_exactly() {
        let start = Instant::now();
        let mut stats = Stats::start(Extent::Requests(10), start);
        assert_eq!([stats.claim(4, start), stats.claim(4, start)], [4, 4]);
        assert_eq!([stats.claim(4, start), stats.claim(4, start)], [2, 0]);
        assert_eq!(stats.under_way(), 10);
    }

    #[test]
    fn a_time_is_over_when_it_is_over() {
        let start = Instant::now();
        let mut stats = Stats::start(Extent::Time(10 * MS), start);
        assert_eq!(stats.claim(4, start + 9 * MS), 4);
        assert_eq!(stats.claim(4, start + 10 * MS), 0);
        stats.stop();
        assert_eq!(stats.claim(4, start), 0);
    }

    #[test]
    fn the_longest_gap_is_between_acknowledgements_of_any_connection() {
        let start = Instant::now();
        let mut stats = Stats::start(Extent::Requests(4), start);
        assert_eq!(stats.claim(4, start), 4);
        stats.answered(Answer::Done, start, start + 2 * MS);
        stats.answered(Answer::Missed, start, start + 9 * MS);
        // An error acknowledges nothing.
        stats.answered(
            Answer::Error(super::super::frames::lost()),
            start,
            start + 11 * MS,
        );
        stats.answered(Answer::Done, start, start + 12 * MS);
        assert_eq!(stats.longest_gap(start + 50 * MS), 7 * MS);
        assert_eq!((stats.done, stats.missed, stats.errors), (3, 1, 1));
        assert_eq!(stats.elapsed(), 12 * MS);
        assert_eq!(stats.latency.max() / 1000, 12);
    }

    #[test]
    fn what_never_comes_is_a_gap_too() {
        let start = Instant::now();
        let mut stats = Stats::start(Extent::Requests(2), start);
        stats.claim(2, start);
        stats.answered(Answer::Done, start, start + MS);
        assert_eq!(stats.longest_gap(start + 100 * MS), 99 * MS);
    }
}
