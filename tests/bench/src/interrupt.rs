//! Being told to stop: everything that waits looks here, and whoever started a process ends it on the way out.

use anyhow::{Context, Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on ctrl-c, SIGTERM and a closed terminal only set a mark.
///
/// # Errors
/// The handler cannot be installed.
pub fn catch() -> Result<()> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed)).context("cannot catch ctrl-c")
}

/// Whether we were told to stop.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// An error once we were told to stop.
///
/// # Errors
/// We were.
pub fn check() -> Result<()> {
    if interrupted() {
        bail!("interrupted; what was measured until then is above");
    }
    Ok(())
}
