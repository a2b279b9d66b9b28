//! A nemesis on real processes: real binaries, disks and sockets, faults of all kinds at random, many clients; and the
//! history of all that they asked and were told, checked at the end.
//!
//! | module | holds |
//! | --- | --- |
//! | [`cluster`] | the processes, each behind proxies, each with a disk, and a clock of its own |
//! | [`network`], [`proxy`], [`dialler`] | links: what becomes of bytes between two places |
//! | [`fault`], [`schedule`] | what is done and undone, and when |
//! | [`work`], [`session`], [`anonymous`] | what clients ask, and how |
//! | [`record`], [`verdict`] | the history, its figures, and what must hold at the end |
//!
//! It runs on Linux. `docs/testing-nemesis.md` says more.

pub mod anonymous;
pub mod cluster;
pub mod dialler;
pub mod fault;
pub mod network;
pub mod proxy;
pub mod record;
pub mod schedule;
pub mod session;
pub mod verdict;
pub mod work;

use crate::load::patient;
use crate::server_address;
use cluster::Cluster;
use kvservice_client::{Client, Config};
use record::Record;
use schedule::Schedule;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use work::{Common, Wishes};

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// For how long.
    pub lasts: Duration,
    /// Of all dice.
    pub seed: u64,
    /// Back-ends.
    pub nodes: usize,
    /// Clients, of which every fourth has no session.
    pub clients: usize,
    /// Calls in a second, while all is well.
    pub rate: u64,
    /// Where the logs and data are; there is nothing yet.
    pub dir: PathBuf,
    /// Where the history goes.
    pub history: PathBuf,
}

/// One client in so many has no session.
const ANONYMOUS: usize = 4;
/// Clients end, once the cluster is whole.
const CLIENTS_END_WITHIN: Duration = Duration::from_secs(120);

/// Runs, until its time is over or `interrupted`. What was wrong; nothing, where all is well.
///
/// # Panics
/// Where it cannot begin.
pub async fn run(options: &Options, interrupted: impl Future<Output = ()>) -> Vec<String> {
    let record = Record::new(&options.history, Instant::now());
    let record = Arc::new(record.expect("the history's file can be made"));
    let story = options.dir.join("schedule.txt");
    let schedule = Schedule::new(options.seed, Arc::clone(&record), &story, options.clients);
    let mut schedule = schedule.expect("the run's directory can be written");
    let mut cluster = Cluster::found(&options.dir, options.nodes, options.seed).await;
    say_what_is_not_possible(&mut schedule, &cluster);

    let mut wrong = Vec::new();
    match schedule.settle(&mut cluster).await {
        Ok(()) => {
            let common = Common {
                record: Arc::clone(&record),
                stop: Arc::new(AtomicBool::new(false)),
                pause: pause(options),
            };
            let clients = start_clients(options, &cluster, &common).await;
            let end = tokio::time::Instant::now() + options.lasts;
            let stop = schedule.stop();
            let mut harm = pin!(schedule.run(&mut cluster, end));
            let harmed = tokio::select! {
                harmed = &mut harm => harmed,
                // Not dropped: what it has done must be undone.
                () = interrupted => {
                    stop.store(true, Ordering::Relaxed);
                    harm.await
                }
            };
            wrong.extend(harmed.err());
            common.stop.store(true, Ordering::Relaxed);
            wrong.extend(end_clients(clients).await.err());
        }
        Err(error) => wrong.push(error),
    }
    if wrong.is_empty() {
        wrong.extend(
            verdict::last_look(&mut cluster, &mut schedule, &record)
                .await
                .err(),
        );
    }
    let of_processes = [
        (
            "start of a process, with a clock of its own",
            cluster.starts * usize::from(cluster.has_clocks()),
        ),
        ("disk lost", cluster.wiped),
    ];
    schedule.counts.extend(of_processes);
    drop(cluster);
    wrong.extend(verdict::verdict(&record, &options.dir));
    verdict::print_figures(&record, &schedule);
    wrong
}

fn say_what_is_not_possible(schedule: &mut Schedule, cluster: &Cluster) {
    if cluster.small_disk().is_none() {
        schedule.say("no disk is filled: mounting a small one is not allowed here");
    }
    if !cluster.has_clocks() {
        schedule.say("all processes have the machine's clock: `unshare --time` does not work here");
    }
}

/// Between two calls of one lane of a client, on average.
fn pause(options: &Options) -> Duration {
    let anonymous = options.clients / ANONYMOUS;
    let lanes = (options.clients - anonymous) as u64 * session::LANES + anonymous as u64;
    Duration::from_secs(1) * u32::try_from(lanes).unwrap_or(u32::MAX)
        / u32::try_from(options.rate).unwrap_or(u32::MAX).max(1)
}

async fn start_clients(options: &Options, cluster: &Cluster, common: &Common) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for client in 0..options.clients {
        let door = cluster.door(client).await;
        let number = client as u64;
        let wishes = Wishes::new(number, options.seed.wrapping_mul(1000).wrapping_add(number));
        let config = Config::new(server_address(door));
        match client % ANONYMOUS {
            3 => clients.spawn(anonymous::run(common.clone(), door, wishes)),
            // Half of those with a session wait as long as it takes, the others give up as the browser does.
            1 => clients.spawn(session::run(common.clone(), config, wishes)),
            _ => clients.spawn(session::run(
                common.clone(),
                config.no_request_timeout(),
                wishes,
            )),
        };
    }
    clients
}

/// Waits until everything is answered.
async fn end_clients(mut clients: JoinSet<()>) -> Result<(), String> {
    let ended = tokio::time::timeout(CLIENTS_END_WITHIN, async {
        while let Some(ended) = clients.join_next().await {
            ended.map_err(|error| format!("a client: {error}"))?;
        }
        Ok(())
    });
    let ended = ended.await;
    // What is aborted has an unknown outcome.
    clients.shutdown().await;
    ended.unwrap_or_else(|_| Err("a client still waits for its answer".to_owned()))
}

/// A client past every proxy.
fn direct(cluster: &Cluster) -> Client {
    Client::start(patient(cluster.clients()))
}
