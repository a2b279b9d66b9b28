//! Dumps: all keys as they were at one point, read page by page while the state goes on.
//!
//! A dump holds no copy of the state. Each has a cursor, and every page is read from the state as it is then;
//! what the state had after the cursor, and lost since the dump began, is saved when it is lost. That is
//! less than it seems:
//!
//! - what was written after the dump began tells so by its revision, and is left out;
//! - what was overwritten or removed is saved once, by the first change after the dump began: the record that
//!   any later change replaces is newer than the dump;
//! - of keys that the cursor has passed nothing is saved, and what was saved of them is let go.
//!
//! What all dumps save together is bounded: the one that holds most is given up. So is one that nobody reads.

use crate::storage::{Record, State};
use bytes::Bytes;
use kvservice_shared::api::{ListEntry, Value};
use kvservice_shared::chain::AnswerBody;
use kvservice_shared::ids::{Seq, Ticket};
use kvservice_shared::limits::{DUMP_PAGE_BYTES_MAX, DUMPS_MAX};
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

/// Bytes that all dumps together may save.
const SAVED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// What a saved record costs beside its key and value, in bytes, about.
const SAVED_OVERHEAD: usize = 96;
/// What an entry on a page costs beside its key and value, in bytes, about.
const ENTRY_OVERHEAD: usize = 32;
/// Keys that are looked at for one page, at most: those that are newer than the dump fill no page.
const PAGE_VISITS_MAX: usize = 16 * 1024;
/// A dump of which no page was read for so long, in milliseconds of observed time, is given up.
const IDLE_MS_MAX: u64 = 120_000;

/// The dumps that are being read.
#[derive(Debug)]
pub struct Dumps {
    open: BTreeMap<Ticket, Dump>,
    saved_bytes: usize,
    saved_bytes_max: usize,
    clock_ms: u64,
}

impl Default for Dumps {
    fn default() -> Dumps {
        Dumps {
            open: BTreeMap::new(),
            saved_bytes: 0,
            saved_bytes_max: SAVED_BYTES_MAX,
            clock_ms: 0,
        }
    }
}

#[derive(Debug)]
struct Dump {
    /// The point that it shows.
    at: Seq,
    /// The last key that a page has passed.
    cursor: Option<Box<str>>,
    /// What keys after the cursor held, if that was changed since.
    saved: BTreeMap<Box<str>, Record>,
    saved_bytes: usize,
    /// Keys that are still to come.
    keys_left: u64,
    read_ms: u64,
    /// It held too much: the next page is refused.
    given_up: bool,
}

impl Dump {
    /// Lets go of everything; returns the bytes that were saved.
    fn give_up(&mut self) -> usize {
        self.given_up = true;
        self.saved.clear();
        std::mem::take(&mut self.saved_bytes)
    }

    /// The first of what was saved, if its key comes before `key` or is it.
    fn take_saved_until(&mut self, key: Option<&str>) -> Option<(Box<str>, Record)> {
        let first = self.saved.first_entry()?;
        if key.is_some_and(|key| &**first.key() > key) {
            return None;
        }
        let (key, record) = first.remove_entry();
        self.saved_bytes -= cost(&key, &record);
        Some((key, record))
    }
}

fn cost(key: &str, record: &Record) -> usize {
    key.len() + record.value.len() + SAVED_OVERHEAD
}

/// A page that is being made.
#[derive(Default)]
struct Page {
    entries: Vec<ListEntry>,
    bytes: usize,
    visits: usize,
}

impl Page {
    fn is_full(&self) -> bool {
        self.bytes >= DUMP_PAGE_BYTES_MAX || self.visits >= PAGE_VISITS_MAX
    }

    fn push(&mut self, key: String, value: Value, revision: Seq) {
        self.bytes += key.len() + value.0.len() + ENTRY_OVERHEAD;
        self.entries.push(ListEntry {
            key,
            value,
            revision,
        });
    }
}

impl Dumps {
    /// Starts a dump of `keys` keys, which shows the state at `at`: now.
    ///
    /// # Errors
    /// There are as many as there may be; the reason is for people.
    pub fn start(&mut self, dump: Ticket, at: Seq, keys: u64) -> Result<(), String> {
        if self.open.len() >= DUMPS_MAX {
            return Err(format!("{DUMPS_MAX} dumps are being read already"));
        }
        let fresh = Dump {
            at,
            cursor: None,
            saved: BTreeMap::new(),
            saved_bytes: 0,
            keys_left: keys,
            read_ms: self.clock_ms,
            given_up: false,
        };
        self.open.insert(dump, fresh);
        Ok(())
    }

    /// A key does not hold this value any more, which this revision wrote. Told of every put and remove, and cheap
    /// while there is no dump.
    pub fn changed(&mut self, key: &str, value: &[u8], revision: Seq) {
        for dump in self.open.values_mut() {
            let passed = dump.cursor.as_deref().is_some_and(|cursor| key <= cursor);
            if revision > dump.at || passed || dump.given_up {
                continue;
            }
            let old = Record {
                value: Bytes::copy_from_slice(value),
                revision,
            };
            let bytes = cost(key, &old);
            dump.saved.insert(key.into(), old);
            dump.saved_bytes += bytes;
            self.saved_bytes += bytes;
        }
        while self.saved_bytes > self.saved_bytes_max {
            let Some(most) = self.open.values_mut().max_by_key(|dump| dump.saved_bytes) else {
                return;
            };
            self.saved_bytes -= most.give_up();
        }
    }

    /// Reads the next page of a dump. The last one ends it.
    pub fn page<S: State>(&mut self, name: Ticket, state: &S) -> AnswerBody {
        let Some(dump) = self.open.get_mut(&name) else {
            let reason = "the dump is not known any more: it was not read for too long".to_owned();
            return AnswerBody::NoDump { reason };
        };
        if dump.given_up {
            self.open.remove(&name);
            let reason = format!(
                "the dump was given up: it was read too slowly for what was changed meanwhile, of which {} MiB \
                 may be kept",
                SAVED_BYTES_MAX / 1024 / 1024
            );
            return AnswerBody::NoDump { reason };
        }
        dump.read_ms = self.clock_ms;
        let saved_before = dump.saved_bytes;
        let (page, more) = dump.next_page(state);
        let revision = dump.at;
        self.saved_bytes -= saved_before - dump.saved_bytes;
        dump.keys_left = dump.keys_left.saturating_sub(page.entries.len() as u64);
        if !more {
            debug_assert_eq!(dump.keys_left, 0, "dump {name} missed keys");
            self.open.remove(&name);
        }
        AnswerBody::DumpPage {
            revision,
            entries: page.entries,
            more,
        }
    }

    /// Ends a dump, if it is there.
    pub fn end(&mut self, name: Ticket) {
        if let Some(dump) = self.open.remove(&name) {
            self.saved_bytes -= dump.saved_bytes;
        }
    }

    /// Ends all.
    pub fn clear(&mut self) {
        self.open.clear();
        self.saved_bytes = 0;
    }

    /// Time passed, as observed: ends what is not read.
    pub fn tick(&mut self, clock_ms: u64) {
        self.clock_ms = clock_ms;
        let saved_bytes = &mut self.saved_bytes;
        self.open.retain(|_, dump| {
            let read = clock_ms.saturating_sub(dump.read_ms) < IDLE_MS_MAX;
            if !read {
                *saved_bytes -= dump.saved_bytes;
            }
            read
        });
    }
}

impl Dump {
    /// Reads on from the cursor; the answer says whether there is more.
    fn next_page<S: State>(&mut self, state: &S) -> (Page, bool) {
        let mut page = Page::default();
        let mut more = false;
        // Keys are not empty: this is "none passed yet".
        let mut passed = String::new();
        let mut pass = |key: &str| {
            passed.clear();
            passed.push_str(key);
        };
        let start = self.cursor.take();
        let from = start.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        state.scan(from, &mut |key, value, revision| {
            let mut shown = false;
            while !page.is_full()
                && let Some((saved, record)) = self.take_saved_until(Some(key))
            {
                shown = *saved == *key;
                pass(&saved);
                page.push(saved.into(), Value(record.value), record.revision);
            }
            if shown {
                page.visits += 1;
                return ControlFlow::Continue(());
            }
            if page.is_full() {
                more = true;
                return ControlFlow::Break(());
            }
            page.visits += 1;
            pass(key);
            if revision <= self.at {
                page.push(key.to_owned(), Value(value.to_vec().into()), revision);
            }
            ControlFlow::Continue(())
        });
        // What was saved after the last key that the state holds.
        while !more && !page.is_full() {
            let Some((saved, record)) = self.take_saved_until(None) else {
                break;
            };
            pass(&saved);
            page.push(saved.into(), Value(record.value), record.revision);
        }
        more |= !self.saved.is_empty();
        self.cursor = match passed.is_empty() {
            true => start,
            false => Some(passed.into()),
        };
        (page, more)
    }
}

#[cfg(test)]
#[path = "dump_tests.rs"]
mod tests;
