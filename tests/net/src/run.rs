//! A seed's run: everything starts, faults come and go under load, then there are none; and what came of it.

use crate::client::count_of;
use crate::cluster::{Begun, Cluster, Weather};
use crate::entropy;
use crate::fault::{Fault, Timed};
use crate::scenario::Scenario;
use kvservice_history::{Call, check};
use kvservice_sim::rng::Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Until all nodes are members, from nothing.
const START_MOST: Duration = Duration::from_secs(30);
/// Once the faults are over: until all nodes are members, and each client has written something.
const HEAL_MOST: Duration = Duration::from_secs(30);
/// Until all that was asked is answered, for clients that wait as long as it takes.
const FINISH_MOST: Duration = Duration::from_secs(30);
/// Until everything was read once more, and all members hold the same.
const SETTLE_MOST: Duration = Duration::from_secs(20);

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Lets panics in tasks, which their runtime keeps to itself, fail the run.
pub fn watch_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICKED.store(true, Ordering::Relaxed);
        hook(info);
    }));
}

/// What a run came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Done {
    pub scenario: String,
    pub simulated_ms: u64,
    pub calls: usize,
    pub writes: u64,
    pub unknown: u64,
    pub refused: u64,
    pub dumps: u64,
    pub faults: BTreeMap<String, u64>,
    /// Faults that could not be begun.
    pub skipped: u64,
    /// From the end of the faults until all was well.
    pub healed_ms: u64,
    /// All members with data died, which nodes in memory may.
    pub abandoned: bool,
    /// Of everything that clients asked and were told, in its order.
    pub digest: u64,
}

/// A run with what happened in it.
#[derive(Debug, Default)]
pub struct Traced {
    pub trace: Vec<String>,
    pub history: Vec<Call>,
}

struct Run {
    cluster: Cluster,
    under_way: Vec<(Duration, Begun, String)>,
    done: Done,
    trace: Vec<String>,
    epoch: u64,
    said: bool,
}

/// Runs a seed.
///
/// # Errors
/// What is wrong.
pub fn run(seed: u64, asked: Option<&str>, say: bool, traced: &mut Traced) -> Result<Done, String> {
    entropy::seed(seed);
    let mut rng = Rng::new(seed);
    let scenario = Scenario::of(seed, asked, &mut rng)?;
    let weather = Weather::of(&mut rng);
    let hosts = (scenario.nodes, scenario.clients);
    let cluster =
        Cluster::new(seed, &mut rng, weather, hosts).map_err(|error| error.to_string())?;
    let mut run = Run {
        cluster,
        under_way: Vec::new(),
        done: Done {
            scenario: scenario.name.to_owned(),
            ..Done::default()
        },
        trace: Vec::new(),
        epoch: 0,
        said: say,
    };
    run.say(format!(
        "seed {seed}: {}, {} nodes, {} clients, {weather:?}",
        scenario.name, scenario.nodes, scenario.clients
    ));
    let verdict = run.all(&scenario);
    traced.trace = std::mem::take(&mut run.trace);
    traced.history = run.cluster.record.history();
    let figures = run.cluster.record.figures();
    let mut done = run.done;
    done.simulated_ms = millis(run.cluster.sim.elapsed());
    done.calls = traced.history.len();
    (done.writes, done.unknown) = (figures.writes, figures.unknown);
    (done.refused, done.dumps) = (figures.refused, figures.dumps);
    done.digest = digest(&traced.history, &traced.trace);
    verdict.map(|()| done)
}

fn digest(history: &[Call], trace: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for call in history {
        call.to_line().hash(&mut hasher);
    }
    trace.hash(&mut hasher);
    hasher.finish()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Run {
    fn say(&mut self, what: String) {
        let line = format!("{:9.3}  {what}", self.cluster.sim.elapsed().as_secs_f64());
        if self.said {
            eprintln!("{line}");
        }
        self.trace.push(line);
    }

    fn all(&mut self, scenario: &Scenario) -> Result<(), String> {
        let (faults, late): (Vec<_>, Vec<_>) = scenario
            .faults
            .iter()
            .cloned()
            .partition(|timed| !matches!(timed.fault, Fault::Late(_)));
        for timed in &late {
            if let Fault::Late(node) = timed.fault {
                self.cluster.keep_back(node);
            }
        }
        let early = scenario.nodes - late.len();
        self.until("all nodes to be members", START_MOST, |c| {
            members(c) == Some(early)
        })?;
        let began = self.cluster.sim.elapsed();
        let cluster = self.cluster.view().map(|view| view.cluster);
        self.say("everyone is a member; now the faults".to_owned());
        self.faults(began, late.into_iter().chain(faults).collect())?;
        let over = self.cluster.sim.elapsed();
        self.say("the faults are over".to_owned());
        let healed = self.heal(scenario.nodes);
        if self.cluster.view().map(|view| view.cluster) != cluster {
            return self.data_gone();
        }
        healed?;
        self.done.healed_ms = millis(self.cluster.sim.elapsed() - over);
        self.say(format!("all is well after {} ms", self.done.healed_ms));
        self.settle(scenario.nodes)?;
        self.check()
    }

    /// Nodes in memory may lose everything together, though no fault is begun that could do it alone.
    fn data_gone(&mut self) -> Result<(), String> {
        let deaths = ["crash of a node", "power cut of a node", "leave of a node"];
        if !deaths
            .iter()
            .any(|death| self.done.faults.contains_key(*death))
        {
            return Err("another cluster was founded, and no node had died".to_owned());
        }
        self.say("all data are gone".to_owned());
        self.done.abandoned = true;
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.cluster
            .sim
            .step()
            .map_err(|error| format!("a host ended: {error}"))?;
        if PANICKED.load(Ordering::Relaxed) {
            return Err("a task panicked".to_owned());
        }
        let status = self.cluster.board.status.borrow();
        let news = status
            .as_ref()
            .filter(|status| status.epoch != self.epoch)
            .map(|status| {
                let chain: Vec<_> = status
                    .members
                    .iter()
                    .map(|m| m.address.split(':').next().unwrap_or_default())
                    .collect();
                (status.epoch, chain.join(" → "))
            });
        drop(status);
        if let Some((epoch, chain)) = news {
            self.epoch = epoch;
            self.say(format!("view {epoch}: {chain}"));
        }
        Ok(())
    }

    fn until(
        &mut self,
        what: &str,
        most: Duration,
        is_so: impl Fn(&Cluster) -> bool,
    ) -> Result<(), String> {
        let by = self.cluster.sim.elapsed() + most;
        while !is_so(&self.cluster) {
            if self.cluster.sim.elapsed() > by {
                let status = self.cluster.board.status.borrow().clone();
                return Err(format!(
                    "waited for {what} for {most:?}; the last status: {status:?}"
                ));
            }
            self.step()?;
        }
        Ok(())
    }

    fn faults(&mut self, began: Duration, mut faults: Vec<Timed>) -> Result<(), String> {
        faults.sort_by_key(|timed| timed.at);
        let mut faults = faults.into_iter().peekable();
        loop {
            let now = self.cluster.sim.elapsed();
            self.end_until(now);
            while let Some(timed) = faults.next_if(|timed| began + ms(timed.at) <= now) {
                let Some(begun) = self.cluster.begin(&timed.fault) else {
                    self.done.skipped += 1;
                    continue;
                };
                let kind = timed.fault.kind().to_owned();
                *self.done.faults.entry(kind).or_default() += 1;
                let what = timed.to_string();
                self.say(format!("{what}: {begun:?}"));
                self.under_way.push((now + ms(timed.lasts), begun, what));
            }
            if self.under_way.is_empty() && faults.peek().is_none() {
                return Ok(());
            }
            self.step()?;
            self.cluster.note_dead();
        }
    }

    fn end_until(&mut self, now: Duration) {
        let (over, under_way) = std::mem::take(&mut self.under_way)
            .into_iter()
            .partition(|(until, _, _)| *until <= now);
        self.under_way = under_way;
        for (_, begun, what) in over {
            self.say(format!("over: {what}"));
            self.cluster.end(begun);
        }
    }

    fn heal(&mut self, nodes: usize) -> Result<(), String> {
        let before = self.cluster.board.wrote.borrow().clone();
        let statuses = self.cluster.board.statuses.get();
        let clients = self.cluster.client_hosts();
        self.until(
            "all to be members, and every client to write",
            HEAL_MOST,
            |c| {
                let wrote = c.board.wrote.borrow();
                let writes = |client: &String| wrote.get(client) > before.get(client);
                c.board.statuses.get() > statuses
                    && members(c) == Some(nodes)
                    && clients.iter().all(writes)
            },
        )
    }

    fn settle(&mut self, nodes: usize) -> Result<(), String> {
        self.cluster.board.stop.set(true);
        let hosts = self.cluster.client_hosts().len() + 1;
        self.until("everything to be answered", FINISH_MOST, |c| {
            c.board.finished.borrow().len() == hosts && c.record.under_way() == 0
        })?;
        self.cluster.board.read_all.set(true);
        self.until("everything to be read", SETTLE_MOST, |c| {
            c.board.all.borrow().is_some()
        })?;
        self.until("all members to hold the same", SETTLE_MOST, |c| {
            members(c) == Some(nodes) && alike(c)
        })
    }

    fn check(&mut self) -> Result<(), String> {
        let record = &self.cluster.record;
        if let Some(wrong) = record.wrongs().first() {
            return Err(wrong.clone());
        }
        check(&record.history()).map_err(|refused| refused.to_string())?;
        let all = self.cluster.board.all.borrow();
        for (key, counter) in record.counters() {
            let entry = all.iter().flatten().find(|entry| entry.key == key);
            let count = count_of(entry.map(|entry| &entry.value));
            let most = counter.acknowledged + counter.unknown;
            if !(counter.acknowledged..=most).contains(&count) {
                return Err(format!("{key} counts {count}, after {counter:?}"));
            }
        }
        if record.figures().writes == 0 {
            return Err("nothing was written".to_owned());
        }
        Ok(())
    }
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How many members there are, where nobody is on the way in, and the chain serves.
fn members(cluster: &Cluster) -> Option<usize> {
    let status = cluster.board.status.borrow();
    let status = status.as_ref()?;
    (status.learners.is_empty() && status.waiting.is_none()).then_some(status.members.len())
}

/// Whether all members told the same point, and the same hash of it.
fn alike(cluster: &Cluster) -> bool {
    let status = cluster.board.status.borrow();
    let Some(status) = status.as_ref() else {
        return false;
    };
    let mut told = status
        .members
        .iter()
        .map(|m| (m.applied, m.durable, m.hash.as_str()));
    let first = told.next();
    first.is_some_and(|(applied, durable, _)| applied == durable)
        && told.all(|other| Some(other) == first)
}
