//! Lines for the terminal, and how figures are written.

use crate::failover::FailoverRow;
use crate::measure::{GENERATOR, Row};
use std::collections::BTreeMap;

/// Above [`line`]s. `load` is the generator's CPU time, and `servers` all others'.
pub const HEADING: &str = "workload   P  value    keys keys by  nodes system              ops/s          (rounds)      \
                           ours/it (rounds)      p50   p99 p99.9 ms  CPU s/M: servers  load  resident  steal";

/// Above [`failover_line`]s.
pub const FAILOVER_HEADING: &str = "system                           harm        victim       keys  gap ms: median    \
                                    least greatest  runs  retried";

/// A row as one line.
pub fn line(row: &Row) -> String {
    let median = &row.median;
    let range = format!(
        "({}-{})",
        short(median.ops_per_s_least),
        short(median.ops_per_s_greatest)
    );
    let mark = if median.disturbed { "*" } else { "" };
    let (servers, load) = cpu(&median.cpu_s_per_million);
    format!(
        "{:<8} {:>3} {:>6} {:>7} {:<8} {:>5} {:<17} {:>9}{mark:<1} {range:>15} {:>20} {:>8} {:>5} {:>5}    {servers:>14.1} \
         {load:>5.1} {:>7} MB {:>4.1} %",
        row.workload.as_str(),
        row.pipeline,
        bytes(row.value_bytes),
        row.keys,
        row.distribution.as_str(),
        row.nodes,
        row.system,
        thousands(median.ops_per_s),
        ratio(row).unwrap_or_default(),
        milliseconds(median.p50_us),
        milliseconds(median.p99_us),
        milliseconds(median.p999_us),
        resident(row) / 1_000_000,
        median.steal_greatest * 100.0,
    )
}

/// A failure as one line.
pub fn failover_line(row: &FailoverRow) -> String {
    format!(
        "{:<32} {:<11} {:<7} {:>9} {:>15.1} {:>8.1} {:>8.1} {:>5} {:>8}",
        row.system,
        row.harm,
        row.victim,
        row.keys,
        row.median_ms,
        row.least_ms,
        row.greatest_ms,
        row.gaps_ms.len(),
        row.retried,
    )
}

/// `1.53 (1.41-1.60)`
pub fn ratio(row: &Row) -> Option<String> {
    let ratio = row.ratio.as_ref()?;
    let digits = if ratio.median < 9.95 { 2 } else { 1 };
    Some(format!(
        "{:.digits$} ({:.digits$}-{:.digits$})",
        ratio.median, ratio.least, ratio.greatest
    ))
}

/// CPU seconds of all servers together, and of the generator.
pub fn cpu(processes: &BTreeMap<String, f64>) -> (f64, f64) {
    let load = processes.get(GENERATOR).copied().unwrap_or_default();
    let all: f64 = processes.values().sum();
    (all - load, load)
}

/// Resident memory of all servers together in the last round, in bytes.
pub fn resident(row: &Row) -> u64 {
    let last = row.rounds.last();
    let servers = last.into_iter().flat_map(|turn| &turn.resident_bytes);
    servers
        .filter(|(name, _)| *name != GENERATOR)
        .map(|(_, bytes)| bytes)
        .sum()
}

/// `1,234,567`
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `850`, `12.3k`, `1.23M`
pub fn short(number: f64) -> String {
    match number {
        0.0..1000.0 => format!("{number:.0}"),
        1000.0..100_000.0 => format!("{:.1}k", number / 1e3),
        100_000.0..1_000_000.0 => format!("{:.0}k", number / 1e3),
        _ => format!("{:.2}M", number / 1e6),
    }
}

/// `64 B`, `1 KiB`
pub fn bytes(number: usize) -> String {
    match number {
        0..1024 => format!("{number} B"),
        _ => format!("{} KiB", number / 1024),
    }
}

/// Microseconds as milliseconds with three figures.
pub fn milliseconds(us: f64) -> String {
    let ms = us / 1000.0;
    match ms {
        0.0..10.0 => format!("{ms:.2}"),
        10.0..100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::machine::Place;
    use crate::measure::tests::turn;
    use crate::measure::{Medians, Ratio};
    use crate::work::{Distribution, Workload};

    /// A row of the section `throughput`.
    pub fn row(system: &'static str, workload: Workload, pipeline: usize, ops_per_s: f64) -> Row {
        let rounds = vec![turn(ops_per_s, false)];
        let ratio = Ratio {
            ours: "kvservice",
            median: 1.5,
            least: 1.4,
            greatest: 1.6,
        };
        Row {
            section: "throughput",
            system,
            workload,
            connections: 50,
            pipeline,
            value_bytes: 64,
            keys: 100_000,
            distribution: Distribution::Uniform,
            nodes: 3,
            rate: None,
            median: Medians::of(&rounds),
            rounds,
            ratio: (!system.starts_with("kvservice")).then_some(ratio),
            place: Place {
                date: "2026-11-22T00:00:00Z".to_owned(),
                machine: "m".to_owned(),
                commit: "c".to_owned(),
            },
        }
    }

    #[test]
    fn a_line_has_its_columns_where_the_heading_says() {
        let line = line(&row("redis-always", Workload::Set, 16, 123_456.7));
        assert!(
            line.contains("redis-always") && line.contains("123,457"),
            "{line}"
        );
        assert!(line.contains("1.50 (1.40-1.60)"), "{line}");
        assert!(line.contains("10.0   5.0"), "{line}");
        assert!(line.contains("50 MB"), "{line}");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(999.0), "999");
        assert_eq!(
            [850.0, 12_345.0, 123_456.0, 1_234_567.0].map(short),
            ["850", "12.3k", "123k", "1.23M"]
        );
        assert_eq!([64, 1024, 65_536].map(bytes), ["64 B", "1 KiB", "64 KiB"]);
        assert_eq!(
            [123.0, 12_345.0, 123_456.0].map(milliseconds),
            ["0.12", "12.3", "123"]
        );
    }
}
