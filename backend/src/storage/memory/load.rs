//! A checkpoint's keys and the log after it, put together.

use super::entry::{Entry, common_prefix, first_eight};
use std::cmp::Ordering;

/// What the log says of a key.
pub(super) struct Newer {
    pub(super) entry: Entry,
    pub(super) removed: bool,
}

/// In order of their keys, of each key the last.
pub(super) fn last_of_each(newer: Vec<Newer>) -> impl Iterator<Item = Newer> {
    // Most comparisons are decided by eight bytes that lie side by side, and not by two places in memory: what all
    // keys begin with says nothing, so the eight after that.
    let common = newer
        .iter()
        .map(|newer| newer.entry.key())
        .reduce(common_prefix)
        .map_or(0, <[u8]>::len);
    let mut order: Vec<(u64, u32)> = (0..)
        .zip(&newer)
        .map(|(index, newer)| (first_eight(&newer.entry.key()[common..]), index))
        .collect();
    order.sort_unstable_by(|(a, a_index), (b, b_index)| {
        let key = |index: u32| newer[index as usize].entry.key();
        let by_key = || key(*a_index).cmp(key(*b_index));
        a.cmp(b).then_with(by_key).then(a_index.cmp(b_index))
    });
    let mut newer: Vec<Option<Newer>> = newer.into_iter().map(Some).collect();
    let mut order = order.into_iter().map(|(_, index)| index).peekable();
    std::iter::from_fn(move || {
        loop {
            let one = newer[order.next()? as usize].take()?;
            let next = order
                .peek()
                .and_then(|index| newer[*index as usize].as_ref());
            if next.is_none_or(|next| next.entry.key() != one.entry.key()) {
                return Some(one);
            }
        }
    })
}

/// A checkpoint's keys with what the log says of them, in order. Tells what differs from the checkpoint.
pub(super) fn merge(
    loading: impl Iterator<Item = Entry>,
    newer: impl Iterator<Item = Newer>,
    mut changed: impl FnMut(bool, &Entry),
) -> impl Iterator<Item = Entry> {
    let (mut loading, mut newer) = (loading.peekable(), newer.peekable());
    std::iter::from_fn(move || {
        loop {
            let order = match (loading.peek(), newer.peek()) {
                (Some(old), Some(new)) => old.key().cmp(new.entry.key()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return None,
            };
            let old = loading.next_if(|_| order.is_le());
            let Some(new) = newer.next_if(|_| order.is_ge()) else {
                return old;
            };
            // A checkpoint rolls: of a key that was read late it knows more than the first entries after its base.
            if old
                .as_ref()
                .is_some_and(|old| old.revision() > new.entry.revision())
            {
                return old;
            }
            if let Some(old) = &old {
                changed(false, old);
            }
            if !new.removed {
                changed(true, &new.entry);
                return Some(new.entry);
            }
        }
    })
}
