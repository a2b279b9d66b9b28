//! The load: connections that ask as soon as they are answered (closed), or at a rate (open), on threads of their own.
//!
//! Times are the same for all systems: connections are opened first, all begin together, and what counts is what is
//! answered within a window that begins a little later.

use crate::interrupt::interrupted;
use crate::stats::{Answer, Stats, Window};
use crate::wire::{Request, Target, Wire};
use crate::work::{Distribution, Generator, KeyCount, Op, Planned, Workload};
use anyhow::{Context, Result, anyhow, bail, ensure};
use futures_util::future::join_all;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// From the first request to the window: the system's caches and the generator's have seen the load by then.
const WARM_UP: Duration = Duration::from_millis(150);
/// What is not answered so long after the window will never be.
const DRAIN: Duration = Duration::from_secs(20);
/// Most operations under way on a connection at a rate; kvservice takes 1,024.
const OPEN_FLIGHT_MAX: usize = 1000;
/// The pacer wakes no more often than this: what is due within one such time is due together.
const PACE: Duration = Duration::from_micros(50);
/// Requests in flight on a connection that fills.
const FILL_FLIGHT: usize = 64;

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many are under way on each connection; the next when they are answered.
    Closed(usize),
    /// So many a second on all connections together, answered or not.
    Open(f64),
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Load {
    /// Whom to speak to, a target for each connection in turn.
    pub targets: Vec<Target>,
    /// Connections.
    pub connections: u32,
    /// Threads that serve them.
    pub threads: u32,
    /// What is asked.
    pub workload: Workload,
    /// On which keys.
    pub distribution: Distribution,
    /// Of how many.
    pub keys: u64,
    /// How many the system holds.
    pub count: KeyCount,
    /// How fast.
    pub pace: Pace,
    /// For how long.
    pub length: Duration,
    /// Another seed, other keys.
    pub seed: u64,
}

/// Where the threads are told when to begin.
struct Gate {
    opened: Sender<Result<()>>,
    window: Receiver<Window>,
}

/// Runs a load; `watch` is called when its window begins and when it ends.
///
/// # Errors
/// A connection cannot be opened, breaks or makes no sense, or we were told to stop.
pub fn run<W: Wire>(load: &Load, mut watch: impl FnMut()) -> Result<Stats> {
    let threads = load.threads.min(load.connections);
    thread::scope(|scope| {
        let (opened, all_opened) = channel();
        let mut begin = Vec::new();
        let mut workers = Vec::new();
        for index in 0..threads {
            let (start, window) = channel();
            begin.push(start);
            let gate = Gate {
                opened: opened.clone(),
                window,
            };
            workers.push(scope.spawn(move || worker::<W>(load, index, threads, gate)));
        }
        drop(opened);
        let mut ready = Ok(());
        for result in all_opened.iter().take(threads as usize) {
            ready = ready.and(result);
        }
        if ready.is_ok() {
            let start = Instant::now() + WARM_UP;
            let window = Window {
                start,
                end: start + load.length,
            };
            for start in &begin {
                // A thread that is gone says why below.
                let _ = start.send(window);
            }
            sleep_until(window.start);
            watch();
            sleep_until(window.end);
            watch();
        }
        // Threads that wait for a window end without one.
        drop(begin);
        let mut stats: Option<Stats> = None;
        for worker in workers {
            let part = worker
                .join()
                .map_err(|_| anyhow!("a thread of the load panicked"))?;
            match (part?, &mut stats) {
                (None, _) => {}
                (Some(part), Some(stats)) => stats.add(part),
                (Some(part), none) => *none = Some(part),
            }
        }
        ready?;
        if interrupted() {
            bail!("interrupted");
        }
        stats.context("a load without a connection")
    })
}

fn sleep_until(at: Instant) {
    while let Some(left) = at.checked_duration_since(Instant::now())
        && !interrupted()
    {
        thread::sleep(left.min(Duration::from_millis(100)));
    }
}

fn worker<W: Wire>(load: &Load, index: u32, threads: u32, gate: Gate) -> Result<Option<Stats>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let own: Vec<u32> = (index..load.connections)
        .step_by(threads as usize)
        .collect();
    runtime.block_on(async {
        let opening = own.iter().map(|connection| {
            let targets = &load.targets;
            W::open(&targets[*connection as usize % targets.len()])
        });
        let opened: Result<Vec<W>> = join_all(opening).await.into_iter().collect();
        let wires = match opened {
            Ok(wires) => wires,
            Err(error) => {
                let _ = gate.opened.send(Err(error));
                return Ok(None);
            }
        };
        let _ = gate.opened.send(Ok(()));
        let Ok(window) = gate.window.recv() else {
            return Ok(None);
        };
        let stats = RefCell::new(Stats::new(window));
        let generators = own.iter().map(|connection| {
            let seed = load.seed.wrapping_mul(1_000_003) ^ u64::from(*connection);
            let count = load.count.clone();
            Generator::new(load.workload, load.distribution, load.keys, count, seed)
        });
        let pairs = wires.into_iter().zip(generators);
        match load.pace {
            Pace::Closed(pipeline) => {
                let all = pairs.map(|(wire, mut generator)| {
                    let stats = &stats;
                    let next = move || (Instant::now() < window.end).then(|| generator.next());
                    patiently(window, closed(wire, pipeline, stats, next))
                });
                join_all(all).await.into_iter().collect::<Result<()>>()?;
            }
            Pace::Open(rate) => {
                let share = rate * own.len() as f64 / f64::from(load.connections);
                let (senders, tasks): (Vec<_>, Vec<_>) = pairs
                    .map(|(wire, generator)| {
                        let (sender, due) = unbounded_channel();
                        let task = open(wire, &stats, generator, due);
                        (sender, patiently(window, task))
                    })
                    .unzip();
                let pacer = thread::spawn(move || pacer(share, window, &senders));
                let ran: Result<()> = join_all(tasks).await.into_iter().collect();
                let paced = pacer.join().map_err(|_| anyhow!("the pacer panicked"))?;
                ran.and(paced)?;
            }
        }
        Ok(Some(stats.into_inner()))
    })
}

async fn patiently(window: Window, task: impl Future<Output = Result<()>>) -> Result<()> {
    let late = tokio::time::Instant::from_std(window.end + DRAIN);
    let result = tokio::time::timeout_at(late, task).await;
    result.unwrap_or_else(|_| bail!("no answer for {} s", DRAIN.as_secs()))
}

/// What is under way on a connection.
struct Flight {
    /// The tag of the first.
    first: u64,
    waiting: VecDeque<Option<Waiting>>,
    count: usize,
}

#[derive(Clone, Copy)]
struct Waiting {
    planned: Planned,
    due: Instant,
}

impl Flight {
    fn new() -> Flight {
        Flight {
            first: 1,
            waiting: VecDeque::new(),
            count: 0,
        }
    }

    fn add(&mut self, planned: Planned, due: Instant) -> Request {
        let tag = self.first + self.waiting.len() as u64;
        self.waiting.push_back(Some(Waiting { planned, due }));
        self.count += 1;
        Request {
            tag,
            op: planned.op,
            key: planned.key,
        }
    }

    fn take(&mut self, tag: u64) -> Result<Waiting> {
        let index = tag.checked_sub(self.first).map(|index| index as usize);
        let slot = index.and_then(|index| self.waiting.get_mut(index));
        let waiting = slot.and_then(Option::take);
        let waiting = waiting.context("an answer to what is not asked")?;
        self.count -= 1;
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.first += 1;
        }
        Ok(waiting)
    }

    /// Takes answers; those of reads that a write follows are returned as what to do next.
    fn take_all(
        &mut self,
        answers: &mut Vec<(u64, Answer)>,
        stats: &RefCell<Stats>,
        at_a_rate: bool,
    ) -> Result<Vec<Waiting>> {
        let now = Instant::now();
        let mut stats = stats.borrow_mut();
        let mut next = Vec::new();
        for (tag, answer) in answers.drain(..) {
            let mut waiting = self.take(tag)?;
            if waiting.planned.then_set && !matches!(answer, Answer::Error(_)) {
                waiting.planned = Planned {
                    op: Op::Set,
                    then_set: false,
                    ..waiting.planned
                };
                next.push(waiting);
            } else {
                stats.answered(answer, waiting.due, now, at_a_rate);
            }
        }
        Ok(next)
    }
}

/// Keeps so many requests under way until there is no next.
async fn closed<W: Wire>(
    mut wire: W,
    pipeline: usize,
    stats: &RefCell<Stats>,
    mut next: impl FnMut() -> Option<Planned>,
) -> Result<()> {
    let mut flight = Flight::new();
    let mut follow = Vec::new();
    let (mut requests, mut answers) = (Vec::with_capacity(pipeline), Vec::new());
    loop {
        if flight.count == 0 || !W::BATCHES {
            let now = Instant::now();
            requests.clear();
            for Waiting { planned, due } in follow.drain(..) {
                requests.push(flight.add(planned, due));
            }
            while flight.count < pipeline
                && !interrupted()
                && let Some(planned) = next()
            {
                requests.push(flight.add(planned, now));
            }
            if flight.count == 0 {
                return Ok(());
            }
            if !requests.is_empty() {
                wire.send(&requests).await?;
            }
        }
        wire.receive(&mut answers).await?;
        follow.extend(flight.take_all(&mut answers, stats, false)?);
    }
}

/// Sends what is due, answered or not, until no more will be.
async fn open<W: Wire>(
    mut wire: W,
    stats: &RefCell<Stats>,
    mut generator: Generator,
    mut due: UnboundedReceiver<Instant>,
) -> Result<()> {
    let mut flight = Flight::new();
    let (mut requests, mut answers, mut dues) = (Vec::new(), Vec::new(), Vec::new());
    let mut over = false;
    while !over || flight.count > 0 {
        requests.clear();
        let room = OPEN_FLIGHT_MAX.saturating_sub(flight.count);
        tokio::select! {
            biased;
            count = due.recv_many(&mut dues, room.min(256)), if !over && room > 0 && wire.is_ready() => {
                over = count == 0;
                for due in dues.drain(..) {
                    requests.push(flight.add(generator.next(), due));
                }
            }
            result = wire.receive(&mut answers), if flight.count > 0 => {
                result?;
                for Waiting { planned, due } in flight.take_all(&mut answers, stats, true)? {
                    requests.push(flight.add(planned, due));
                }
            }
        }
        if !requests.is_empty() {
            wire.send(&requests).await?;
        }
    }
    Ok(())
}

/// Says what is due, at even distances, to one connection after the other; on a thread of its own.
///
/// tokio's own timers are as coarse as a millisecond, as coarse as what is measured.
fn pacer(rate: f64, window: Window, senders: &[UnboundedSender<Instant>]) -> Result<()> {
    let step = Duration::from_secs_f64(1.0 / rate).max(PACE);
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty())?;
    timer.set(
        Expiration::Interval(TimeSpec::from_duration(step)),
        TimerSetTimeFlags::empty(),
    )?;
    let start = Instant::now();
    let mut connections = senders.iter().cycle();
    let mut said: u64 = 0;
    let mut ticks: u32 = 0;
    while !interrupted() {
        // How often it went off does not matter: the clock says what is due.
        timer.wait()?;
        let now = Instant::now();
        while start + step * ticks <= now {
            let due = start + step * ticks;
            if due >= window.end {
                return Ok(());
            }
            ticks += 1;
            let until = (rate * step.as_secs_f64() * f64::from(ticks)).round() as u64;
            for _ in said..until {
                // A connection that has failed says so itself.
                let _ = connections.next().map(|sender| sender.send(due));
            }
            said = until;
        }
    }
    Ok(())
}

/// Writes all keys, each once.
///
/// # Errors
/// As [`run`]; and any error of the system.
pub fn fill<W: Wire>(targets: &[Target], connections: u32, keys: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let now = Instant::now();
    let window = Window {
        start: now,
        end: now + Duration::from_secs(600),
    };
    let stats = RefCell::new(Stats::new(window));
    let left = RefCell::new(0..keys);
    runtime.block_on(async {
        let tasks = (0..connections as usize).map(async |index| {
            let target = &targets[index % targets.len()];
            let wire = W::open(target).await?;
            let most = u64::from(W::fill_max(target));
            let next = || {
                let mut left = left.borrow_mut();
                let (key, count) = (left.start, most.min(left.end - left.start));
                left.start += count;
                (count > 0).then_some(Planned {
                    op: Op::Fill(count as u16),
                    key,
                    then_set: false,
                })
            };
            // Less than what is allowed at a time, where each request is large.
            let flight = FILL_FLIGHT / most.clamp(1, 32) as usize;
            patiently(window, closed(wire, flight, &stats, next)).await
        });
        join_all(tasks).await.into_iter().collect::<Result<()>>()
    })?;
    let stats = stats.into_inner();
    ensure!(
        stats.errors == 0,
        "{} keys could not be written: {}",
        stats.errors,
        stats.first_error.unwrap_or_default()
    );
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::hop;
    use crate::wire::json::Hop;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    fn load(pace: Pace) -> Load {
        let address = crate::process::free_address().unwrap();
        thread::spawn(move || hop::serve(address));
        while std::net::TcpStream::connect(address).is_err() {
            thread::yield_now();
        }
        Load {
            targets: vec![Target {
                address,
                value_bytes: 16,
                replicas: 0,
            }],
            connections: 3,
            threads: 2,
            workload: Workload::Get,
            distribution: Distribution::Uniform,
            keys: 10,
            count: Arc::new(AtomicU64::new(10)),
            pace,
            length: Duration::from_millis(200),
            seed: 1,
        }
    }

    #[test]
    fn a_closed_load_is_answered() {
        let mut calls = 0;
        let stats = run::<Hop>(&load(Pace::Closed(4)), || calls += 1).unwrap();
        assert_eq!((calls, stats.errors), (2, 0));
        assert!(stats.done > 100 && stats.latency.len() == stats.done);
    }

    #[test]
    fn an_open_load_keeps_its_rate() {
        let stats = run::<Hop>(&load(Pace::Open(1000.0)), || {}).unwrap();
        assert_eq!(stats.errors, 0);
        // 200 ms at 1,000 a second, each of two threads with its own clock.
        assert!(
            (195..=205).contains(&stats.latency.len()),
            "{}",
            stats.latency.len()
        );
    }

    #[test]
    fn nobody_there_is_an_error() {
        let mut load = load(Pace::Closed(1));
        load.targets[0].address = crate::process::free_address().unwrap();
        assert!(run::<Hop>(&load, || {}).is_err());
    }

    #[test]
    fn a_read_and_then_a_write_is_one_operation() {
        let now = Instant::now();
        let window = Window {
            start: now,
            end: now + DRAIN,
        };
        let stats = RefCell::new(Stats::new(window));
        let mut flight = Flight::new();
        let planned = Planned {
            op: Op::Get,
            key: 5,
            then_set: true,
        };
        let request = flight.add(planned, now);
        let mut answers = vec![(request.tag, Answer::Done)];
        let follow = flight.take_all(&mut answers, &stats, false).unwrap();
        assert_eq!((follow.len(), stats.borrow().done), (1, 0));
        let request = flight.add(follow[0].planned, follow[0].due);
        assert_eq!((request.tag, request.op, request.key), (2, Op::Set, 5));
        answers.push((request.tag, Answer::Done));
        assert!(
            flight
                .take_all(&mut answers, &stats, false)
                .unwrap()
                .is_empty()
        );
        assert_eq!(stats.borrow().done, 1);
        assert!(flight.take(2).is_err() && flight.take(99).is_err());
    }
}
