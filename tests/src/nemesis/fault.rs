//! What is done to a cluster, and undone: chosen by dice, of what can be done now.

use super::cluster::Cluster;
use super::network::{FaultId, Flow, Place, Way};
use crate::random::Random;
use std::collections::BTreeSet;
use std::time::Duration;

/// Room that is left on a disk that is filled, but not to its last byte: less than the node's reserve.
const ROOM_LEFT_BYTES: u64 = 4 * 1024 * 1024;

/// A killed node is missed at once, by its socket; but the front-end may have to be told.
const WIPED_AFTER: Duration = Duration::from_millis(500);

/// What to do. It says so in plain words.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For the figures: faults of one kind.
    pub kind: &'static str,
    /// For the schedule.
    pub words: String,
    /// Undo it after so long.
    pub lasts: Duration,
    deed: Deed,
}

#[derive(Clone, Debug)]
enum Deed {
    Kill(Vec<Place>),
    Wipe(usize),
    Pause(Vec<Place>),
    Leave(usize),
    Fill { node: usize, left: u64 },
    Links(Vec<Way>),
}

/// What was done, to be undone.
#[derive(Clone, Debug)]
pub struct Fault {
    plan: Plan,
    network: Option<FaultId>,
}

impl Plan {
    /// Chooses; `None` where the dice fell on something that cannot be done while these are in use already.
    pub fn choose(
        random: &mut Random,
        cluster: &Cluster,
        clients: usize,
        busy: &BTreeSet<Place>,
    ) -> Option<Plan> {
        let mut plan = match random.below(20) {
            0..=4 => kill(random, cluster),
            5 => wipe(random, cluster),
            6..=8 => pause(random, cluster),
            9 => leave(random, cluster),
            10 => fill(random, cluster)?,
            _ => links(random, cluster, clients),
        };
        plan.lasts = match plan.deed {
            // The others must have had the time to go on without it.
            Deed::Wipe(_) => WIPED_AFTER + duration(random),
            _ => duration(random),
        };
        let free = plan.uses().iter().all(|place| !busy.contains(place));
        free.then_some(plan)
    }

    /// The processes that it is about. No other such fault may be about them.
    fn uses(&self) -> Vec<Place> {
        match &self.deed {
            Deed::Kill(places) | Deed::Pause(places) => places.clone(),
            Deed::Wipe(node) | Deed::Leave(node) | Deed::Fill { node, .. } => {
                vec![Place::Node(*node)]
            }
            Deed::Links(_) => Vec::new(),
        }
    }

    fn new(kind: &'static str, words: String, deed: Deed) -> Plan {
        Plan {
            kind,
            words,
            lasts: Duration::ZERO,
            deed,
        }
    }

    /// Does it.
    #[must_use]
    pub fn strike(self, cluster: &mut Cluster) -> Fault {
        let mut network = None;
        match &self.deed {
            Deed::Kill(places) => cluster.kill(places),
            Deed::Wipe(node) => cluster.kill(&[Place::Node(*node)]),
            Deed::Pause(places) => places.iter().for_each(|&place| cluster.pause(place)),
            Deed::Leave(node) => cluster.terminate(Place::Node(*node)),
            Deed::Fill { node, left } => {
                cluster.may_end(*node);
                if let Some((_, disk)) = cluster.small_disk() {
                    disk.fill_up_to(*left);
                }
            }
            Deed::Links(ways) => network = Some(cluster.network.strike(ways.clone())),
        }
        Fault {
            plan: self,
            network,
        }
    }
}

impl Fault {
    /// The processes that it is about.
    #[must_use]
    pub fn uses(&self) -> Vec<Place> {
        self.plan.uses()
    }

    /// Undoes it. What was done, in plain words.
    ///
    /// # Errors
    /// What is wrong with the cluster.
    pub async fn undo(self, cluster: &mut Cluster) -> Result<String, String> {
        match self.plan.deed {
            Deed::Kill(places) => {
                places.iter().for_each(|&place| cluster.start(place));
                Ok(format!("{} started again", names(&places)))
            }
            Deed::Wipe(node) => return_wiped(node, cluster).await,
            Deed::Pause(places) => {
                places.iter().for_each(|&place| cluster.resume(place));
                Ok(format!("{} goes on", names(&places)))
            }
            Deed::Leave(node) => {
                let place = Place::Node(node);
                let ended = cluster.ends(place).await;
                cluster.start(place);
                ended.map(|()| format!("{place} returns"))
            }
            Deed::Fill { node, .. } => {
                if let Some((_, disk)) = cluster.small_disk() {
                    disk.empty();
                }
                cluster.restart_ended();
                Ok(format!("node {node} has room on its disk again"))
            }
            Deed::Links(_) => {
                if let Some(id) = self.network {
                    cluster.network.heal(id);
                }
                Ok(format!("no more: {}", self.plan.words))
            }
        }
    }
}

/// A node's disk may be wiped once there is a view without it: from then on others have all that was promised. Where
/// there is none the node comes back with its disk.
async fn return_wiped(node: usize, cluster: &mut Cluster) -> Result<String, String> {
    let status = cluster.status().await;
    let replaced = status.is_ok_and(|status| {
        let order = cluster.order(&status);
        status.waiting.is_none() && !order.is_empty() && !order.contains(&node)
    });
    if replaced {
        let wiped = cluster.wipe(node);
        wiped.map_err(|error| format!("node {node} cannot be wiped: {error}"))?;
        cluster.wiped += 1;
    }
    cluster.start(Place::Node(node));
    Ok(match replaced {
        true => format!("node {node} returns with an empty disk"),
        false => format!("node {node} started again, with its disk: the chain still counts on it"),
    })
}

fn names(places: &[Place]) -> String {
    let names: Vec<String> = places.iter().map(Place::to_string).collect();
    names.join(", ")
}

/// Before it is missed, about when, or long after.
fn duration(random: &mut Random) -> Duration {
    let (least, most) = match random.below(8) {
        0..=2 => (20, 700),
        3..=5 => (700, 3000),
        6 => (3000, 7000),
        _ => (7000, 13_000),
    };
    Duration::from_millis(least + random.below(most - least))
}

fn a_node(random: &mut Random, cluster: &Cluster) -> usize {
    random.below(cluster.nodes() as u64) as usize
}

fn kill(random: &mut Random, cluster: &Cluster) -> Plan {
    let (kind, places) = match random.below(10) {
        0..=3 => (
            "kill -9 of a node",
            vec![Place::Node(a_node(random, cluster))],
        ),
        4 | 5 => ("kill -9 of the front-end", vec![Place::FrontEnd]),
        6..=8 => {
            let some = cluster
                .places()
                .into_iter()
                .filter(|_| random.below(2) == 0);
            ("kill -9 of several", some.collect())
        }
        _ => ("kill -9 of everything", cluster.places()),
    };
    let mut places: Vec<Place> = places;
    if places.is_empty() {
        places.push(Place::FrontEnd);
    }
    shuffle(&mut places, random);
    Plan::new(
        kind,
        format!("kill -9: {}", names(&places)),
        Deed::Kill(places),
    )
}

/// They start again in another order.
fn shuffle(places: &mut [Place], random: &mut Random) {
    for last in (1..places.len()).rev() {
        places.swap(last, random.below(last as u64 + 1) as usize);
    }
}

fn wipe(random: &mut Random, cluster: &Cluster) -> Plan {
    let node = a_node(random, cluster);
    let words = format!("kill -9, and its disk is to be lost: node {node}");
    Plan::new("kill -9 of a node", words, Deed::Wipe(node))
}

fn pause(random: &mut Random, cluster: &Cluster) -> Plan {
    let (kind, places) = match random.below(6) {
        0 => ("SIGSTOP of the front-end", vec![Place::FrontEnd]),
        1 => ("SIGSTOP of everything", cluster.places()),
        _ => (
            "SIGSTOP of a node",
            vec![Place::Node(a_node(random, cluster))],
        ),
    };
    let words = format!("SIGSTOP: {}", names(&places));
    Plan::new(kind, words, Deed::Pause(places))
}

fn leave(random: &mut Random, cluster: &Cluster) -> Plan {
    let node = a_node(random, cluster);
    Plan::new(
        "SIGTERM",
        format!("SIGTERM: node {node}"),
        Deed::Leave(node),
    )
}

fn fill(random: &mut Random, cluster: &Cluster) -> Option<Plan> {
    let (node, _) = cluster.small_disk()?;
    let (left, words) = match random.below(2) {
        0 => (ROOM_LEFT_BYTES, "past its reserve"),
        _ => (0, "to the last byte"),
    };
    let words = format!("disk filled {words}: node {node}");
    Some(Plan::new("disk filled", words, Deed::Fill { node, left }))
}

fn links(random: &mut Random, cluster: &Cluster, clients: usize) -> Plan {
    let pairs = pairs(random, cluster, clients);
    let [(one, two), ..] = pairs[..] else {
        unreachable!("a link has two ends")
    };
    let whom = match &pairs[..] {
        [_] => format!("between {one} and {two}"),
        _ if matches!(two, Place::Client(_)) => format!("between {one} and all clients"),
        _ => format!("between {one} and all others"),
    };
    let (kind, flow, both) = match random.below(12) {
        0..=2 => ("link cut", Flow::Cut, true),
        3 | 4 => ("link black-holed both ways", Flow::Vanishes, true),
        5..=7 => ("link black-holed one way", Flow::Vanishes, false),
        8 => ("link stalled both ways", Flow::Stalls, true),
        9 => ("link stalled one way", Flow::Stalls, false),
        _ => {
            let delay = Duration::from_millis(2 + random.below(150));
            ("link slow", Flow::Slow(delay), true)
        }
    };
    let forth = pairs.iter().map(|&(one, two)| (one, two, flow));
    let back = pairs.iter().map(|&(one, two)| (two, one, flow));
    let (ways, from) = match random.below(2) {
        _ if both => (forth.chain(back).collect(), String::new()),
        0 => (forth.collect(), format!(", from {one}")),
        _ => (back.collect(), format!(", to {one}")),
    };
    let slow = match flow {
        Flow::Slow(delay) => format!(" by {} ms", delay.as_millis()),
        _ => String::new(),
    };
    Plan::new(
        kind,
        format!("{kind}{slow}: {whom}{from}"),
        Deed::Links(ways),
    )
}

/// One link, or all of one place's.
fn pairs(random: &mut Random, cluster: &Cluster, clients: usize) -> Vec<(Place, Place)> {
    let node = a_node(random, cluster);
    let others: Vec<usize> = (0..cluster.nodes())
        .filter(|&other| other != node)
        .collect();
    match random.below(10) {
        0..=3 => {
            let other = random
                .pick(others.iter().copied())
                .map_or(Place::FrontEnd, Place::Node);
            vec![(Place::Node(node), other)]
        }
        4 | 5 => vec![(Place::Node(node), Place::FrontEnd)],
        6 | 7 => {
            let others = others.into_iter().map(Place::Node);
            let all = others.chain([Place::FrontEnd]);
            all.map(|other| (Place::Node(node), other)).collect()
        }
        8 => vec![(
            Place::Client(random.below(clients as u64) as usize),
            Place::FrontEnd,
        )],
        _ => {
            let clients = (0..clients).map(Place::Client);
            clients.map(|client| (Place::FrontEnd, client)).collect()
        }
    }
}
