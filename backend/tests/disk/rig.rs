//! Drives a journal and knows what it must give back: a list of what the node would be after each operation.
//! Whatever is found on disk must be one of them, no older than what was called durable.

use bytes::Bytes;
use kvservice_backend::chain::{JournalOp, Meta};
use kvservice_backend::storage::disk::testing::SimDisk;
use kvservice_backend::storage::disk::{
    DiskJournal, Files, Fsync, OpenError, Opened, Options, Restore, open,
};
use kvservice_backend::storage::{Journal, StorageError};
use kvservice_shared::api::Value;
use kvservice_shared::chain::{OpenToken, Run, SessionRecord, SnapshotPart};
use kvservice_shared::codec::{Batch, BatchBuilder, Decision, Effect};
use kvservice_shared::ids::{Epoch, RequestId, Seq, SessionSeq, SessionUuid};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// What was taken in from a checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restored {
    pub keys: Vec<(String, Vec<u8>, Seq)>,
    pub sessions: Vec<SessionRecord>,
    pub evicted: Vec<(Seq, u32, SessionUuid)>,
}

impl Restore for Restored {
    fn clear(&mut self) {
        *self = Restored::default();
    }

    fn key(&mut self, key: &str, value: &[u8], revision: Seq) {
        self.keys.push((key.to_owned(), value.to_vec(), revision));
    }

    fn sessions(&mut self, mut sessions: Vec<SessionRecord>) {
        self.sessions.append(&mut sessions);
    }

    fn evicted(&mut self, mut names: Vec<(Seq, u32, SessionUuid)>) {
        self.evicted.append(&mut names);
    }
}

/// A checkpoint that was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    pub base: Run,
    pub whole_at: Seq,
    pub content: Restored,
}

/// What the node is after some operation.
#[derive(Clone, Debug)]
struct View {
    meta: Meta,
    /// Its log began after this; what is before needs a checkpoint.
    base: Run,
    /// Counts resets.
    generation: u64,
    log: Vec<Batch>,
}

impl View {
    fn end(&self) -> Run {
        self.log.last().map_or(self.base, run_of)
    }
}

pub fn run_of(batch: &Batch) -> Run {
    Run {
        epoch: batch.epoch(),
        last: batch.last(),
    }
}

pub fn options() -> Options {
    Options {
        fsync: Fsync::Always,
        segment_bytes: 3000,
        disk_timeout: Duration::from_secs(20),
    }
}

pub fn open_sim(disk: &SimDisk, restored: &mut Restored) -> Result<Opened, OpenError> {
    open_files(Arc::new(disk.clone()), restored)
}

fn open_files(files: Arc<dyn Files>, restored: &mut Restored) -> Result<Opened, OpenError> {
    open(Path::new("/data"), options(), files, restored)
}

fn token() -> OpenToken {
    OpenToken {
        front_end: 1,
        ticket: 2,
    }
}

/// A batch of entries that each set a key to so many bytes.
pub fn batch(epoch: Epoch, first: Seq, entries: u64, value_bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new(epoch, first);
    for i in 0..entries {
        let seq = first.0 + i;
        // Values differ, and end in zeros as the file behind the log does.
        let mut value = vec![u8::try_from(seq % 251).unwrap(); value_bytes];
        value.resize(value_bytes + 8, 0);
        let open = Effect::Open {
            uuid: SessionUuid(Uuid::from_u128(u128::from(seq))),
            token: token(),
        };
        let write = Effect::Write {
            session: SessionSeq(Seq(1)),
            request: RequestId::new(seq).unwrap(),
            hash: seq,
            decision: Decision::Set {
                key: "key",
                value: &value,
            },
        };
        builder.push(&[], if seq == 1 { &open } else { &write });
    }
    builder.finish()
}

pub struct Rig {
    pub disk: SimDisk,
    journal: Option<DiskJournal>,
    runtime: tokio::runtime::Runtime,
    /// What the node is after each operation, from the last opening on.
    history: Vec<View>,
    /// The oldest of them that may be found.
    sure: usize,
    /// Where the current era of the log begins in the history.
    era: usize,
    /// Checkpoints that may be found, with the generation that they are of.
    saves: Vec<(u64, Saved)>,
    begun: Option<(Run, Restored)>,
    /// The last one known to be whole and durable.
    saved: Option<(u64, Saved)>,
    pub epoch: Epoch,
    counter: u64,
    pub notes: Vec<String>,
}

impl Rig {
    pub fn open(disk: &SimDisk) -> Result<Rig, OpenError> {
        let mut rig = Rig {
            disk: disk.clone(),
            journal: None,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap(),
            history: vec![View {
                meta: Meta::default(),
                base: Run::default(),
                generation: 0,
                log: Vec::new(),
            }],
            sure: 0,
            era: 0,
            saves: Vec::new(),
            begun: None,
            saved: None,
            epoch: Epoch { term: 0, number: 1 },
            counter: 0,
            notes: Vec::new(),
        };
        rig.reopen()?;
        Ok(rig)
    }

    fn now(&self) -> &View {
        self.history.last().unwrap()
    }

    pub fn end(&self) -> Run {
        self.now().end()
    }

    pub fn log(&self) -> &[Batch] {
        &self.now().log
    }

    /// What must not be cut: checkpoints show entries up to there.
    pub fn cut_from(&self) -> Seq {
        let generation = self.now().generation;
        self.saves
            .iter()
            .filter(|(of, _)| *of == generation)
            .map(|(_, save)| save.whole_at)
            .chain(self.begun.iter().map(|(base, _)| base.last))
            .chain([self.now().base.last])
            .max()
            .unwrap()
    }

    fn write(&mut self, ops: Vec<JournalOp>) -> Result<(), StorageError> {
        for op in &ops {
            let mut view = self.now().clone();
            match op {
                JournalOp::Append(batch) => view.log.push(batch.clone()),
                JournalOp::Cut { keep } => view.log.retain(|batch| batch.last() <= *keep),
                JournalOp::Reset { base } => {
                    view.generation += 1;
                    view.base = *base;
                    view.log.clear();
                }
                _ => {}
            }
            self.history.push(view);
            if matches!(op, JournalOp::Cut { .. } | JournalOp::Reset { .. }) {
                self.era = self.history.len() - 1;
            }
        }
        let result = self.journal.as_mut().unwrap().write(ops);
        self.look()?;
        result
    }

    /// Notes what the journal calls durable.
    fn look(&mut self) -> Result<(), StorageError> {
        let progress = self.journal.as_mut().unwrap().progress()?;
        assert!(progress.durable <= self.end().last, "ahead of the log");
        let known = (self.era + 1..self.history.len()).rev().find(|at| {
            let (before, after) = (&self.history[at - 1], &self.history[*at]);
            after.log.len() > before.log.len() && after.end().last <= progress.durable
        });
        self.sure = self.sure.max(known.unwrap_or(0));
        if let Some(base) = progress.checkpoint {
            let generation = self.now().generation;
            let mut given = self.saves.iter().filter(|(of, _)| *of == generation);
            let same = self
                .saved
                .as_ref()
                .is_some_and(|(of, save)| *of == generation && save.base.last == base);
            if !same {
                let found = given.find(|(_, save)| save.base.last == base);
                self.saved = Some(found.expect("a checkpoint that was given").clone());
            }
        }
        Ok(())
    }

    pub fn append(
        &mut self,
        batches: u64,
        entries: u64,
        value_bytes: usize,
    ) -> Result<(), StorageError> {
        let mut ops = Vec::new();
        let mut first = self.end().last.next();
        for _ in 0..batches {
            let batch = batch(self.epoch, first, entries, value_bytes);
            first = batch.last().next();
            ops.push(JournalOp::Append(batch));
        }
        self.write(ops)
    }

    /// Drops so many batches, as far as may be. Others than before come next.
    pub fn cut(&mut self, batches: usize) -> Result<(), StorageError> {
        let from = self.cut_from();
        let log = self.log();
        let at = log.len().saturating_sub(batches);
        let keep = at
            .checked_sub(1)
            .map_or(self.now().base.last, |at| log[at].last());
        self.epoch.number += 1;
        let keep = keep.max(from);
        self.write(vec![JournalOp::Cut { keep }])
    }

    pub fn reset(&mut self, base: u64) -> Result<(), StorageError> {
        self.epoch.number += 1;
        self.begun = None;
        let base = Run {
            epoch: if base == 0 { Epoch::NONE } else { self.epoch },
            last: Seq(base),
        };
        self.write(vec![JournalOp::Reset { base }])
    }

    /// Begins a checkpoint at the end of the log, and gives so many parts of it.
    pub fn begin_save(&mut self, parts: u64, keys: u64) -> Result<(), StorageError> {
        let base = self.end();
        let mut ops = vec![JournalOp::Begin { base }];
        let mut content = Restored::default();
        self.counter += 1;
        for part in 0..parts {
            let entries: Vec<_> = (0..keys)
                .map(|key| {
                    let key_text = format!("{part:04}-{key:04}");
                    let value = format!("value {} {}", self.counter, "v".repeat(key as usize));
                    (key_text, Value(Bytes::from(value)), Seq(key + 1))
                })
                .collect();
            let plain = entries
                .iter()
                .map(|(key, value, revision)| (key.clone(), value.0.to_vec(), *revision));
            content.keys.extend(plain);
            ops.push(JournalOp::Part(SnapshotPart::Keys {
                after: None,
                through: None,
                entries,
            }));
        }
        let session = SessionRecord {
            session: SessionSeq(Seq(1)),
            uuid: SessionUuid(Uuid::from_u128(7)),
            token: token(),
            reopened: true,
            last_used: Seq(9),
            forgotten: self.counter,
            outcomes: Vec::new(),
        };
        content.sessions.push(session.clone());
        ops.push(JournalOp::Part(SnapshotPart::Sessions {
            after: SessionSeq(Seq::ZERO),
            through: None,
            sessions: vec![session],
        }));
        let names = vec![(Seq(3), 1, SessionUuid(Uuid::from_u128(9)))];
        content.evicted.clone_from(&names);
        ops.push(JournalOp::Part(SnapshotPart::Evicted { names }));
        self.begun = Some((base, content));
        self.write(ops)
    }

    pub fn end_save(&mut self) -> Result<(), StorageError> {
        let Some((base, content)) = self.begun.take() else {
            return Ok(());
        };
        let whole_at = self.end().last;
        let generation = self.now().generation;
        let save = Saved {
            base,
            whole_at,
            content,
        };
        self.saves.push((generation, save));
        self.write(vec![JournalOp::End { whole_at }])
    }

    pub fn trim(&mut self) -> Result<(), StorageError> {
        let up_to = self.end().last;
        self.write(vec![JournalOp::Trim { up_to }])
    }

    pub fn meta(&mut self) -> Result<(), StorageError> {
        let mut view = self.now().clone();
        view.meta.term += 1;
        let meta = view.meta.clone();
        self.history.push(view);
        self.journal.as_mut().unwrap().store_meta(&meta)?;
        self.sure = self.history.len() - 1;
        self.look()
    }

    /// Waits until all is durable, the last checkpoint too.
    pub fn settle(&mut self) -> Result<(), StorageError> {
        let news = self.journal.as_ref().unwrap().news();
        let deadline = Instant::now() + Duration::from_secs(20);
        let generation = self.now().generation;
        let last = self.saves.last().filter(|(of, _)| *of == generation);
        let awaited = last.map(|(_, save)| save.base.last);
        loop {
            self.look()?;
            let progress = self.journal.as_mut().unwrap().progress()?;
            let whole = awaited.is_none() || progress.checkpoint == awaited;
            if progress.durable == self.end().last && whole {
                return Ok(());
            }
            assert!(Instant::now() < deadline, "it stays at {progress:?}");
            let _: Result<(), _> = self.runtime.block_on(async {
                tokio::time::timeout(Duration::from_millis(50), news.notified()).await
            });
        }
    }

    /// Ends the journal; its trouble, if any, is the caller's.
    pub fn close(&mut self) -> Result<(), StorageError> {
        let Some(journal) = self.journal.take() else {
            return Ok(());
        };
        let result = journal.close();
        if result.is_ok() {
            self.sure = self.history.len() - 1;
            let generation = self.now().generation;
            let last = self.saves.last().filter(|(of, _)| *of == generation);
            self.saved = last.cloned().or(self.saved.take());
        }
        result
    }

    /// Loses power now, and comes back.
    pub fn crash(&mut self, seed: u64) -> Result<(), OpenError> {
        self.disk.cut_power();
        let _: Result<(), StorageError> = self.close();
        self.disk.restart(seed);
        self.reopen()
    }

    /// Opens what is there and checks it. The history goes on from what was found.
    pub fn reopen(&mut self) -> Result<(), OpenError> {
        let mut restored = Restored::default();
        let opened = open_sim(&self.disk, &mut restored)?;
        let candidates = &self.history[self.sure..];
        let reasons: Vec<String> = candidates
            .iter()
            .rev()
            .map_while(|view| self.compare(view, &opened, &restored).err())
            .collect();
        assert!(
            reasons.len() < candidates.len(),
            "found {:?} after {:?} with checkpoint {:?} and {:?}; none of {} states: {reasons:#?}",
            opened.log,
            opened.log_base,
            opened.checkpoint,
            opened.meta,
            candidates.len(),
        );
        let view = View {
            meta: opened.meta,
            base: opened.log_base,
            generation: 0,
            log: opened.log,
        };
        self.epoch = view.end().epoch.max(self.epoch).next();
        self.history = vec![view];
        (self.sure, self.era) = (0, 0);
        self.begun = None;
        self.saves.clear();
        self.saved = opened.checkpoint.map(|(base, whole_at)| {
            let save = Saved {
                base,
                whole_at,
                content: restored,
            };
            (0, save)
        });
        self.saves.extend(self.saved.clone());
        self.notes = opened.notes;
        self.journal = Some(opened.journal);
        Ok(())
    }

    fn compare(&self, view: &View, opened: &Opened, restored: &Restored) -> Result<(), String> {
        if opened.meta != view.meta {
            return Err(format!("meta {:?}", view.meta));
        }
        let of_generation = |save: &&(u64, Saved)| save.0 == view.generation;
        let known = self.saved.as_ref().filter(of_generation);
        let saves: Vec<&(u64, Saved)> = self.saves.iter().filter(of_generation).collect();
        let found = match opened.checkpoint {
            None if *restored != Restored::default() => return Err("restored nothing's".into()),
            None => None,
            Some((base, whole_at)) => {
                let content = restored.clone();
                let found = Saved {
                    base,
                    whole_at,
                    content,
                };
                let at = saves.iter().position(|(_, save)| *save == found);
                let known_at = known.and_then(|known| saves.iter().position(|s| *s == known));
                match (at, known_at) {
                    (None, _) => return Err(format!("no such checkpoint among {}", saves.len())),
                    (Some(at), Some(known)) if at < known => return Err("an old checkpoint".into()),
                    _ => Some(found),
                }
            }
        };
        let end = view.end();
        if found.is_none() && self.is_learning(view) {
            // What is not whole is nothing.
            if known.is_some_and(|(_, save)| save.whole_at <= end.last) {
                return Err("a whole checkpoint was lost".into());
            }
            let empty = opened.log.is_empty() && opened.log_base == Run::default();
            return empty.then_some(()).ok_or("not empty".into());
        }
        if found.is_none() && known.is_some() {
            return Err("the checkpoint was lost".into());
        }
        if found.as_ref().is_some_and(|save| save.whole_at > end.last) {
            return Err("the log does not reach the checkpoint".into());
        }
        let needed = found.map_or(view.base, |save| save.base);
        if opened.log_base.last > needed.last {
            return Err(format!("the log begins after {:?}", opened.log_base));
        }
        let expected: Vec<&Batch> = view
            .log
            .iter()
            .filter(|batch| batch.last() > opened.log_base.last)
            .collect();
        let equal = opened.log.iter().eq(expected);
        let end_found = opened.log.last().map_or(opened.log_base, run_of);
        if !equal || end_found != end {
            return Err(format!("log {:?}", view.log));
        }
        Ok(())
    }

    /// Whether this state's log begins where only a checkpoint leads.
    fn is_learning(&self, view: &View) -> bool {
        view.base.last > Seq::ZERO && view.generation > 0
    }
}
