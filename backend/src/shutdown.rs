//! The wish to stop, from whoever has it (a signal, a test) to every task that must hear of it.

use tokio::sync::watch;

/// Says stop, once. Dropping it says so too.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

/// Hears it; each task holds its own clone.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Both ends.
#[must_use]
pub fn shutdown() -> (ShutdownTrigger, Shutdown) {
    let (tx, rx) = watch::channel(false);
    (ShutdownTrigger(tx), Shutdown(rx))
}

impl ShutdownTrigger {
    /// Says stop. Saying it again changes nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Hears whichever is said first.
    #[must_use]
    pub fn or(mut self, mut other: Shutdown) -> Shutdown {
        let (trigger, either) = shutdown();
        tokio::spawn(async move {
            tokio::select! {
                () = self.requested() => {}
                () = other.requested() => {}
                // Nobody listens any more.
                () = trigger.0.closed() => {}
            }
            trigger.stop();
        });
        either
    }

    /// Whether it was said.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until it is said; at once where it was. Can be dropped and called again.
    pub async fn requested(&mut self) {
        // An error is a dropped trigger: nobody is left to keep the task for.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// Stops on the first SIGTERM or ctrl-c. The second one kills the process, for those in a hurry.
///
/// # Errors
/// The handlers cannot be installed.
pub fn on_signal() -> std::io::Result<Shutdown> {
    let (trigger, shutdown) = shutdown();
    let mut stops = StopSignals::new()?;
    tokio::spawn(async move {
        let name = stops.next().await;
        tracing::info!(signal = name, "stopping; once more to stop at once");
        trigger.stop();
        let name = stops.next().await;
        tracing::warn!(signal = name, "stopped before everything was finished");
        std::process::exit(130);
    });
    Ok(shutdown)
}

#[cfg(unix)]
struct StopSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl StopSignals {
    fn new() -> std::io::Result<StopSignals> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "ctrl-c",
        }
    }
}

#[cfg(not(unix))]
struct StopSignals;

#[cfg(not(unix))]
impl StopSignals {
    fn new() -> std::io::Result<StopSignals> {
        Ok(StopSignals)
    }

    async fn next(&mut self) -> &'static str {
        // Where there is no console to hear from, only a kill is left.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        "ctrl-c"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everyone_hears_it_once_said_or_dropped() {
        let (trigger, mut early) = shutdown();
        assert!(!early.is_requested());
        trigger.stop();
        let mut late = early.clone();
        early.requested().await;
        late.requested().await;
        late.requested().await;
        assert!(late.is_requested());

        let (trigger, mut orphan) = shutdown();
        drop(trigger);
        orphan.requested().await;
        assert!(orphan.is_requested());
    }
}
