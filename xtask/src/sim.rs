//! `cargo xtask sim`: builds the simulator, and runs it.

use anyhow::Result;

use crate::run::Line;
use crate::workspace::Workspace;

/// Whatever the simulator understands: it says so itself.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// Words for the simulator
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTIONS"
    )]
    words: Vec<String>,
}

/// Runs it, optimised and with every assertion.
///
/// # Errors
/// If it does not build, or a run fails.
pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let canaries = |word: &String| word == "--canaries" || word == "--small-limits";
    let features = match options.words.iter().any(canaries) {
        true => FEATURES,
        false => "",
    };
    line("--profile sim", features, &options.words.join(" "))
        .dir(&workspace.root)
        .run()
}

/// Bugs that can be switched on, and limits that a run reaches.
pub const FEATURES: &str = "--features canaries,small-limits";

/// The line that builds and runs the simulator.
pub fn line(profile: &str, features: &str, words: &str) -> Line {
    Line::new("cargo")
        .words("run --quiet --package kvservice-sim")
        .words(profile)
        .words(features)
        .arg("--")
        .words(words)
}
