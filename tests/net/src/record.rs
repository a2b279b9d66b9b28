//! What clients asked and were told, by one clock: a number that grows with each of both.
//!
//! Hosts run one after the other, and nothing reaches another host within the step in which it was sent. So the order in
//! which things were written down here is one in which they may have happened.

use kvservice_client::{Error, Reply, Value};
use kvservice_history::{Answer, Call, Entry, Op};
use kvservice_shared::api::{ErrorCode, ListEntry, Op as Request};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Shared by all hosts of a run, which are all of one thread.
#[derive(Clone, Debug, Default)]
pub struct Record(Rc<RefCell<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    now: u64,
    values: u64,
    calls: Vec<Call>,
    under_way: u64,
    figures: Figures,
    counters: BTreeMap<String, Counter>,
    wrong: Vec<String>,
}

/// What the calls came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Of each client, when it last wrote.
    pub refused: u64,
    pub unknown: u64,
    /// Dumps that were whole.
    pub dumps: u64,
}

/// Increments of one counter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter {
    pub acknowledged: u64,
    pub unknown: u64,
}

/// A call under way. Dropped before it is answered, its outcome is unknown.
#[derive(Debug)]
pub struct Asked {
    record: Record,
    process: u64,
    op: Option<Op>,
    invoked: u64,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let pages = Rc::clone(&self.record.0);
        pages.borrow_mut().add(self, Answer::Unknown);
    }
}

impl Record {
    /// A number that nobody had before: of a client, or in a value.
    pub fn number(&self) -> u64 {
        let mut pages = self.0.borrow_mut();
        pages.values += 1;
        pages.values
    }

    /// A client is about to ask this.
    pub fn ask(&self, process: u64, request: &Request) -> Asked {
        self.ask_op(process, op_of(request))
    }

    /// A reader is about to ask for a dump: all keys, at one point.
    pub fn ask_all(&self, process: u64) -> Asked {
        self.ask_op(
            process,
            Op::List {
                prefix: String::new(),
                after: String::new(),
                limit: usize::MAX,
            },
        )
    }

    fn ask_op(&self, process: u64, op: Op) -> Asked {
        let mut pages = self.0.borrow_mut();
        pages.under_way += 1;
        Asked {
            record: self.clone(),
            process,
            op: Some(op),
            invoked: pages.tick(),
        }
    }

    /// The client was told this.
    pub fn told(&self, mut asked: Asked, outcome: &Result<Reply, Error>) {
        let mut pages = self.0.borrow_mut();
        let answer = match outcome {
            Ok(reply) => answer_of(reply),
            Err(error) => pages.error(error, &asked),
        };
        pages.add(&mut asked, answer);
    }

    /// The reader got a whole dump.
    pub fn told_all(&self, mut asked: Asked, entries: &[ListEntry]) {
        let mut pages = self.0.borrow_mut();
        pages.figures.dumps += 1;
        let page = Answer::Page {
            entries: entries.iter().map(entry).collect(),
            more: false,
        };
        pages.add(&mut asked, page);
    }

    /// A call that came to nothing, and changes nothing.
    pub fn told_nothing(&self, mut asked: Asked) {
        self.0.borrow_mut().add(&mut asked, Answer::NotApplied);
    }

    pub fn figures(&self) -> Figures {
        self.0.borrow().figures
    }

    /// Calls that were neither answered nor given up.
    pub fn under_way(&self) -> u64 {
        self.0.borrow().under_way
    }

    pub fn counters(&self) -> BTreeMap<String, Counter> {
        self.0.borrow().counters.clone()
    }

    /// Something is wrong that no checker of histories sees.
    pub fn wrong(&self, what: String) {
        self.0.borrow_mut().wrong.push(what);
    }

    pub fn wrongs(&self) -> Vec<String> {
        self.0.borrow().wrong.clone()
    }

    pub fn history(&self) -> Vec<Call> {
        self.0.borrow().calls.clone()
    }
}

impl Pages {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    fn error(&mut self, error: &Error, asked: &Asked) -> Answer {
        let expected = match error {
            Error::Api(error) => matches!(
                error.code,
                ErrorCode::Unavailable | ErrorCode::Timeout | ErrorCode::Busy
            ),
            Error::Invalid(_) => false,
            _ => true,
        };
        if !expected {
            self.wrong.push(format!("{error} to {:?}", asked.op));
        }
        match error.outcome_unknown() {
            true => Answer::Unknown,
            false => Answer::NotApplied,
        }
    }

    fn add(&mut self, asked: &mut Asked, answer: Answer) {
        let Some(op) = asked.op.take() else { return };
        self.under_way -= 1;
        let counter = match &op {
            Op::TestSet { key, .. } if key.starts_with(COUNTER) => {
                Some(self.counters.entry(key.clone()).or_default())
            }
            _ => None,
        };
        match answer {
            Answer::Unknown => {
                self.figures.unknown += 1;
                counter.into_iter().for_each(|c| c.unknown += 1);
            }
            Answer::NotApplied => self.figures.refused += 1,
            Answer::Swapped { .. } => {
                counter.into_iter().for_each(|c| c.acknowledged += 1);
                self.figures.writes += 1;
            }
            Answer::Set { .. } | Answer::Deleted { .. } => self.figures.writes += 1,
            _ => {}
        }
        let returned = self.tick();
        self.calls.push(Call {
            process: asked.process,
            op,
            invoked: asked.invoked,
            returned: Some(returned).filter(|_| answer != Answer::Unknown),
            answer,
        });
    }
}

/// Keys that begin so are written by testset alone, each time one higher.
pub const COUNTER: &str = "count.";

fn op_of(request: &Request) -> Op {
    match request.clone() {
        Request::Get { key } => Op::Get { key },
        Request::Set { key, value } => Op::Set {
            key,
            value: text(&value),
        },
        Request::TestSet { key, test, value } => Op::TestSet {
            key,
            test: test.as_ref().map(text),
            value: text(&value),
        },
        Request::Delete { key } => Op::Delete { key },
        Request::List {
            prefix,
            after,
            limit,
        } => Op::List {
            prefix,
            after,
            limit: limit as usize,
        },
        other @ (Request::Status | Request::Hello { .. }) => panic!("{other:?} is no call"),
    }
}

fn answer_of(reply: &Reply) -> Answer {
    match reply {
        Reply::Get { value, revision } => Answer::Value {
            value: value.as_ref().map(text),
            revision: revision.0,
        },
        Reply::Set { revision, .. } => Answer::Set {
            revision: revision.0,
        },
        Reply::TestSet {
            swapped: true,
            revision,
            ..
        } => Answer::Swapped {
            revision: revision.0,
        },
        Reply::TestSet {
            value, revision, ..
        } => Answer::NotSwapped {
            value: value.as_ref().map(text),
            revision: revision.0,
        },
        Reply::Delete {
            deleted: true,
            revision,
        } => Answer::Deleted {
            revision: revision.0,
        },
        Reply::Delete { .. } => Answer::Absent,
        Reply::List { entries, more } => Answer::Page {
            entries: entries.iter().map(entry).collect(),
            more: *more,
        },
        Reply::Status(_) | Reply::Hello { .. } => panic!("{reply:?} answers no call"),
    }
}

fn entry(entry: &ListEntry) -> Entry {
    Entry {
        key: entry.key.clone(),
        value: text(&entry.value),
        revision: entry.revision.0,
    }
}

fn text(value: &Value) -> String {
    String::from_utf8_lossy(&value.0).into_owned()
}
