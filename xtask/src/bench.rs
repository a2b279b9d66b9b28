//! kvservice beside its rivals: builds what that needs, optimised, and runs it.
//!
//! The program is in `tests/bench`, a workspace of its own.

use std::env;
use std::fs;

use anyhow::{Context, Result};

use crate::interrupt;
use crate::run::{Line, Runner};
use crate::workspace::{Profile, Workspace};

// Parsed here so that `--help` and mistakes need no build; read by the program, which gets the same words.
#[path = "../../tests/bench/src/options.rs"]
#[expect(dead_code, reason = "only checked here")]
mod options;

pub use options::Run as Options;

/// Builds, and runs.
///
/// # Errors
/// If anything cannot be built, a system does not start or breaks, or it is interrupted.
pub fn run(workspace: &Workspace) -> Result<()> {
    let packages =
        "--package kvservice-server --package kvservice-backend --package kvservice-client";
    let build = Line::new("cargo").words("build --release --bins");
    Runner::Foreground.run(&build.words(packages).dir(&workspace.root))?;
    Runner::Foreground.run(&cargo(workspace, "build"))?;
    // Interrupted, it ends by itself, with everything that it started.
    interrupt::count()?;
    let dir = workspace.target.join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let line = Line::new(dir.join("release/kvservice-rivals"))
        .args(env::args_os().skip_while(|arg| arg != "bench").skip(1))
        .arg("--bin-dir")
        .arg(workspace.bin_dir(Profile::Release))
        .args(["--commit", &commit(workspace)]);
    // Files that are asked for are named from where the caller stands; the last `--work-dir` would be the caller's.
    let own_dir = !env::args_os().any(|arg| arg.to_string_lossy().starts_with("--work-dir"));
    Runner::Foreground.run(&match own_dir {
        true => line.arg("--work-dir").arg(dir),
        false => line,
    })
}

/// A cargo command on the program.
pub fn cargo(workspace: &Workspace, command: &str) -> Line {
    Line::new("cargo")
        .arg(command)
        .words("--release --manifest-path tests/bench/Cargo.toml --target-dir")
        .arg(workspace.target.join("bench"))
        .dir(&workspace.root)
}

/// The checkout's commit, and whether anything is changed in it.
fn commit(workspace: &Workspace) -> String {
    let git = |words: &str| Line::new("git").words(words).dir(&workspace.root).output();
    match (
        git("rev-parse --short HEAD"),
        git("status --porcelain -uno"),
    ) {
        (Some(head), Some(changes)) if changes.is_empty() => head,
        (Some(head), _) => format!("{head}-dirty"),
        (None, _) => "unknown".to_owned(),
    }
}
