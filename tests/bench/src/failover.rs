//! What a failure costs: the longest time in which nobody's write is acknowledged, while a process is killed or hangs.
//!
//! Each connection writes one key after the other, and does what a client of its system would when that fails: it
//! connects again, to whom it is told to, and goes on. All systems are at their defaults, in memory where there is a
//! choice; how long it takes until they notice is theirs.

use crate::interrupt::{self, interrupted};
use crate::machine::Place;
use crate::options::{Run, SystemName};
use crate::plan;
use crate::process::{Process, WorkDir};
use crate::report::Report;
use crate::stats::{Answer, Gaps, median, range};
use crate::systems::{Places, System, etcd, kvservice, redis};
use crate::wire::etcd::Etcd;
use crate::wire::json::Kvservice;
use crate::wire::resp::Resp;
use crate::wire::{Request, Target, Wire};
use crate::work::Op;
use anyhow::{Context, Result, anyhow, bail, ensure};
use futures_util::future::join_all;
use serde::Serialize;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A request to a rival that takes longer is given up, with its connection, and another server is tried: in their favour.
const RIVAL_TIMEOUT: Duration = Duration::from_millis(500);
/// The same for ours, where there is no other server to try: what its front-end itself gives a request.
const OWN_TIMEOUT: Duration = Duration::from_secs(5);
/// The first pause between two attempts to connect, and the longest.
const RETRY_PAUSE: Duration = Duration::from_millis(2);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(100);
/// Acknowledgements before the failure: everything is warm.
const ACKNOWLEDGED_BEFORE: u64 = 2000;
/// The gap is over when writes have been acknowledged for so long without a pause of [`QUIET_PAUSE`].
const QUIET: Duration = Duration::from_millis(500);
const QUIET_PAUSE: Duration = Duration::from_millis(200);
/// How long a system may need until its writes are acknowledged again.
const PATIENCE: Duration = Duration::from_secs(150);
const POLL: Duration = Duration::from_millis(5);
/// Bytes of a value, and keys that are written.
const VALUE_BYTES: usize = 64;
const KEYS: u64 = 100_000;
/// Keys in a victim that takes longer to die.
const MANY_KEYS: u64 = 1_000_000;

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Harm {
    /// `kill -9`
    Kill,
    /// `kill -STOP`
    Pause,
}

impl Harm {
    fn as_str(self) -> &'static str {
        match self {
            Harm::Kill => "kill -9",
            Harm::Pause => "kill -STOP",
        }
    }

    /// For so long after it, acknowledgements do not yet say that the failure is over: it may not have begun.
    fn takes_effect(self, system: SystemName) -> Duration {
        match (system.is_ours(), self) {
            (true, Harm::Kill) => Duration::from_millis(500),
            (true, Harm::Pause) => Duration::from_millis(1500),
            (false, _) => Duration::from_secs(3),
        }
    }
}

/// One kind of failure of one system.
#[derive(Clone, Debug, Serialize)]
pub struct FailoverRow {
    /// Which, and with what that matters.
    pub system: String,
    /// `kill -9` or `kill -STOP`.
    pub harm: &'static str,
    /// Whose.
    pub victim: String,
    /// Keys that it held, at most.
    pub keys: u64,
    /// The longest gap of each run, in milliseconds.
    pub gaps_ms: Vec<f64>,
    /// Of these, in milliseconds.
    pub median_ms: f64,
    pub least_ms: f64,
    pub greatest_ms: f64,
    /// Requests that failed and were sent again, in all runs.
    pub retried: u64,
    #[serde(flatten)]
    pub place: Place,
}

/// Measures all failures.
///
/// # Errors
/// A system does not start, or does not come back, or we were told to stop.
pub fn run(run: &Run, work: &WorkDir, lacking: &[SystemName], report: &mut Report) -> Result<()> {
    let wants =
        |name| !lacking.contains(&name) && (run.system.is_empty() || run.system.contains(&name));
    let times = |full: u32| if run.quick { 1 } else { full };
    if wants(SystemName::KvserviceMemory) {
        let mut chain = Chain::start(run, work, KEYS)?;
        for (harm, count) in [(Harm::Kill, times(10)), (Harm::Pause, times(3))] {
            for position in POSITIONS {
                chain.measure(run, harm, position, count, report)?;
            }
        }
        drop(chain);
        if !run.quick {
            let mut chain = Chain::start(run, work, MANY_KEYS)?;
            for position in POSITIONS {
                chain.measure(run, Harm::Kill, position, 3, report)?;
            }
        }
    }
    if wants(SystemName::Etcd) {
        for (harm, count) in [(Harm::Kill, times(3)), (Harm::Pause, times(3))] {
            measure_etcd(run, work, harm, count, report)?;
        }
    }
    if wants(SystemName::RedisMemory) && !run.quick {
        for harm in [Harm::Kill, Harm::Pause] {
            measure_redis(run, work, harm, report)?;
        }
    }
    Ok(())
}

/// What a run of writes around a failure showed.
struct Seen {
    gap: Duration,
    retried: u64,
}

fn add(
    report: &mut Report,
    system: &str,
    harm: Harm,
    victim: &str,
    keys: u64,
    seen: &[Seen],
) -> Result<()> {
    let gaps_ms: Vec<f64> = seen
        .iter()
        .map(|seen| seen.gap.as_secs_f64() * 1000.0)
        .collect();
    let (least_ms, greatest_ms) = range(&gaps_ms).context("a failure that was never measured")?;
    report.add_failover(FailoverRow {
        system: system.to_owned(),
        harm: harm.as_str(),
        victim: victim.to_owned(),
        keys,
        median_ms: median(&gaps_ms).unwrap_or_default(),
        gaps_ms,
        least_ms,
        greatest_ms,
        retried: seen.iter().map(|seen| seen.retried).sum(),
        place: report.place.clone(),
    });
    Ok(())
}

const POSITIONS: [&str; 3] = ["head", "middle", "tail"];

struct Chain {
    system: System,
    bin_dir: std::path::PathBuf,
    keys: u64,
    _dir: WorkDir,
}

impl Chain {
    fn start(run: &Run, work: &WorkDir, keys: u64) -> Result<Chain> {
        let dir = WorkDir::new(work.path(), "failover-kvservice")?;
        let bin_dir = run.bin_dir();
        let places = Places {
            bin_dir: bin_dir.clone(),
            dir: dir.path().to_owned(),
        };
        let mut system = System::start(SystemName::KvserviceMemory, plan::NODES, &places)?;
        system.fill(run.connections, keys, VALUE_BYTES)?;
        Ok(Chain {
            system,
            bin_dir,
            keys,
            _dir: dir,
        })
    }

    fn measure(
        &mut self,
        run: &Run,
        harm: Harm,
        position: &str,
        count: u32,
        report: &mut Report,
    ) -> Result<()> {
        let front_end = self.system.addresses[0];
        let nodes = usize::from(plan::NODES);
        let mut seen = Vec::new();
        for _ in 0..count {
            let members = kvservice::members(&self.bin_dir, front_end).unwrap_or_default();
            ensure!(
                members.len() == nodes,
                "the chain is not whole: {members:?}"
            );
            let index = match position {
                "head" => 0,
                "tail" => nodes - 1,
                _ => nodes / 2,
            };
            let processes = &mut self.system.processes;
            let victim = kvservice::process_at(processes, members[index])?;
            let find = async |_: usize| Ok(front_end);
            seen.push(around::<Kvservice>(
                run,
                SystemName::KvserviceMemory,
                0,
                self.keys,
                harm,
                victim,
                find,
            )?);
            victim.restart()?;
            kvservice::until_members(&self.bin_dir, front_end, nodes, processes)?;
        }
        let name = SystemName::KvserviceMemory.as_str();
        add(report, name, harm, position, self.keys, &seen)
    }
}

fn measure_etcd(
    run: &Run,
    work: &WorkDir,
    harm: Harm,
    count: u32,
    report: &mut Report,
) -> Result<()> {
    let mut seen = Vec::new();
    for _ in 0..count {
        let dir = WorkDir::new(work.path(), "failover-etcd")?;
        let places = Places {
            bin_dir: run.bin_dir(),
            dir: dir.path().to_owned(),
        };
        let mut system = System::start(SystemName::Etcd, plan::NODES, &places)?;
        let leader = etcd::leader(&system.addresses)?.context("etcd has lost its leader")?;
        let members = system.addresses.clone();
        let find = async |attempt: usize| Ok(members[attempt % members.len()]);
        let victim = &mut system.processes[leader];
        let one = around::<Etcd>(run, SystemName::Etcd, 0, KEYS, harm, victim, find)?;
        seen.push(one);
    }
    add(report, "etcd", harm, "leader", KEYS, &seen)
}

fn measure_redis(run: &Run, work: &WorkDir, harm: Harm, report: &mut Report) -> Result<()> {
    let dir = WorkDir::new(work.path(), "failover-redis")?;
    let places = Places {
        bin_dir: run.bin_dir(),
        dir: dir.path().to_owned(),
    };
    let mut system = System::start(SystemName::RedisMemory, plan::NODES, &places)?;
    system.fill(run.connections, KEYS, VALUE_BYTES)?;
    let master = system.addresses[0];
    let sentinels = redis::start_sentinels(&places, &mut system.processes, master)?;
    let find = async |attempt: usize| redis::master(sentinels[attempt % sentinels.len()]).await;
    let victim = &mut system.processes[0];
    // Of two replicas one becomes the master, and has one replica left.
    let seen = around::<Resp>(run, SystemName::RedisMemory, 1, KEYS, harm, victim, find)?;
    add(
        report,
        "redis-memory, three Sentinels",
        harm,
        "master",
        KEYS,
        &[seen],
    )
}

/// Writes without pause while the victim is harmed, until all is well again.
fn around<W: Wire>(
    run: &Run,
    name: SystemName,
    replicas: u16,
    keys: u64,
    harm: Harm,
    victim: &mut Process,
    find: impl AsyncFn(usize) -> Result<SocketAddr> + Sync,
) -> Result<Seen> {
    interrupt::check()?;
    let shared = Shared {
        gaps: Mutex::new(Gaps::start(Instant::now())),
        stop: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        let timeout = match name.is_ours() {
            true => OWN_TIMEOUT,
            false => RIVAL_TIMEOUT,
        };
        let (find, shared) = (&find, &shared);
        let writers = scope.spawn(move || write::<W>(run, replicas, keys, timeout, find, shared));
        let result = harm_and_wait(name, harm, victim, shared, || writers.is_finished());
        shared.stop.store(true, Ordering::Relaxed);
        let retried = writers
            .join()
            .map_err(|_| anyhow!("the writers panicked"))?;
        let gap = result.with_context(|| format!("{} of {}", harm.as_str(), name.as_str()))?;
        Ok(Seen {
            gap,
            retried: retried?,
        })
    })
}

struct Shared {
    gaps: Mutex<Gaps>,
    stop: AtomicBool,
}

impl Shared {
    fn gaps(&self) -> Gaps {
        *self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || interrupted()
    }
}

fn harm_and_wait(
    name: SystemName,
    harm: Harm,
    victim: &mut Process,
    shared: &Shared,
    over: impl Fn() -> bool,
) -> Result<Duration> {
    let until = |what: &str, mut is_so: Box<dyn FnMut() -> bool + '_>| {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            interrupt::check()?;
            ensure!(!over(), "the writers have given up");
            if Instant::now() >= deadline {
                bail!("{what}: not so after {} s", PATIENCE.as_secs());
            }
            thread::sleep(POLL);
        }
        Ok(())
    };
    until(
        "writes are acknowledged",
        Box::new(|| shared.gaps().count >= ACKNOWLEDGED_BEFORE),
    )?;
    // Opening all connections took a moment, which is no failure's.
    let harmed = Instant::now();
    *shared.gaps.lock().unwrap_or_else(PoisonError::into_inner) = Gaps::start(harmed);
    match harm {
        Harm::Kill => victim.kill_now(),
        Harm::Pause => victim.pause()?,
    }
    let mut well_since = None;
    until(
        "writes are acknowledged again",
        Box::new(move || {
            let now = Instant::now();
            if shared.gaps().since_last(now) > QUIET_PAUSE {
                well_since = None;
            } else {
                well_since.get_or_insert(now);
            }
            now >= harmed + harm.takes_effect(name)
                && well_since.is_some_and(|since| now >= since + QUIET)
        }),
    )?;
    Ok(shared.gaps().longest(Instant::now()))
}

/// Writes on all connections until told to stop; returns how many writes had to be sent again.
fn write<W: Wire>(
    run: &Run,
    replicas: u16,
    keys: u64,
    timeout: Duration,
    find: &impl AsyncFn(usize) -> Result<SocketAddr>,
    shared: &Shared,
) -> Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let retried = Cell::new(0);
    let last_error = RefCell::new(None);
    let writers = (0..run.connections as usize).map(|index| {
        let writer = Writer {
            replicas,
            keys,
            timeout,
            find,
            shared,
            retried: &retried,
            last_error: &last_error,
        };
        writer.run::<W>(index)
    });
    runtime.block_on(join_all(writers));
    if shared.gaps().count == 0
        && let Some(error) = last_error.into_inner()
    {
        return Err(error);
    }
    Ok(retried.get())
}

struct Writer<'a, F> {
    replicas: u16,
    keys: u64,
    timeout: Duration,
    find: &'a F,
    shared: &'a Shared,
    retried: &'a Cell<u64>,
    last_error: &'a RefCell<Option<anyhow::Error>>,
}

impl<F: AsyncFn(usize) -> Result<SocketAddr>> Writer<'_, F> {
    async fn run<W: Wire>(self, index: usize) {
        let mut attempt = index;
        let mut pause = RETRY_PAUSE;
        while !self.shared.stopped() {
            let error = match self.connect::<W>(attempt).await {
                Ok(mut wire) => match self.write(&mut wire, index, &mut pause).await {
                    Ok(()) => return,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            self.retried.set(self.retried.get() + 1);
            self.last_error.replace(Some(error));
            attempt += 1;
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(RETRY_PAUSE_MAX);
        }
    }

    async fn connect<W: Wire>(&self, attempt: usize) -> Result<W> {
        let connect = async {
            let target = Target {
                address: (self.find)(attempt).await?,
                value_bytes: VALUE_BYTES,
                replicas: self.replicas,
            };
            W::open(&target).await
        };
        tokio::time::timeout(self.timeout, connect)
            .await
            .context("connecting takes too long")?
    }

    /// Writes until told to stop, or a write fails.
    async fn write<W: Wire>(&self, wire: &mut W, index: usize, pause: &mut Duration) -> Result<()> {
        let mut answers = Vec::new();
        for tag in 1.. {
            if self.shared.stopped() {
                break;
            }
            // Keys far from each other, each connection its own walk through them.
            let key = (index as u64 * 7919 + tag * 104_729) % self.keys;
            let exchange = async {
                wire.send(&[Request {
                    tag,
                    op: Op::Set,
                    key,
                }])
                .await?;
                while answers.is_empty() {
                    wire.receive(&mut answers).await?;
                }
                Ok::<_, anyhow::Error>(())
            };
            let exchanged = tokio::time::timeout(self.timeout, exchange).await;
            exchanged.context("no answer in time")??;
            for (_, answer) in answers.drain(..) {
                match answer {
                    Answer::Error(error) => bail!("{error}"),
                    Answer::Done | Answer::Missed => {
                        let mut gaps = self
                            .shared
                            .gaps
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner);
                        gaps.acknowledged(Instant::now());
                        *pause = RETRY_PAUSE;
                    }
                }
            }
        }
        Ok(())
    }
}
