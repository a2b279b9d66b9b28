//! One seed's run: with faults, then without, and what came of it.
//!
//! **Safety.** For so many steps of ten milliseconds clients ask, links and processes and disks fail, and after
//! each event the [`Oracle`](crate::oracle::Oracle) looks at everybody. **Liveness.** Then nothing fails any
//! more, and within half a minute everything must be answered, every node a member, and all hold the same. In the
//! end the clients' history is checked, with one last read of every key.

mod client;
mod faults;
mod removals;
mod verdict;

use crate::cluster::Cluster;
use crate::front_end::Flags;
use crate::net::Place;
use crate::node::{name, node_id};
use crate::rng::Rng;
use client::{Client, History};
use faults::{Rates, Undo};
use kvservice_history::Call;
use kvservice_shared::api::StorageKind;
use kvservice_shared::api::json::responses_to_json;
use kvservice_shared::chain::{Incarnation, Settings};
use removals::Removals;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How long everything may take to heal, in simulated milliseconds.
const HEAL_MS: u64 = 30_000;

/// What a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// Steps of ten milliseconds with faults.
    pub steps: usize,
    /// Nodes, at most.
    pub nodes: usize,
    /// Clients.
    pub clients: u64,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Entries that were committed.
    pub entries: u64,
    /// Requests that were answered.
    pub answers: u64,
    /// Requests whose outcome is unknown.
    pub unknown: u64,
    /// Simulated milliseconds.
    pub ms: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// The last members are gone, one with the only data: nothing is left to heal from. Only nodes that keep
    /// their data in memory can come to that.
    pub abandoned: bool,
}

/// What broke.
#[derive(Clone, Debug)]
pub struct Failure {
    /// In words; an invariant by its number.
    pub what: String,
    /// In which step with faults; `None`: once they had stopped.
    pub step: Option<usize>,
}

pub struct Run {
    plan: Plan,
    cluster: Cluster,
    rng: Rng,
    rates: Rates,
    clients: Vec<Client>,
    history: History,
    undo: Vec<(u64, Undo)>,
    /// Who hears little of what is sent to it, and until when.
    slow: Option<(Place, u64)>,
    removals: Removals,
    storage: StorageKind,
    /// The front-end lost its directory.
    wiped: bool,
    step: Option<usize>,
    done: Done,
}

impl Run {
    fn new(plan: Plan, traced: bool) -> Run {
        let mut rng = Rng::new(plan.seed);
        let rates = Rates::new(&mut rng);
        let flags = Flags {
            settings: Settings {
                failure_timeout_ms: 400,
                min_replicas: 1,
            },
            init: true,
            grace_ms: 1500,
            request_timeout_ms: 3000,
        };
        let mut cluster = Cluster::new(flags);
        cluster.trace = traced.then(Vec::new);
        cluster.start_front_end();
        cluster.flags.init = false;
        let storage = match rng.chance(75) {
            true => StorageKind::Disk,
            false => StorageKind::Memory,
        };
        let clients = (1..=plan.clients)
            .map(|number| Client::new(number, &mut rng))
            .collect();
        let mut run = Run {
            plan,
            cluster,
            rng,
            rates,
            clients,
            history: History::default(),
            undo: Vec::new(),
            slow: None,
            removals: Removals::default(),
            storage,
            wiped: false,
            step: None,
            done: Done::default(),
        };
        for _ in 0..1 + run.rng.below(plan.nodes) {
            run.start_new_node();
        }
        run
    }

    fn run(&mut self) -> Result<(), String> {
        for step in 0..self.plan.steps {
            self.step = Some(step);
            self.undo_due(false);
            self.fail();
            self.ask(true)?;
            self.deliver();
            if self.cluster.oracle.founded_anew {
                self.done.abandoned = true;
                // A front-end without its directory founds a cluster once its grace ends, if no node with data is
                // there to tell of another.
                return match self.storage {
                    StorageKind::Disk if !self.wiped => {
                        Err("a cluster was given up whose data are on disks".into())
                    }
                    _ => Ok(()),
                };
            }
            self.answers();
            self.ended()?;
            self.removed()?;
            self.cluster.tick();
        }
        self.step = None;
        self.heal()?;
        match self.done.abandoned {
            true => Ok(()),
            false => self.verdict(),
        }
    }

    fn ask(&mut self, ask: bool) -> Result<(), String> {
        for client in &mut self.clients {
            let requests = match ask && self.rng.chance(self.rates.ask) {
                true => 1 + self.rng.below(4),
                false => 0,
            };
            client.act(
                &mut self.cluster,
                &mut self.rng,
                &mut self.history,
                requests,
            )?;
        }
        Ok(())
    }

    /// Delivers some frames or all, and lets processes speak after some of them or after each.
    fn deliver(&mut self) {
        let now = self.cluster.now_ms;
        let slow = self
            .slow
            .filter(|(_, until)| *until > now)
            .map(|(place, _)| place);
        if slow.is_none() && self.rng.chance(self.rates.calm) {
            self.cluster.settle();
            return;
        }
        let eager = self.rng.chance(50);
        for _ in 0..self.rng.below(60) {
            let ready = self.cluster.deliverable();
            let Some(&(conn, way)) = self.rng.pick(&ready) else {
                break;
            };
            let to = self
                .cluster
                .net
                .get(conn)
                .map(|conn| conn.to(way).process.place);
            if slow.is_some() && slow == to && self.rng.chance(95) {
                continue;
            }
            self.cluster.take_in(conn, way);
            if eager || self.rng.chance(30) {
                self.cluster.flush();
            }
        }
        self.cluster.flush();
    }

    /// What the front-end says is on its way to the clients.
    fn answers(&mut self) {
        let mut frames = BTreeMap::new();
        for (conn, response) in std::mem::take(&mut self.cluster.responses) {
            frames.entry(conn).or_insert_with(Vec::new).push(response);
        }
        let closed = std::mem::take(&mut self.cluster.closed);
        for client in &mut self.clients {
            let Some(conn) = client.conn() else { continue };
            if let Some(responses) = frames.remove(&conn) {
                client.told(responses_to_json(&responses));
            }
            let serves = |fe: &crate::front_end::FrontEnd| fe.clients.contains(&conn);
            let gone = !self.cluster.front_end.as_ref().is_some_and(serves);
            let code = closed
                .iter()
                .find(|(of, ..)| *of == conn)
                .map(|(_, code, _)| *code);
            if gone || code.is_some() {
                client.lost(self.cluster.now_ms, code, &mut self.history);
            }
        }
    }

    fn removed(&mut self) -> Result<(), String> {
        let slots = &self.cluster.slots;
        // Whoever does not run is rightly gone.
        let place = |node| {
            let mut running = slots
                .iter()
                .enumerate()
                .filter(|(_, slot)| slot.node.is_some());
            let at = running.find(|(at, slot)| node_id(*at, slot.lives, &slot.config) == node);
            at.map(|(index, _)| Place::Node(index))
        };
        self.removals.check(
            self.cluster.stored.view.as_ref(),
            self.cluster.now_ms,
            place,
        )
    }

    /// No node may call anything fatal; whoever ended otherwise comes back.
    fn ended(&mut self) -> Result<(), String> {
        let returns = |undo: &Undo| matches!(undo, Undo::StartFrontEnd);
        if self.cluster.front_end.is_none() && !self.undo.iter().any(|(_, undo)| returns(undo)) {
            let at = self.cluster.now_ms + 100 + self.rng.below(1500) as u64;
            self.undo.push((at, Undo::StartFrontEnd));
        }
        for index in 0..self.cluster.slots.len() {
            let slot = &self.cluster.slots[index];
            let Some(reason) = slot.ended.as_ref().filter(|_| slot.node.is_none()) else {
                continue;
            };
            if reason.starts_with("fatal") {
                return Err(format!("{} ends: {reason}", slot.config.name));
            }
            let returns = |undo: &Undo| matches!(undo, Undo::StartNode(at) if *at == index);
            if !self.undo.iter().any(|(_, undo)| returns(undo)) {
                let at = self.cluster.now_ms + 100 + self.rng.below(1500) as u64;
                self.undo.push((at, Undo::StartNode(index)));
            }
        }
        Ok(())
    }

    /// Nothing fails any more: everyone is answered, everyone is a member, all hold the same.
    fn heal(&mut self) -> Result<(), String> {
        self.cluster.note(|| "! no more faults".to_owned());
        self.undo_due(true);
        let until = self.cluster.now_ms + HEAL_MS;
        loop {
            self.undo_due(false);
            self.ask(false)?;
            self.cluster.settle();
            if self.is_abandoned() {
                self.done.abandoned = true;
                return Ok(());
            }
            self.answers();
            self.ended()?;
            let answered = self.clients.iter().all(Client::is_answered);
            let healed = self.cluster.is_healed();
            let runs = self.cluster.slots.iter().all(|slot| slot.node.is_some());
            if answered && healed.is_ok() && runs {
                return Ok(());
            }
            if self.cluster.now_ms > until {
                let view = self.cluster.stored.view.iter();
                let members: Vec<_> = view
                    .flat_map(|v| &v.members)
                    .map(|m| name(m.id).to_string())
                    .collect();
                return Err(format!(
                    "does not heal: answered {answered}, {healed:?}, members {members:?}"
                ));
            }
            self.cluster.tick();
        }
    }

    /// Nothing is left to heal from. The members of the last view ran in memory, and all were started anew: a new
    /// cluster was founded. Or the last view is one node that answered and died in the same moment, and others, with
    /// what they held before, wait for an operator. A view of nodes that were long dead is something else.
    fn is_abandoned(&self) -> bool {
        const JUST_MS: u64 = 3000;
        if self.cluster.oracle.founded_anew {
            return true;
        }
        let Some(view) = &self.cluster.stored.view else {
            return false;
        };
        let slots = &self.cluster.slots;
        let runs = view
            .members
            .iter()
            .any(|member| self.cluster.node_of(member.id).is_some());
        let older = slots.iter().filter_map(|slot| slot.node.as_ref());
        let older = older
            .filter(|node| node.replica.registration().cluster.is_some())
            .count();
        let answered = |id: &Incarnation| {
            let at = self.cluster.answered_ms.get(id);
            at.is_some_and(|at| at + JUST_MS > self.cluster.view_ms)
        };
        let died_just_then = view.members.iter().any(|member| answered(&member.id));
        self.storage == StorageKind::Memory && !runs && older > 0 && died_just_then
    }

    fn result(mut self, ran: Result<(), String>) -> Result<Done, Failure> {
        match ran {
            Ok(()) => {
                self.done.entries = self.cluster.oracle.end().0;
                self.done.answers = self.clients.iter().map(|client| client.answered).sum();
                self.done.ms = self.cluster.now_ms;
                Ok(self.done)
            }
            Err(what) => Err(Failure {
                what,
                step: self.step,
            }),
        }
    }
}

/// What a run leaves for people to read.
#[derive(Debug, Default)]
pub struct Traced {
    /// Everything that happened, line by line.
    pub trace: Vec<String>,
    /// What clients asked and were told.
    pub history: Vec<Call>,
}

/// Runs a plan. With `traced`, keeps what happened.
///
/// # Errors
/// What broke.
pub fn run(plan: Plan, traced: Option<&mut Traced>) -> Result<Done, Failure> {
    let mut run = Run::new(plan, traced.is_some());
    let ran = catch_unwind(AssertUnwindSafe(|| run.run()));
    let ran = ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text
            .or(panic.downcast_ref::<&str>().map(|t| (*t).to_owned()))
            .unwrap_or_default())
    });
    if let Some(traced) = traced {
        traced.trace = run.cluster.trace.take().unwrap_or_default();
        traced.history = std::mem::take(&mut run.history.calls);
    }
    run.result(ran)
}
