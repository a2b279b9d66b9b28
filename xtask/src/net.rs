//! `cargo xtask net`: builds what ships for a simulated network, and runs it there.

use anyhow::Result;

use crate::run::Line;
use crate::workspace::Workspace;

/// Whatever the program understands: it says so itself.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// Words for the program
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTIONS"
    )]
    words: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// If it does not build, or a run fails.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    line(workspace, "", &options.words.join(" ")).run()
}

/// The line that builds and runs it. `tests/net` is a workspace of its own, so that its feature never reaches what ships;
/// what it has in common with the other is built once, in the same directory.
pub fn line(workspace: &Workspace, profile: &str, words: &str) -> Line {
    cargo(workspace, "run --quiet", profile)
        .arg("--")
        .words(words)
}

/// A line of cargo for `tests/net`.
pub fn cargo(workspace: &Workspace, command: &str, rest: &str) -> Line {
    Line::new("cargo")
        .words(command)
        .words("--manifest-path tests/net/Cargo.toml --target-dir")
        .arg(&workspace.target)
        .words(rest)
        .dir(&workspace.root)
}
