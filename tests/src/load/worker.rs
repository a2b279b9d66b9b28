//! One client of a load: one thing after another, each answer checked.

use super::book::{Book, Counted};
use super::{Allow, REFUSED_PAUSE};
use crate::random::Random;
use kvservice_client::{Client, Error, Found, Op, Reply, Seq, Swap, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Keys that one client keeps for itself at a time.
const OWN_KEYS: u64 = 6;
/// Keys that all share.
const SHARED_KEYS: u64 = 4;
/// Answers about a key that are remembered.
const HISTORY_MAX: usize = 8;
/// Counters that all share; each client has one of its own besides.
const SHARED_COUNTERS: u64 = 2;

#[derive(Debug)]
pub(super) struct Worker {
    name: String,
    client: Client,
    book: Arc<Book>,
    stop: Arc<AtomicBool>,
    random: Random,
    /// What this client's own keys hold: it alone writes them.
    own: BTreeMap<String, Option<Found>>,
    /// What the last answers said of them, for whoever must find out what went wrong.
    history: BTreeMap<String, VecDeque<String>>,
    /// Of each slot, how often its key was given up because an outcome is unknown.
    retired: [u64; OWN_KEYS as usize],
    values: u64,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        client: Client,
        book: Arc<Book>,
        stop: Arc<AtomicBool>,
    ) -> Worker {
        Worker {
            name: format!("{}:c{index}", book.name),
            client,
            book,
            stop,
            random: Random::new(index as u64),
            own: BTreeMap::new(),
            history: BTreeMap::new(),
            retired: [0; OWN_KEYS as usize],
            values: 0,
        }
    }

    pub(super) async fn run(mut self) -> Worker {
        while !self.stop.load(Ordering::Relaxed) {
            let failed = match self.random.below(16) {
                0..=3 => self.set_own().await,
                4 => self.get_own().await,
                5 => self.delete_own().await,
                6 => self.list_own().await,
                7 | 8 => self.batch_own().await,
                9 | 10 => self.set_shared().await,
                11 | 12 => self.get_shared().await,
                13 => self.increment(format!("{}:count", self.name)).await,
                _ => {
                    let counter = self.random.below(SHARED_COUNTERS);
                    self.increment(format!("{}:count:{counter}", self.book.name))
                        .await
                }
            };
            if failed {
                // It would only be refused again at once.
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
        self
    }

    /// A value that no other request writes.
    fn value(&mut self) -> String {
        self.values += 1;
        format!("{}-{}", self.name, self.values)
    }

    fn own_slot(&mut self) -> (usize, String) {
        let slot = self.random.below(OWN_KEYS) as usize;
        (
            slot,
            format!("{}:own:{slot}.{}", self.name, self.retired[slot]),
        )
    }

    /// What is due of an own key.
    fn due(&self, key: &str) -> Option<Found> {
        self.own.get(key).cloned().flatten()
    }

    fn note(&mut self, key: &str, answer: String) {
        let history = self.history.entry(key.to_owned()).or_default();
        if history.len() == HISTORY_MAX {
            history.pop_front();
        }
        history.push_back(answer);
    }

    /// An own key is not as it was left.
    fn wrong(&self, key: &str, what: &str) {
        let history = self.history.get(key);
        self.book
            .wrong(format!("{}: {what}; answers: {history:?}", self.name));
    }

    /// After an error: the key is left alone for ever if it may hold one thing or the other.
    fn failed(&mut self, slot: Option<usize>, what: &str, error: &Error) -> bool {
        let unknown = self.book.error(&self.name, what, error);
        if let Some(slot) = slot.filter(|_| unknown) {
            let key = format!("{}:own:{slot}.{}", self.name, self.retired[slot]);
            self.own.remove(&key);
            self.retired[slot] += 1;
        }
        true
    }

    fn written(&mut self, key: &str, value: String, revision: Seq, floor: Seq) {
        self.book
            .show(&self.name, key, &value, revision, floor.next());
        self.book.acknowledge();
        self.note(key, format!("set {value} {revision}"));
        self.own.insert(
            key.to_owned(),
            Some(Found {
                value: value.into(),
                revision,
            }),
        );
    }

    async fn set_own(&mut self) -> bool {
        let (slot, key) = self.own_slot();
        let (value, floor) = (self.value(), self.book.shown(&key));
        match self.client.set(key.as_str(), value.as_str()).await {
            Ok(revision) => self.written(&key, value, revision, floor),
            Err(error) => return self.failed(Some(slot), &format!("set {key}"), &error),
        }
        false
    }

    async fn get_own(&mut self) -> bool {
        let (_, key) = self.own_slot();
        match self.client.get(key.as_str()).await {
            Ok(found) => self.expect(&key, &found),
            Err(error) => return self.failed(None, &format!("get {key}"), &error),
        }
        false
    }

    /// An own key is read: exactly what was acknowledged last.
    fn expect(&self, key: &str, found: &Option<Found>) {
        let due = self.due(key);
        if *found != due {
            self.wrong(key, &format!("{key} holds {found:?}, not {due:?}"));
        }
    }

    async fn delete_own(&mut self) -> bool {
        let (slot, key) = self.own_slot();
        match self.client.delete(key.as_str()).await {
            Ok(deleted) => {
                self.book.acknowledge();
                let due = self.own.insert(key.clone(), None).flatten();
                if deleted != due.is_some() {
                    self.wrong(&key, &format!("delete {key}: {deleted}, held {due:?}"));
                }
                self.note(&key, format!("deleted {deleted}"));
            }
            Err(error) => return self.failed(Some(slot), &format!("delete {key}"), &error),
        }
        false
    }

    async fn list_own(&mut self) -> bool {
        let prefix = format!("{}:own:", self.name);
        match self.client.list(prefix.as_str(), "").await {
            Ok(page) => {
                let held = |key: &str| self.own.contains_key(key);
                // Keys that were given up may or may not be there.
                let listed: Vec<_> = page
                    .entries
                    .into_iter()
                    .filter(|entry| held(&entry.key))
                    .map(|entry| (entry.key, entry.value, entry.revision))
                    .collect();
                let due: Vec<_> = self
                    .own
                    .iter()
                    .filter_map(|(key, found)| {
                        let Found { value, revision } = found.clone()?;
                        Some((key.clone(), value, revision))
                    })
                    .collect();
                if listed != due {
                    let wrong = format!("listed {listed:?}, not {due:?}");
                    let all = |a: &[_]| {
                        a.iter()
                            .map(|(key, _, r): &(String, Value, Seq)| format!("{key} {r}"))
                            .collect::<BTreeSet<String>>()
                    };
                    let differs = all(&listed)
                        .symmetric_difference(&all(&due))
                        .next()
                        .cloned();
                    let key = differs
                        .as_deref()
                        .and_then(|d| d.split(' ').next())
                        .unwrap_or("");
                    self.wrong(key, &wrong);
                }
            }
            Err(error) => return self.failed(None, &format!("list {prefix}"), &error),
        }
        false
    }

    /// In one frame: write, read, write again. The read sees the first write; or the second, where a failover
    /// came between and the requests were sent again.
    async fn batch_own(&mut self) -> bool {
        let (slot, key) = self.own_slot();
        let (first, second) = (self.value(), self.value());
        let floor = self.book.shown(&key);
        let set = |value: &str| Op::Set {
            key: key.clone(),
            value: value.into(),
        };
        let ops = vec![set(&first), Op::Get { key: key.clone() }, set(&second)];
        let what = format!("batch {key}");
        let answers = match self.client.pipeline(ops).await {
            Ok(answers) => answers,
            Err(error) => return self.failed(Some(slot), &what, &error),
        };
        let mut answers = answers.into_iter();
        let (Some(a), Some(read), Some(b)) = (answers.next(), answers.next(), answers.next())
        else {
            self.book
                .wrong(format!("{}: {what}: answers are missing", self.name));
            return false;
        };
        let mut floor = floor;
        let mut failed = false;
        for (value, answer) in [(&first, a), (&second, b)] {
            match answer {
                Ok(Reply::Set { revision, .. }) => {
                    self.written(&key, value.clone(), revision, floor);
                    floor = revision;
                }
                Ok(other) => self.book.wrong(format!("{}: {what}: {other:?}", self.name)),
                Err(error) => failed = self.failed(Some(slot), &what, &error),
            }
        }
        match read {
            Ok(Reply::Get {
                value: Some(value), ..
            }) if value == Value::from(first.as_str()) || value == Value::from(second.as_str()) => {
            }
            // What was to be read may have been refused.
            Ok(_) if failed => {}
            Ok(other) => self.wrong(&key, &format!("{what}: read {other:?}")),
            Err(error) => failed = self.failed(None, &what, &error),
        }
        failed
    }

    async fn set_shared(&mut self) -> bool {
        let key = format!(
            "{}:shared:{}",
            self.book.name,
            self.random.below(SHARED_KEYS)
        );
        let (value, floor) = (self.value(), self.book.shown(&key));
        match self.client.set(key.as_str(), value.as_str()).await {
            Ok(revision) => {
                self.book
                    .show(&self.name, &key, &value, revision, floor.next());
                self.book.acknowledge();
            }
            Err(error) => return self.failed(None, &format!("set {key}"), &error),
        }
        false
    }

    async fn get_shared(&mut self) -> bool {
        let key = format!(
            "{}:shared:{}",
            self.book.name,
            self.random.below(SHARED_KEYS)
        );
        let floor = self.book.shown(&key);
        match self.client.get(key.as_str()).await {
            Ok(found) => self.see(&key, found.as_ref(), floor),
            Err(error) => return self.failed(None, &format!("get {key}"), &error),
        }
        false
    }

    /// A shared key is read: never older than what was shown before. It is never deleted.
    fn see(&self, key: &str, found: Option<&Found>, floor: Seq) {
        match found {
            Some(Found { value, revision }) => {
                self.book
                    .show(&self.name, key, &text(value), *revision, floor);
            }
            None if floor > Seq::ZERO => {
                let wrong = format!("{}: {key} is gone after {floor}", self.name);
                self.book.wrong(wrong);
            }
            None => {}
        }
    }

    /// Reads a counter and writes it one higher if it is still as read, until that succeeds.
    async fn increment(&mut self, counter: String) -> bool {
        let what = format!("increment {counter}");
        let mut floor = self.book.shown(&counter);
        let mut found = match self.client.get(counter.as_str()).await {
            Ok(found) => found,
            Err(error) => return self.failed(None, &what, &error),
        };
        loop {
            self.see(&counter, found.as_ref(), floor);
            // The count, then who counted: a value of its own, as all are.
            let next = format!("{}:{}", count_of(found.as_ref()) + 1, self.value());
            let test = found.map(|found| found.value);
            floor = self.book.shown(&counter);
            match self
                .client
                .test_set(counter.as_str(), test, next.as_str())
                .await
            {
                Ok(Swap::Swapped(revision)) => {
                    self.book
                        .show(&self.name, &counter, &next, revision, floor.next());
                    self.book.acknowledge();
                    self.book.count(&counter, Counted::Acknowledged);
                    return false;
                }
                Ok(Swap::Held(held)) => {
                    self.book.acknowledge();
                    found = held;
                }
                Err(error) => {
                    if error.outcome_unknown() {
                        self.book.count(&counter, Counted::Unknown);
                    }
                    return self.failed(None, &what, &error);
                }
            }
        }
    }
}

fn text(value: &Value) -> String {
    String::from_utf8_lossy(&value.0).into_owned()
}

/// What a counter counts to: the digits before the colon.
fn count_of(found: Option<&Found>) -> u64 {
    let Some(found) = found else { return 0 };
    let text = text(&found.value);
    let digits = text.split(':').next().unwrap_or_default();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("a counter holds {text:?}"))
}

/// Reads everything back, once the clients are done.
pub(super) async fn verify(client: &Client, book: &Book, workers: &[Worker]) {
    let get = async |key: &str| match client.get(key).await {
        Ok(found) => found,
        Err(error) => panic!("get {key}, at the end: {error}"),
    };
    for worker in workers {
        for (key, due) in &worker.own {
            let found = get(key).await;
            if found != *due {
                book.wrong(format!("at the end {key} holds {found:?}, not {due:?}"));
            }
        }
    }
    for shared in 0..SHARED_KEYS {
        let key = format!("{}:shared:{shared}", book.name);
        let floor = book.shown(&key);
        let found = get(&key).await;
        let revision = found.map_or(Seq::ZERO, |found| found.revision);
        // With every outcome known, the last write is the highest that was acknowledged.
        let right = if book.allow == Allow::Unknown {
            revision >= floor
        } else {
            revision == floor
        };
        if !right {
            book.wrong(format!("at the end {key} is of {revision}, not {floor}"));
        }
    }
    for (counter, count) in book.counts() {
        let found = count_of(get(&counter).await.as_ref());
        let due = count.acknowledged..=count.acknowledged + count.unknown;
        if !due.contains(&found) {
            book.wrong(format!(
                "at the end {counter} counts {found}, acknowledged {count:?}"
            ));
        }
    }
}
