//! What the journal does on a real disk, in figures for people: `cargo bench -p kvservice-backend --bench journal`.

#![expect(
    clippy::unwrap_used,
    reason = "whoever measures wants to see what went wrong"
)]

use bytes::Bytes;
use kvservice_backend::chain::JournalOp;
use kvservice_backend::storage::Journal;
use kvservice_backend::storage::disk::{DiskJournal, Opened, Options, Restore, SystemFiles, open};
use kvservice_shared::api::Value;
use kvservice_shared::chain::{OpenToken, Run, SessionRecord, SnapshotPart};
use kvservice_shared::codec::{Batch, BatchBuilder, Decision, Effect};
use kvservice_shared::ids::{Epoch, RequestId, Seq, SessionSeq, SessionUuid};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Counts what it is given.
#[derive(Default)]
struct Count {
    keys: u64,
    bytes: usize,
}

impl Restore for Count {
    fn clear(&mut self) {}

    fn key(&mut self, key: &str, value: &[u8], _: Seq) {
        self.keys += 1;
        self.bytes += key.len() + value.len();
    }

    fn sessions(&mut self, _: Vec<SessionRecord>) {}

    fn evicted(&mut self, _: Vec<(Seq, u32, SessionUuid)>) {}
}

fn open_dir(dir: &Path, count: &mut Count) -> Opened {
    open(dir, Options::default(), Arc::new(SystemFiles), count).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

fn wait(runtime: &Runtime, journal: &mut DiskJournal, done: impl Fn(&mut DiskJournal) -> bool) {
    let news = journal.news();
    while !done(journal) {
        let _: Result<(), _> = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(1), news.notified()).await
        });
    }
}

/// A batch of entries that each set a key to 72 bytes; the very first one opens the session.
fn batch(first: u64, entries: u64) -> Batch {
    let mut builder = BatchBuilder::new(Epoch::NONE, Seq(first));
    for seq in first..first + entries {
        let value = [u8::try_from(seq % 251).unwrap(); 72];
        let write = Effect::Write {
            session: SessionSeq(Seq(1)),
            request: RequestId::new(seq).unwrap(),
            hash: seq,
            decision: Decision::Set {
                key: "key",
                value: &value,
            },
        };
        let open = Effect::Open {
            uuid: SessionUuid(Uuid::nil()),
            token: OpenToken {
                front_end: 1,
                ticket: 1,
            },
        };
        builder.push(&[], if seq == 1 { &open } else { &write });
    }
    builder.finish()
}

fn main() {
    // Beside the build: the system's temporary directory may be in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for entries in [1, 16, 256] {
        for in_flight in [1, 8] {
            let dir = dir.path().join(format!("append-{entries}-{in_flight}"));
            appends(&dir, entries, in_flight);
        }
    }
    restore(&dir.path().join("restore"), 2_000_000);
}

/// `in_flight` batches are given before the first of them is waited for.
fn appends(dir: &Path, entries: u64, in_flight: u64) {
    let mut journal = open_dir(dir, &mut Count::default()).journal;
    let runtime = runtime();
    let rounds = 2000;
    let batches: Vec<_> = (0..rounds)
        .map(|i| batch(1 + i * entries, entries))
        .collect();
    let bytes: usize = batches.iter().map(|batch| batch.bytes().len()).sum();
    let started = Instant::now();
    for (i, batch) in (0..).zip(batches) {
        journal.write(vec![JournalOp::Append(batch)]).unwrap();
        let needed = Seq((i + 1_u64).saturating_sub(in_flight - 1) * entries);
        wait(&runtime, &mut journal, |journal| {
            journal.progress().unwrap().durable >= needed
        });
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "batches of {entries}, {in_flight} in flight: {:.0} batches/s, {:.0} entries/s, {:.1} MB/s, {} B an entry",
        rounds as f64 / seconds,
        (rounds * entries) as f64 / seconds,
        bytes as f64 / seconds / 1e6,
        bytes as u64 / (rounds * entries),
    );
    journal.close().unwrap();
    let started = Instant::now();
    let opened = open_dir(dir, &mut Count::default());
    assert_eq!(opened.log.len() as u64, rounds);
    println!("  opened again in {:?}", started.elapsed());
}

fn restore(dir: &Path, keys: u64) {
    let mut journal = open_dir(dir, &mut Count::default()).journal;
    let runtime = runtime();
    let started = Instant::now();
    let base = Run::default();
    journal.write(vec![JournalOp::Begin { base }]).unwrap();
    let value = Value(Bytes::from(vec![7; 64]));
    let mut given = 0;
    while given < keys {
        let entries = (given..keys.min(given + 700))
            .map(|key| (format!("{key:016}"), value.clone(), Seq(key + 1)))
            .collect::<Vec<_>>();
        given += entries.len() as u64;
        let part = SnapshotPart::Keys {
            after: None,
            through: None,
            entries,
        };
        journal.write(vec![JournalOp::Part(part)]).unwrap();
    }
    let whole_at = Seq::ZERO;
    journal.write(vec![JournalOp::End { whole_at }]).unwrap();
    wait(&runtime, &mut journal, |journal| {
        journal.progress().unwrap().checkpoint.is_some()
    });
    let seconds = started.elapsed().as_secs_f64();
    println!("checkpoint of {keys} keys: {seconds:.2} s, parts made and written");
    journal.close().unwrap();
    let started = Instant::now();
    let mut count = Count::default();
    open_dir(dir, &mut count);
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(count.keys, keys);
    println!(
        "restored {keys} keys, {} MB, in {seconds:.2} s",
        count.bytes / 1_000_000
    );
}
