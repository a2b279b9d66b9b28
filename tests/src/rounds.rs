//! A scenario is run as often as `KVSERVICE_REPEAT` says, each time in a fresh directory, which is kept
//! and named when it fails. Few run at once: each is several processes that all want to compute.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::{env, fs, io, thread};
use tempfile::TempDir;

/// Scenarios that run at once, whatever the number of test threads.
const AT_ONCE_MAX: usize = 2;

/// Where one round keeps its files.
#[derive(Debug)]
pub struct Round {
    test: String,
    number: u32,
    dir: TempDir,
}

impl Round {
    /// The name of the test.
    #[must_use]
    pub fn test(&self) -> &str {
        &self.test
    }

    /// Its number, from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// A directory for this round alone.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Prints a line about this test, past the harness's capture: figures are worth seeing in passing.
    pub fn say(&self, line: &str) {
        use io::Write;
        // A terminal that is gone is no reason to fail.
        let _ = writeln!(io::stderr(), "{}: {line}", self.test);
    }

    /// Whatever happened, no process may have panicked.
    fn check_logs(&self) {
        if let Some(panic) = panic_in(self.dir()) {
            panic!("{panic}");
        }
    }
}

/// The first panic that a log below this directory tells of.
#[must_use]
pub fn panic_in(dir: &Path) -> Option<String> {
    logs(dir).into_iter().find_map(|log| {
        let text = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let at = text.find("panicked at")?;
        let words: String = text[at..].chars().take(400).collect();
        Some(format!("{}: {words}", log.display()))
    })
}

fn logs(dir: &Path) -> Vec<PathBuf> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            logs.extend(self::logs(&path));
        } else if path.extension().is_some_and(|extension| extension == "log") {
            logs.push(path);
        }
    }
    logs
}

/// Runs `scenario` as often as was asked for.
///
/// # Panics
/// Where it does, or one of its processes did; the files are kept then, and named.
pub fn rounds(scenario: impl AsyncFn(&Round)) {
    let repeat = env::var("KVSERVICE_REPEAT").ok();
    let repeat: u32 = match repeat.as_deref() {
        None | Some("") => 1,
        Some(times) => times
            .parse()
            .unwrap_or_else(|_| panic!("KVSERVICE_REPEAT is {times:?}: a number, please")),
    };
    let test = thread::current().name().unwrap_or("test").to_owned();
    for number in 1..=repeat {
        let _turn = Turn::take();
        let mut round = Round {
            test: test.clone(),
            number,
            dir: tempfile::Builder::new()
                .prefix("kvservice-test-")
                .tempdir()
                .expect("a temporary directory can be made"),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // The scenario runs on the test's thread; this one is for its clients.
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(scenario(&round));
            round.check_logs();
        }));
        if let Err(panic) = outcome {
            round.dir.disable_cleanup(true);
            round.say(&format!(
                "round {number} of {repeat} failed; its logs are in {}",
                round.dir().display()
            ));
            resume_unwind(panic);
        }
    }
}

/// A place among the [`AT_ONCE_MAX`].
struct Turn;

static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

impl Turn {
    fn take() -> Turn {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = GIVEN_BACK
            .wait_while(taken, |taken| *taken >= AT_ONCE_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        GIVEN_BACK.notify_one();
    }
}
