//! The picture: bars of the section `throughput`, legible on light and on dark pages.

use super::Report;
use super::table::thousands;
use crate::measure::Row;
use crate::plan::PIPELINES;
use crate::work::Workload;
use std::fmt::Write;

const WIDTH: f64 = 860.0;
/// Where bars begin, and the longest.
const LEFT: f64 = 190.0;
const BAR_MAX: f64 = 540.0;
const BAR: f64 = 15.0;
const STEP: f64 = 19.0;

/// A part of the picture with a scale of its own.
struct Panel {
    title: &'static str,
    workload: Workload,
    systems: &'static [(&'static str, &'static str)],
}

const PANELS: [Panel; 3] = [
    Panel {
        title: "set, synced on three disks before it is answered (operations a second)",
        workload: Workload::Set,
        systems: &[
            ("kvservice", "kvservice"),
            ("redis-always", "Redis, appendfsync always"),
            ("etcd", "etcd"),
        ],
    },
    Panel {
        title: "set, in the memory of three processes before it is answered",
        workload: Workload::Set,
        systems: &[
            ("kvservice-memory", "kvservice --memory"),
            ("redis-memory", "Redis, no persistence"),
        ],
    },
    Panel {
        title: "get",
        workload: Workload::Get,
        systems: &[
            ("kvservice", "kvservice"),
            ("redis-memory", "Redis"),
            ("etcd", "etcd, linearizable"),
            ("hop", "a bare WebSocket hop"),
        ],
    },
];

const STYLE: &str = "<style>\
text{font:13px system-ui,sans-serif;fill:#24292f}\
.title{font-weight:600;font-size:14px}.small{font-size:11px;fill:#57606a}\
.kvservice,.kvservice-memory{fill:#2f6fde}.redis-always,.redis-memory{fill:#d9534a}.etcd{fill:#2a9d8f}.hop{fill:#9aa0a6}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}\
.kvservice,.kvservice-memory{fill:#5b94f5}.redis-always,.redis-memory{fill:#ee7a72}.etcd{fill:#3dbfae}}\
</style>";

/// The picture of a report; without figures for it, only what it is about.
pub fn picture(report: &Report) -> String {
    let mut body = String::new();
    let mut y = 24.0;
    for panel in &PANELS {
        draw(&mut body, panel, &report.rows, &mut y);
    }
    y += 6.0;
    let mut lines = vec![report.caption(), report.place.machine.clone()];
    if body.contains("*</text>") {
        lines.push("* the host took CPU time away in every round".to_owned());
    }
    for line in lines {
        text(&mut body, 8.0, y, "small", "start", &line);
        y += 15.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\" \
         role=\"img\" aria-label=\"Operations a second of kvservice and its rivals\">{STYLE}\n{body}</svg>\n"
    )
}

impl Report {
    fn caption(&self) -> String {
        let connections = self.rows.first().map_or(0, |row| row.connections);
        let rivals = self.rivals.iter();
        let rivals: String = rivals
            .map(|(name, version)| format!(", {name} {version}"))
            .collect();
        format!(
            "{connections} connections, P requests in flight on each, 64-byte values; medians. {}, kvservice {}{rivals}",
            &self.place.date.get(..10).unwrap_or_default(),
            self.place.commit
        )
    }
}

fn draw(out: &mut String, panel: &Panel, rows: &[Row], y: &mut f64) {
    let find = |system: &str, pipeline: usize| {
        rows.iter().find(|row| {
            row.section == "throughput"
                && row.workload == panel.workload
                && row.system == system
                && row.pipeline == pipeline
        })
    };
    let rate = |row: &Row| row.median.ops_per_s;
    let all = panel
        .systems
        .iter()
        .flat_map(|(system, _)| PIPELINES.map(|pipeline| find(system, pipeline).map_or(0.0, rate)));
    let most = all.fold(0.0, f64::max);
    if most == 0.0 {
        return;
    }
    text(out, 8.0, *y, "title", "start", panel.title);
    *y += 12.0;
    for pipeline in PIPELINES {
        let mut label = Some(format!("P = {pipeline}"));
        for (system, name) in panel.systems {
            let Some(row) = find(system, pipeline) else {
                continue;
            };
            let length = (BAR_MAX * rate(row) / most).max(1.0);
            let middle = *y + 12.0;
            if let Some(label) = label.take() {
                text(out, 8.0, middle, "small", "start", &label);
            }
            text(out, LEFT - 8.0, middle, "small", "end", name);
            let _ = writeln!(
                out,
                "<rect class=\"{system}\" x=\"{LEFT}\" y=\"{y:.0}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\"/>"
            );
            let mark = if row.median.disturbed { "*" } else { "" };
            let figure = format!("{}{mark}", thousands(rate(row)));
            text(out, LEFT + length + 6.0, middle, "small", "start", &figure);
            *y += STEP;
        }
        *y += 7.0;
    }
    *y += 22.0;
}

fn text(out: &mut String, x: f64, y: f64, class: &str, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        out,
        "<text x=\"{x:.0}\" y=\"{y:.0}\" class=\"{class}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::row;
    use super::*;

    fn panel(rows: &[Row]) -> (String, f64) {
        let (mut out, mut y) = (String::new(), 0.0);
        draw(&mut out, &PANELS[0], rows, &mut y);
        (out, y)
    }

    #[test]
    fn the_longest_bar_is_the_fastest_and_the_others_are_in_proportion() {
        let rows = [
            row("kvservice", Workload::Set, 1, 2000.0),
            row("etcd", Workload::Set, 1, 500.0),
        ];
        let (out, _) = panel(&rows);
        assert!(
            out.contains("class=\"kvservice\" x=\"190\" y=\"12\" width=\"540.0\""),
            "{out}"
        );
        assert!(out.contains("width=\"135.0\""), "{out}");
        assert!(out.contains(">2,000<") && out.contains(">P = 1<"), "{out}");
    }

    #[test]
    fn without_figures_there_is_no_panel() {
        assert_eq!(panel(&[]), (String::new(), 0.0));
    }

    #[test]
    fn words_are_escaped() {
        let mut out = String::new();
        text(&mut out, 0.0, 0.0, "small", "start", "a < b & c");
        assert!(out.contains("a &lt; b &amp; c"), "{out}");
    }
}
