//! Bugs that can be switched on.

use crate::run::Plan;
use anyhow::{Result, bail};
use std::num::NonZero;

/// Switches each canary on and hunts it.
///
/// # Errors
/// If one is not found, or this simulator was built without them.
pub fn hunt_all(_plan: Plan, _jobs: Option<NonZero<usize>>, _only: Option<&str>) -> Result<()> {
    bail!("not yet")
}
