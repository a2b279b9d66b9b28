//! What was measured, written down: in the terminal as it comes, and into files at the end.

mod markdown;
mod svg;
mod table;

use crate::cli::Options;
use crate::failover::FailoverRow;
use crate::machine::{Place, rivals};
use crate::measure::Row;
use crate::options::{Section, SystemName};
use crate::plan::Cell;
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where, when and what.
    #[serde(flatten)]
    pub place: Place,
    /// The rivals' versions.
    pub rivals: BTreeMap<&'static str, String>,
    /// What the figures alone do not say.
    pub notes: Vec<String>,
    /// Under load.
    pub rows: Vec<Row>,
    /// Under failures.
    pub failover: Vec<FailoverRow>,
    /// The section whose heading was printed last.
    #[serde(skip)]
    printed: Option<Section>,
}

impl Report {
    /// Nothing yet; says where and when.
    pub fn new(options: &Options) -> Report {
        let report = Report {
            place: Place::here(&options.run.commit),
            rivals: rivals(),
            notes: Vec::new(),
            rows: Vec::new(),
            failover: Vec::new(),
            printed: None,
        };
        println!("{}", report.introduction());
        report
    }

    fn introduction(&self) -> String {
        let Place {
            date,
            machine,
            commit,
        } = &self.place;
        let rivals: String = self
            .rivals
            .iter()
            .map(|(name, version)| format!(", {name} {version}"))
            .collect();
        format!("{date}, kvservice {commit}{rivals}, on {machine}")
    }

    /// Something worth knowing.
    pub fn note(&mut self, text: &str) {
        println!("{text}");
        self.notes.push(text.to_owned());
    }

    /// The rows of one cell.
    pub fn add(&mut self, section: Section, rows: Vec<Row>) {
        if self.printed.replace(section) != Some(section) {
            println!("\n{}\n{}", section.title(), table::HEADING);
        }
        for row in &rows {
            println!("{}", table::line(row));
        }
        for row in &rows {
            let rounds = row.rounds.iter();
            let (errors, first) = rounds.fold((0, None), |(count, first), turn| {
                (count + turn.errors, first.or(turn.first_error.as_ref()))
            });
            if errors > 0 {
                let first = first.cloned().unwrap_or_default();
                self.note(&format!(
                    "{} {} P={}: {errors} errors, the first: {first}",
                    row.system,
                    row.workload.as_str(),
                    row.pipeline
                ));
            }
        }
        self.rows.extend(rows);
    }

    /// One kind of failure.
    pub fn add_failover(&mut self, row: FailoverRow) {
        if self.printed.replace(Section::Failover) != Some(Section::Failover) {
            let title = Section::Failover.title();
            println!("\n{title}\n{}", table::FAILOVER_HEADING);
        }
        println!("{}", table::failover_line(&row));
        self.failover.push(row);
    }

    /// Operations a second that the system did at this point in a closed loop, if that was measured.
    pub fn peak(&self, cell: &Cell, system: SystemName) -> Option<f64> {
        let row = self.rows.iter().find(|row| {
            row.rate.is_none()
                && row.system == system.as_str()
                && row.workload == cell.workload
                && row.pipeline == cell.pipeline
                && row.value_bytes == cell.value_bytes
                && row.nodes == cell.nodes
                && row.distribution == cell.distribution
        })?;
        Some(row.median.ops_per_s)
    }

    /// Writes the files that are asked for.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(&self, options: &Options) -> Result<()> {
        let run = &options.run;
        if let Some(path) = &run.json {
            let json = serde_json::to_string_pretty(self).context("the report is JSON")?;
            write(path, &(json + "\n"))?;
        }
        if let Some(path) = &run.markdown {
            write(path, &markdown::document(self))?;
        }
        if let Some(path) = &run.svg {
            write(path, &svg::picture(self))?;
        }
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}
