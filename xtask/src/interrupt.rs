//! Being told to stop: by ctrl-c, by SIGTERM, or by the terminal going away.
//!
//! Tasks that leave servers running behind their backs count these signals instead of dying of
//! them, and stop what they started.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result};

static INTERRUPTS: AtomicUsize = AtomicUsize::new(0);
static COUNTING: AtomicBool = AtomicBool::new(false);

/// From now on the signals are counted, and do nothing else.
///
/// # Errors
/// If the handler cannot be installed.
pub fn count() -> Result<()> {
    if COUNTING.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    ctrlc::set_handler(|| {
        INTERRUPTS.fetch_add(1, Ordering::Relaxed);
    })
    .context("cannot catch ctrl-c")
}

/// How often we were told to stop.
pub fn interrupts() -> usize {
    INTERRUPTS.load(Ordering::Relaxed)
}

/// Whether we were told to stop.
pub fn interrupted() -> bool {
    interrupts() > 0
}
