//! Tables as they stand in the documentation.

use super::Report;
use super::table::{bytes, cpu, milliseconds, ratio, short, thousands};
use crate::measure::Row;
use crate::options::Section;
use crate::stats::median;
use std::fmt::Write;

/// All tables.
pub fn document(report: &Report) -> String {
    let mut out = format!("{}.\n", report.introduction());
    for note in &report.notes {
        let _ = write!(out, "\n{note}.\n");
    }
    if report.rows.iter().any(|row| row.median.disturbed) {
        out += "\n\\* the host took CPU time away in every round.\n";
    }
    let sections = [
        Section::Throughput,
        Section::Distribution,
        Section::Ycsb,
        Section::Values,
        Section::Nodes,
        Section::Latency,
        Section::Cross,
    ];
    for section in sections {
        let rows: Vec<&Row> = report
            .rows
            .iter()
            .filter(|row| row.section == section.as_str())
            .collect();
        if !rows.is_empty() {
            let _ = write!(out, "\n## {}\n\n", section.title());
            match section {
                Section::Latency => latency(&mut out, &rows),
                _ => throughput(&mut out, &rows),
            }
        }
    }
    if !report.failover.is_empty() {
        let _ = write!(out, "\n## {}\n\n", Section::Failover.title());
        out += "| system | harm | victim | keys | median, ms | least, ms | greatest, ms | runs |\n";
        out += "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |\n";
        for row in &report.failover {
            let _ = writeln!(
                out,
                "| {} | `{}` | {} | {} | {:.1} | {:.1} | {:.1} | {} |",
                row.system,
                row.harm,
                row.victim,
                thousands(row.keys as f64),
                row.median_ms,
                row.least_ms,
                row.greatest_ms,
                row.gaps_ms.len()
            );
        }
    }
    out
}

/// What a row is about.
fn point(row: &Row) -> String {
    format!(
        "{}, P = {}, {}, {}, {} {}",
        row.workload.as_str(),
        row.pipeline,
        bytes(row.value_bytes),
        row.distribution.as_str(),
        row.nodes,
        if row.nodes == 1 { "node" } else { "nodes" }
    )
}

fn throughput(out: &mut String, rows: &[&Row]) {
    *out += "| | system | ops/s | rounds | ours / it (rounds) | CPU s per million: servers | generator |\n";
    *out += "| --- | --- | ---: | ---: | ---: | ---: | ---: |\n";
    let mut last = String::new();
    for row in rows {
        let point = point(row);
        let shown = if point == last { "" } else { &point };
        let (servers, load) = cpu(&row.median.cpu_s_per_million);
        let _ = writeln!(
            out,
            "| {shown} | {} | {}{} | {} to {} | {} | {servers:.1} | {load:.1} |",
            row.system,
            thousands(row.median.ops_per_s),
            if row.median.disturbed { "\\*" } else { "" },
            short(row.median.ops_per_s_least),
            short(row.median.ops_per_s_greatest),
            ratio(row).unwrap_or_default(),
        );
        last = point;
    }
}

fn latency(out: &mut String, rows: &[&Row]) {
    *out += "| | system | asked for, ops/s | answered, ops/s | p50, ms | p99, ms | p99.9, ms | p99 of the rounds, ms |\n";
    *out += "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n";
    let mut last = String::new();
    for row in rows {
        let point = point(row);
        let shown = if point == last { "" } else { &point };
        let p99: Vec<f64> = row.rounds.iter().map(|turn| turn.p99_us as f64).collect();
        let p99 = crate::stats::range(&p99).or(median(&p99).map(|one| (one, one)));
        let (least, greatest) = p99.unwrap_or_default();
        let _ = writeln!(
            out,
            "| {shown} | {} | {} | {}{} | {} | {} | {} | {} to {} |",
            row.system,
            thousands(row.rate.unwrap_or_default()),
            thousands(row.median.ops_per_s),
            if row.median.disturbed { "\\*" } else { "" },
            milliseconds(row.median.p50_us),
            milliseconds(row.median.p99_us),
            milliseconds(row.median.p999_us),
            milliseconds(least),
            milliseconds(greatest),
        );
        last = point;
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::row;
    use super::*;
    use crate::work::Workload;

    #[test]
    fn a_point_is_named_once() {
        let (ours, theirs) = (
            row("kvservice", Workload::Set, 1, 1500.0),
            row("etcd", Workload::Set, 1, 1000.0),
        );
        let mut out = String::new();
        throughput(&mut out, &[&ours, &theirs]);
        assert_eq!(
            out.matches("set, P = 1, 64 B, uniform, 3 nodes").count(),
            1,
            "{out}"
        );
        assert!(
            out.contains("| etcd | 1,000 | 1.0k to 1.0k | 1.50 (1.40-1.60) | 10.0 | 5.0 |"),
            "{out}"
        );
        let columns: Vec<usize> = out.lines().map(|line| line.matches('|').count()).collect();
        assert!(columns.iter().all(|count| *count == columns[0]), "{out}");
    }
}
