//! The history as it is made: every call, in memory for the checker and on disk for others; and figures of it.

use kvservice_client::{Error, Reply, Value};
use kvservice_history::{Answer, Call, Entry, Op};
use kvservice_shared::api::{ErrorCode, Op as Request};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Everything that clients asked and were told.
#[derive(Debug)]
pub struct Record {
    started: Instant,
    pages: Mutex<Pages>,
}

#[derive(Debug)]
struct Pages {
    calls: Vec<Call>,
    file: BufWriter<File>,
    figures: Figures,
    last_write: Instant,
    counters: BTreeMap<String, Counter>,
    wrong: Vec<String>,
}

/// What the calls came to.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// All calls.
    pub calls: usize,
    /// Writes that were acknowledged.
    pub writes: usize,
    /// Calls whose outcome nobody knows.
    pub unknown: usize,
    /// Calls that were refused.
    pub refused: usize,
    /// Errors, by their kind.
    pub errors: BTreeMap<String, usize>,
    /// The longest time without an acknowledged write.
    pub longest_gap: Duration,
    /// When that began, since the start.
    pub gap_began: Duration,
}

/// Increments of one counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Acknowledged ones.
    pub acknowledged: u64,
    /// Those of which nobody knows.
    pub unknown: u64,
}

/// A call under way. Dropped before it is answered, its outcome is unknown.
#[derive(Debug)]
pub struct Asked {
    record: Arc<Record>,
    process: u64,
    /// `None`: it has been written down.
    op: Option<Op>,
    invoked: u64,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let record = Arc::clone(&self.record);
        record.pages().add(self, Answer::Unknown, None);
    }
}

impl Record {
    /// Begins a history in this file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(file: &Path, started: Instant) -> io::Result<Record> {
        let pages = Pages {
            calls: Vec::new(),
            file: BufWriter::new(File::create(file)?),
            figures: Figures::default(),
            last_write: started,
            counters: BTreeMap::new(),
            wrong: Vec::new(),
        };
        Ok(Record {
            started,
            pages: Mutex::new(pages),
        })
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A client is about to ask this.
    ///
    /// # Panics
    /// For what is no call of a history.
    #[must_use]
    pub fn ask(self: &Arc<Self>, process: u64, request: &Request) -> Asked {
        Asked {
            record: Arc::clone(self),
            process,
            op: Some(op_of(request)),
            invoked: self.micros(),
        }
    }

    /// The client was told this.
    pub fn told(&self, mut asked: Asked, outcome: &Result<Reply, Error>) {
        let returned = self.micros();
        let mut pages = self.pages();
        let answer = match outcome {
            Ok(reply) => answer_of(reply).unwrap_or_else(|| {
                pages.wrong.push(format!("{reply:?} to {:?}", asked.op));
                Answer::Unknown
            }),
            Err(error) => pages.error(error, asked.op.as_ref()),
        };
        pages.add(&mut asked, answer, Some(returned));
    }

    /// What the calls came to so far.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.pages().figures.clone()
    }

    /// Something is wrong that no checker of histories sees.
    pub fn wrong(&self, what: String) {
        self.pages().wrong.push(what);
    }

    /// What was wrong so far.
    #[must_use]
    pub fn wrongs(&self) -> Vec<String> {
        self.pages().wrong.clone()
    }

    /// The counters' increments.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<String, Counter> {
        self.pages().counters.clone()
    }

    /// Ends the file, and hands the history over.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(&self) -> io::Result<Vec<Call>> {
        let mut pages = self.pages();
        pages.file.flush()?;
        Ok(std::mem::take(&mut pages.calls))
    }
}

impl Pages {
    fn error(&mut self, error: &Error, op: Option<&Op>) -> Answer {
        let kind = match error {
            Error::Api(error) => error.code.to_string(),
            Error::Connect(_) => "connection".to_owned(),
            Error::Invalid(_) => "invalid".to_owned(),
            _ => "closed".to_owned(),
        };
        *self.figures.errors.entry(kind).or_default() += 1;
        let expected = match error {
            Error::Api(error) => matches!(
                error.code,
                ErrorCode::Unavailable | ErrorCode::Timeout | ErrorCode::Busy
            ),
            Error::Invalid(_) => false,
            _ => true,
        };
        if !expected {
            self.wrong.push(format!("{error} to {op:?}"));
        }
        match error.outcome_unknown() {
            true => Answer::Unknown,
            false => Answer::NotApplied,
        }
    }

    fn add(&mut self, asked: &mut Asked, answer: Answer, returned: Option<u64>) {
        let Some(op) = asked.op.take() else { return };
        self.count(&op, &answer, asked.record.started);
        let call = Call {
            process: asked.process,
            op,
            invoked: asked.invoked,
            returned: returned.filter(|_| answer != Answer::Unknown),
            answer,
        };
        if let Err(error) = writeln!(self.file, "{}", call.to_line()) {
            self.wrong
                .push(format!("the history cannot be written: {error}"));
        }
        self.calls.push(call);
    }

    fn count(&mut self, op: &Op, answer: &Answer, started: Instant) {
        self.figures.calls += 1;
        let counter = match op {
            Op::TestSet { key, .. } if is_counter(key) => {
                Some(self.counters.entry(key.clone()).or_default())
            }
            _ => None,
        };
        match answer {
            Answer::Unknown => {
                self.figures.unknown += 1;
                counter.into_iter().for_each(|counter| counter.unknown += 1);
            }
            Answer::NotApplied => self.figures.refused += 1,
            Answer::Set { .. } | Answer::Deleted { .. } => self.written(started),
            Answer::Swapped { .. } => {
                counter
                    .into_iter()
                    .for_each(|counter| counter.acknowledged += 1);
                self.written(started);
            }
            _ => {}
        }
    }

    fn written(&mut self, started: Instant) {
        let gap = self.last_write.elapsed();
        if self.figures.writes > 0 && gap > self.figures.longest_gap {
            self.figures.longest_gap = gap;
            self.figures.gap_began = self.last_write - started;
        }
        self.figures.writes += 1;
        self.last_write = Instant::now();
    }
}

/// Keys that are written by testset alone, each time one higher.
#[must_use]
pub fn is_counter(key: &str) -> bool {
    key.starts_with("count.")
}

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

fn answer_of(reply: &Reply) -> Option<Answer> {
    Some(match reply {
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
            entries: entries
                .iter()
                .map(|entry| Entry {
                    key: entry.key.clone(),
                    value: text(&entry.value),
                    revision: entry.revision.0,
                })
                .collect(),
            more: *more,
        },
        Reply::Status(_) | Reply::Hello { .. } => return None,
    })
}

fn text(value: &Value) -> String {
    String::from_utf8_lossy(&value.0).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvservice_client::Seq;
    use kvservice_shared::api::{ApiError, Outcome};

    fn set(value: &str) -> Request {
        Request::Set {
            key: "a".into(),
            value: value.into(),
        }
    }

    fn refused(outcome: Outcome) -> Result<Reply, Error> {
        Err(Error::Api(ApiError {
            code: ErrorCode::Timeout,
            message: String::new(),
            outcome,
        }))
    }

    #[test]
    fn what_is_told_and_what_is_not_is_written_down() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("history.jsonl");
        let record = Arc::new(Record::new(&file, Instant::now()).unwrap());
        let revision = Seq(7);
        let found = Reply::Get {
            value: Some("1".into()),
            revision,
        };
        let get = Request::Get { key: "a".into() };
        drop(record.ask(1, &set("1")));
        record.told(record.ask(2, &get), &Ok(found));
        record.told(record.ask(3, &set("2")), &refused(Outcome::Unknown));
        record.told(record.ask(4, &set("3")), &refused(Outcome::NotApplied));
        let figures = record.figures();
        assert_eq!((figures.calls, figures.unknown, figures.refused), (4, 2, 1));
        let calls = record.finish().unwrap();
        let answers: Vec<&Answer> = calls.iter().map(|call| &call.answer).collect();
        let value = Answer::Value {
            value: Some("1".into()),
            revision: 7,
        };
        let told = [
            &Answer::Unknown,
            &value,
            &Answer::Unknown,
            &Answer::NotApplied,
        ];
        assert_eq!(answers, told);
        let returned: Vec<bool> = calls.iter().map(|call| call.returned.is_some()).collect();
        assert_eq!(returned, [false, true, false, true]);
        let lines = std::fs::read_to_string(&file).unwrap();
        let read: Vec<Call> = lines.lines().map(|l| Call::from_line(l).unwrap()).collect();
        assert_eq!(read, calls);
        assert!(record.wrongs().is_empty());
    }
}
