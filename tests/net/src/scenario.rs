//! Which faults, and when: named ones, whose times a seed throws, and any at random.

use crate::fault::{Fault, Timed, Who};
use kvservice_sim::rng::Rng;

/// What is simulated of a seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub nodes: usize,
    pub clients: usize,
    /// How long there are faults, in milliseconds.
    pub faults_ms: u64,
    pub faults: Vec<Timed>,
}

type Make = fn(&mut Rng, &mut Scenario);

/// The named ones. Where a failure was found once, its scenario has its name.
pub const NAMED: [(&str, Make); 12] = [
    ("head-middle", |rng, s| {
        s.pair(rng, Who::Place(0), Who::Place(1))
    }),
    ("middle-tail", |rng, s| {
        s.pair(rng, Who::Place(1), Who::Tail)
    }),
    ("head-tail", |rng, s| s.pair(rng, Who::Place(0), Who::Tail)),
    ("node-front-end", |rng, s| {
        let node = Who::Place(rng.below(s.nodes));
        s.pair(rng, node, Who::FrontEnd);
    }),
    ("client-front-end", |rng, s| {
        let client = Who::Client(rng.below(s.clients));
        s.pair(rng, client, Who::FrontEnd);
    }),
    ("one-way", |rng, s| {
        for _ in 0..1 + rng.below(3) {
            let (a, b) = s.any_pair(rng);
            let (a, b) = if rng.chance(50) { (a, b) } else { (b, a) };
            s.add(rng, Fault::OneWay(a, b));
        }
    }),
    ("isolated", |rng, s| {
        let node = s.any_node(rng);
        s.add(rng, Fault::Isolate(node));
    }),
    ("everything-held", |rng, s| {
        for _ in 0..1 + rng.below(2) {
            s.add(rng, Fault::HoldAll);
        }
    }),
    ("crash", |rng, s| {
        let node = s.any_node(rng);
        let crash = match rng.below(3) {
            0 => Fault::PowerCut(node),
            1 => Fault::Stop(node),
            _ => Fault::Crash(node),
        };
        s.add(rng, crash);
    }),
    ("front-end", |rng, s| {
        let crash = match rng.below(3) {
            0 => Fault::PowerCut(Who::FrontEnd),
            1 => Fault::Stop(Who::FrontEnd),
            _ => Fault::Crash(Who::FrontEnd),
        };
        s.add(rng, crash);
    }),
    ("join", |rng, s| {
        s.nodes = s.nodes.max(3);
        let lasts = 500 + rng.number() % 2_000;
        s.faults.push(Timed {
            at: 0,
            lasts,
            fault: Fault::Late(s.nodes - 1),
        });
        let (a, b) = match rng.below(4) {
            0 => (Who::Place(0), Who::Place(1)),
            1 => (Who::Node(s.nodes - 1), Who::Tail),
            2 => (Who::Node(s.nodes - 1), Who::FrontEnd),
            _ => (Who::Tail, Who::FrontEnd),
        };
        s.pair(rng, a, b);
    }),
    ("lossy", |rng, s| {
        for _ in 0..1 + rng.below(3) {
            let (a, b) = s.any_pair(rng);
            let often = 20 + rng.below(400) as u32;
            s.add(rng, Fault::Lossy(a, b, often));
        }
    }),
];

pub const RANDOM: &str = "random";

impl Scenario {
    /// What this seed stands for, or what it makes of the scenario that is asked for. Every second seed is one at
    /// random; the others take turns with the named ones.
    ///
    /// # Errors
    /// There is no such scenario.
    pub fn of(seed: u64, asked: Option<&str>, rng: &mut Rng) -> Result<Scenario, String> {
        let turn = (seed / 2) as usize % NAMED.len();
        let found = match asked {
            None if seed.is_multiple_of(2) => None,
            None => Some(NAMED[turn]),
            Some(RANDOM) => None,
            Some(asked) => Some(
                *NAMED
                    .iter()
                    .find(|(name, _)| *name == asked)
                    .ok_or_else(|| format!("there is no scenario {asked}"))?,
            ),
        };
        let mut scenario = Scenario {
            name: found.map_or(RANDOM, |(name, _)| name),
            nodes: 2 + rng.below(4),
            clients: 2 + rng.below(3),
            faults_ms: 0,
            faults: Vec::new(),
        };
        match found {
            Some((_, make)) => make(rng, &mut scenario),
            None => scenario.at_random(rng),
        }
        let ends = scenario.faults.iter().map(|timed| timed.at + timed.lasts);
        scenario.faults_ms = ends.max().unwrap_or_default();
        scenario.faults.sort_by_key(|timed| timed.at);
        Ok(scenario)
    }

    /// For a while within the first seconds: short enough to go unnoticed, or long enough that nobody waits.
    fn add(&mut self, rng: &mut Rng, fault: Fault) {
        let at = 200 + rng.number() % 4_000;
        let lasts = lasts(rng);
        self.faults.push(Timed { at, lasts, fault });
    }

    /// Cuts or holds this link, once or twice.
    fn pair(&mut self, rng: &mut Rng, a: Who, b: Who) {
        for _ in 0..1 + rng.below(2) {
            let fault = match rng.below(4) {
                0 => Fault::Hold(a.clone(), b.clone()),
                1 => Fault::OneWay(a.clone(), b.clone()),
                2 => Fault::OneWay(b.clone(), a.clone()),
                _ => Fault::Cut(a.clone(), b.clone()),
            };
            self.add(rng, fault);
        }
    }

    fn any_node(&self, rng: &mut Rng) -> Who {
        match rng.below(3) {
            0 => Who::Place(rng.below(self.nodes)),
            1 => Who::Tail,
            _ => Who::Node(rng.below(self.nodes)),
        }
    }

    /// Two that talk to each other.
    fn any_pair(&self, rng: &mut Rng) -> (Who, Who) {
        match rng.below(10) {
            0 => (Who::Client(rng.below(self.clients)), Who::FrontEnd),
            1..=4 => (self.any_node(rng), Who::FrontEnd),
            _ => {
                let a = rng.below(self.nodes);
                let b = (a + 1 + rng.below(self.nodes - 1)) % self.nodes;
                match rng.chance(50) {
                    true => (Who::Place(a), Who::Place(b)),
                    false => (Who::Node(a), Who::Node(b)),
                }
            }
        }
    }

    fn any_fault(&self, rng: &mut Rng) -> Fault {
        let (a, b) = self.any_pair(rng);
        match rng.below(100) {
            0..=19 => Fault::Cut(a, b),
            20..=34 => Fault::OneWay(a, b),
            35..=44 => Fault::OneWay(b, a),
            45..=57 => Fault::Hold(a, b),
            58..=61 => Fault::HoldAll,
            62..=69 => Fault::Lossy(a, b, 10 + rng.below(500) as u32),
            70..=75 => Fault::Slow(a, b, 20 + rng.number() % 900),
            76..=79 => Fault::Isolate(self.any_node(rng)),
            80..=84 => Fault::Crash(self.any_node(rng)),
            85..=87 => Fault::PowerCut(self.any_node(rng)),
            88..=90 => Fault::Stop(self.any_node(rng)),
            91..=92 => Fault::Crash(Who::FrontEnd),
            93..=94 => Fault::PowerCut(Who::FrontEnd),
            95..=96 => Fault::Stop(Who::FrontEnd),
            _ => Fault::Crash(Who::Client(rng.below(self.clients))),
        }
    }

    fn at_random(&mut self, rng: &mut Rng) {
        let until = 5_000 + rng.number() % 25_000;
        // Some seeds have little of it, so that what one fault does alone is seen too.
        let gap = [300, 1_000, 2_500, 6_000][rng.below(4)];
        let mut at = rng.number() % gap;
        while at < until {
            let fault = self.any_fault(rng);
            self.faults.push(Timed {
                at,
                lasts: lasts(rng),
                fault,
            });
            at += 1 + rng.number() % (2 * gap);
        }
    }
}

fn lasts(rng: &mut Rng) -> u64 {
    match rng.below(6) {
        0 => 20 + rng.number() % 300,
        1..=3 => 300 + rng.number() % 3_000,
        4 => 3_000 + rng.number() % 5_000,
        _ => 8_000 + rng.number() % 8_000,
    }
}
