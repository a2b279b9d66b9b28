//! What is known of the chain: the last `status`, who just left it, how much is written.
//!
//! A member that is gone from a new view does not vanish: it stays for a moment, grey, where it stood
//! ([`Phase::Gone`]), while its predecessor's link already bends over it; then the gap closes
//! ([`Phase::Leaving`]). Both together last [`GONE_MS`]` + `[`LEAVING_MS`], under a second.

use crate::text;
use kvservice_shared::api::{ChainEvent, MemberStatus, Status, StorageKind};
use std::rc::Rc;

/// How long a member that is gone stays where it stood, in milliseconds.
pub const GONE_MS: u64 = 550;
/// How long it then takes to fade, in milliseconds.
pub const LEAVING_MS: u64 = 350;
/// The rate of writes is measured over at least this long, in milliseconds.
const RATE_WINDOW_MS: u64 = 500;

/// The chain as the page shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture {
    /// The last answer to `status`.
    pub status: Option<Rc<Status>>,
    /// When it came.
    pub received_ms: u64,
    /// Head to tail, those who just left among them.
    pub slots: Vec<Slot>,
    /// Writes committed a second, smoothed.
    pub writes_per_s: f64,
    /// Where the rate is measured from: the committed point, and when.
    measured: Option<(u64, u64)>,
}

/// A place in the picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// Who stands, or stood, there.
    pub member: MemberStatus,
    /// Whether it still does.
    pub phase: Phase,
}

/// How a member is in the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In the current view.
    Present,
    /// Just gone: grey, and still takes its place.
    Gone {
        /// Since when.
        since_ms: u64,
    },
    /// Fading: takes no place any more.
    Leaving {
        /// Since when.
        since_ms: u64,
    },
}

/// What a new status changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Whether it is another view, or somebody is learning: worth a closer look for a while.
    pub lively: bool,
    /// Whether anything was written since.
    pub written: bool,
    /// The events that are new. Empty at the first status.
    pub events: Vec<ChainEvent>,
}

impl Picture {
    /// Takes in a new answer to `status`.
    pub fn update(&mut self, status: Status, now_ms: u64) -> Change {
        let old = self.status.take();
        let same_cluster = old
            .as_ref()
            .is_some_and(|old| old.cluster == status.cluster && old.mode == status.mode);
        let change = Change {
            lively: !status.learners.is_empty()
                || old.as_ref().is_some_and(|old| {
                    old.epoch != status.epoch || old.events.last() != status.events.last()
                }),
            written: old
                .as_ref()
                .is_none_or(|old| committed(old) != committed(&status))
                || !same_cluster,
            events: old
                .as_ref()
                .map_or_else(Vec::new, |old| new_events(&old.events, &status.events)),
        };
        if same_cluster {
            self.merge(&status, now_ms);
        } else {
            self.slots = present(&status);
            self.measured = None;
            self.writes_per_s = 0.0;
        }
        self.measure(committed(&status), now_ms);
        self.status = Some(Rc::new(status));
        self.received_ms = now_ms;
        change
    }

    /// Lets time pass: those who are gone fade, then vanish.
    pub fn age(&mut self, now_ms: u64) {
        for slot in &mut self.slots {
            if let Phase::Gone { since_ms } = slot.phase
                && now_ms >= since_ms + GONE_MS
            {
                slot.phase = Phase::Leaving {
                    since_ms: since_ms + GONE_MS,
                };
            }
        }
        self.slots.retain(|slot| match slot.phase {
            Phase::Leaving { since_ms } => now_ms < since_ms + LEAVING_MS,
            _ => true,
        });
    }

    /// When [`Picture::age`] will next change something.
    #[must_use]
    pub fn next_wake_ms(&self) -> Option<u64> {
        let wakes = self.slots.iter().filter_map(|slot| match slot.phase {
            Phase::Present => None,
            Phase::Gone { since_ms } => Some(since_ms + GONE_MS),
            Phase::Leaving { since_ms } => Some(since_ms + LEAVING_MS),
        });
        wakes.min()
    }

    /// The new members in their order, and each one that just left behind whoever stood before it.
    fn merge(&mut self, status: &Status, now_ms: u64) {
        let mut slots = present(status);
        let mut before: Option<String> = None;
        for old in std::mem::take(&mut self.slots) {
            let name = old.member.node.clone();
            let back = status.members.iter().any(|m| m.node == name)
                || status.learners.iter().any(|l| l.node == name);
            if !back {
                let phase = match old.phase {
                    Phase::Present => Phase::Gone { since_ms: now_ms },
                    phase => phase,
                };
                let at = before.as_ref().map_or(0, |before| {
                    slots
                        .iter()
                        .position(|s| s.member.node == *before)
                        .map_or(0, |i| i + 1)
                });
                slots.insert(
                    at,
                    Slot {
                        member: old.member,
                        phase,
                    },
                );
            }
            // A member that became a learner has left its place: whoever stood behind it keeps the
            // place before.
            if slots.iter().any(|s| s.member.node == name) {
                before = Some(name);
            }
        }
        self.slots = slots;
    }

    fn measure(&mut self, committed: u64, now_ms: u64) {
        // Nobody has told yet: that is no number to measure from.
        if committed == 0 {
            return;
        }
        let Some((from, since_ms)) = self.measured else {
            self.measured = Some((committed, now_ms));
            return;
        };
        let elapsed = now_ms.saturating_sub(since_ms);
        if elapsed < RATE_WINDOW_MS {
            return;
        }
        let rate = committed.saturating_sub(from) as f64 * 1000.0 / elapsed as f64;
        // Half old, half new: quick to follow, without jitter.
        self.writes_per_s = if rate == 0.0 && self.writes_per_s < 1.0 {
            0.0
        } else {
            (self.writes_per_s + rate) / 2.0
        };
        self.measured = Some((committed, now_ms));
    }

    /// How lively the pulses run: 0 (nothing is written) to 4.
    #[must_use]
    pub fn load(&self) -> u8 {
        match self.writes_per_s {
            r if r < 0.5 => 0,
            r if r < 20.0 => 1,
            r if r < 500.0 => 2,
            r if r < 5_000.0 => 3,
            _ => 4,
        }
    }
}

/// The highest committed point that any member knows.
#[must_use]
pub fn committed(status: &Status) -> u64 {
    status
        .members
        .iter()
        .map(|m| m.committed.0)
        .max()
        .unwrap_or(0)
}

/// How far a member's point is behind the furthest one, as a length from 0.06 (far behind) to 1
/// (level). Logarithmic: one write behind shows, and a million still fits.
#[must_use]
pub fn fill(point: u64, top: u64) -> f64 {
    let lag = top.saturating_sub(point);
    if lag == 0 {
        return 1.0;
    }
    (1.0 - (1.0 + lag as f64).log2() / 20.0).clamp(0.06, 0.98)
}

/// Members whose states differ though they have applied the same: a bug, or worse. The first pair.
#[must_use]
pub fn divergence(status: &Status) -> Option<(&MemberStatus, &MemberStatus)> {
    let members = &status.members;
    members.iter().enumerate().find_map(|(i, a)| {
        let b = members[i + 1..]
            .iter()
            .find(|b| b.applied == a.applied && b.hash != a.hash)?;
        Some((a, b))
    })
}

/// Whether a member is away: nothing is served, and it has told the front-end nothing. (Of a new chain
/// that serves, the state is all zeros too.)
#[must_use]
pub fn is_awaited(status: &Status, member: &MemberStatus) -> bool {
    status.waiting.is_some() && is_blank(member)
}

fn is_blank(member: &MemberStatus) -> bool {
    member.applied.0 == 0 && member.hash.bytes().all(|digit| digit == b'0')
}

/// A member in words, for who cannot see the picture.
#[must_use]
pub fn spoken(slot: &Slot, awaited: bool) -> String {
    let member = &slot.member;
    if slot.phase != Phase::Present {
        return format!("{}, gone", member.node);
    }
    if awaited {
        return format!("{}, at {}, awaited", member.node, member.address);
    }
    format!(
        "{}, {}, at {}, committed {}, data in {}",
        member.node,
        text::role(member.role),
        member.address,
        text::count(member.committed.0),
        text::storage(member.storage),
    )
}

/// What one should know of where the data are, if anything.
#[must_use]
pub fn storage_warning(status: &Status) -> Option<String> {
    let in_memory: Vec<&str> = status
        .members
        .iter()
        .filter(|m| m.storage == StorageKind::Memory)
        .map(|m| m.node.as_str())
        .collect();
    match (in_memory.len(), status.members.len()) {
        (0, _) => None,
        (1, 1) => Some("The data are in memory: they are gone when this node stops.".to_owned()),
        (some, all) if some == all => {
            Some("All data are in memory: they are gone when the last node stops.".to_owned())
        }
        _ => Some(format!(
            "In memory only, gone with its process: {}.",
            in_memory.join(", ")
        )),
    }
}

fn present(status: &Status) -> Vec<Slot> {
    status
        .members
        .iter()
        .map(|m| Slot {
            member: m.clone(),
            phase: Phase::Present,
        })
        .collect()
}

/// The events after the last one that was seen. `took_ms` arrives later and makes no new event.
fn new_events(old: &[ChainEvent], new: &[ChainEvent]) -> Vec<ChainEvent> {
    let same = |a: &ChainEvent, b: &ChainEvent| {
        (a.at_ms, a.epoch, a.kind, &a.node) == (b.at_ms, b.epoch, b.kind, &b.node)
    };
    let from = match old.last() {
        None => 0,
        Some(last) => new.iter().rposition(|e| same(e, last)).map_or(0, |i| i + 1),
    };
    new[from..].to_vec()
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
