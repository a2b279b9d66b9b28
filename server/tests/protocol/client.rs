//! A client of the random walks: a session, requests of every kind, retries under the same ids; and what it may
//! be told.

use crate::cluster::Cluster;
use crate::oracle::Oracle;
use crate::rng::Rng;
use kvservice_shared::api::{
    ApiError, ErrorCode, ListEntry, Op, Outcome, Reply, Request, Response, Value,
};
use kvservice_shared::ids::{ConnId, RequestId, Seq, SessionUuid};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// Keys that clients fight over; the first is a counter.
const KEYS: [&str; 5] = ["counter", "a", "b", "ba", "c"];
const COUNTER: &str = KEYS[0];
const IN_FLIGHT: usize = 12;
const RECONNECT_MS: u64 = 60;

/// A request without an answer.
#[derive(Debug)]
struct Asked {
    op: Op,
    /// Whether it was ever handed to a front-end, and more than once.
    sent: bool,
    resent: bool,
    /// The newest revision that any answer had shown when it was sent last.
    shown: Seq,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    number: u128,
    /// Numbers the sessions: a new one after an eviction or a lost one.
    sessions: u128,
    /// Without a session: its ids start anew with each connection, and lost connections lose answers.
    anonymous: bool,
    conn: Option<ConnId>,
    /// The id of the `hello` that is unanswered.
    greeting: Option<RequestId>,
    connect_ms: u64,
    next_id: u64,
    unanswered: BTreeMap<RequestId, Asked>,
    /// What it believes that keys hold.
    believed: HashMap<String, Option<Value>>,
    pub answered: usize,
    /// Writes that a server called not applied, and that were sent once.
    not_applied: Vec<(SessionUuid, RequestId)>,
}

/// Something a server must not answer.
pub type Wrong = String;

impl Client {
    pub fn new(number: u128, anonymous: bool) -> Client {
        Client {
            number,
            sessions: 1,
            anonymous,
            conn: None,
            greeting: None,
            connect_ms: 0,
            next_id: 1,
            unanswered: BTreeMap::new(),
            believed: HashMap::new(),
            answered: 0,
            not_applied: Vec::new(),
        }
    }

    pub fn conn(&self) -> Option<ConnId> {
        self.conn
    }

    pub fn is_answered(&self) -> bool {
        self.unanswered.is_empty()
    }

    fn uuid(&self) -> SessionUuid {
        SessionUuid(Uuid::from_u128(self.number * 1000 + self.sessions))
    }

    /// The connection is gone.
    pub fn lost(&mut self, now_ms: u64) {
        self.conn = None;
        self.greeting = None;
        self.connect_ms = now_ms + RECONNECT_MS;
        if self.anonymous {
            // What came of these is not known, ever.
            self.unanswered.clear();
            self.next_id = 1;
        }
    }

    /// Connects, says hello, and maybe asks something.
    pub fn act(&mut self, cluster: &mut Cluster, rng: &mut Rng, shown: Seq, ask: bool) {
        if self.conn.is_none() {
            if cluster.now_ms < self.connect_ms {
                return;
            }
            let Some(conn) = cluster.connect() else {
                return;
            };
            self.conn = Some(conn);
            if !self.anonymous {
                let id = RequestId(1 << 40 | self.next_id);
                self.greeting = Some(id);
                let hello = Request {
                    id,
                    op: Op::Hello {
                        session: self.uuid(),
                    },
                };
                cluster.request(conn, vec![hello]);
            }
        }
        if ask && self.greeting.is_none() {
            self.ask(cluster, rng, shown);
        }
    }

    fn ask(&mut self, cluster: &mut Cluster, rng: &mut Rng, shown: Seq) {
        let Some(conn) = self.conn else { return };
        let mut frame = Vec::new();
        for _ in 0..1 + rng.below(3) {
            if self.unanswered.len() >= IN_FLIGHT {
                break;
            }
            let id = RequestId(self.next_id);
            self.next_id += 1;
            let op = self.choose(rng);
            frame.push(Request { id, op: op.clone() });
            self.unanswered.insert(
                id,
                Asked {
                    op,
                    sent: true,
                    resent: false,
                    shown,
                },
            );
        }
        if !frame.is_empty() {
            cluster.request(conn, frame);
        }
    }

    fn choose(&self, rng: &mut Rng) -> Op {
        let key = KEYS[1 + rng.below(KEYS.len() - 1)].to_owned();
        let value = Value::from(format!("{}.{}", self.number, self.next_id));
        let believed = |key: &str| self.believed.get(key).cloned().flatten();
        match rng.below(20) {
            0..6 => Op::Get { key },
            6..10 => Op::Set { key, value },
            10..15 => {
                let test = believed(COUNTER);
                let number = test
                    .as_ref()
                    .and_then(Value::as_str)
                    .map_or(0, |n| n.parse().unwrap_or(0));
                Op::TestSet {
                    key: COUNTER.to_owned(),
                    test,
                    value: Value::from(format!("{}", number + 1)),
                }
            }
            15..17 => Op::TestSet {
                test: believed(&key),
                key,
                value,
            },
            17 => Op::Delete { key },
            18 => Op::Get {
                key: COUNTER.to_owned(),
            },
            _ => Op::List {
                prefix: ["", "b"][rng.below(2)].to_owned(),
                after: String::new(),
                limit: 3,
            },
        }
    }

    /// Takes an answer; gives the newest revision that it shows.
    pub fn take(
        &mut self,
        cluster: &mut Cluster,
        response: Response,
        shown: Seq,
    ) -> Result<Seq, Wrong> {
        let id = response.id.ok_or("an answer without an id")?;
        if self.greeting == Some(id) {
            self.greeted(cluster, response, shown)?;
            return Ok(Seq::ZERO);
        }
        let asked = self
            .unanswered
            .remove(&id)
            .ok_or_else(|| format!("a second answer to {id}"))?;
        self.answered += 1;
        let reply = match response.result {
            Ok(reply) => reply,
            Err(error) => {
                self.refused(id, &asked, &error, &cluster.oracle)?;
                return Ok(Seq::ZERO);
            }
        };
        let wrong = |what: &str| {
            let end = cluster.oracle.end();
            format!(
                "{what}: {id} {:?} shown {} → {reply:?}, committed {end}",
                asked.op, asked.shown
            )
        };
        self.check(id, &asked, &reply, &cluster.oracle)
            .map_err(|what| wrong(&what))?;
        self.believe(&asked.op, &reply);
        Ok(newest(&reply))
    }

    fn greeted(
        &mut self,
        cluster: &mut Cluster,
        response: Response,
        shown: Seq,
    ) -> Result<(), Wrong> {
        self.greeting = None;
        let Ok(Reply::Hello { resumed, .. }) = response.result else {
            // Not now: again, on another connection.
            if let Some(conn) = self.conn.take() {
                cluster.disconnect(conn);
            }
            self.lost(cluster.now_ms);
            return Ok(());
        };
        if !resumed {
            // What was sent is lost for this client; what was not goes on.
            self.unanswered
                .retain(|_, asked| !asked.sent || !asked.op.kind().is_write());
        }
        let Some(conn) = self.conn else { return Ok(()) };
        let again = self.unanswered.iter_mut().map(|(id, asked)| {
            asked.resent |= asked.sent;
            asked.sent = true;
            asked.shown = shown;
            Request {
                id: *id,
                op: asked.op.clone(),
            }
        });
        let frame: Vec<Request> = again.collect();
        if !frame.is_empty() {
            cluster.request(conn, frame);
        }
        Ok(())
    }

    fn refused(
        &mut self,
        id: RequestId,
        asked: &Asked,
        error: &ApiError,
        oracle: &Oracle,
    ) -> Result<(), Wrong> {
        let expected = match error.code {
            ErrorCode::Unavailable => error.outcome == Outcome::NotApplied,
            ErrorCode::Timeout => {
                (error.outcome == Outcome::NotApplied) != asked.op.kind().is_write()
            }
            ErrorCode::TooOld => error.outcome == Outcome::Unknown,
            _ => false,
        };
        if !expected {
            return Err(format!("{id} {:?} is refused: {error:?}", asked.op));
        }
        if error.outcome == Outcome::NotApplied
            && asked.op.kind().is_write()
            && !asked.resent
            && !self.anonymous
        {
            self.not_applied.push((self.uuid(), id));
        }
        if error.code == ErrorCode::TooOld && !self.anonymous {
            let committed = oracle.committed(self.uuid(), id);
            if !asked.resent && !committed.is_empty() {
                return Err(format!("{id} was sent once, is too old, and is committed"));
            }
        }
        Ok(())
    }

    /// What was called not applied was not, in the end.
    pub fn check_refusals(&self, oracle: &Oracle) -> Result<(), Wrong> {
        match self
            .not_applied
            .iter()
            .find(|(uuid, id)| !oracle.committed(*uuid, *id).is_empty())
        {
            Some((uuid, id)) => Err(format!("{uuid}#{id} was called not applied, and was")),
            None => Ok(()),
        }
    }

    /// Invariant 8, and what the operations mean.
    fn check(
        &self,
        id: RequestId,
        asked: &Asked,
        reply: &Reply,
        oracle: &Oracle,
    ) -> Result<(), Wrong> {
        let end = oracle.end();
        let place = || match oracle.committed(self.uuid(), id).last() {
            Some(seq) => Ok(*seq),
            None => Err("answered, not committed".to_owned()),
        };
        let before = |key: &str, seq: Seq| {
            let (value, revision) = oracle.at(key, Seq(seq.0 - 1));
            (value.map(|value| Value(value.clone())), revision)
        };
        let is = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        match (&asked.op, reply) {
            (Op::Get { key }, Reply::Get { value, revision }) => {
                let held = |seq| {
                    let (held, of) = oracle.at(key, seq);
                    held == value.as_ref().map(|value| &value.0) && of == *revision
                };
                is(
                    (asked.shown.0..=end.0).any(|seq| held(Seq(seq))),
                    "a stale or made-up read",
                )
            }
            (Op::List { prefix, limit, .. }, Reply::List { entries, more }) => {
                let page = |seq| {
                    list(oracle, prefix, *limit as usize, Seq(seq)) == (entries.clone(), *more)
                };
                is((asked.shown.0..=end.0).any(page), "a stale or made-up page")
            }
            (
                Op::Set { key, value },
                Reply::Set {
                    value: told,
                    revision,
                },
            ) => {
                is(
                    *told == *value && *revision <= end,
                    "another value, or not committed",
                )?;
                let (held, of) = oracle.at(key, *revision);
                is(held == Some(&value.0) && of == *revision, "another write")?;
                is(self.anonymous || place()? == *revision, "another revision")
            }
            (
                Op::TestSet { key, test, value },
                Reply::TestSet {
                    swapped: true,
                    value: told,
                    revision,
                },
            ) => {
                is(
                    told.as_ref() == Some(value) && *revision <= end,
                    "another value, or not committed",
                )?;
                is(before(key, *revision).0 == *test, "the test did not hold")?;
                is(self.anonymous || place()? == *revision, "another revision")
            }
            (
                Op::TestSet { key, test, .. },
                Reply::TestSet {
                    value, revision, ..
                },
            ) => {
                is(value != test, "the test held")?;
                let (held, of) = oracle.at(key, *revision);
                let shown = held == value.as_ref().map(|value| &value.0) && of == *revision;
                is(shown || value.is_none(), "found what was never there")?;
                is(
                    self.anonymous || before(key, place()?) == (value.clone(), *revision),
                    "found something else",
                )
            }
            (
                Op::Delete { key },
                Reply::Delete {
                    deleted: true,
                    revision,
                },
            ) => {
                is(
                    before(key, *revision).0.is_some() && *revision <= end,
                    "nothing was there",
                )?;
                is(self.anonymous || place()? == *revision, "another revision")
            }
            (Op::Delete { key }, Reply::Delete { .. }) => is(
                self.anonymous || before(key, place()?).0.is_none(),
                "there was something",
            ),
            _ => Err("an answer of another kind".to_owned()),
        }
    }

    fn believe(&mut self, op: &Op, reply: &Reply) {
        let (key, value) = match (op, reply) {
            (Op::Get { key }, Reply::Get { value, .. })
            | (Op::TestSet { key, .. }, Reply::TestSet { value, .. }) => (key, value.clone()),
            (Op::Set { key, value }, _) => (key, Some(value.clone())),
            (Op::Delete { key }, _) => (key, None),
            _ => return,
        };
        self.believed.insert(key.clone(), value);
    }
}

fn list(oracle: &Oracle, prefix: &str, limit: usize, seq: Seq) -> (Vec<ListEntry>, bool) {
    let mut entries = Vec::new();
    for key in oracle.keys().filter(|key| key.starts_with(prefix)) {
        if let (Some(value), revision) = oracle.at(key, seq) {
            if entries.len() == limit {
                return (entries, true);
            }
            entries.push(ListEntry {
                key: key.clone(),
                value: Value(value.clone()),
                revision,
            });
        }
    }
    (entries, false)
}

fn newest(reply: &Reply) -> Seq {
    match reply {
        Reply::Get { revision, .. }
        | Reply::Set { revision, .. }
        | Reply::TestSet { revision, .. }
        | Reply::Delete { revision, .. } => *revision,
        Reply::List { entries, .. } => entries
            .iter()
            .map(|entry| entry.revision)
            .max()
            .unwrap_or_default(),
        _ => Seq::ZERO,
    }
}
