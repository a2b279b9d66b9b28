//! Nobody is removed from the chain for no reason.
//!
//! A process that was paused suspects nobody for what it did not hear meanwhile; one node that hears nobody does
//! not dismantle the chain. So whoever is removed must have felt a fault a short while ago, or the front-end must
//! have; and of those that one deaf node accuses, one may go.

use crate::net::Place;
use kvservice_shared::chain::View;
use kvservice_shared::ids::NodeId;
use std::collections::BTreeMap;

/// A fault explains what happens so long after it, or after it ends.
const EXPLAINS_MS: u64 = 4000;

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
        self.touched.insert(place, now_ms);
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
        let felt = |place: Place| {
            let at = self.touched.get(&place);
            at.is_some_and(|at| now_ms <= at + EXPLAINS_MS)
        };
        let gone = before.members.iter().map(|member| member.id.node);
        let gone = gone.filter(|node| view.position_of_node(*node).is_none());
        let innocent: Vec<Place> = gone
            .filter_map(place)
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
