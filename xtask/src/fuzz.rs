//! `cargo xtask fuzz`: feeds each decoder of bytes from outside what nobody would send, for a while.
//!
//! The targets are in `tests/fuzz`, a workspace of its own that only nightly Rust builds. What they find new goes into
//! `target/fuzz/corpus`; the seeds in `tests/fuzz/corpus` stay as they are.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::{Line, Runner};
use crate::tools::Toolbox;
use crate::workspace::Workspace;

/// Which targets to run, and for how long.
#[derive(clap::Args)]
pub struct Options {
    /// Run this target alone; may be given again
    #[arg(long, value_name = "NAME", value_parser = TARGETS.map(|target| target.name))]
    target: Vec<String>,
    /// Minutes for each target
    #[arg(long, value_name = "M", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
}

struct Target {
    name: &'static str,
    /// Words that its input is made of.
    dictionary: Option<&'static str>,
}

const fn target(name: &'static str, dictionary: Option<&'static str>) -> Target {
    Target { name, dictionary }
}

const TARGETS: [Target; 10] = [
    target("client_frame", Some("json.dict")),
    target("server_frame", Some("json.dict")),
    target("dump_line", Some("json.dict")),
    target("text_command", Some("text.dict")),
    target("chain_message", None),
    target("batch", None),
    target("log_dir", None),
    target("checkpoint_dir", None),
    target("meta_file", None),
    target("view_file", Some("json.dict")),
];

/// An input that takes longer hangs, in seconds: a machine that is busy elsewhere can stand still for half a minute.
const TIMEOUT: u32 = 120;
/// A target that takes more than this has no bounds, in MiB.
const MEMORY_MAX: u32 = 2048;

/// Builds and runs the chosen targets, one after the other.
///
/// # Errors
/// If a tool is missing, a target does not build, or one finds something.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let fuzz = Fuzz::new(workspace)?;
    fuzz.build(&options.target)?;
    let chosen = TARGETS.iter().filter(|target| options.wants(target));
    let mut rows = Vec::new();
    for target in chosen {
        let row = fuzz.run(target, options.minutes)?;
        println!("{row}");
        rows.push(row);
    }
    println!("\n{HEADING}");
    rows.iter().for_each(|row| println!("{row}"));
    let failed: Vec<_> = rows.iter().filter(|row| row.found.crashes > 0).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = failed.iter().map(|row| row.target).collect();
    bail!(
        "{} found something: see {}, and the inputs in {}",
        names.join(", "),
        workspace.show(&fuzz.log_of("NAME")),
        workspace.show(&fuzz.dir.join("artifacts"))
    )
}

impl Options {
    fn wants(&self, target: &Target) -> bool {
        self.target.is_empty() || self.target.iter().any(|name| name == target.name)
    }
}

struct Fuzz {
    /// The root of the checkout.
    root: PathBuf,
    /// `tests/fuzz`.
    dir: PathBuf,
    /// Where things are built, found and logged.
    work: PathBuf,
    cargo_fuzz: PathBuf,
}

impl Fuzz {
    fn new(workspace: &Workspace) -> Result<Fuzz> {
        let runner = Runner::Foreground;
        let tools = Toolbox::new(workspace, &runner);
        tools.nightly()?;
        Ok(Fuzz {
            root: workspace.root.clone(),
            dir: workspace.root.join("tests/fuzz"),
            work: workspace.target.join("fuzz"),
            cargo_fuzz: tools.cargo_fuzz()?,
        })
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.work.join("logs").join(format!("{name}.log"))
    }

    /// Without a sanitizer: there is no unsafe code of ours, and without one it runs several times as often.
    fn cargo_fuzz(&self, command: &str) -> Line {
        Line::new("rustup")
            .words("run nightly")
            .arg(&self.cargo_fuzz)
            .arg(command)
            .words("--sanitizer none --fuzz-dir")
            .arg(&self.dir)
            .arg("--target-dir")
            .arg(self.work.join("build"))
            .dir(&self.root)
    }

    /// All of them, or the only one that is asked for.
    fn build(&self, targets: &[String]) -> Result<()> {
        let line = self.cargo_fuzz("build");
        Runner::Foreground.run(&match targets {
            [only] => line.arg(only),
            _ => line,
        })
    }

    fn run(&self, target: &Target, minutes: u32) -> Result<Row> {
        let name = target.name;
        let corpus = self.work.join("corpus").join(name);
        let log = self.log_of(name);
        for dir in [Some(corpus.as_path()), log.parent()].into_iter().flatten() {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let mut line = self
            .cargo_fuzz("run")
            .arg(name)
            .args([&corpus, &self.dir.join("corpus").join(name)])
            .arg("--")
            .arg(format!("-max_total_time={}", minutes * 60))
            .arg(format!("-timeout={TIMEOUT}"))
            .arg(format!("-rss_limit_mb={MEMORY_MAX}"))
            .words("-fork=0 -print_final_stats=1");
        if let Some(dictionary) = target.dictionary {
            let file = self.dir.join("dictionaries").join(dictionary);
            line = line.arg(format!("-dict={}", file.display()));
        }
        println!("$ {line}");
        let output =
            File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let ended = line.run_logged(&output);
        let row = Row {
            target: name,
            found: Found::read(&log)?,
        };
        match ended {
            // Only a run that found nothing must have ended well.
            Err(error) if row.found.crashes == 0 => {
                Err(error.context(format!("see {}", log.display())))
            }
            _ => Ok(row),
        }
    }
}

/// What libFuzzer says of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    executions: u64,
    each_second: u64,
    edges: u64,
    features: u64,
    /// Inputs and their size: `120/4096b`.
    corpus: String,
    crashes: usize,
}

impl Found {
    fn read(log: &Path) -> Result<Found> {
        // What an input holds may be printed, and need not be text.
        let log = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
        Ok(Found::of(&String::from_utf8_lossy(&log)))
    }

    fn of(log: &str) -> Found {
        let status = log.lines().rfind(|line| {
            line.starts_with('#') && line.contains(" cov: ") && line.contains(" corp: ")
        });
        let status = status.unwrap_or_default();
        let after = |text: &str, label: &str| {
            let (_, rest) = text.split_once(label)?;
            rest.split_whitespace().next().map(str::to_owned)
        };
        let number = |text: &str, label: &str| {
            let word = after(text, label).unwrap_or_default();
            word.parse().unwrap_or_default()
        };
        Found {
            executions: number(log, "stat::number_of_executed_units:"),
            each_second: number(log, "stat::average_exec_per_sec:"),
            edges: number(status, " cov: "),
            features: number(status, " ft: "),
            corpus: after(status, " corp: ").unwrap_or_default(),
            crashes: log.matches("Test unit written to ").count(),
        }
    }
}

const HEADING: &str =
    "target          executions  per second   edges  features  corpus       crashes";

struct Row {
    target: &'static str,
    found: Found,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Found {
            executions,
            each_second,
            edges,
            features,
            corpus,
            crashes,
        } = &self.found;
        write!(
            f,
            "{:<14} {executions:>11} {each_second:>11} {edges:>7} {features:>9}  {corpus:<12} {crashes:>7}",
            self.target
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, HEADING, Row};

    const LOG: &str = "INFO: Running with entropic power schedule\n\
        #2\tINITED cov: 90 ft: 91 corp: 1/1b exec/s: 0 rss: 26Mb\n\
        #1048576\tpulse  cov: 1067 ft: 5166 corp: 1200/80Kb lim: 4096 exec/s: 2000 rss: 33Mb\n\
        stat::number_of_executed_units: 1300000\n\
        stat::average_exec_per_sec:     2166\n";

    #[test]
    fn a_run_is_read_from_its_log() {
        let mut found = Found {
            executions: 1_300_000,
            each_second: 2166,
            edges: 1067,
            features: 5166,
            corpus: "1200/80Kb".to_owned(),
            crashes: 0,
        };
        assert_eq!(Found::of(LOG), found);
        let crash = format!("{LOG}artifact_prefix='a/'; Test unit written to a/crash-1\n");
        found.crashes = 1;
        assert_eq!(Found::of(&crash), found);
        assert_eq!(Found::of("error: no such target"), Found::default());
    }

    #[test]
    fn the_table_is_as_wide_as_its_heading() {
        let row = Row {
            target: "checkpoint_dir",
            found: Found::of(LOG),
        };
        assert_eq!(row.to_string().len(), HEADING.len());
    }
}
