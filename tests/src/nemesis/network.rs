//! What becomes of the bytes between two places: the rules that the proxies obey.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// An end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The front-end.
    FrontEnd,
    /// A back-end.
    Node(usize),
    /// A client.
    Client(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::FrontEnd => write!(f, "the front-end"),
            Place::Node(node) => write!(f, "node {node}"),
            Place::Client(client) => write!(f, "client {client}"),
        }
    }
}

/// What becomes of bytes that go one way. Of several faults the last in this order counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// They arrive.
    #[default]
    Passes,
    /// They arrive later.
    Slow(Duration),
    /// They wait, and arrive when that is over.
    Stalls,
    /// They are lost, and whoever sent them does not learn it. A connection that lost some is reset when that is
    /// over: TCP does not go on with a gap.
    Vanishes,
    /// The connection is reset, and every new one too.
    Cut,
}

/// One way of a link, and what becomes of it.
pub type Way = (Place, Place, Flow);

/// What is wrong with which way; what is not named is right.
#[derive(Clone, Debug, Default)]
pub struct Rules(Arc<HashMap<(Place, Place), Flow>>);

impl Rules {
    /// What becomes of bytes on this way.
    #[must_use]
    pub fn flow(&self, from: Place, to: Place) -> Flow {
        self.0.get(&(from, to)).copied().unwrap_or_default()
    }

    fn of<'a>(ways: impl Iterator<Item = &'a Way>) -> Rules {
        let mut worst: HashMap<(Place, Place), Flow> = HashMap::new();
        for &(from, to, flow) in ways {
            let known = worst.entry((from, to)).or_default();
            *known = flow.max(*known);
        }
        Rules(Arc::new(worst))
    }
}

/// All links, and which process is where.
#[derive(Debug)]
pub struct Network {
    faults: Mutex<Faults>,
    rules: watch::Sender<Rules>,
    processes: Mutex<HashMap<Place, u32>>,
}

#[derive(Debug, Default)]
struct Faults {
    last: u64,
    ways: BTreeMap<u64, Vec<Way>>,
}

/// Names a fault of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultId(u64);

impl Default for Network {
    fn default() -> Network {
        Network {
            faults: Mutex::default(),
            rules: watch::Sender::new(Rules::default()),
            processes: Mutex::default(),
        }
    }
}

impl Network {
    /// From now on these ways are as they say, until [`Network::heal`].
    pub fn strike(&self, ways: Vec<Way>) -> FaultId {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.last += 1;
        let id = faults.last;
        faults.ways.insert(id, ways);
        self.rules
            .send_replace(Rules::of(faults.ways.values().flatten()));
        FaultId(id)
    }

    /// Undoes a fault.
    pub fn heal(&self, FaultId(id): FaultId) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.ways.remove(&id);
        self.rules
            .send_replace(Rules::of(faults.ways.values().flatten()));
    }

    /// The rules, now and whenever they change.
    #[must_use]
    pub fn rules(&self) -> watch::Receiver<Rules> {
        self.rules.subscribe()
    }

    /// The process that is in this place from now on.
    pub fn set_process(&self, place: Place, pid: u32) {
        let mut processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        processes.insert(place, pid);
    }

    /// The processes, and where they are.
    #[must_use]
    pub fn processes(&self) -> Vec<(Place, u32)> {
        let processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        processes
            .iter()
            .map(|(&place, &pid)| (place, pid))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_faults_the_worst_counts_until_it_is_healed() {
        let network = Network::default();
        let (a, b) = (Place::Node(0), Place::FrontEnd);
        let stalled = network.strike(vec![(a, b, Flow::Stalls)]);
        let cut = network.strike(vec![(a, b, Flow::Cut), (b, a, Flow::Cut)]);
        let flow = |from, to| network.rules().borrow().flow(from, to);
        assert_eq!((flow(a, b), flow(b, a)), (Flow::Cut, Flow::Cut));
        network.heal(cut);
        assert_eq!((flow(a, b), flow(b, a)), (Flow::Stalls, Flow::Passes));
        network.heal(stalled);
        assert_eq!(flow(a, b), Flow::Passes);
    }
}
