//! Nobody is removed from the chain for no reason.
//!
//! A process that was paused suspects nobody for what it did not hear meanwhile; one node that hears nobody does
//! not dismantle the chain. So whoever is removed must have felt a fault a short while ago, or the front-end must
//! have; and of those that one deaf node accuses, one may go. (So may whoever accuses one and the same node
//! twice, though it was right both times: that is the rule.)

use crate::net::Place;
use kvservice_shared::chain::View;
use kvservice_shared::ids::NodeId;
use std::collections::BTreeMap;

/// A fault explains what happens so long after it, or after it ends.
const EXPLAINS_MS: u64 = 4000;

/// Whoever reports its successor down goes if it did so before and that one was back: for so long.
const DOUBTS_MS: u64 = 10_000 + EXPLAINS_MS;

/// What is known of faults and of the last view.
#[derive(Debug, Default)]
pub struct Removals {
    touched: BTreeMap<Place, u64>,
    view: Option<View>,
    deaf_until_ms: u64,
    victims: usize,
}

impl Removals {
    /// Somebody feels a fault.
    pub fn touch(&mut self, place: Place, now_ms: u64) {
        let at = self.touched.entry(place).or_default();
        *at = now_ms.max(*at);
    }

    /// Somebody felt a fault a moment ago, or does now.
    pub fn is_touched(&self, place: Place, now_ms: u64) -> bool {
        const MOMENT_MS: u64 = 1500;
        self.touched
            .get(&place)
            .is_some_and(|at| now_ms <= at + MOMENT_MS)
    }

    /// From now on a node hears nobody, until then.
    pub fn bad_card(&mut self, until_ms: u64) {
        if self.deaf_until_ms + EXPLAINS_MS < until_ms {
            self.victims = 0;
        }
        self.deaf_until_ms = until_ms;
        self.victims += 1;
    }

    /// Looks at the current view. `place` says where a node runs.
    pub fn check(
        &mut self,
        view: Option<&View>,
        now_ms: u64,
        place: impl Fn(NodeId) -> Option<Place>,
    ) -> Result<(), String> {
        let Some(view) = view else {
            self.view = None;
            return Ok(());
        };
        let Some(before) = &self.view else {
            self.view = Some(view.clone());
            return Ok(());
        };
        if before.epoch == view.epoch {
            return Ok(());
        }
        let touched = |place: Place, since_ms: u64| {
            let at = self.touched.get(&place);
            at.is_some_and(|at| now_ms <= at + since_ms)
        };
        let felt = |place: Place| touched(place, EXPLAINS_MS);
        let places: Vec<Option<Place>> = before
            .members
            .iter()
            .map(|member| place(member.id.node))
            .collect();
        let gone = before.members.iter().enumerate();
        let gone = gone.filter(|(_, member)| view.position_of_node(member.id.node).is_none());
        let innocent: Vec<Place> = gone
            .filter(|(at, _)| {
                let accused = places.get(at + 1).copied().flatten();
                !accused.is_some_and(|place| touched(place, DOUBTS_MS))
            })
            .filter_map(|(at, _)| places[at])
            .filter(|place| !felt(*place))
            .collect();
        self.view = Some(view.clone());
        if innocent.is_empty() || felt(Place::FrontEnd) {
            return Ok(());
        }
        if now_ms <= self.deaf_until_ms + EXPLAINS_MS && innocent.len() <= self.victims {
            self.victims -= innocent.len();
            return Ok(());
        }
        Err(format!(
            "{innocent:?} removed from the chain, and nothing had happened there"
        ))
    }
}
