//! `cargo xtask test`: every check and every test, in the order in which they are cheap.
//!
//! Each step prints its heading and what it runs, and is timed. The first that fails ends the
//! run, with the line that repeats it. cargo's own output is passed on as it comes; the tests
//! it reports are counted, and the last line printed is their sum: `N passed, 0 failed`.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use crate::interrupt::interrupted;
use crate::run::{Line, Runner, show_duration};
use crate::tools::{Toolbox, WASM};
use crate::workspace::{Profile, Workspace};
use crate::{bench, example, instructions, nemesis, net, page, sim};

/// Seeds of the simulator, and with `--long`; and then rounds of each test on real processes.
const SEEDS: u64 = 200;
const LONG_SEEDS: u64 = 20_000;
/// The same of the simulated network: each costs half a second.
const NET_SEEDS: u64 = 40;
const LONG_NET_SEEDS: u64 = 4_000;
const LONG_REPEAT: u32 = 20;

/// Which steps to run, and how often.
#[derive(clap::Args)]
pub struct Options {
    /// Run each test on real processes this many times in a row
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// The whole of what is shortened otherwise: more random walks and crashes, real processes twenty times in a row,
    /// and what takes long to build
    #[arg(long, conflicts_with = "fast")]
    long: bool,
    /// Leave out what needs the page, a browser or real processes
    #[arg(long)]
    fast: bool,
    /// Run this step alone; may be given again
    #[arg(long, value_name = "STEP", value_parser = STEPS.map(|step| step.name))]
    #[arg(conflicts_with = "fast")]
    only: Vec<String>,
}

/// One part of the run.
struct Step {
    name: &'static str,
    about: &'static str,
    /// Whether `--fast` leaves it in.
    fast: bool,
    /// Whether only `--long` brings it in.
    long: bool,
    run: fn(&mut Run<'_>) -> Result<()>,
}

const fn fast(
    name: &'static str,
    about: &'static str,
    run: fn(&mut Run<'_>) -> Result<()>,
) -> Step {
    Step {
        name,
        about,
        fast: true,
        long: false,
        run,
    }
}

const fn full(
    name: &'static str,
    about: &'static str,
    run: fn(&mut Run<'_>) -> Result<()>,
) -> Step {
    Step {
        name,
        about,
        fast: false,
        long: false,
        run,
    }
}

const fn long(
    name: &'static str,
    about: &'static str,
    run: fn(&mut Run<'_>) -> Result<()>,
) -> Step {
    Step {
        name,
        about,
        fast: false,
        long: true,
        run,
    }
}

const STEPS: [Step; 16] = [
    fast("fmt", "the code is formatted", |run| {
        run.tools().cargo_component("fmt", "rustfmt")?;
        run.cargo("fmt --all --check")?;
        run.cargo("fmt --manifest-path tests/net/Cargo.toml --check")
    }),
    fast("clippy", "no warnings", |run| {
        run.tools().cargo_component("clippy", "clippy")?;
        run.cargo("clippy --workspace --all-targets -- --deny warnings")
    }),
    fast(
        "unit",
        "unit, property, golden and documentation tests",
        |run| {
            let line = Line::new("cargo").words("test --workspace --exclude kvservice-tests");
            run.line(match run.long {
                true => line.env("KVSERVICE_LONG", "1"),
                false => line,
            })
        },
    ),
    fast(
        "sim",
        "the code that ships under a simulated network, disks and clock",
        |run| match run.long {
            false => run.line(sim::line("", "", &format!("--seeds {SEEDS}"))),
            true => {
                let seeds = format!("--seeds {LONG_SEEDS}");
                run.line(sim::line("--profile sim", "", &seeds))?;
                run.line(sim::line("--profile sim", sim::FEATURES, &seeds))?;
                run.line(sim::line("--profile sim", sim::FEATURES, "--canaries"))?;
                run.cargo("test --package kvservice-sim --features canaries")
            }
        },
    ),
    fast(
        "net",
        "what ships, sockets and all, over a simulated network",
        |run| {
            let workspace = run.workspace;
            let lint = "--all-targets -- --deny warnings";
            run.here(&net::cargo(workspace, "clippy", lint))?;
            run.here(&net::cargo(workspace, "test", ""))?;
            run.here(&match run.long {
                false => net::line(workspace, "", &format!("--seeds {NET_SEEDS}")),
                true => {
                    let seeds = format!("--seeds {LONG_NET_SEEDS}");
                    net::line(workspace, "--profile sim", &seeds)
                }
            })
        },
    ),
    fast(
        "schema",
        "the published schema is what the types say",
        |run| run.cargo("test --package kvservice-shared --features schema"),
    ),
    fast(
        "docs",
        "the reference compiles, its links lead somewhere",
        |run| {
            let line = Line::new("cargo").words("doc --workspace --no-deps --quiet");
            run.line(line.env("RUSTDOCFLAGS", "--deny warnings"))
        },
    ),
    full(
        "clippy-wasm",
        "no warnings where the page is compiled",
        |run| {
            run.tools().wasm_target()?;
            let packages = "--package kvservice-web-client --package kvservice-shared";
            run.cargo(&format!(
                "clippy {packages} --target {WASM} -- --deny warnings"
            ))
        },
    ),
    full(
        "wasm",
        "the shared crate's tests in headless Chromium",
        wasm,
    ),
    full("page", "the page builds", |run| {
        page::build(run.workspace, &run.runner).map(|sizes| print!("{sizes}"))
    }),
    full("build", "the binaries that the next steps run", |run| {
        run.cargo("build --bins")
    }),
    full("system", "real processes and a real browser", system),
    full(
        "nemesis",
        "a minute of faults of all kinds at random, on real processes",
        |run| {
            nemesis::run(run.workspace, &nemesis::Options::short())?;
            ensure!(!interrupted(), "interrupted");
            Ok(())
        },
    ),
    full(
        "python",
        "the client in another language, against a real chain",
        |run| {
            let python = run.tools().python()?;
            example::run(run.workspace, &python)
        },
    ),
    long(
        "bench",
        "the comparison with rivals: its own tests, and a glance at our own system",
        |run| {
            run.cargo("build --bins")?;
            let manifest = "--manifest-path tests/bench/Cargo.toml";
            run.cargo(&format!("fmt {manifest} --check"))?;
            let clippy = bench::cargo(run.workspace, "clippy");
            run.here(&clippy.words("--all-targets -- --deny warnings"))?;
            let line = bench::cargo(run.workspace, "test");
            run.here(&line.env("KVSERVICE_BIN_DIR", run.workspace.bin_dir(Profile::Debug)))
        },
    ),
    long(
        "instructions",
        "the hot paths take no more instructions than they did",
        |run| instructions::run(run.workspace, &instructions::Options::compare()),
    ),
];

/// What the steps share.
struct Run<'a> {
    workspace: &'a Workspace,
    runner: Runner,
    repeat: u32,
    long: bool,
    passed: u64,
    failed: u64,
}

/// Runs the chosen steps.
///
/// # Errors
/// If one fails: the message holds the line that repeats it.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let steps: Vec<_> = STEPS.iter().filter(|step| options.wants(step)).collect();
    let mut run = Run {
        workspace,
        runner: Runner::Foreground,
        repeat: match options.long {
            true => options.repeat.max(LONG_REPEAT),
            false => options.repeat,
        },
        long: options.long,
        passed: 0,
        failed: 0,
    };
    if steps
        .iter()
        .any(|step| ["wasm", "system"].contains(&step.name))
    {
        // Nobody should learn after half an hour that there is no browser.
        run.tools().browser()?;
    }
    let mut times = Vec::new();
    for (step, number) in steps.iter().zip(1..) {
        println!(
            "\n==> {number}/{} {}: {}",
            steps.len(),
            step.name,
            step.about
        );
        let started = Instant::now();
        let result = (step.run)(&mut run);
        let took = started.elapsed();
        times.push((step.name, took));
        if let Err(error) = result {
            println!("{}", summary(&times, &run));
            bail!(
                "{} failed after {}: {error:#}\nTo repeat this step:\n  \
                 cargo xtask test --only {}",
                step.name,
                show_duration(took),
                step.name,
            );
        }
        println!("<== {} passed in {}", step.name, show_duration(took));
    }
    println!("{}", summary(&times, &run));
    Ok(())
}

fn summary(times: &[(&str, Duration)], run: &Run<'_>) -> String {
    let mut text = String::from("\n");
    for (name, took) in times {
        text += &format!("  {name:<18} {:>12}\n", show_duration(*took));
    }
    text + &format!("\n{} passed, {} failed", run.passed, run.failed)
}

impl Options {
    fn wants(&self, step: &Step) -> bool {
        if self.only.is_empty() {
            step.fast || (!self.fast && (!step.long || self.long))
        } else {
            self.only.iter().any(|name| name == step.name)
        }
    }
}

impl Run<'_> {
    fn tools(&self) -> Toolbox<'_> {
        Toolbox::new(self.workspace, &self.runner)
    }

    fn cargo(&mut self, words: &str) -> Result<()> {
        self.line(Line::new("cargo").words(words))
    }

    /// Runs a line in the checkout, and counts the tests that it reports.
    fn line(&mut self, line: Line) -> Result<()> {
        let line = line.dir(&self.workspace.root);
        self.here(&line)
    }

    fn here(&mut self, line: &Line) -> Result<()> {
        println!("$ {line}");
        line.run_watched(|text| {
            if let Some((passed, failed)) = counts(text) {
                self.passed += passed;
                self.failed += failed;
            }
        })
    }
}

fn wasm(run: &mut Run<'_>) -> Result<()> {
    let tools = run.tools();
    let browser = tools.browser()?;
    tools.wasm_target()?;
    tools.wasm_bindgen()?;
    let line = Line::new(tools.wasm_pack()?)
        .words("test --headless --chrome --mode no-install --chromedriver")
        .arg(browser.driver)
        .path(tools.path())
        .dir(run.workspace.root.join("shared"));
    run.here(&line)
}

fn system(run: &mut Run<'_>) -> Result<()> {
    let browser = run.tools().browser()?;
    let line = Line::new("cargo")
        .words("test --package kvservice-tests")
        .env("KVSERVICE_BIN_DIR", run.workspace.bin_dir(Profile::Debug))
        .env("KVSERVICE_WEB_DIR", run.workspace.web_dir(Profile::Debug))
        .env("KVSERVICE_REPEAT", run.repeat.to_string())
        .env("CHROMEDRIVER", browser.driver)
        .env("CHROME", browser.browser);
    run.line(line)
}

/// Passed and failed, of a line as test runners close with:
/// `test result: ok. 12 passed; 0 failed; 1 ignored; …`
fn counts(line: &str) -> Option<(u64, u64)> {
    let result = line.trim().strip_prefix("test result: ")?;
    let (_, counts) = result.split_once(". ")?;
    let mut counts = counts.split("; ");
    let mut count = |what: &str| counts.next()?.strip_suffix(what)?.trim().parse().ok();
    Some((count("passed")?, count("failed")?))
}

#[cfg(test)]
mod tests {
    use super::counts;

    #[test]
    fn tests_are_counted_from_the_closing_lines() {
        let line = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out";
        assert_eq!(counts(line), Some((12, 0)));
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(counts(line), Some((3, 2)));
        assert_eq!(counts("test result: ok"), None);
        assert_eq!(counts("running 12 tests"), None);
    }
}
