//! The journal's front: takes operations, says how far they are, and owns the two threads.
//!
//! Every cut and every reset begins a new *era* of the log. What was given in an older era and is done later
//! says nothing about the log as it is now: writes up to 9 are under way, the log is cut to 5, other entries 6
//! to 9 are given, and the first write is done; the new 9 is not durable. So work carries the era it was
//! given in, and only the current era's counts. Resets do the same for checkpoints, beginnings for their parts.

mod log_thread;

use super::Options;
use super::format::checkpoint_name;
use super::handle::{Disk, Health, lock};
use super::log::LogWriter;
use super::saver::{Done, Saver, Task};
use crate::chain::{JournalOp, Meta, part_bytes};
use crate::storage::{Journal, Progress, StorageError};
use kvservice_shared::ids::{NodeId, Seq};
use log_thread::LogThread;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::Notify;

/// Bytes that may wait for the disk; past that [`Journal::write`] waits too.
const QUEUE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What an operation costs beside its bytes.
const OP_COST: u64 = 64;
/// So much is written and synced at a time.
const ROUND_BYTES: usize = 8 * 1024 * 1024;
/// How often somebody who waits for the disk looks at the clock.
const LOOK: Duration = Duration::from_millis(50);

/// The journal on disk.
///
/// [`Journal::write`] does not wait for the disk unless 64 MiB wait for it already: then it blocks until there is
/// room, the disk fails, or a call takes longer than [`Options::disk_timeout`].
///
/// Dropped without [`Journal::close`] it ends as a killed process does; its threads let go of the directory when
/// the calls under way return.
pub struct DiskJournal {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// In place of the threads.
    by_hand: Option<Box<ByHand>>,
}

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drive {
    /// Two threads, as soon as there is any.
    Threads,
    /// The caller, when it wants to: for simulators.
    ByHand,
}

/// What the two threads would run.
struct ByHand {
    log: LogThread,
    saver: Saver,
}

/// What the threads begin with.
pub(super) struct Start {
    pub node: NodeId,
    pub checkpoint: Option<Seq>,
    pub checkpoint_number: u64,
    /// The directory's lock.
    pub held: Box<dyn Send + Sync>,
}

/// What the caller and the two threads share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Something for the log's thread.
    to_log: Condvar,
    /// Something for the saver.
    to_saver: Condvar,
    /// Something for a caller who waits.
    to_caller: Condvar,
    health: Arc<Health>,
    patience: Duration,
    news: Arc<Notify>,
    /// Goes when both threads and the journal are gone.
    _held: Box<dyn Send + Sync>,
}

struct State {
    items: VecDeque<(Item, u64)>,
    tasks: VecDeque<(Task, u64)>,
    waiting_bytes: u64,
    /// Counts cuts and resets.
    era: u64,
    /// Counts resets.
    reset: u64,
    /// Counts beginnings of checkpoints, and resets.
    save: u64,
    progress: Progress,
    metas_given: u64,
    metas_stored: u64,
    /// The journal was closed or dropped: no more operations.
    ended: bool,
    /// It was dropped: what waits is not done.
    dropped: bool,
    /// The log's thread has no more tasks for the saver.
    log_ended: bool,
    threads: u8,
}

enum Item {
    Op(JournalOp, Eras),
    Meta(Box<Meta>),
    Done(Done),
}

/// What was current when an operation was given.
#[derive(Clone, Copy)]
struct Eras {
    log: u64,
    reset: u64,
    save: u64,
}

impl DiskJournal {
    pub(super) fn start(
        disk: &Disk,
        options: Options,
        drive: Drive,
        writer: LogWriter,
        start: Start,
    ) -> Result<DiskJournal, StorageError> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                items: VecDeque::new(),
                tasks: VecDeque::new(),
                waiting_bytes: 0,
                era: 0,
                reset: 0,
                save: 0,
                progress: Progress {
                    durable: writer.end().last,
                    written: 0,
                    checkpoint: start.checkpoint,
                },
                metas_given: 0,
                metas_stored: 0,
                ended: false,
                dropped: false,
                log_ended: false,
                threads: 0,
            }),
            to_log: Condvar::new(),
            to_saver: Condvar::new(),
            to_caller: Condvar::new(),
            health: Arc::clone(disk.health()),
            patience: options.disk_timeout,
            news: Arc::default(),
            _held: start.held,
        });
        let whole = start
            .checkpoint
            .map(|_| checkpoint_name(writer.generation(), start.checkpoint_number));
        let mut saver = Saver {
            disk: disk.for_saver(),
            shared: Arc::clone(&shared),
            node: start.node,
            number: start.checkpoint_number,
            whole,
            under_way: None,
        };
        let mut log = LogThread::new(Arc::clone(&shared), writer, options.fsync, start.checkpoint);
        let mut journal = DiskJournal {
            shared,
            threads: Vec::new(),
            by_hand: None,
        };
        match drive {
            Drive::Threads => {
                journal.spawn("journal", move || log.run())?;
                journal.spawn("checkpoints", move || saver.run())?;
            }
            Drive::ByHand => journal.by_hand = Some(Box::new(ByHand { log, saver })),
        }
        Ok(journal)
    }

    /// Of a journal that is worked by hand: writes and syncs all that waits for the log. `false`: nothing did.
    ///
    /// # Errors
    /// As [`Journal::progress`].
    #[doc(hidden)]
    pub fn work_log(&mut self) -> Result<bool, StorageError> {
        let Some(by_hand) = &mut self.by_hand else {
            return Ok(false);
        };
        let items = std::mem::take(&mut self.shared.state().items);
        let any = !items.is_empty();
        if any {
            by_hand.log.round(items)?;
        }
        Ok(any)
    }

    /// Of a journal that is worked by hand: does one thing that waits for the saver. `false`: nothing did.
    ///
    /// # Errors
    /// As [`Journal::progress`].
    #[doc(hidden)]
    pub fn work_saver(&mut self) -> Result<bool, StorageError> {
        let Some(by_hand) = &mut self.by_hand else {
            return Ok(false);
        };
        let task = self.shared.state().tasks.pop_front();
        let any = task.is_some();
        if let Some((task, cost)) = task {
            by_hand.saver.carry_out(task)?;
            self.shared.release(cost);
        }
        Ok(any)
    }

    fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce() -> Result<(), StorageError> + Send + 'static,
    ) -> Result<(), StorageError> {
        self.shared.state().threads += 1;
        let running = Running(Arc::clone(&self.shared));
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _running = running;
                // The first failure is kept where everybody sees it.
                let _: Result<(), StorageError> = work();
            })
            .map_err(|source| StorageError::Io {
                what: format!("cannot start the thread {name:?}"),
                source,
            })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Waits until `done`, or until the disk failed or is stuck.
    fn wait(
        &self,
        mut state: MutexGuard<'_, State>,
        done: impl Fn(&State) -> bool,
    ) -> Result<(), StorageError> {
        while !done(&state) {
            self.shared.health.check(self.shared.patience)?;
            let wait = self.shared.to_caller.wait_timeout(state, LOOK);
            (state, _) = wait.unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }
}

/// Counts a thread out, however it ends.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let source = io::Error::other("a thread of the journal panicked");
            self.0.health.fail("cannot go on".to_owned(), &source);
        }
        self.0.state().threads -= 1;
        self.0.wake_all();
    }
}

impl Journal for DiskJournal {
    fn store_meta(&mut self, meta: &Meta) -> Result<(), StorageError> {
        self.shared.health.check(self.shared.patience)?;
        let mut state = self.shared.state();
        state.metas_given += 1;
        let number = state.metas_given;
        let item = Item::Meta(Box::new(meta.clone()));
        state.items.push_back((item, 0));
        if self.by_hand.is_some() {
            drop(state);
            return self.work_log().map(drop);
        }
        self.shared.to_log.notify_one();
        self.wait(state, |state| state.metas_stored >= number)
    }

    fn write(&mut self, ops: Vec<JournalOp>) -> Result<(), StorageError> {
        self.shared.health.check(self.shared.patience)?;
        let mut state = self.shared.state();
        for op in ops {
            let cost = OP_COST + state.take_note(&op);
            let eras = Eras {
                log: state.era,
                reset: state.reset,
                save: state.save,
            };
            state.waiting_bytes += cost;
            state.items.push_back((Item::Op(op, eras), cost));
        }
        if self.by_hand.is_some() {
            return Ok(());
        }
        self.shared.to_log.notify_one();
        self.wait(state, |state| state.waiting_bytes <= QUEUE_BYTES_MAX)
    }

    fn progress(&mut self) -> Result<Progress, StorageError> {
        self.shared.health.check(self.shared.patience)?;
        Ok(self.shared.state().progress)
    }

    fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.news)
    }

    fn close(mut self) -> Result<(), StorageError> {
        let mut state = self.shared.state();
        state.ended = true;
        self.shared.wake_all();
        // A disk that is stuck is not waited for; one that failed is, for its threads end by themselves.
        while state.threads > 0 {
            let health = self.shared.health.check(self.shared.patience);
            if let Err(stuck @ StorageError::Stuck { .. }) = health {
                return Err(stuck);
            }
            let wait = self.shared.to_caller.wait_timeout(state, LOOK);
            (state, _) = wait.unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        for thread in self.threads.drain(..) {
            // That it panicked was noted.
            let _: std::thread::Result<()> = thread.join();
        }
        self.shared.health.failed()
    }
}

impl Drop for DiskJournal {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.ended = true;
        state.dropped = true;
        drop(state);
        self.shared.wake_all();
    }
}

impl State {
    /// What an operation changes when it is given. Gives the bytes that it holds.
    fn take_note(&mut self, op: &JournalOp) -> u64 {
        match op {
            JournalOp::Append(batch) => return batch.bytes().len() as u64,
            JournalOp::Part(part) => return part_bytes(part),
            JournalOp::Cut { keep } => {
                self.era += 1;
                self.progress.durable = self.progress.durable.min(*keep);
            }
            JournalOp::Reset { base } => {
                self.era += 1;
                self.reset += 1;
                self.save += 1;
                self.progress = Progress {
                    durable: base.last,
                    ..Progress::default()
                };
            }
            JournalOp::Begin { .. } => {
                self.save += 1;
                self.progress.written = 0;
            }
            JournalOp::Committed { .. } | JournalOp::End { .. } | JournalOp::Trim { .. } => {}
        }
        0
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn wake_all(&self) {
        self.to_log.notify_all();
        self.to_saver.notify_all();
        self.to_caller.notify_all();
        self.news.notify_one();
    }

    /// The saver's next task and what it costs; `None` once there will be none.
    pub(super) fn next_task(&self) -> Option<(Task, u64)> {
        let mut state = self.state();
        loop {
            if state.dropped || self.health.failed().is_err() {
                return None;
            }
            if let Some(task) = state.tasks.pop_front() {
                return Some(task);
            }
            if state.log_ended {
                return None;
            }
            let wait = self.to_saver.wait(state);
            state = wait.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give_task(&self, task: Task, cost: u64) {
        self.state().tasks.push_back((task, cost));
        self.to_saver.notify_one();
    }

    /// So many bytes wait no longer.
    pub(super) fn release(&self, cost: u64) {
        self.state().waiting_bytes -= cost;
        self.to_caller.notify_all();
    }

    pub(super) fn part_written(&self, save: u64, bytes: u64) {
        let mut state = self.state();
        if state.save == save {
            state.progress.written += bytes;
            self.news.notify_one();
        }
    }

    pub(super) fn checkpoint_done(&self, reset: u64, done: Done) {
        let mut state = self.state();
        if state.reset == reset {
            state.progress.checkpoint = Some(done.base);
            self.news.notify_one();
        }
        state.items.push_back((Item::Done(done), 0));
        self.to_log.notify_one();
    }

    fn durable(&self, era: u64, up_to: Seq) {
        let mut state = self.state();
        if state.era == era && state.progress.durable < up_to {
            state.progress.durable = up_to;
            self.news.notify_one();
        }
    }
}
