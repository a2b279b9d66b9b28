//! `kvservice bench`: how fast the server answers, and how long nothing is acknowledged when a part
//! of it fails. The flags are redis-benchmark's.

mod connection;
mod frames;
mod report;
mod stats;

use crate::args::{Bench, BenchTest};
use crate::output::{self, Exit, Failure, Style};
use connection::{Connection, Plan};
use frames::Requests;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use kvservice_client::ServerAddress;
use kvservice_shared::limits::CLIENT_FRAME_BYTES_MAX;
use report::{Progress, Report};
use stats::{Extent, Stats};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Connections that are opened at once.
const OPENING_MAX: usize = 64;
/// How often the progress line is written, and the end of the test looked for.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// A test in which nothing is acknowledged for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn run(server: &ServerAddress, timeout: Duration, args: &Bench) -> Result<Exit, Failure> {
    for &test in &args.tests {
        let bytes = Requests::new(test, args.value_bytes as usize).bytes_max();
        if bytes.saturating_mul(args.pipeline as usize) + 2 > CLIENT_FRAME_BYTES_MAX {
            return Err(Failure::Usage(format!(
                "{} requests with {} byte values do not fit into one frame of \
                 {CLIENT_FRAME_BYTES_MAX} bytes: lower -P or -d",
                args.pipeline, args.value_bytes
            )));
        }
    }
    let mut connections: Vec<Connection> = stream::iter(0..args.connections)
        .map(|_| Connection::open(server, timeout))
        .buffer_unordered(OPENING_MAX)
        .try_collect()
        .await?;
    let mut exit = Exit::Success;
    for &test in &args.tests {
        let (report, ended) = measure(server, timeout, args, test, connections).await?;
        print(&report, args.json)?;
        if !report.has_figures() {
            exit = Exit::Error;
        }
        match ended {
            Ended::Complete(reusable) => connections = reusable,
            Ended::Interrupted => return Ok(Exit::Error),
            Ended::GaveUp(reason) => {
                return Err(Failure::Usage(format!(
                    "the benchmark was given up: {reason}"
                )));
            }
        }
    }
    Ok(exit)
}

/// How a test ended.
enum Ended {
    /// All is answered; the connections serve the next test.
    Complete(Vec<Connection>),
    /// By ctrl-c.
    Interrupted,
    /// The server no longer answers, or not in the protocol.
    GaveUp(String),
}

async fn measure(
    server: &ServerAddress,
    timeout: Duration,
    args: &Bench,
    test: BenchTest,
    connections: Vec<Connection>,
) -> Result<(Report, Ended), Failure> {
    let extent = match args.seconds {
        Some(length) => Extent::Time(length),
        None => Extent::Requests(args.requests),
    };
    let start = Instant::now();
    let plan = Arc::new(Plan::new(
        server.clone(),
        test,
        Requests::new(test, args.value_bytes as usize),
        u64::from(args.pipeline),
        args.keyspace,
        timeout,
        Stats::start(extent, start),
    ));
    let mut running = JoinSet::new();
    for mut connection in connections {
        let plan = Arc::clone(&plan);
        running.spawn(async move {
            let result = connection.run(&plan).await;
            result.map(|()| connection)
        });
    }
    let ended = supervise(&plan, test, timeout, &mut running).await;
    running.abort_all();
    let report = Report::new(test, args, &plan.stats(), Instant::now());
    Ok((report, ended))
}

/// Waits for the connections to finish, and shows how they do.
async fn supervise(
    plan: &Plan,
    test: BenchTest,
    timeout: Duration,
    running: &mut JoinSet<Result<Connection, String>>,
) -> Ended {
    let mut line = ProgressLine::new(Progress::new(test, Instant::now()));
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    ticks.tick().await;
    let mut finished = Vec::with_capacity(running.len());
    loop {
        tokio::select! {
            joined = running.join_next() => match joined {
                None => return Ended::Complete(finished),
                Some(Ok(Ok(connection))) => finished.push(connection),
                Some(Ok(Err(reason))) => return Ended::GaveUp(reason),
                Some(Err(panic)) => return Ended::GaveUp(panic.to_string()),
            },
            _ = ticks.tick() => {
                let now = Instant::now();
                let stats = plan.stats();
                line.show(&stats, now);
                if let Some(reason) = hopeless(&stats, timeout, now) {
                    return Ended::GaveUp(reason);
                }
            }
            _ = tokio::signal::ctrl_c() => {
                plan.stats().stop();
                return Ended::Interrupted;
            }
        }
    }
}

/// Why there is no point in waiting any longer.
fn hopeless(stats: &Stats, timeout: Duration, now: Instant) -> Option<String> {
    if now.duration_since(stats.last_done()) > PATIENCE.max(2 * timeout) {
        return Some(format!("nothing was acknowledged for {PATIENCE:?}"));
    }
    // What is under way at the end may take its time, but not for ever.
    let overdue = now.checked_duration_since(stats.ends_at()?)?;
    (overdue > 2 * timeout).then(|| "the last requests were not answered in time".to_owned())
}

fn print(report: &Report, json: bool) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", report.json())?;
    } else {
        writeln!(out, "{}", report.table(Style::for_stdout()))?;
    }
    out.flush()?;
    for note in report.notes() {
        output::to_stderr(&note);
    }
    Ok(())
}

/// The progress line on standard error, on a terminal; it is gone when the test is over.
struct ProgressLine {
    progress: Progress,
    on_terminal: bool,
}

impl ProgressLine {
    fn new(progress: Progress) -> ProgressLine {
        ProgressLine {
            progress,
            on_terminal: io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, stats: &Stats, now: Instant) {
        if self.on_terminal {
            let line = self.progress.line(stats, now);
            // Where it cannot be written it is not missed.
            let _ = write!(io::stderr().lock(), "\r\x1b[K{line}");
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.on_terminal {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}
