//! The keys in order: their entries' ids, in leaves of a few hundred, in a list of leaves.
//!
//! Keys are looked up by hash; the order is for pages, snapshots and checkpoints, and changes only with a key that
//! is new or goes. A search that goes to the keys themselves waits for memory at each step, two times; so each id
//! has eight bytes of its key beside it, and those decide nearly always.

use super::entries::{Entries, Id};
use super::entry::{common_prefix, first_eight};
use std::ops::Bound;

/// A leaf that has this many ids is split.
const LEAF_MAX: usize = 512;
/// One with fewer than this is put together with the next, where both are no more than half of a leaf.
const LEAF_MIN: usize = 128;
/// Ids of a leaf that is made of keys in order: some room is left.
pub(super) const LEAF_FILL: usize = 448;

/// Ids in order of their keys, with what mostly decides between these: the first eight bytes after those that all
/// of them have in common.
#[derive(Default)]
struct Run {
    /// So many bytes, at least, all keys begin with alike.
    common: usize,
    heads: Vec<u64>,
    ids: Vec<Id>,
}

impl Run {
    fn of(entries: &Entries, ids: Vec<Id>) -> Run {
        let mut run = Run {
            common: 0,
            heads: Vec::with_capacity(ids.capacity()),
            ids,
        };
        run.look_again(entries);
        run
    }

    /// Makes the heads anew.
    fn look_again(&mut self, entries: &Entries) {
        let ends = self.ids.first().zip(self.ids.last());
        self.common = ends.map_or(0, |(first, last)| {
            common_prefix(entries.key(*first), entries.key(*last)).len()
        });
        let head = |id: &Id| first_eight(&entries.key(*id)[self.common..]);
        self.heads.clear();
        self.heads.extend(self.ids.iter().map(head));
    }

    /// How many of the keys are `before` a key, which is monotone, and true at least of all smaller ones.
    fn count(&self, entries: &Entries, key: &[u8], before: impl Fn(&[u8]) -> bool) -> usize {
        let Some(first) = self.ids.first() else {
            return 0;
        };
        let shared = &entries.key(*first)[..self.common];
        let Some(rest) = key.strip_prefix(shared) else {
            // All are on one side of it.
            return if key < shared { 0 } else { self.ids.len() };
        };
        let head = first_eight(rest);
        let from = self.heads.partition_point(|other| *other < head);
        let alike = self.heads[from..].partition_point(|other| *other == head);
        from + self.ids[from..from + alike].partition_point(|id| before(entries.key(*id)))
    }

    fn insert(&mut self, entries: &Entries, at: usize, id: Id) {
        let key = entries.key(id);
        let common = self.ids.first().is_some_and(|first| {
            let shared = &entries.key(*first)[..self.common];
            key.starts_with(shared)
        });
        self.ids.insert(at, id);
        self.heads.insert(at, 0);
        if common {
            self.heads[at] = first_eight(&key[self.common..]);
        } else {
            self.look_again(entries);
        }
    }

    /// Puts an id in the place of another, whose entry may be gone.
    fn replace(&mut self, entries: &Entries, at: usize, id: Id) {
        self.remove(at);
        self.insert(entries, at, id);
    }

    fn remove(&mut self, at: usize) {
        self.ids.remove(at);
        self.heads.remove(at);
    }
}

/// The ids of all entries, in order of their keys.
#[derive(Default)]
pub(super) struct Order {
    /// None is empty.
    leaves: Vec<Run>,
    /// The first of each leaf.
    firsts: Run,
}

impl Order {
    /// Takes in a leaf of ids that come after all others, in order.
    pub(super) fn append(&mut self, entries: &Entries, ids: Vec<Id>) {
        let Some(first) = ids.first() else { return };
        self.firsts.insert(entries, self.leaves.len(), *first);
        self.leaves.push(Run::of(entries, ids));
    }

    /// The leaf that has the key, or would have it.
    fn leaf(&self, entries: &Entries, key: &[u8]) -> usize {
        let count = self.firsts.count(entries, key, |first| first <= key);
        count.saturating_sub(1)
    }

    /// Takes in a key that is not there yet.
    pub(super) fn insert(&mut self, entries: &Entries, id: Id) {
        let key = entries.key(id);
        let at = self.leaf(entries, key);
        let Some(leaf) = self.leaves.get_mut(at) else {
            self.leaves.push(Run::of(entries, vec![id]));
            self.firsts.insert(entries, 0, id);
            return;
        };
        let place = leaf.count(entries, key, |other| other < key);
        leaf.insert(entries, place, id);
        if place == 0 {
            self.firsts.replace(entries, at, id);
        }
        let leaf = &mut self.leaves[at];
        if leaf.ids.len() == LEAF_MAX {
            // Keys that come in order leave full leaves behind.
            let ordered = at + 1 == self.firsts.ids.len() && place == LEAF_MAX - 1;
            let keep = if ordered { LEAF_FILL } else { LEAF_MAX / 2 };
            let next = leaf.ids.split_off(keep);
            leaf.look_again(entries);
            self.firsts.insert(entries, at + 1, next[0]);
            self.leaves.insert(at + 1, Run::of(entries, next));
        }
    }

    /// Takes out a key that is there.
    pub(super) fn remove(&mut self, entries: &Entries, key: &[u8]) {
        let at = self.leaf(entries, key);
        let Some(leaf) = self.leaves.get_mut(at) else {
            return;
        };
        let place = leaf.count(entries, key, |other| other < key);
        leaf.remove(place);
        let len = leaf.ids.len();
        match leaf.ids.first() {
            None => {
                self.leaves.remove(at);
                self.firsts.remove(at);
            }
            Some(first) if place == 0 => {
                self.firsts.replace(entries, at, *first);
            }
            Some(_) => {}
        }
        if (1..LEAF_MIN).contains(&len)
            && let Some(next) = self.leaves.get(at + 1)
            && len + next.ids.len() <= LEAF_MAX / 2
        {
            let next = self.leaves.remove(at + 1);
            self.firsts.remove(at + 1);
            let leaf = &mut self.leaves[at];
            leaf.ids.extend(next.ids);
            leaf.look_again(entries);
        }
    }

    /// The ids from a key on.
    pub(super) fn from(
        &self,
        entries: &Entries,
        from: Bound<&[u8]>,
    ) -> impl Iterator<Item = Id> + '_ {
        let (at, place) = match from {
            Bound::Unbounded => (0, 0),
            Bound::Included(key) => self.place(entries, key, |other| other < key),
            Bound::Excluded(key) => self.place(entries, key, |other| other <= key),
        };
        let leaves = self.leaves.get(at..).unwrap_or_default();
        let ids = leaves.iter().flat_map(|leaf| &leaf.ids);
        ids.skip(place).copied()
    }

    fn place(
        &self,
        entries: &Entries,
        key: &[u8],
        before: impl Fn(&[u8]) -> bool,
    ) -> (usize, usize) {
        let at = self.leaf(entries, key);
        let leaf = self.leaves.get(at);
        (at, leaf.map_or(0, |leaf| leaf.count(entries, key, before)))
    }
}
