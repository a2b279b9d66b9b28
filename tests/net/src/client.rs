//! What clients ask, over and over: few keys, all of them contended, and no value twice.

use crate::cluster::FRONT_END;
use crate::record::{COUNTER, Record};
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use kvservice_client::{Client, Config, Op, Reply, Status, Value};
use kvservice_shared::api::{DUMP_PATH, DumpLine, ListEntry};
use kvservice_sim::rng::Rng;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use turmoil::net::TcpStream;

/// Where clients connect.
pub const CLIENT_PORT: u16 = 7400;

/// Keys that are written all the while, and never deleted: who deletes may have seen any write of unknown outcome,
/// and a checker would have to follow all of them for ever.
const LONG_KEYS: usize = 3;
const COUNTERS: usize = 2;
/// Keys that are used for a short while, and never again.
const SHORT_KEYS: usize = 8;
const SHORT: Duration = Duration::from_secs(3);
/// Entries on a page.
const PAGE: u32 = 20;
/// After a refusal: it would only be refused again at once.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);
const STATUS_EVERY: Duration = Duration::from_millis(100);
/// A dump takes longer only where nothing moves.
const DUMP_MOST: Duration = Duration::from_secs(20);

/// What the hosts of a run and its driver tell each other.
#[derive(Debug, Default)]
pub struct Board {
    /// Clients are to finish.
    pub stop: Cell<bool>,
    /// Hosts of clients that have.
    pub finished: RefCell<BTreeMap<String, bool>>,
    /// Of each client's host: writes that were acknowledged.
    pub wrote: RefCell<BTreeMap<String, u64>>,
    /// What the observer was told last, and how often it was told anything.
    pub status: RefCell<Option<Status>>,
    pub statuses: Cell<u64>,
    /// The observer is to read everything, once.
    pub read_all: Cell<bool>,
    /// It has: the values of all keys, from a dump.
    pub all: RefCell<Option<Vec<ListEntry>>>,
}

/// How one client goes about it.
#[derive(Clone, Debug)]
pub struct Habit {
    pub host: String,
    pub seed: u64,
    /// Calls at once.
    pub lanes: usize,
    /// `None`: waits as long as it takes.
    pub timeout: Option<Duration>,
    /// Between two calls, at most.
    pub pause: Duration,
}

fn config() -> Config {
    let address = format!("{FRONT_END}:{CLIENT_PORT}");
    Config::new(address.parse().expect("a name and a port"))
}

/// A client, until it is told to stop.
pub async fn run(habit: Habit, record: Record, board: Rc<Board>) {
    let config = match habit.timeout {
        Some(timeout) => config().request_timeout(timeout),
        None => config().no_request_timeout(),
    };
    let client = Client::start(config);
    // Started again after a crash, it is another one.
    let process = record.number();
    let lanes = (0..habit.lanes).map(|lane| {
        let lane = Lane {
            client: client.clone(),
            process,
            random: Rng::new(habit.seed ^ (process << 8) ^ lane as u64),
            record: record.clone(),
        };
        lane.run(&habit, &board)
    });
    join_all(lanes).await;
    client.close().await;
    board.finished.borrow_mut().insert(habit.host.clone(), true);
}

struct Lane {
    client: Client,
    process: u64,
    random: Rng,
    record: Record,
}

impl Lane {
    async fn run(mut self, habit: &Habit, board: &Board) {
        while !board.stop.get() {
            let wrote = self.turn().await;
            match wrote {
                Some(writes) => {
                    *board
                        .wrote
                        .borrow_mut()
                        .entry(habit.host.clone())
                        .or_default() += writes
                }
                None => tokio::time::sleep(REFUSED_PAUSE).await,
            }
            let most = habit.pause.as_millis() as usize;
            let pause = self.random.below(most.max(1)) as u64;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    fn value(&self) -> String {
        format!("v{}.{}", self.process, self.record.number())
    }

    /// One call, or two of which the second depends on the first; `None` where it was refused. Writes otherwise.
    async fn turn(&mut self) -> Option<u64> {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        let short = format!("s{:03}.", elapsed.as_secs() / SHORT.as_secs());
        let of_short = |random: &mut Rng| format!("{short}{}", random.below(SHORT_KEYS));
        let key = match self.random.below(3) {
            0 => format!("long.{}", self.random.below(LONG_KEYS)),
            _ => of_short(&mut self.random),
        };
        let op = match self.random.below(100) {
            0..=29 => Op::Get { key },
            30..=59 => Op::Set {
                key,
                value: self.value().into(),
            },
            60..=69 => return self.read_then_swap(key).await,
            70..=89 => {
                let counter = format!("{COUNTER}{}", self.random.below(COUNTERS));
                return self.read_then_swap(counter).await;
            }
            90..=93 => Op::TestSet {
                key: of_short(&mut self.random),
                test: None,
                value: self.value().into(),
            },
            94..=97 => Op::Delete {
                key: of_short(&mut self.random),
            },
            _ => Op::List {
                prefix: match self.random.below(3) {
                    0 => COUNTER.to_owned(),
                    1 => "long.".to_owned(),
                    _ => short,
                },
                after: String::new(),
                limit: PAGE,
            },
        };
        self.call(op).await.map(|reply| writes(&reply))
    }

    async fn read_then_swap(&mut self, key: String) -> Option<u64> {
        let reply = self.call(Op::Get { key: key.clone() }).await?;
        let Reply::Get { value: found, .. } = reply else {
            return None;
        };
        let mut value = self.value();
        if key.starts_with(COUNTER) {
            value = format!("{} {value}", count_of(found.as_ref()) + 1);
        }
        let op = Op::TestSet {
            key,
            test: found,
            value: value.into(),
        };
        self.call(op).await.map(|reply| writes(&reply))
    }

    async fn call(&self, op: Op) -> Option<Reply> {
        let asked = self.record.ask(self.process, &op);
        let outcome = self.client.call(op).await;
        self.record.told(asked, &outcome);
        outcome.ok()
    }
}

fn writes(reply: &Reply) -> u64 {
    match reply {
        Reply::Set { .. }
        | Reply::TestSet { swapped: true, .. }
        | Reply::Delete { deleted: true, .. } => 1,
        _ => 0,
    }
}

/// What a counter counts to: the digits before the space.
pub fn count_of(value: Option<&Value>) -> u64 {
    let text = value.map_or("", |value| value.as_str().unwrap_or_default());
    let digits = text.split(' ').next().unwrap_or_default();
    digits.parse().unwrap_or_default()
}

/// Asks for dumps, one after the other: each that is whole shows all keys at one point.
pub async fn read_dumps(host: String, pause: Duration, record: Record, board: Rc<Board>) {
    let process = record.number();
    while !board.stop.get() {
        let asked = record.ask_all(process);
        match tokio::time::timeout(DUMP_MOST, dump()).await {
            Ok(Ok(entries)) => record.told_all(asked, &entries),
            Ok(Err(Broken::Wrong(what))) => {
                record.told_nothing(asked);
                record.wrong(format!("a dump: {what}"));
            }
            Ok(Err(Broken::Early)) | Err(_) => record.told_nothing(asked),
        }
        tokio::time::sleep(pause).await;
    }
    board.finished.borrow_mut().insert(host, true);
}

/// Why a dump is not whole.
enum Broken {
    /// It ended early, or was refused, as it may.
    Early,
    /// What came is no dump.
    Wrong(String),
}

impl From<hyper::Error> for Broken {
    fn from(_: hyper::Error) -> Broken {
        Broken::Early
    }
}

async fn http_get(path: &str) -> Result<Response<Incoming>, Broken> {
    let stream = TcpStream::connect((FRONT_END, CLIENT_PORT)).await;
    let io = TokioIo::new(stream.map_err(|_| Broken::Early)?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", FRONT_END)
        .body(Empty::<Bytes>::new())
        .map_err(|error| Broken::Wrong(error.to_string()))?;
    Ok(sender.send_request(request).await?)
}

async fn dump() -> Result<Vec<ListEntry>, Broken> {
    let answer = http_get(DUMP_PATH).await?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::SERVICE_UNAVAILABLE => return Err(Broken::Early),
        status => return Err(Broken::Wrong(status.to_string())),
    }
    let body = answer.into_body().collect().await?.to_bytes();
    let mut entries = Vec::new();
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        match DumpLine::parse(line).map_err(|error| Broken::Wrong(error.to_string()))? {
            DumpLine::Entry(entry) => entries.push(entry),
            DumpLine::End(end) if end.keys == entries.len() as u64 => return Ok(entries),
            DumpLine::End(end) => {
                return Err(Broken::Wrong(format!("{end:?}, {} came", entries.len())));
            }
        }
    }
    Err(Broken::Wrong(
        "it ended well, without its last line".to_owned(),
    ))
}

/// Looks at the chain all the while; at the end reads everything, in each way that there is.
pub async fn observe(record: Record, board: Rc<Board>) {
    let client = Client::start(config().request_timeout(Duration::from_secs(2)));
    let process = record.number();
    loop {
        if let Ok(status) = client.status().await {
            *board.status.borrow_mut() = Some(status);
            board.statuses.set(board.statuses.get() + 1);
        }
        if board.read_all.get() && board.all.borrow().is_none() {
            *board.all.borrow_mut() = read_all(&client, process, &record).await;
        }
        tokio::time::sleep(STATUS_EVERY).await;
    }
}

async fn read_all(client: &Client, process: u64, record: &Record) -> Option<Vec<ListEntry>> {
    let healthy = http_get("/healthz").await.ok()?;
    if healthy.status() != StatusCode::OK {
        return None;
    }
    let mut after = String::new();
    loop {
        let op = Op::List {
            prefix: String::new(),
            after: after.clone(),
            limit: PAGE,
        };
        let asked = record.ask(process, &op);
        let outcome = client.call(op).await;
        record.told(asked, &outcome);
        let Ok(Reply::List { entries, more }) = outcome else {
            return None;
        };
        match entries.last() {
            Some(last) if more => after.clone_from(&last.key),
            _ => break,
        }
    }
    let asked = record.ask_all(process);
    match dump().await {
        Ok(entries) => {
            record.told_all(asked, &entries);
            Some(entries)
        }
        Err(_) => {
            record.told_nothing(asked);
            None
        }
    }
}
