//! What all clients of a load know together: what was shown, what was acknowledged, what was wrong.

use super::Allow;
use kvservice_client::{Error, Seq};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Wrong answers that are kept; one is enough to fail.
const WRONG_MAX: usize = 10;

#[derive(Debug)]
pub(super) struct Book {
    /// Of the load: its keys begin with it.
    pub(super) name: String,
    pub(super) allow: Allow,
    pages: Mutex<Pages>,
}

#[derive(Debug)]
struct Pages {
    /// Of each key, the highest revision that any answer showed.
    shown: HashMap<String, Seq>,
    /// Of each value, the revision that it goes with.
    revisions: HashMap<String, Seq>,
    /// Of each counter.
    counts: HashMap<String, Count>,
    acknowledged: u64,
    refused: u64,
    last_at: Instant,
    longest_gap: Duration,
    wrong: Vec<String>,
}

/// What is known of a counter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) acknowledged: u64,
    pub(super) unknown: u64,
}

/// What a load came to.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Requests that were refused, where that was allowed.
    pub refused: u64,
    /// The longest time between two acknowledgements.
    pub longest_gap: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures {
            acknowledged,
            refused,
            longest_gap,
        } = self;
        write!(
            f,
            "{acknowledged} writes, longest gap {} ms",
            longest_gap.as_millis()
        )?;
        if *refused > 0 {
            write!(f, ", {refused} refused")?;
        }
        Ok(())
    }
}

impl Pages {
    fn wrong(&mut self, what: String) {
        if self.wrong.len() < WRONG_MAX {
            self.wrong.push(what);
        }
    }
}

impl Book {
    pub(super) fn new(name: String, allow: Allow) -> Book {
        let pages = Pages {
            shown: HashMap::new(),
            revisions: HashMap::new(),
            counts: HashMap::new(),
            acknowledged: 0,
            refused: 0,
            last_at: Instant::now(),
            longest_gap: Duration::ZERO,
            wrong: Vec::new(),
        };
        Book {
            name,
            allow,
            pages: Mutex::new(pages),
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.pages().acknowledged
    }

    pub(super) fn figures(&self) -> Figures {
        let pages = self.pages();
        Figures {
            acknowledged: pages.acknowledged,
            refused: pages.refused,
            longest_gap: pages.longest_gap,
        }
    }

    /// Fails if anything was wrong.
    pub(super) fn assert_right(&self) {
        let pages = self.pages();
        assert!(
            pages.wrong.is_empty(),
            "promises broken:\n  {}",
            pages.wrong.join("\n  ")
        );
    }

    pub(super) fn wrong(&self, what: String) {
        self.pages().wrong(what);
    }

    /// The highest revision that an answer has shown for this key so far.
    pub(super) fn shown(&self, key: &str) -> Seq {
        self.pages().shown.get(key).copied().unwrap_or(Seq::ZERO)
    }

    /// An answer shows that this key holds, or held, this value with this revision; it was asked for when
    /// `floor` had been shown already.
    pub(super) fn show(&self, who: &str, key: &str, value: &str, revision: Seq, floor: Seq) {
        let mut pages = self.pages();
        if revision < floor {
            pages.wrong(format!(
                "{who}: {key} went back from {floor} to {revision} ({value})"
            ));
        }
        let shown = pages.shown.entry(key.to_owned()).or_default();
        *shown = (*shown).max(revision);
        let first = *pages.revisions.entry(value.to_owned()).or_insert(revision);
        if first != revision {
            pages.wrong(format!(
                "{who}: {value} in {key} was written twice: {first}, {revision}"
            ));
        }
    }

    /// A write was acknowledged.
    pub(super) fn acknowledge(&self) {
        let mut pages = self.pages();
        let now = Instant::now();
        if pages.acknowledged > 0 {
            pages.longest_gap = pages.longest_gap.max(now - pages.last_at);
        }
        pages.last_at = now;
        pages.acknowledged += 1;
    }

    /// An increment ended.
    pub(super) fn count(&self, counter: &str, outcome: Counted) {
        let mut pages = self.pages();
        let count = pages.counts.entry(counter.to_owned()).or_default();
        match outcome {
            Counted::Acknowledged => count.acknowledged += 1,
            Counted::Unknown => count.unknown += 1,
        }
    }

    pub(super) fn counts(&self) -> Vec<(String, Count)> {
        let pages = self.pages();
        let mut counts: Vec<_> = pages
            .counts
            .iter()
            .map(|(key, &c)| (key.clone(), c))
            .collect();
        counts.sort_by(|(a, _), (b, _)| a.cmp(b));
        counts
    }

    /// An error came; right or wrong, as the test allows. Whether the request may have been applied.
    pub(super) fn error(&self, who: &str, what: &str, error: &Error) -> bool {
        let unknown = error.outcome_unknown();
        let allowed = match self.allow {
            Allow::Nothing => false,
            Allow::Refusals => !unknown,
            Allow::Unknown => true,
        };
        if allowed {
            self.pages().refused += 1;
        } else {
            self.wrong(format!("{who}: {what}: {error}"));
        }
        unknown
    }
}

/// How an increment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Acknowledged,
    Unknown,
}
