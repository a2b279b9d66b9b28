//! What the benchmark prints: a line while it runs, a table or a line of JSON at the end.

use super::frames;
use super::stats::Stats;
use crate::args::{Bench, BenchTest};
use crate::output::Style;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// The figures of one test.
pub struct Report {
    pub op: &'static str,
    pub connections: u32,
    pub pipeline: u32,
    pub value_bytes: u32,
    keyspace: u64,
    done: u64,
    missed: u64,
    pub errors: u64,
    error_kinds: Vec<(String, u64, String)>,
    reconnects: u64,
    elapsed: Duration,
    /// Microseconds: p50, p99, p99.9, max.
    latency_us: [u64; 4],
    longest_gap: Duration,
}

impl Report {
    pub fn new(test: BenchTest, args: &Bench, stats: &Stats, now: Instant) -> Report {
        let unanswered = stats.under_way();
        let mut error_kinds: Vec<_> = stats
            .error_kinds
            .iter()
            .map(|(code, (count, message))| ((*code).to_owned(), *count, message.clone()))
            .collect();
        if unanswered > 0 {
            error_kinds.push((
                "unanswered".to_owned(),
                unanswered,
                "no answer by the end of the test".to_owned(),
            ));
        }
        let latency = &stats.latency;
        Report {
            op: frames::kind(test).as_str(),
            connections: args.connections,
            pipeline: args.pipeline,
            value_bytes: args.value_bytes,
            keyspace: args.keyspace,
            done: stats.done,
            missed: stats.missed,
            errors: stats.errors + unanswered,
            error_kinds,
            reconnects: stats.reconnects,
            elapsed: stats.elapsed(),
            latency_us: [
                latency.value_at_quantile(0.5),
                latency.value_at_quantile(0.99),
                latency.value_at_quantile(0.999),
                latency.max(),
            ],
            longest_gap: stats.longest_gap(now),
        }
    }

    /// Whether anything was acknowledged at all.
    pub fn has_figures(&self) -> bool {
        self.done > 0
    }

    fn ops_per_s(&self) -> f64 {
        per_second(self.done, self.elapsed)
    }

    /// One line.
    pub fn json(&self) -> String {
        let [p50, p99, p999, max] = self.latency_us;
        format!(
            "{{\"op\":\"{}\",\"connections\":{},\"pipeline\":{},\"value_bytes\":{},\
             \"ops_per_s\":{:.1},\"p50_us\":{p50},\"p99_us\":{p99},\"p999_us\":{p999},\
             \"max_us\":{max},\"errors\":{},\"longest_gap_ms\":{:.3}}}",
            self.op,
            self.connections,
            self.pipeline,
            self.value_bytes,
            self.ops_per_s(),
            self.errors,
            milliseconds(self.longest_gap),
        )
    }

    /// As redis-benchmark has it.
    pub fn table(&self, style: Style) -> String {
        let mut out = format!("====== {} ======\n", self.op.to_uppercase());
        let [p50, p99, p999, max] = self.latency_us.map(|us| us as f64 / 1000.0);
        let _ = write!(
            out,
            "  {} requests completed in {:.2} seconds\n  \
             {} connections, {} in flight on each, {} byte values, {} keys\n\n\
             Summary:\n  \
             throughput: {} requests per second\n  \
             latency (ms):\n  \
             {:>10} {:>10} {:>10} {:>10}\n  \
             {p50:>10.3} {p99:>10.3} {p999:>10.3} {max:>10.3}\n  \
             longest gap between two acknowledgements: {:.1} ms\n  \
             errors: {}\n",
            self.done,
            self.elapsed.as_secs_f64(),
            self.connections,
            self.pipeline,
            self.value_bytes,
            self.keyspace,
            style.bold(&format!("{:.2}", self.ops_per_s())),
            "p50",
            "p99",
            "p99.9",
            "max",
            milliseconds(self.longest_gap),
            self.errors,
        );
        out
    }

    /// What the figures alone do not say; for standard error.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (code, count, message) in &self.error_kinds {
            notes.push(format!(
                "{}: {count} x {code}, the first: {message}",
                self.op
            ));
        }
        if self.reconnects > 0 {
            notes.push(format!(
                "{}: connections were lost {} times",
                self.op, self.reconnects
            ));
        }
        if self.missed > 0 {
            let what = if self.op == "get" {
                "found nothing"
            } else {
                "did not match"
            };
            notes.push(format!(
                "{}: {} of {} {what} (a set test over the same -r and -d writes what they look for)",
                self.op, self.missed, self.done
            ));
        }
        notes
    }
}

/// The line while a test runs.
pub struct Progress {
    op: &'static str,
    last_done: u64,
    last_at: Instant,
}

impl Progress {
    pub fn new(test: BenchTest, now: Instant) -> Progress {
        Progress {
            op: frames::kind(test).as_str(),
            last_done: 0,
            last_at: now,
        }
    }

    pub fn line(&mut self, stats: &Stats, now: Instant) -> String {
        let recent = per_second(
            stats.done - self.last_done,
            now.duration_since(self.last_at),
        );
        (self.last_done, self.last_at) = (stats.done, now);
        let errors = if stats.errors > 0 {
            format!(", {} errors", stats.errors)
        } else {
            String::new()
        };
        format!(
            "{}: {:3.0}%  {recent:.0}/s (overall {:.0}/s)  p50 {:.2} ms  longest gap {:.0} ms{errors}",
            self.op,
            100.0 * stats.progress(now),
            per_second(stats.done, stats.elapsed()),
            stats.latency.value_at_quantile(0.5) as f64 / 1000.0,
            milliseconds(stats.longest_gap(now)),
        )
    }
}

fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        count as f64 / time.as_secs_f64()
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::stats::Extent;
    use super::*;
    use crate::bench::frames::Answer;

    fn report() -> Report {
        let args = Bench {
            connections: 2,
            pipeline: 4,
            requests: 5,
            seconds: None,
            value_bytes: 64,
            keyspace: 10,
            tests: vec![BenchTest::Get],
            json: false,
        };
        let start = Instant::now();
        let mut stats = Stats::start(Extent::Requests(5), start);
        stats.claim(5, start);
        for (ms, answer) in [
            (10, Answer::Done),
            (20, Answer::Missed),
            (30, Answer::Done),
            (40, Answer::Error(frames::lost())),
        ] {
            stats.answered(answer, start, start + Duration::from_millis(ms));
        }
        Report::new(
            BenchTest::Get,
            &args,
            &stats,
            start + Duration::from_millis(50),
        )
    }

    #[test]
    fn json_has_the_fields_that_scripts_rely_on() {
        let line = report().json();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let fields = "op connections pipeline value_bytes ops_per_s p50_us p99_us p999_us max_us \
                      errors longest_gap_ms";
        let order: Vec<usize> = fields
            .split_whitespace()
            .map(|f| line.find(&format!("\"{f}\":")).unwrap())
            .collect();
        assert!(order.is_sorted(), "{line}");
        assert_eq!(value.as_object().unwrap().len(), order.len());
        assert_eq!(value["ops_per_s"], 100.0);
        assert_eq!(value["errors"], 2);
        assert_eq!(value["longest_gap_ms"], 20.0);
        assert!(!line.contains('\n'));
    }

    #[test]
    fn what_went_wrong_is_noted() {
        let notes = report().notes();
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(notes[0].starts_with("get: 1 x timeout"), "{notes:?}");
        assert!(notes[1].starts_with("get: 1 x unanswered"), "{notes:?}");
        assert!(
            notes[2].starts_with("get: 1 of 3 found nothing"),
            "{notes:?}"
        );
    }
}
