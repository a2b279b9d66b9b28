//! The definition, tried out: every order of the calls. For a handful of them.

use crate::call::{Answer, Call, Op};
use std::collections::BTreeMap;

/// What a naive check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Values alone.
    Values,
    /// Values and revisions: every write that took effect has a higher one than those before it.
    Revisions,
}

/// A key's value and the revision that wrote it, where it is known.
type Held = (String, Option<u64>);

#[derive(Clone, Default)]
struct Store {
    keys: BTreeMap<String, Held>,
    revision: u64,
}

/// Whether any order of the calls is one that a linearizable store may have seen.
///
/// # Panics
/// For more than 20 calls: that would take for ever.
#[must_use]
pub fn check(history: &[Call], by: By) -> bool {
    assert!(history.len() <= 20, "too many calls");
    search(history, by, 0, &Store::default())
}

fn search(history: &[Call], by: By, done: u32, store: &Store) -> bool {
    let is_left = |index: usize| done >> index & 1 == 0;
    let optional = |call: &Call| matches!(call.answer, Answer::Unknown | Answer::NotApplied);
    let left = || (0..history.len()).filter(|index| is_left(*index));
    if left().all(|index| optional(&history[index])) {
        return true;
    }
    left().any(|index| {
        let call = &history[index];
        let first = left().all(|other| optional(&history[other]) || !history[other].precedes(call));
        first
            && effect(store, history, call, by)
                .is_some_and(|next| search(history, by, done | 1 << index, &next))
    })
}

/// The revision that somebody saw this value with.
fn seen_as(history: &[Call], key: &str, value: &str) -> Option<u64> {
    history
        .iter()
        .find_map(|call| match (&call.op, &call.answer) {
            (
                Op::Get { key: k } | Op::TestSet { key: k, .. },
                Answer::Value {
                    value: Some(v),
                    revision,
                }
                | Answer::NotSwapped {
                    value: Some(v),
                    revision,
                },
            ) if k == key && v == value => Some(*revision),
            (_, Answer::Page { entries, .. }) => {
                let found = entries
                    .iter()
                    .find(|entry| entry.key == key && entry.value == value);
                found.map(|entry| entry.revision)
            }
            _ => None,
        })
}

/// The store after a call, if the call may have been answered so.
fn effect(store: &Store, history: &[Call], call: &Call, by: By) -> Option<Store> {
    let mut next = store.clone();
    let held = |key: &str| store.keys.get(key).map(|(value, _)| value.as_str());
    let shows = |key: &str, value: Option<&str>, revision: u64| {
        let same = match store.keys.get(key) {
            Some((_, Some(of))) => *of == revision,
            Some((_, None)) => true,
            None => revision == 0,
        };
        held(key) == value && (by == By::Values || same)
    };
    let right = match (&call.op, &call.answer) {
        (Op::Get { key }, Answer::Value { value, revision }) => {
            shows(key, value.as_deref(), *revision)
        }
        (Op::Set { key, value }, Answer::Set { revision }) => {
            next.put(key, value, Some(*revision), by)
        }
        (Op::Set { key, value }, Answer::Unknown) => {
            next.put(key, value, seen_as(history, key, value), by)
        }
        (Op::TestSet { key, test, value }, Answer::Swapped { revision }) => {
            held(key) == test.as_deref() && next.put(key, value, Some(*revision), by)
        }
        (Op::TestSet { key, test, value }, Answer::Unknown) => {
            held(key) == test.as_deref() && next.put(key, value, seen_as(history, key, value), by)
        }
        (Op::TestSet { key, test, .. }, Answer::NotSwapped { value, revision }) => {
            value != test && shows(key, value.as_deref(), *revision)
        }
        (Op::Delete { key }, Answer::Deleted { revision }) => {
            next.keys.remove(key).is_some() && next.advance(Some(*revision), by)
        }
        (Op::Delete { key }, Answer::Unknown) => next.keys.remove(key).is_some(),
        (Op::Delete { key }, Answer::Absent) => held(key).is_none(),
        (
            Op::List {
                prefix,
                after,
                limit,
            },
            Answer::Page { entries, more },
        ) => {
            let mut all = store
                .keys
                .keys()
                .filter(|key| Op::covers(prefix, after, key));
            let page: Vec<&String> = all.by_ref().take(*limit).collect();
            let same = page.iter().zip(entries).all(|(key, entry)| {
                **key == entry.key && shows(key, Some(&entry.value), entry.revision)
            });
            same && page.len() == entries.len() && *more == all.next().is_some()
        }
        _ => false,
    };
    right.then_some(next)
}

impl Store {
    fn put(&mut self, key: &str, value: &str, revision: Option<u64>, by: By) -> bool {
        self.keys
            .insert(key.to_owned(), (value.to_owned(), revision));
        self.advance(revision, by)
    }

    fn advance(&mut self, revision: Option<u64>, by: By) -> bool {
        let Some(revision) = revision else {
            return true;
        };
        let grows = revision > self.revision;
        self.revision = revision;
        grows || by == By::Values
    }
}
