//! Storms of faults, and calm between them: then everything must heal by itself.

use super::cluster::Cluster;
use super::fault::{Fault, Plan};
use super::network::Place;
use super::record::Record;
use crate::chain::{is_settled, show_status};
use crate::random::Random;
use kvservice_client::Status;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Faults at a time.
const AT_ONCE_MAX: usize = 4;
/// Between two faults, in milliseconds.
const PAUSE_MAX_MS: u64 = 2500;
const STORM_MAX_MS: u64 = 25_000;
/// A cluster without faults is whole before that, on a busy machine too.
const HEALS_WITHIN: Duration = Duration::from_secs(180);
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Does the harm, and says what.
#[derive(Debug)]
pub struct Schedule {
    random: Random,
    record: Arc<Record>,
    file: File,
    clients: usize,
    active: Vec<(Instant, Fault)>,
    stop: Arc<AtomicBool>,
    /// Faults, by their kinds.
    pub counts: BTreeMap<&'static str, usize>,
    /// The longest time that it took to be whole again once faults were over.
    pub slowest_heal: Duration,
}

impl Schedule {
    /// Nothing is wrong yet. What is done is printed, and written to this file.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn new(
        seed: u64,
        record: Arc<Record>,
        file: &Path,
        clients: usize,
    ) -> std::io::Result<Schedule> {
        Ok(Schedule {
            random: Random::new(seed),
            record,
            file: File::create(file)?,
            clients,
            active: Vec::new(),
            stop: Arc::default(),
            counts: BTreeMap::new(),
            slowest_heal: Duration::ZERO,
        })
    }

    /// Says what happens, with the time since the start.
    pub fn say(&mut self, words: &str) {
        let line = format!("{:10.3} s  {words}", self.record.elapsed().as_secs_f64());
        println!("{line}");
        // It has been printed.
        let _ = writeln!(self.file, "{line}");
    }

    /// What ends it early, when it is set.
    #[must_use]
    pub fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    fn is_over(&self, end: Instant) -> bool {
        Instant::now() >= end || self.stop.load(Ordering::Relaxed)
    }

    /// Storms and calms until `end`; it ends with a calm.
    ///
    /// # Errors
    /// What is wrong with the cluster.
    pub async fn run(&mut self, cluster: &mut Cluster, end: Instant) -> Result<(), String> {
        while !self.is_over(end) {
            let storm = Duration::from_millis(self.random.below(STORM_MAX_MS));
            self.storm(cluster, end.min(Instant::now() + storm)).await?;
            self.calm(cluster).await?;
        }
        Ok(())
    }

    async fn storm(&mut self, cluster: &mut Cluster, end: Instant) -> Result<(), String> {
        while !self.is_over(end) {
            let pause = Duration::from_millis(self.random.below(PAUSE_MAX_MS));
            let next = end.min(Instant::now() + pause);
            while let Some(due) = self.first_due().filter(|&due| due < next) {
                sleep_until(due).await;
                self.undo_due(cluster).await?;
            }
            sleep_until(next).await;
            check_lost(cluster)?;
            if self.active.len() < AT_ONCE_MAX {
                self.strike(cluster);
            }
        }
        Ok(())
    }

    fn first_due(&self) -> Option<Instant> {
        self.active.iter().map(|(due, _)| *due).min()
    }

    fn strike(&mut self, cluster: &mut Cluster) {
        let faults = self.active.iter().flat_map(|(_, fault)| fault.uses());
        let busy: BTreeSet<Place> = faults.collect();
        let Some(plan) = Plan::choose(&mut self.random, cluster, self.clients, &busy) else {
            return;
        };
        self.say(&format!(
            "{} ({:.1} s)",
            plan.words,
            plan.lasts.as_secs_f64()
        ));
        *self.counts.entry(plan.kind).or_default() += 1;
        let due = Instant::now() + plan.lasts;
        self.active.push((due, plan.strike(cluster)));
    }

    async fn undo_due(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        let now = Instant::now();
        let (due, rest) = std::mem::take(&mut self.active)
            .into_iter()
            .partition(|(due, _)| *due <= now);
        self.active = rest;
        self.undo(due, cluster).await
    }

    async fn undo(
        &mut self,
        faults: Vec<(Instant, Fault)>,
        cluster: &mut Cluster,
    ) -> Result<(), String> {
        for (_, fault) in faults {
            let done = fault.undo(cluster).await?;
            self.say(&done);
        }
        Ok(())
    }

    /// Undoes everything, and waits until the cluster is whole.
    async fn calm(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        let faults = std::mem::take(&mut self.active);
        self.undo(faults, cluster).await?;
        let began = Instant::now();
        let record = Arc::clone(&self.record);
        let written = record.figures().writes;
        // A front-end that was started again tells of the view that it finds on its disk: writes tell that it is so.
        let what = "all nodes to be members, and writes to be acknowledged";
        self.until(cluster, what, |status, nodes| {
            let whole = status.waiting.is_none() && status.members.len() == nodes;
            whole && record.figures().writes > written
        })
        .await?;
        cluster.none_may_end();
        let took = began.elapsed();
        self.slowest_heal = self.slowest_heal.max(took);
        self.say(&format!(
            "all {} nodes are members, after {:.1} s",
            cluster.nodes(),
            took.as_secs_f64()
        ));
        Ok(())
    }

    /// Waits, with no more writes under way, until all nodes hold one state.
    ///
    /// # Errors
    /// They do not come to that.
    pub async fn settle(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        let what = "all nodes to hold one state";
        let status = self.until(cluster, what, is_settled).await?;
        let hashes: BTreeSet<&str> = status.members.iter().map(|m| m.hash.as_str()).collect();
        match hashes.len() {
            1 => Ok(()),
            _ => Err(format!(
                "nodes hold different states: {}",
                show_status(&status)
            )),
        }
    }

    async fn until(
        &mut self,
        cluster: &mut Cluster,
        what: &str,
        is_so: impl Fn(&Status, usize) -> bool,
    ) -> Result<Status, String> {
        let deadline = Instant::now() + HEALS_WITHIN;
        loop {
            for place in cluster.restart_ended() {
                self.say(&format!(
                    "{place} started again: it had ended, with its disk full"
                ));
            }
            check_lost(cluster)?;
            let status = cluster.status().await;
            match status {
                Ok(status) if is_so(&status, cluster.nodes()) => return Ok(status),
                status if Instant::now() > deadline => {
                    let status = status.as_ref().map(show_status);
                    let last = status.unwrap_or_else(|error| error.clone());
                    return Err(format!(
                        "waited in vain for {what}; the last status: {last}"
                    ));
                }
                _ => sleep(LOOK_PAUSE).await,
            }
        }
    }
}

fn check_lost(cluster: &mut Cluster) -> Result<(), String> {
    cluster.lost().map_or(Ok(()), Err)
}
