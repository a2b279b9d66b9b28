//! Takes the systems in turn, in rounds, and makes rows of it.

use crate::cli::Options;
use crate::failover;
use crate::interrupt;
use crate::load::{Load, Pace};
use crate::options::{Run, SystemName};
use crate::plan::{self, Cell, ours_for};
use crate::process::WorkDir;
use crate::procfs::{CpuTimes, cpu_time, resident_bytes};
use crate::quiet::Patience;
use crate::report::Report;
use crate::stats::{Stats, median, range};
use crate::systems::{Places, System, missing};
use crate::work::Distribution;
use crate::work::Workload;
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// The load generator's name among the processes.
pub const GENERATOR: &str = "generator";

/// What one system did in one round.
#[derive(Clone, Debug, Serialize)]
pub struct Turn {
    /// Operations a second.
    pub ops_per_s: f64,
    /// Microseconds, from when an operation was due to its answer: p50, p99, p99.9.
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    /// CPU seconds of each process for a million operations.
    pub cpu_s_per_million: BTreeMap<String, f64>,
    /// Resident memory of each process at the end, in bytes.
    pub resident_bytes: BTreeMap<String, u64>,
    /// The share of the machine's CPU time that its host took away meanwhile, from 0 to 1.
    pub steal: f64,
    /// Operations that found nothing to read, or whose condition did not hold.
    pub missed: u64,
    /// Operations that failed: they are not among the others.
    pub errors: u64,
    /// What the first of them said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    /// In this round the host took more than `--steal-max`, from any system, however often its turn was taken.
    pub disturbed: bool,
}

/// How ours compares, round by round: its figure divided by the other's.
#[derive(Clone, Debug, Serialize)]
pub struct Ratio {
    /// Which of ours.
    pub ours: &'static str,
    pub median: f64,
    pub least: f64,
    pub greatest: f64,
}

/// One system at one point.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub section: &'static str,
    pub system: &'static str,
    pub workload: Workload,
    pub connections: u32,
    /// Requests in flight on each connection; in the section `latency`, those at which the peak was found.
    pub pipeline: usize,
    pub value_bytes: usize,
    pub keys: u64,
    pub distribution: Distribution,
    /// Copies of the data.
    pub nodes: u16,
    /// Operations a second that were asked for; none in a closed loop.
    pub rate: Option<f64>,
    pub rounds: Vec<Turn>,
    /// Of the rounds that were not disturbed; of all where all were.
    pub median: Medians,
    /// How ours compares with this one; none for ours.
    pub ratio: Option<Ratio>,
    #[serde(flatten)]
    pub place: crate::machine::Place,
}

/// Each figure's own median.
#[derive(Clone, Debug, Serialize)]
pub struct Medians {
    pub ops_per_s: f64,
    pub ops_per_s_least: f64,
    pub ops_per_s_greatest: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub cpu_s_per_million: BTreeMap<String, f64>,
    pub steal_greatest: f64,
    /// No round was undisturbed.
    pub disturbed: bool,
}

impl Medians {
    /// Of the rounds that were quiet, if any was.
    pub fn of(turns: &[Turn]) -> Medians {
        let chosen = chosen(turns);
        let figures = |of: fn(&Turn) -> f64| chosen.iter().map(|turn| of(turn)).collect::<Vec<_>>();
        let middle = |of| median(&figures(of)).unwrap_or_default();
        let rates = figures(|turn| turn.ops_per_s);
        let (least, greatest) = range(&rates).unwrap_or_default();
        let names = turns.iter().flat_map(|turn| turn.cpu_s_per_million.keys());
        let cpu = names.map(|name| {
            let of = |turn: &&Turn| turn.cpu_s_per_million.get(name).copied();
            let figures: Vec<f64> = chosen.iter().filter_map(of).collect();
            (name.clone(), median(&figures).unwrap_or_default())
        });
        Medians {
            ops_per_s: middle(|turn| turn.ops_per_s),
            ops_per_s_least: least,
            ops_per_s_greatest: greatest,
            p50_us: middle(|turn| turn.p50_us as f64),
            p99_us: middle(|turn| turn.p99_us as f64),
            p999_us: middle(|turn| turn.p999_us as f64),
            cpu_s_per_million: cpu.collect(),
            steal_greatest: range(&figures(|turn| turn.steal)).unwrap_or_default().1,
            disturbed: turns.iter().all(|turn| turn.disturbed),
        }
    }
}

fn chosen(turns: &[Turn]) -> Vec<&Turn> {
    let quiet: Vec<&Turn> = turns.iter().filter(|turn| !turn.disturbed).collect();
    match quiet.is_empty() {
        true => turns.iter().collect(),
        false => quiet,
    }
}

/// Ours over theirs, round by round.
fn ratio(ours: &'static str, our_turns: &[Turn], their_turns: &[Turn]) -> Option<Ratio> {
    let ratios: Vec<f64> = chosen(our_turns)
        .iter()
        .zip(chosen(their_turns))
        .filter(|(_, theirs)| theirs.ops_per_s > 0.0)
        .map(|(ours, theirs)| ours.ops_per_s / theirs.ops_per_s)
        .collect();
    let (least, greatest) = range(&ratios)?;
    Some(Ratio {
        ours,
        median: median(&ratios)?,
        least,
        greatest,
    })
}

/// Measures all that is asked for.
///
/// # Errors
/// We were told to stop, or a system broke; what was measured is in the report.
pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    let run = &options.run;
    let work = WorkDir::new(run.work_dir.as_deref().unwrap_or(Path::new(".")), "run")?;
    let mut lacking = Vec::new();
    for system in SystemName::ALL {
        if let Some(word) = missing(system)
            && (run.system.is_empty() || run.system.contains(&system))
        {
            report.note(&format!("{} is left out: {word}", system.as_str()));
            lacking.push(system);
        }
    }
    let mut cells = plan::cells(run);
    for cell in &mut cells {
        cell.systems.retain(|system| !lacking.contains(system));
    }
    cells.retain(|cell| !cell.systems.is_empty());
    let mut measurer = Measurer {
        run,
        work: &work,
        fleet: Fleet::default(),
        patience: Patience::new(run),
        planned: Vec::new(),
        seed: 0,
        missing: 0,
    };
    for cell in &cells {
        interrupt::check()?;
        let rows = measurer.cell(cell, report)?;
        report.add(cell.section, rows);
    }
    let Measurer {
        patience,
        missing,
        fleet,
        ..
    } = measurer;
    drop(fleet);
    if patience.repeated > 0 || !patience.waited.is_zero() {
        report.note(&format!(
            "the host took much: {:.0} s waited for it, {} turns taken again",
            patience.waited.as_secs_f64(),
            patience.repeated
        ));
    }
    if plan::wants_failover(run) && !run.full {
        failover::run(run, &work, &lacking, report)?;
    }
    anyhow::ensure!(
        missing == 0,
        "{missing} measurements are missing, for a system broke: see above"
    );
    Ok(())
}

/// The systems that run, all with the same number of nodes.
#[derive(Default)]
struct Fleet {
    nodes: u16,
    systems: Vec<(System, WorkDir)>,
    started: u32,
}

impl Fleet {
    /// The system, started if need be. Those with another number of nodes are ended first.
    fn get(
        &mut self,
        name: SystemName,
        nodes: u16,
        run: &Run,
        work: &WorkDir,
    ) -> Result<&mut System> {
        if self.nodes != nodes {
            self.systems.clear();
            self.nodes = nodes;
        }
        let at = self
            .systems
            .iter()
            .position(|(system, _)| system.name == name);
        let at = match at {
            Some(at) => at,
            None => {
                self.started += 1;
                let dir = format!("{}-{}", name.as_str(), self.started);
                let dir = WorkDir::new(work.path(), &dir)?;
                let places = Places {
                    bin_dir: run.bin_dir(),
                    dir: dir.path().to_owned(),
                };
                let system = System::start(name, nodes, &places)
                    .with_context(|| format!("cannot start {}", name.as_str()))?;
                self.systems.push((system, dir));
                self.systems.len() - 1
            }
        };
        Ok(&mut self.systems[at].0)
    }

    /// Ends the system, if it runs.
    fn end(&mut self, name: SystemName) {
        self.systems.retain(|(system, _)| system.name != name);
    }
}

struct Measurer<'a> {
    run: &'a Run,
    work: &'a WorkDir,
    fleet: Fleet,
    patience: Patience,
    /// The cell's systems, with those that broke: whom others are compared with stays the same.
    planned: Vec<SystemName>,
    seed: u64,
    /// Of how many cells a system is missing that broke.
    missing: u32,
}

impl Measurer<'_> {
    fn cell(&mut self, cell: &Cell, report: &mut Report) -> Result<Vec<Row>> {
        let mut cell = cell.clone();
        self.planned.clone_from(&cell.systems);
        let mut rates = BTreeMap::new();
        for name in cell.systems.clone() {
            match self.prepare(&cell, name, report) {
                Ok(Some(rate)) => drop(rates.insert(name, rate)),
                Ok(None) => {}
                Err(error) => self.leave_out(&mut cell, name, &error, report)?,
            }
        }
        let mut turns: BTreeMap<SystemName, Vec<Turn>> = BTreeMap::new();
        for round in 0..self.run.rounds() {
            // Nobody always follows the same one.
            let mut order = cell.systems.clone();
            let first = round as usize % order.len().max(1);
            order.rotate_left(first);
            for name in order {
                let pace = match rates.get(&name) {
                    Some(&rate) => Pace::Open(rate),
                    None => Pace::Closed(cell.pipeline),
                };
                match self.quiet_turn(&cell, name, pace) {
                    Ok(turn) => turns.entry(name).or_default().push(turn),
                    Err(error) => {
                        turns.remove(&name);
                        self.leave_out(&mut cell, name, &error, report)?;
                    }
                }
            }
            let last = || turns.values().filter_map(|turns| turns.last());
            let disturbed = last().any(|turn| self.patience.disturbs(turn.steal));
            for turn in turns.values_mut().filter_map(|turns| turns.last_mut()) {
                turn.disturbed = disturbed;
            }
        }
        Ok(self.rows(&cell, &turns, &rates, report))
    }

    /// Starts and fills a system. Gives the rate at which it is asked, if it is not asked for all it can.
    fn prepare(&mut self, cell: &Cell, name: SystemName, report: &Report) -> Result<Option<f64>> {
        let system = self.fleet.get(name, cell.nodes, self.run, self.work)?;
        system
            .fill(self.run.connections, cell.keys, cell.value_bytes)
            .context("cannot fill it")?;
        if !cell.at_half {
            return Ok(None);
        }
        let peak = match report.peak(cell, name) {
            Some(peak) => peak,
            None => {
                self.quiet_turn(cell, name, Pace::Closed(cell.pipeline))?
                    .ops_per_s
            }
        };
        Ok(Some((peak / 2.0).max(1.0)))
    }

    /// Ends a system that broke: the next cell has a new one.
    fn leave_out(
        &mut self,
        cell: &mut Cell,
        name: SystemName,
        error: &anyhow::Error,
        report: &mut Report,
    ) -> Result<()> {
        interrupt::check()?;
        let what = describe(cell, name);
        report.note(&format!("{what} is missing: {error:#}"));
        self.fleet.end(name);
        cell.systems.retain(|system| *system != name);
        self.missing += 1;
        Ok(())
    }

    /// A turn, taken again where it was disturbed.
    fn quiet_turn(&mut self, cell: &Cell, name: SystemName, pace: Pace) -> Result<Turn> {
        loop {
            self.patience.wait()?;
            let started = Instant::now();
            let turn = self.turn(cell, name, pace)?;
            if !self.patience.again(turn.steal, started.elapsed()) {
                return Ok(turn);
            }
        }
    }

    fn turn(&mut self, cell: &Cell, name: SystemName, pace: Pace) -> Result<Turn> {
        interrupt::check()?;
        self.seed += 1;
        let run = self.run;
        let system = self.fleet.get(name, cell.nodes, run, self.work)?;
        let mut load = Load {
            targets: system.targets(cell.value_bytes),
            connections: run.connections,
            threads: run.threads,
            workload: cell.workload,
            distribution: cell.distribution,
            keys: cell.keys,
            count: system.count.clone(),
            pace,
            length: Duration::from_secs_f64(run.seconds()),
            seed: self.seed,
        };
        if cell.workload.only_reads() {
            load.targets
                .iter_mut()
                .for_each(|target| target.replicas = 0);
        }
        let mut samples = Vec::new();
        let stats = system.run(&load, || samples.push(Sample::take(system)))?;
        system
            .processes
            .iter_mut()
            .try_for_each(crate::process::Process::check)?;
        let [before, after] = <[Result<Sample>; 2]>::try_from(samples)
            .ok()
            .context("a load without a beginning and an end")?;
        Ok(make_turn(&stats, &before?, &after?))
    }

    fn rows(
        &self,
        cell: &Cell,
        turns: &BTreeMap<SystemName, Vec<Turn>>,
        rates: &BTreeMap<SystemName, f64>,
        report: &Report,
    ) -> Vec<Row> {
        let row = |name: SystemName| {
            let rounds = turns.get(&name).cloned().unwrap_or_default();
            // At half of its own peak each is at another rate: there is nothing to divide.
            let ours = ours_for(name, &self.planned).filter(|_| !cell.at_half);
            let ratio = ours.and_then(|ours| ratio(ours.as_str(), turns.get(&ours)?, &rounds));
            Row {
                section: cell.section.as_str(),
                system: name.as_str(),
                workload: cell.workload,
                connections: self.run.connections,
                pipeline: cell.pipeline,
                value_bytes: cell.value_bytes,
                keys: cell.keys,
                distribution: cell.distribution,
                nodes: cell.nodes,
                rate: rates.get(&name).copied(),
                median: Medians::of(&rounds),
                rounds,
                ratio,
                place: report.place.clone(),
            }
        };
        cell.systems.iter().copied().map(row).collect()
    }
}

fn describe(cell: &Cell, name: SystemName) -> String {
    format!(
        "{} of {}-byte values on {} with {} nodes, {} in flight",
        cell.workload.as_str(),
        cell.value_bytes,
        name.as_str(),
        cell.nodes,
        cell.pipeline
    )
}

/// What the kernel says at one end of a window.
struct Sample {
    cpus: CpuTimes,
    /// CPU time and resident memory.
    processes: BTreeMap<String, (Duration, u64)>,
}

impl Sample {
    fn take(system: &System) -> Result<Sample> {
        let own = std::process::id();
        let all = system
            .processes
            .iter()
            .map(|process| (process.name.clone(), process.pid()))
            .chain([(GENERATOR.to_owned(), own)]);
        Ok(Sample {
            cpus: CpuTimes::now()?,
            processes: all
                .map(|(name, pid)| (name, (cpu_time(pid), resident_bytes(pid))))
                .collect(),
        })
    }
}

fn make_turn(stats: &Stats, before: &Sample, after: &Sample) -> Turn {
    let million = (stats.done as f64 / 1e6).max(f64::MIN_POSITIVE);
    let cpu = |(name, (time, _)): (&String, &(Duration, u64))| {
        let earlier = before.processes.get(name).map(|(time, _)| *time);
        let used = time.saturating_sub(earlier.unwrap_or_default());
        let per_million = match stats.done {
            0 => 0.0,
            _ => used.as_secs_f64() / million,
        };
        (name.clone(), per_million)
    };
    let resident = |(name, (_, bytes)): (&String, &(Duration, u64))| (name.clone(), *bytes);
    Turn {
        ops_per_s: stats.per_second(),
        p50_us: stats.latency.value_at_quantile(0.5),
        p99_us: stats.latency.value_at_quantile(0.99),
        p999_us: stats.latency.value_at_quantile(0.999),
        cpu_s_per_million: after.processes.iter().map(cpu).collect(),
        resident_bytes: after.processes.iter().map(resident).collect(),
        steal: after.cpus.steal_since(before.cpus),
        missed: stats.missed,
        errors: stats.errors,
        first_error: stats.first_error.clone(),
        disturbed: false,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A turn with this rate.
    pub fn turn(ops_per_s: f64, disturbed: bool) -> Turn {
        Turn {
            ops_per_s,
            p50_us: 1500,
            p99_us: 2500,
            p999_us: 9000,
            cpu_s_per_million: [("n1".to_owned(), 10.0), (GENERATOR.to_owned(), 5.0)].into(),
            resident_bytes: [("n1".to_owned(), 50_000_000)].into(),
            steal: if disturbed { 0.2 } else { 0.01 },
            missed: 0,
            errors: 0,
            first_error: None,
            disturbed,
        }
    }

    #[test]
    fn medians_are_of_the_quiet_rounds() {
        let turns = [turn(100.0, false), turn(10.0, true), turn(300.0, false)];
        let medians = Medians::of(&turns);
        assert_eq!(medians.ops_per_s, 200.0);
        assert_eq!(
            (medians.ops_per_s_least, medians.ops_per_s_greatest),
            (100.0, 300.0)
        );
        assert_eq!((medians.steal_greatest, medians.disturbed), (0.01, false));
        assert_eq!(medians.cpu_s_per_million["n1"], 10.0);
        let medians = Medians::of(&[turn(100.0, true)]);
        assert_eq!((medians.ops_per_s, medians.disturbed), (100.0, true));
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let ours = [
            turn(100.0, false),
            turn(50.0, true),
            turn(300.0, false),
            turn(200.0, false),
        ];
        let theirs = [
            turn(50.0, false),
            turn(1.0, true),
            turn(100.0, false),
            turn(200.0, false),
        ];
        let ratio = ratio("kvservice", &ours, &theirs).unwrap();
        assert_eq!((ratio.median, ratio.least, ratio.greatest), (2.0, 1.0, 3.0));
    }
}
