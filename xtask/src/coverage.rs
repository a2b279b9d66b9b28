//! `cargo xtask coverage`: which lines of the pure cores tests, scripts and seeds run, and which they do not.
//!
//! rustc's own instrumentation, read with the `llvm-tools` of the same toolchain. Real processes (system tests,
//! nemesis) do not count: what only they reach is not reached on purpose.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::Line;
use crate::workspace::Workspace;

/// How many seeds, and how many lines of the cores are enough.
#[derive(clap::Args)]
pub struct Options {
    /// Seeds of the simulator
    #[arg(long, value_name = "N", default_value_t = 200)]
    seeds: u64,
    /// Print every line that is not run, too
    #[arg(long)]
    lines: bool,
    /// Fail where a core has less than this, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 95)]
    at_least: u64,
}

/// The state machines: what they do depends on their inputs alone.
const CORES: [(&str, &str); 4] = [
    ("replica", "backend/src/chain/"),
    ("coordinator", "server/src/coordinator/"),
    ("gateway", "server/src/gateway/"),
    ("session", "shared/src/session"),
];

/// Of one file: each line that has code, and how often it ran.
type Lines = BTreeMap<u32, u64>;

/// Builds with counters, runs, and prints.
///
/// # Errors
/// If something does not build, a test fails, or a core is below what is asked for.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let tools = tools()?;
    let target = workspace.target.join("coverage");
    let profiles = target.join("profiles");
    if profiles.exists() {
        fs::remove_dir_all(&profiles)?;
    }
    let cargo = |words: &str| {
        Line::new("cargo")
            .words(words)
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTFLAGS", "-C instrument-coverage")
            .env("LLVM_PROFILE_FILE", profiles.join("%m-%p.profraw"))
            .dir(&workspace.root)
    };
    let tests = "test --quiet -p kvservice-shared -p kvservice-backend -p kvservice-server -p kvservice-sim --lib --tests";
    let built = cargo(tests)
        .words("--no-run --message-format=json")
        .output();
    let objects = objects(&built.context("the tests do not build")?);
    cargo(tests).run()?;
    for features in ["", crate::sim::FEATURES] {
        cargo("run --quiet -p kvservice-sim")
            .words(features)
            .words("-- --seeds")
            .arg(options.seeds.to_string())
            .run()?;
    }

    let merged = target.join("merged.profdata");
    let raw = fs::read_dir(&profiles)?.map(|file| Ok(file?.path()));
    let raw: Vec<PathBuf> = raw.collect::<Result<_>>()?;
    Line::new(tools.join("llvm-profdata"))
        .words("merge --sparse --output")
        .arg(&merged)
        .args(&raw)
        .run()?;
    let export = Line::new(tools.join("llvm-cov"))
        .words("export --format=lcov --instr-profile")
        .arg(&merged)
        .args(
            objects
                .iter()
                .flat_map(|object| [Path::new("--object"), object]),
        )
        .output();
    let counted = lcov(&export.context("llvm-cov reads nothing of it")?);
    report(workspace, &counted, options)
}

/// Where `llvm-cov` is; rustup brings it.
fn tools() -> Result<PathBuf> {
    let line = "rustup component add llvm-tools";
    let sysroot = Line::new("rustc").words("--print sysroot").output();
    let libraries = Path::new(&sysroot.context("cannot run rustc")?).join("lib/rustlib");
    let find = || {
        let hosts = fs::read_dir(&libraries).ok()?.flatten();
        let mut dirs = hosts.map(|host| host.path().join("bin"));
        dirs.find(|dir| dir.join("llvm-cov").exists())
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    println!("installing llvm-tools: {line}");
    let mut words = line.split(' ');
    Line::new(words.next().unwrap_or_default())
        .args(words)
        .run()?;
    find().with_context(|| format!("{line} brought no llvm-cov"))
}

/// The programs that cargo says it built.
fn objects(messages: &str) -> Vec<PathBuf> {
    let messages = messages.lines().map(serde_json::from_str);
    let messages =
        messages.filter_map(|message: serde_json::Result<serde_json::Value>| message.ok());
    messages
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect()
}

/// Lines by file, of llvm-cov's `lcov`.
fn lcov(text: &str) -> BTreeMap<String, Lines> {
    let mut files: BTreeMap<String, Lines> = BTreeMap::new();
    let mut file = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("SF:") {
            name.clone_into(&mut file);
        } else if let Some((number, times)) =
            line.strip_prefix("DA:").and_then(|da| da.split_once(','))
            && let (Ok(number), Ok(times)) = (number.parse(), times.parse::<u64>())
        {
            let sum = files
                .entry(file.clone())
                .or_default()
                .entry(number)
                .or_default();
            *sum = sum.saturating_add(times);
        }
    }
    files
}

/// The first line of a file's own tests, which do not count.
fn tests_begin(text: &str) -> u32 {
    let before = text
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]");
    u32::try_from(before.count()).unwrap_or(u32::MAX) + 1
}

fn report(
    workspace: &Workspace,
    counted: &BTreeMap<String, Lines>,
    options: &Options,
) -> Result<()> {
    let mut low = Vec::new();
    for (core, dir) in CORES {
        let (mut ran, mut all) = (0_u32, 0_u32);
        let mut missed = Vec::new();
        for (file, lines) in counted {
            let Ok(path) = Path::new(file).strip_prefix(&workspace.root) else {
                continue;
            };
            let name = path.display().to_string();
            if !name.starts_with(dir) || name.ends_with("tests.rs") || name.contains("/tests/") {
                continue;
            }
            let text = fs::read_to_string(file)?;
            let text: Vec<&str> = text.lines().take(tests_begin(&text) as usize - 1).collect();
            for (number, times) in lines {
                let Some(code) = text.get(*number as usize - 1) else {
                    continue;
                };
                all += 1;
                match times {
                    0 => missed.push(format!("{name}:{number}: {}", code.trim())),
                    _ => ran += 1,
                }
            }
        }
        if all == 0 {
            bail!("nothing was counted in {dir}");
        }
        println!(
            "{core:<12} {ran:>5} of {all:>5} lines  {:>5.1} %",
            100.0 * f64::from(ran) / f64::from(all)
        );
        if options.lines {
            missed.iter().for_each(|line| println!("  {line}"));
        }
        if u64::from(ran) * 100 < u64::from(all) * options.at_least {
            low.push(core);
        }
    }
    if !low.is_empty() {
        bail!("below {} %: {}", options.at_least, low.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_llvm_cov_writes() {
        let text = "SF:/a.rs\nFN:1,main\nDA:1,2\nDA:3,0\nend_of_record\nSF:/b.rs\nDA:7,18446744073709551615\nSF:/a.rs\nDA:3,5\n";
        let files = lcov(text);
        assert_eq!(files["/a.rs"], BTreeMap::from([(1, 2), (3, 5)]));
        assert_eq!(files["/b.rs"], BTreeMap::from([(7, u64::MAX)]));
    }

    #[test]
    fn a_files_tests_do_not_count() {
        assert_eq!(tests_begin("fn a() {}\n\n#[cfg(test)]\nmod tests {}\n"), 3);
        assert_eq!(tests_begin("fn a() {}\n"), 2);
    }

    #[test]
    fn takes_programs_from_cargos_words() {
        let text = "{\"executable\":\"/t/a\"}\n{\"executable\":null}\nno json\n";
        assert_eq!(objects(text), [PathBuf::from("/t/a")]);
    }
}
