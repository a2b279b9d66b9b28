//! Data directories of a node, one file of which is not what it was.
//!
//! They were made by real operations (`examples/seeds`) and are kept in `directories/`: the same bytes in every run,
//! so that an input means the same in every run.

use bytes::Bytes;
use kvservice_backend::chain::{Config, Loading, Meta, Replica, Restored};
use kvservice_backend::storage::disk::testing::{SimDisk, reseal};
use kvservice_backend::storage::disk::{Files, Fsync, OpenError, Opened, Options, open};
use kvservice_backend::storage::{Journal, MemoryState, Restore};
use kvservice_shared::api::StorageKind;
use kvservice_shared::chain::{Incarnation, Run, SessionRecord};
use kvservice_shared::codec::Batch;
use kvservice_shared::ids::{Boot, NodeId, Seq, SessionUuid};
use kvservice_shared::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The directories, by their names in `directories/`.
pub const DIRECTORIES: [&str; 3] = ["stopped", "crashed", "learning"];

/// Where a disk for tests has its directory.
const DATA: &str = "/data";
/// A list of small things takes so many times more in memory than in a file.
const BYTES_EACH: usize = 128;

/// The place of a directory that is kept.
pub fn path_of(directory: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("directories")
        .join(directory)
}

/// Small segments, so that there are several.
pub fn options() -> Options {
    Options {
        fsync: Fsync::Always,
        segment_bytes: 1500,
        disk_timeout: Duration::from_secs(20),
    }
}

/// What a checkpoint holds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Content {
    keys: Vec<(String, Vec<u8>, Seq)>,
    sessions: Vec<SessionRecord>,
    evicted: Vec<(Seq, u32, SessionUuid)>,
}

impl Restore for Content {
    fn clear(&mut self) {
        *self = Content::default();
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

impl Content {
    /// What the reader of a checkpoint promises to whoever restores from it.
    fn check(&self) {
        let keys = self.keys.iter().map(|(key, ..)| key);
        assert!(keys.is_sorted_by(|a, b| a < b), "keys out of order");
        for (key, value, _) in &self.keys {
            assert!((1..=KEY_BYTES_MAX).contains(&key.len()));
            assert!(value.len() <= VALUE_BYTES_MAX);
        }
        let sessions = self.sessions.iter().map(|record| record.session);
        assert!(sessions.is_sorted_by(|a, b| a < b), "sessions out of order");
        for record in &self.sessions {
            let ids = record.outcomes.iter().map(|(id, _)| *id);
            assert!(ids.is_sorted_by(|a, b| a < b), "outcomes out of order");
        }
    }
}

/// What a directory gives back.
#[derive(Clone, Debug, PartialEq)]
struct Whole {
    node: NodeId,
    meta: Meta,
    checkpoint: Option<(Run, Seq)>,
    base: Run,
    committed: Seq,
    log: Vec<Batch>,
    content: Content,
}

fn look(disk: &SimDisk) -> Result<Whole, OpenError> {
    let mut content = Content::default();
    let files = Arc::new(disk.clone());
    let Opened {
        node,
        meta,
        checkpoint,
        log_base,
        committed,
        log,
        journal,
        notes: _,
    } = open(Path::new(DATA), options(), files, &mut content)?;
    journal.close()?;
    Ok(Whole {
        node,
        meta,
        checkpoint,
        base: log_base,
        committed,
        log,
        content,
    })
}

/// A directory as it was left, and all that was ever written to it.
struct Directory {
    disk: SimDisk,
    whole: Whole,
    written: HashSet<Bytes>,
}

impl Directory {
    fn read(name: &str) -> Directory {
        let disk = disk_of(&path_of(name));
        let whole = look(&disk.copy()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let written = batches_in(&disk);
        assert!(whole.log.iter().all(|b| written.contains(b.bytes())));
        Directory {
            disk,
            whole,
            written,
        }
    }

    /// What came out of a file that nobody with the checksums' recipe has changed: nothing but what was written.
    fn check_written(&self, found: &Whole) {
        assert_eq!(found.node, self.whole.node);
        assert_eq!(found.meta, self.whole.meta);
        for batch in &found.log {
            let known = self.written.contains(batch.bytes());
            assert!(known, "{batch:?} was never written");
        }
        match found.checkpoint {
            None => assert_eq!(found.content, Content::default()),
            Some(point) => {
                assert_eq!(Some(point), self.whole.checkpoint);
                assert_eq!(found.content, self.whole.content);
            }
        }
    }
}

/// A disk with the files of a directory.
fn disk_of(path: &Path) -> SimDisk {
    let disk = SimDisk::default();
    let files = std::fs::read_dir(path).expect("run the generator of the seeds first");
    for file in files {
        let file = file.expect("a name").path();
        let bytes = std::fs::read(&file).expect("a file");
        let made = disk.create(&file).and_then(|mut on_disk| {
            on_disk.write_at(&bytes, 0)?;
            on_disk.sync_data()
        });
        made.expect("this disk does not fail");
    }
    disk.copy()
}

/// Whatever verifies as a batch, at any place of any segment.
fn batches_in(disk: &SimDisk) -> HashSet<Bytes> {
    let mut found = HashSet::new();
    for name in disk.names().iter().filter(|name| name.starts_with("log-")) {
        let bytes = Bytes::from(disk.content(name));
        for at in 0..bytes.len() {
            let batch = Batch::decode(&mut bytes.slice(at..));
            found.extend(batch.map(|batch| batch.bytes().clone()));
        }
    }
    found
}

fn directories() -> &'static [Directory] {
    static READ: OnceLock<Vec<Directory>> = OnceLock::new();
    READ.get_or_init(|| {
        DIRECTORIES
            .iter()
            .map(|name| Directory::read(name))
            .collect()
    })
}

/// Opens a directory in which the bytes after the first two stand in place of a file's.
///
/// The first byte names the directory, and from 128 on its checksums are mended; the second names the file, among
/// those whose names begin with one of `prefixes`.
///
/// # Panics
/// Where what comes of it is not as it should be.
pub fn check(data: &[u8], prefixes: &[&str]) {
    let (how, data) = crate::choice(data);
    let (which, content) = crate::choice(data);
    let directory = &directories()[usize::from(how) % DIRECTORIES.len()];
    let disk = directory.disk.copy();
    let mut names = disk.names();
    names.retain(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    if names.is_empty() {
        return;
    }
    let name = &names[usize::from(which) % names.len()];
    let mended = how >= 128;
    let mut content = content.to_vec();
    if mended {
        mend(name, &mut content);
    }
    disk.set_content(name, &content);
    let before = files_of(&disk);
    let bytes: usize = before.values().map(Vec::len).sum();
    match crate::within_memory(bytes, BYTES_EACH, || look(&disk)) {
        Ok(found) => {
            found.content.check();
            if !mended {
                directory.check_written(&found);
            }
            match look(&disk) {
                Ok(again) => assert_eq!(again, found, "opened again"),
                Err(error) => panic!("opened once, and then: {error}"),
            }
            start(found);
        }
        Err(error) => {
            check_refusal(&error, &before);
            assert_eq!(files_of(&disk), before, "refused, and changed: {error}");
        }
    }
}

/// Gives a file the checksums that it needs; and one that is a head and nothing else, its length too.
fn mend(name: &str, content: &mut [u8]) {
    const BEFORE_BODY: usize = 16;
    const CHECKSUM: usize = 4;
    let is_small = matches!(name, "meta" | "node");
    if let Some(body) = content
        .len()
        .checked_sub(BEFORE_BODY + CHECKSUM)
        .filter(|_| is_small)
    {
        let length = u32::try_from(body).expect("inputs are small");
        content[12..BEFORE_BODY].copy_from_slice(&length.to_le_bytes());
    }
    reseal(name, content);
}

fn files_of(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let named = |name: String| {
        let content = disk.content(&name);
        (name, content)
    };
    disk.names().into_iter().map(named).collect()
}

/// It names the file, and a place in it.
fn check_refusal(error: &OpenError, files: &BTreeMap<String, Vec<u8>>) {
    let in_data = |file: &str| Path::new(file).starts_with(DATA);
    match error {
        OpenError::Corrupt { file, offset, .. } => {
            let name = Path::new(file).file_name().and_then(|name| name.to_str());
            let content = name.and_then(|name| files.get(name));
            let length = content.map(|content| content.len() as u64);
            assert!(length.is_some_and(|length| *offset <= length), "{error}");
        }
        OpenError::Missing { file, .. } => assert!(in_data(file), "{error}"),
        OpenError::Version { file, .. } => assert!(file.starts_with(DATA), "{error}"),
        OpenError::Storage(_) | OpenError::Locked { .. } => panic!("{error}"),
    }
}

/// Starts a node with what was found: that may be refused, and is no panic.
fn start(found: Whole) {
    let mut loading = Loading::into(MemoryState::default());
    for (key, value, revision) in &found.content.keys {
        loading.key(key, value, *revision);
    }
    loading.sessions(found.content.sessions);
    loading.evicted(found.content.evicted);
    let config = Config {
        id: Incarnation {
            node: found.node,
            boot: Boot(1),
        },
        address: "127.0.0.1:1".to_owned(),
        storage: StorageKind::Disk,
        log_retention_bytes: 0,
        checkpoint_bytes: 1 << 20,
        part_bytes: 1 << 10,
    };
    let restored = Restored {
        meta: found.meta,
        checkpoint: found.checkpoint,
        log_base: found.base,
        committed: found.committed,
        log: found.log,
    };
    if let Ok(replica) = Replica::restore(config, loading, restored) {
        let (durable, _, applied, _) = replica.points();
        assert!(applied <= durable, "{applied} of {durable}");
    }
}
