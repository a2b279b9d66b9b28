//! Data directories of nodes that have lived.

use crate::messages::{batch, cluster, evicted, keys, keys_after, member, sessions, view};
use crate::{Outcome, write};
use kvservice_backend::chain::{JournalOp, Meta};
use kvservice_backend::storage::Journal;
use kvservice_backend::storage::disk::testing::SimDisk;
use kvservice_backend::storage::disk::{DiskJournal, open};
use kvservice_fuzz::directory::{DIRECTORIES, options, path_of};
use kvservice_shared::chain::{Run, SessionRecord};
use kvservice_shared::ids::{Epoch, Seq, SessionUuid};
use std::fs;
use std::path::Path;
use std::sync::Arc;

const MENDED: u8 = 128;

/// Makes the three directories, and of their files the seeds of the targets that change one.
pub fn directories() -> Outcome {
    let mut logs = Vec::new();
    let mut checkpoints = Vec::new();
    let mut metas = Vec::new();
    for (number, directory) in (0..).zip(DIRECTORIES) {
        let path = path_of(directory);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        let disk = lived(directory)?;
        let mut places = [0_u8; 3];
        for name in disk.names() {
            let content = disk.content(&name);
            fs::write(path.join(&name), &content)?;
            let (kind, seeds) = match name.split('-').next() {
                Some("log") => (0, &mut logs),
                Some("checkpoint") => (1, &mut checkpoints),
                _ => (2, &mut metas),
            };
            for how in [number, number + 3 * (MENDED / 3 + 1)] {
                seeds.push([&[how, places[kind]], &content[..]].concat());
            }
            places[kind] += 1;
        }
    }
    write("log_dir", logs)?;
    write("checkpoint_dir", checkpoints)?;
    write("meta_file", metas)
}

/// The disk of a node, in memory, and what it was told.
struct Node {
    disk: SimDisk,
    journal: DiskJournal,
    end: Run,
}

/// A node that has lived: several segments, a cut, a checkpoint; stopped or not, or not done with learning.
fn lived(directory: &str) -> Outcome<SimDisk> {
    let mut node = Node::start()?;
    if directory == "learning" {
        node.learn()?;
        return Ok(node.disk.copy());
    }
    node.append(1, 6, 2)?;
    let base = node.end;
    node.save(base)?;
    node.append(1, 6, 6)?;
    node.cut(2)?;
    node.append(2, 3, 6)?;
    if directory == "stopped" {
        node.journal.close()?;
        return Ok(node.disk.copy());
    }
    node.settle()?;
    Ok(node.disk.copy())
}

impl Node {
    fn start() -> Outcome<Node> {
        let disk = SimDisk::default();
        let files = Arc::new(disk.clone());
        let mut nothing = Nothing;
        let opened = open(Path::new("/data"), options(), files, &mut nothing)?;
        let mut journal = opened.journal;
        journal.store_meta(&Meta {
            cluster: Some(cluster()),
            term: 1,
            view: Some(view()),
            offer: Some(member(2)),
        })?;
        Ok(Node {
            disk,
            journal,
            end: Run::default(),
        })
    }

    /// Batches of so many entries, in the epoch of this number, each synced.
    fn append(&mut self, number: u64, entries: u64, batches: u64) -> Outcome {
        for _ in 0..batches {
            let epoch = Epoch { term: 0, number };
            let batch = batch(epoch, self.end.last.next(), entries);
            self.end = Run {
                epoch,
                last: batch.last(),
            };
            let seq = Seq(self.end.last.0 - entries);
            self.journal
                .write(vec![JournalOp::Committed { seq }, JournalOp::Append(batch)])?;
            self.settle()?;
        }
        Ok(())
    }

    /// Drops so many batches of six entries.
    fn cut(&mut self, batches: u64) -> Outcome {
        self.end.last.0 -= 6 * batches;
        let keep = self.end.last;
        self.journal.write(vec![JournalOp::Cut { keep }])?;
        Ok(())
    }

    fn save(&mut self, base: Run) -> Outcome {
        let parts = [keys(4), keys_after(), sessions(), evicted()];
        let whole_at = self.end.last;
        let mut ops = vec![JournalOp::Begin { base }];
        ops.extend(parts.map(JournalOp::Part));
        ops.push(JournalOp::End { whole_at });
        self.journal.write(ops)?;
        while self.journal.progress()?.checkpoint != Some(base.last) {
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Takes in a snapshot, whose checkpoint is not whole yet.
    fn learn(&mut self) -> Outcome {
        let epoch = Epoch { term: 0, number: 1 };
        self.end = Run {
            epoch,
            last: Seq(50),
        };
        let base = self.end;
        self.journal.write(vec![JournalOp::Reset { base }])?;
        self.append(1, 6, 4)
    }

    fn settle(&mut self) -> Outcome {
        while self.journal.progress()?.durable < self.end.last {
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// A directory that is new has no checkpoint to take in.
struct Nothing;

impl kvservice_backend::storage::Restore for Nothing {
    fn clear(&mut self) {}
    fn key(&mut self, _: &str, _: &[u8], _: Seq) {}
    fn sessions(&mut self, _: Vec<SessionRecord>) {}
    fn evicted(&mut self, _: Vec<(Seq, u32, SessionUuid)>) {}
}
