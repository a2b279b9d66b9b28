//! Instructions of the hot paths, stage by stage, beside those that are kept in the repository.
//!
//! Times depend on what else the machine does; instructions do not. valgrind counts them while a chain in one thread
//! (`tests/hot-paths`) serves requests: twice, with few and with many, so that what comes before the requests falls out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::run::{Line, find_in_path};
use crate::workspace::{Profile, Workspace};

const WORKLOADS: [&str; 3] = ["set", "get", "testset"];
/// Requests in the two runs whose difference counts; both whole rounds.
const FEW: u64 = 640;
const MANY: u64 = 10_880;
/// More instructions than are kept, by so many in a thousand, are a regression. (Hashes are seeded at random: a few in a
/// thousand is what counts differ by from run to run.)
const WORSE_MAX: u64 = 30;
/// Of stages with fewer instructions than this, only the sum counts.
const SMALL: u64 = 100;
const KEPT: &str = "tests/hot-paths/instructions.txt";

/// Whether to keep what is counted.
#[derive(clap::Args)]
pub struct Options {
    /// Keep what is counted now, instead of comparing with what was kept
    #[arg(long)]
    update: bool,
}

impl Options {
    /// What the tests do.
    pub fn compare() -> Options {
        Options { update: false }
    }
}

/// Instructions for one request, by workload and stage.
type Counts = BTreeMap<(String, String), u64>;

/// Counts, and compares or keeps.
///
/// # Errors
/// If there is no valgrind, anything does not build or run, or a stage got worse.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    for tool in ["valgrind", "callgrind_annotate"] {
        ensure!(
            find_in_path(tool).is_some(),
            "{tool} is not installed; on Debian: sudo apt-get install valgrind"
        );
    }
    let build = Line::new("cargo").words("build --release --package kvservice-hot-paths");
    build.dir(&workspace.root).run()?;
    let compiler = Line::new("rustc").arg("--version");
    let compiler = compiler
        .output()
        .context("rustc does not say its version")?;
    let counted = count(workspace)?;
    let kept_in = workspace.root.join(KEPT);
    if options.update {
        fs::write(&kept_in, show(&compiler, &counted))
            .with_context(|| format!("cannot write {KEPT}"))?;
        println!("{}\nkept in {KEPT}", show(&compiler, &counted));
        return Ok(());
    }
    let kept = fs::read_to_string(&kept_in).with_context(|| format!("cannot read {KEPT}"))?;
    compare(&compiler, &counted, &kept)
}

fn count(workspace: &Workspace) -> Result<Counts> {
    let dir = workspace.target.join("tmp");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut counted = Counts::new();
    for workload in WORKLOADS {
        let few = stages(workspace, &dir, workload, FEW)?;
        for (stage, many) in stages(workspace, &dir, workload, MANY)? {
            let before = few.get(&stage).copied().unwrap_or_default();
            let each = many.saturating_sub(before) / (MANY - FEW);
            if each > 0 {
                counted.insert((workload.to_owned(), stage), each);
            }
        }
    }
    Ok(counted)
}

/// Instructions of each stage, all that it calls included.
fn stages(
    workspace: &Workspace,
    dir: &Path,
    workload: &str,
    requests: u64,
) -> Result<BTreeMap<String, u64>> {
    let out = dir.join(format!("callgrind.{workload}.{requests}"));
    let _ = fs::remove_file(&out);
    let run = Line::new("valgrind")
        .words("--quiet --tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(workspace.bin(Profile::Release, "kvservice-hot-paths"))
        .words(&format!("{workload} --keys 1000 --requests {requests}"));
    println!("$ {run}");
    run.output()
        .with_context(|| format!("{run} failed: run it to see why"))?;
    let annotate =
        Line::new("callgrind_annotate").words("--inclusive=yes --threshold=100 --auto=no");
    let text = annotate.arg(&out).output();
    let text = text.with_context(|| format!("callgrind_annotate cannot read {}", out.display()))?;
    let mut stages = BTreeMap::new();
    for line in text.lines() {
        let Some((_, name)) = line.split_once("::stage_") else {
            continue;
        };
        let name: String = name
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect();
        let digits = line.split_whitespace().next().unwrap_or_default();
        let number = digits.replace(',', "").parse::<u64>();
        let number = number.with_context(|| format!("callgrind_annotate wrote {line:?}"))?;
        // There is a line for each file whose code was inlined into a stage, and one with all of it.
        let all = stages.entry(name).or_insert(number);
        *all = number.max(*all);
    }
    ensure!(
        !stages.is_empty(),
        "callgrind_annotate names no stage: is {} stripped?",
        workspace.show(&workspace.bin(Profile::Release, "kvservice-hot-paths"))
    );
    Ok(stages)
}

fn show(compiler: &str, counts: &Counts) -> String {
    let mut text = format!(
        "# Instructions for one request, counted by `cargo xtask instructions --update` with {compiler}\n"
    );
    for ((workload, stage), each) in counts {
        let _ = writeln!(text, "{workload:<8} {stage:<8} {each:>6}");
    }
    text
}

fn compare(compiler: &str, counted: &Counts, kept: &str) -> Result<()> {
    let mut lines = kept.lines();
    let same_compiler = lines.next().is_some_and(|first| first.ends_with(compiler));
    let mut before = Counts::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [workload, stage, each] = words[..] else {
            bail!("{KEPT} has a line {line:?}");
        };
        let each = each
            .parse()
            .with_context(|| format!("{KEPT} has a line {line:?}"))?;
        before.insert((workload.to_owned(), stage.to_owned()), each);
    }
    let mut worse = Vec::new();
    println!("{:<8} {:<8} {:>6} {:>6}", "what", "stage", "kept", "now");
    let mut look = |workload: &str, stage: &str, kept: u64, now: u64| {
        println!("{workload:<8} {stage:<8} {kept:>6} {now:>6}");
        if now * 1000 > kept * (1000 + WORSE_MAX) && kept.max(now) >= SMALL {
            worse.push(format!("{workload} {stage}: {now} instead of {kept}"));
        }
    };
    for workload in WORKLOADS {
        let sum = |counts: &Counts| {
            counts
                .iter()
                .filter(|((w, _), _)| w == workload)
                .map(|(_, n)| n)
                .sum()
        };
        let mut stages: Vec<&(String, String)> = before.keys().chain(counted.keys()).collect();
        stages.sort_unstable();
        stages.dedup();
        for key in stages.into_iter().filter(|(of, _)| of == workload) {
            let of = |counts: &Counts| counts.get(key).copied().unwrap_or_default();
            look(workload, &key.1, of(&before), of(counted));
        }
        look(workload, "together", sum(&before), sum(counted));
    }
    if worse.is_empty() {
        return Ok(());
    }
    let worse = worse.join("\n  ");
    ensure!(
        !same_compiler,
        "more instructions than are kept:\n  {worse}\nIf that is meant: cargo xtask instructions --update"
    );
    println!(
        "more instructions, but these were kept with another compiler than {compiler}:\n  {worse}"
    );
    Ok(())
}
