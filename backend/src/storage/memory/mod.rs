//! Storage in memory: gone with the process, and therefore "durable" at once. A process that starts with it
//! is a new node.
//!
//! | file | its purpose |
//! | --- | --- |
//! | `entry` | one key with its value |
//! | `entries` | all of them, found by hash |
//! | `order` | their order |
//! | `load` | a checkpoint and the log after it |
//! | `journal` | a journal that keeps nothing |

mod entries;
mod entry;
mod journal;
mod load;
mod order;

pub use journal::MemoryJournal;

use super::{Changed, Held, Record, State, Visit};
use bytes::Bytes;
use entries::Entries;
use entry::Entry;
use kvservice_shared::ids::Seq;
use load::{Newer, last_of_each, merge};
use order::{LEAF_FILL, Order};
use std::fmt;
use std::ops::Bound;

/// Keys and values in memory.
#[derive(Default)]
pub struct MemoryState {
    entries: Entries,
    order: Order,
    bytes: u64,
    /// Of a checkpoint that is being read, in order.
    loading: Vec<Entry>,
    /// Of the log after it, in its order.
    newer: Vec<Newer>,
}

impl fmt::Debug for MemoryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryState")
            .field("keys", &self.keys())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl State for MemoryState {
    fn get(&self, key: &str) -> Option<Record> {
        let entry = self.entries.find(key.as_bytes())?;
        Some(Record {
            value: Bytes::copy_from_slice(entry.value()),
            revision: entry.revision(),
        })
    }

    fn revision(&self, key: &str) -> Option<Seq> {
        self.entries.find(key.as_bytes()).map(Entry::revision)
    }

    fn warm<'k>(&self, keys: impl Iterator<Item = &'k str>) {
        self.entries.warm(keys.map(str::as_bytes));
    }

    fn put(&mut self, key: &str, value: &[u8], revision: Seq, held: &mut Held<'_>) {
        match self.entries.find_mut(key.as_bytes()) {
            Ok(entry) => {
                held(entry.value(), entry.revision());
                self.bytes -= entry.size();
                entry.overwrite(value, revision);
                self.bytes += entry.size();
            }
            Err(vacancy) => {
                let entry = Entry::new(key, value, revision);
                self.bytes += entry.size();
                let id = self.entries.add(vacancy, entry);
                self.order.insert(&self.entries, id);
            }
        }
    }

    fn remove(&mut self, key: &str) -> Option<Record> {
        self.entries.find(key.as_bytes())?;
        self.order.remove(&self.entries, key.as_bytes());
        let old = self.entries.remove(key.as_bytes())?;
        self.bytes -= old.size();
        Some(old.into_record())
    }

    fn scan(&self, from: Bound<&str>, visit: &mut Visit<'_>) {
        for id in self.order.from(&self.entries, from.map(str::as_bytes)) {
            let entry = self.entries.get(id);
            if visit(entry.key_text(), entry.value(), entry.revision()).is_break() {
                return;
            }
        }
    }

    fn load(&mut self, key: &str, value: &[u8], revision: Seq) {
        let entry = Entry::new(key, value, revision);
        self.bytes += entry.size();
        self.loading.push(entry);
    }

    fn load_newer(&mut self, key: &str, value: Option<&[u8]>, revision: Seq) {
        self.newer.push(Newer {
            entry: Entry::new(key, value.unwrap_or_default(), revision),
            removed: value.is_none(),
        });
    }

    fn loaded(&mut self, changed: &mut Changed<'_>) {
        let newer = std::mem::take(&mut self.newer);
        let loading = std::mem::take(&mut self.loading);
        let (entries, bytes) = (&mut self.entries, &mut self.bytes);
        entries.reserve(loading.len() + newer.len());
        let all = merge(loading.into_iter(), last_of_each(newer), |counts, entry| {
            *bytes = match counts {
                true => *bytes + entry.size(),
                false => *bytes - entry.size(),
            };
            changed(counts, entry.key_text(), entry.value(), entry.revision());
        });
        let mut leaf = Vec::with_capacity(LEAF_FILL);
        for entry in all {
            leaf.push(entries.add_new(entry));
            if leaf.len() == LEAF_FILL {
                let full = std::mem::replace(&mut leaf, Vec::with_capacity(LEAF_FILL));
                self.order.append(entries, full);
            }
        }
        self.order.append(entries, leaf);
    }

    fn clear(&mut self) {
        *self = MemoryState::default();
    }

    fn keys(&self) -> u64 {
        self.entries.len()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::ops::ControlFlow;

    /// Few keys, and some that differ only after eight bytes, or in nothing but zeros at the end.
    fn key() -> impl Strategy<Value = String> {
        prop_oneof![
            "common[ab]{1,3}",
            "common-long-[0-9]{1,2}",
            "a\0{0,9}",
            "[a-c]{1,2}"
        ]
    }

    /// Of different lengths, so that some take the place of others as they are and some do not.
    fn value(revision: u64) -> Vec<u8> {
        let bytes = revision.to_le_bytes();
        bytes.repeat(1 + usize::try_from(revision % 3).unwrap_or_default())
    }

    proptest! {
        /// A checkpoint that rolled: a key in it may know more than the first entries of the log after its base.
        #[test]
        fn checkpoint_and_log_make_what_was_said_last(
            checkpoint in btree_map(key(), 0..60_u64, 0..20),
            log in vec((key(), any::<bool>()), 0..40),
        ) {
            let mut state = MemoryState::default();
            let mut expected: BTreeMap<String, u64> = BTreeMap::new();
            let mut told: BTreeMap<String, u64> = BTreeMap::new();
            for (key, revision) in checkpoint {
                state.load(&key, &revision.to_le_bytes(), Seq(revision));
                told.insert(key.clone(), revision);
                expected.insert(key, revision);
            }
            for (revision, (key, removed)) in (20..).zip(log) {
                let value = u64::to_le_bytes(revision);
                state.load_newer(&key, (!removed).then_some(&value[..]), Seq(revision));
                if expected.get(&key).is_none_or(|known| *known <= revision) {
                    match removed {
                        true => expected.remove(&key),
                        false => expected.insert(key, revision),
                    };
                }
            }
            state.loaded(&mut |counts, key, value, revision| {
                assert_eq!(value, revision.0.to_le_bytes());
                match counts {
                    true => assert_eq!(told.insert(key.to_owned(), revision.0), None),
                    false => assert_eq!(told.remove(key), Some(revision.0)),
                }
            });
            let mut found = BTreeMap::new();
            state.scan(Bound::Unbounded, &mut |key, value, revision| {
                assert_eq!(value, revision.0.to_le_bytes());
                found.insert(key.to_owned(), revision.0);
                ControlFlow::Continue(())
            });
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(&told, &expected);
            let bytes = expected.keys().map(|key| key.len() as u64 + 8).sum::<u64>();
            prop_assert_eq!((state.keys(), state.bytes()), (expected.len() as u64, bytes));
            for (key, revision) in &expected {
                prop_assert_eq!(state.revision(key), Some(Seq(*revision)));
            }
        }

        /// Enough keys that leaves are split, and enough removals that they are put together again.
        #[test]
        fn it_is_a_map_in_order(
            ops in vec((0..3000_u32, 0..10_u8), 2000..6000), removals in 1..9_u8, from in 0..3000_u32,
        ) {
            let mut state = MemoryState::default();
            let mut expected: BTreeMap<String, u64> = BTreeMap::new();
            for (revision, (number, dice)) in (1..).zip(ops) {
                // The second half mostly removes.
                let removes = if revision % 4000 > 2000 { dice < 9 } else { dice < removals };
                let key = format!("{number}");
                let known = expected.get(&key).map(|known| Seq(*known));
                prop_assert_eq!(state.revision(&key), known);
                let old = match removes {
                    true => {
                        expected.remove(&key);
                        state.remove(&key)
                    }
                    false => {
                        expected.insert(key.clone(), revision);
                        let mut old = None;
                        state.put(&key, &value(revision), Seq(revision), &mut |bytes, revision| {
                            let value = bytes.to_vec().into();
                            old = Some(Record { value, revision });
                        });
                        old
                    }
                };
                if let Some(old) = &old {
                    prop_assert_eq!(&old.value[..], &value(old.revision.0)[..]);
                }
                prop_assert_eq!(old.map(|old| old.revision), known);
            }
            let from = format!("{from}");
            for bound in [Bound::Unbounded, Bound::Included(from.as_str()), Bound::Excluded(from.as_str())] {
                let mut found = Vec::new();
                state.scan(bound, &mut |key, bytes, revision| {
                    assert_eq!(bytes, value(revision.0));
                    found.push((key.to_owned(), revision.0));
                    ControlFlow::Continue(())
                });
                let wanted: Vec<_> = expected
                    .range::<str, _>((bound, Bound::Unbounded))
                    .map(|(key, revision)| (key.clone(), *revision))
                    .collect();
                prop_assert_eq!(found, wanted);
            }
            let size = |(key, revision): (&String, &u64)| key.len() + value(*revision).len();
            let bytes = expected.iter().map(size).sum::<usize>() as u64;
            prop_assert_eq!((state.keys(), state.bytes()), (expected.len() as u64, bytes));
        }
    }
}
