//! All keys at once, by the revisions that answers tell.
//!
//! Revisions say in which order writes took effect, so nothing needs to be searched. A write took effect between
//! its invocation and its return, after every read that still shows what was before it was invoked, and before
//! every read that shows it returned. Points in time for all writes, in the order of their revisions, exist if
//! none has to be later than it may be.
//!
//! This never refuses what a linearizable store with growing revisions may answer. It does not find everything by
//! itself: keys that hold nothing tell no revision, so reads of nothing are only asked to be possible one by one.

use crate::call::{Answer, Call, Entry, Op};
use crate::{Refused, unique_values};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

/// A write that took effect.
#[derive(Debug)]
struct Version<'a> {
    /// `None`: a removal.
    value: Option<&'a str>,
    earliest: u64,
    latest: u64,
}

#[derive(Default)]
struct Store<'a> {
    keys: BTreeMap<&'a str, BTreeMap<u64, Version<'a>>>,
    /// Which key a revision wrote.
    revisions: BTreeMap<u64, &'a str>,
    /// Which revision wrote a value.
    of_value: HashMap<(&'a str, &'a str), u64>,
    /// Writes whose outcome is unknown, and which nobody saw yet.
    unknown: HashMap<(&'a str, &'a str), &'a Call>,
    /// When the first delete of a key was invoked whose outcome is unknown.
    unknown_delete: HashMap<&'a str, u64>,
    /// The writes in their order, once that is known.
    timeline: Vec<Moment>,
}

/// When a write took effect. Neither bound is less than that of the write before.
struct Moment {
    revision: u64,
    earliest: u64,
    latest: u64,
}

fn wrong<T>(what: String) -> Result<T, Refused> {
    Err(Refused::Wrong(what))
}

fn returned(call: &Call) -> u64 {
    call.returned.unwrap_or(u64::MAX)
}

/// Checks a history.
///
/// # Errors
/// If it is refused.
pub fn check(history: &[Call]) -> Result<(), Refused> {
    unique_values(history)?;
    let mut store = Store::default();
    for call in history {
        store.take_write(call)?;
    }
    for call in history {
        store.resolve_seen(call)?;
    }
    for call in history {
        store.bound_by(call);
    }
    store.order()?;
    for call in history {
        store.check_absences(call)?;
    }
    Ok(())
}

/// What an answer shows of keys: key, value and revision.
fn shown(call: &Call) -> Vec<(&str, &str, u64)> {
    match (&call.op, &call.answer) {
        (
            Op::Get { key } | Op::TestSet { key, .. },
            Answer::Value {
                value: Some(value),
                revision,
            }
            | Answer::NotSwapped {
                value: Some(value),
                revision,
            },
        ) => vec![(key, value, *revision)],
        (_, Answer::Page { entries, .. }) => entries
            .iter()
            .map(
                |Entry {
                     key,
                     value,
                     revision,
                 }| (key.as_str(), value.as_str(), *revision),
            )
            .collect(),
        _ => Vec::new(),
    }
}

impl<'a> Store<'a> {
    fn take_write(&mut self, call: &'a Call) -> Result<(), Refused> {
        let (key, value, revision) = match (&call.op, &call.answer) {
            (Op::Set { key, value }, Answer::Set { revision })
            | (Op::TestSet { key, value, .. }, Answer::Swapped { revision }) => {
                (key, Some(value.as_str()), *revision)
            }
            (Op::Delete { key }, Answer::Deleted { revision }) => (key, None, *revision),
            (Op::Set { key, value } | Op::TestSet { key, value, .. }, Answer::Unknown) => {
                self.unknown.insert((key, value), call);
                return Ok(());
            }
            (Op::Delete { key }, Answer::Unknown) => {
                let first = self.unknown_delete.entry(key).or_insert(call.invoked);
                *first = call.invoked.min(*first);
                return Ok(());
            }
            _ => return Ok(()),
        };
        self.add(key, value, revision, call)
    }

    fn add(
        &mut self,
        key: &'a str,
        value: Option<&'a str>,
        revision: u64,
        call: &Call,
    ) -> Result<(), Refused> {
        if revision == 0 {
            return wrong(format!("revisions begin at 1: {call}"));
        }
        if let Some(other) = self.revisions.insert(revision, key) {
            return wrong(format!("revision {revision} wrote {other:?} too: {call}"));
        }
        if let Some(value) = value
            && let Some(other) = self.of_value.insert((key, value), revision)
        {
            return wrong(format!(
                "{value:?} was written twice, as {other} too: {call}"
            ));
        }
        let version = Version {
            value,
            earliest: call.invoked,
            latest: match call.answer {
                Answer::Unknown => u64::MAX,
                _ => returned(call),
            },
        };
        self.keys.entry(key).or_default().insert(revision, version);
        Ok(())
    }

    /// Writes of which nobody was told what came of them, but whose values were seen.
    fn resolve_seen(&mut self, call: &'a Call) -> Result<(), Refused> {
        for (key, value, revision) in shown(call) {
            match self.of_value.get(&(key, value)) {
                Some(of) if *of == revision => {}
                Some(of) => {
                    return wrong(format!("{value:?} in {key:?} was written as {of}: {call}"));
                }
                None => {
                    let Some(writer) = self.unknown.remove(&(key, value)) else {
                        return wrong(format!("nobody wrote {value:?} to {key:?}: {call}"));
                    };
                    self.add(key, Some(value), revision, writer)?;
                }
            }
        }
        Ok(())
    }

    /// Whoever shows a version was asked before the next one took effect, and returned after it did.
    fn bound_by(&mut self, call: &Call) {
        for (key, _, revision) in shown(call) {
            let Some(versions) = self.keys.get_mut(key) else {
                continue;
            };
            if let Some(version) = versions.get_mut(&revision) {
                version.latest = version.latest.min(returned(call));
            }
            let after = (Bound::Excluded(revision), Bound::Unbounded);
            if let Some((_, next)) = versions.range_mut(after).next() {
                next.earliest = next.earliest.max(call.invoked);
            }
        }
    }

    /// Every write after those before it.
    fn order(&mut self) -> Result<(), Refused> {
        let mut before = (0, 0);
        for (revision, key) in &self.revisions {
            let Some(version) = self.keys.get_mut(key).and_then(|key| key.get_mut(revision)) else {
                continue;
            };
            if version.earliest < before.0 {
                version.earliest = before.0;
            } else {
                before = (version.earliest, *revision);
            }
            if version.earliest > version.latest {
                return wrong(format!(
                    "revision {revision} of {key:?} took effect by {}, and revision {} not before {}",
                    version.latest, before.1, before.0
                ));
            }
        }
        let mut after = u64::MAX;
        for (revision, key) in self.revisions.iter().rev() {
            if let Some(version) = self.keys.get_mut(key).and_then(|key| key.get_mut(revision)) {
                after = after.min(version.latest);
                version.latest = after;
                self.timeline.push(Moment {
                    revision: *revision,
                    earliest: version.earliest,
                    latest: after,
                });
            }
        }
        self.timeline.reverse();
        Ok(())
    }

    /// A page is of one point in time; a key without a value had none at some point.
    fn check_absences(&self, call: &Call) -> Result<(), Refused> {
        let possible = match (&call.op, &call.answer) {
            (
                Op::Get { key } | Op::TestSet { key, .. },
                Answer::Value { value: None, .. } | Answer::NotSwapped { value: None, .. },
            )
            | (Op::Delete { key }, Answer::Absent) => {
                self.had_one_point(call, &[], &[key.as_str()])
            }
            (Op::List { prefix, after, .. }, Answer::Page { entries, more }) => {
                let last = entries.last().map(|entry| entry.key.as_str());
                let present: HashSet<&str> = entries.iter().map(|e| e.key.as_str()).collect();
                let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
                let absent: Vec<&str> = self
                    .keys
                    .range::<str, _>(from)
                    .map(|(key, _)| *key)
                    .take_while(|key| key.starts_with(prefix.as_str()))
                    .filter(|key| Op::covers(prefix, after, key))
                    .filter(|key| !more || last.is_some_and(|last| *key < last))
                    .filter(|key| !present.contains(key))
                    .collect();
                self.had_one_point(call, entries, &absent)
            }
            _ => true,
        };
        if possible {
            return Ok(());
        }
        wrong(format!("at no point in its time was it so: {call}"))
    }

    fn had_one_point(&self, call: &Call, present: &[Entry], absent: &[&str]) -> bool {
        let from = present
            .iter()
            .map(|entry| entry.revision)
            .max()
            .unwrap_or(0);
        let next = |entry: &Entry| {
            let after = (Bound::Excluded(entry.revision), Bound::Unbounded);
            let versions = self.keys.get(entry.key.as_str())?;
            versions.range(after).next().map(|(revision, _)| *revision)
        };
        let until = present.iter().filter_map(next).min().unwrap_or(u64::MAX);
        if from >= until {
            return false;
        }
        self.points(call, from, until)
            .any(|point| absent.iter().all(|key| self.was_absent(call, key, point)))
    }

    /// The revisions from `from` on and before `until`, of which each was the last for some of a call's time.
    fn points(&self, call: &Call, from: u64, until: u64) -> impl Iterator<Item = u64> {
        let writes = &self.timeline;
        // A point is the number of writes that took effect before it.
        let first = writes.partition_point(|write| write.revision <= from);
        let last = writes.partition_point(|write| write.revision < until);
        let began = writes.partition_point(|write| write.earliest <= returned(call));
        let ended = writes.partition_point(|write| write.latest < call.invoked);
        (first.max(ended)..=last.min(began)).map(|point| match point {
            0 => 0,
            _ => writes[point - 1].revision,
        })
    }

    fn was_absent(&self, call: &Call, key: &str, revision: u64) -> bool {
        let held = self
            .keys
            .get(key)
            .and_then(|versions| versions.range(..=revision).next_back());
        let deleted = self
            .unknown_delete
            .get(key)
            .is_some_and(|at| *at <= returned(call));
        deleted || held.is_none_or(|(_, version)| version.value.is_none())
    }
}
