//! Runs the Python example against a real chain.

use std::path::Path;

use anyhow::Result;

use crate::workspace::Workspace;

/// Runs `docs/examples/client.py` with `python`.
///
/// # Errors
/// If it fails.
pub fn run(_workspace: &Workspace, _python: &Path) -> Result<()> {
    anyhow::bail!("the example is not written yet")
}
