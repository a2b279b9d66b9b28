//! The data directory as its threads use it: file calls with names in their errors, none after one failed, and
//! a clock on the one under way.

use super::files::{File, Files};
use super::format::PART;
use crate::storage::StorageError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Whose call it is: the two threads are timed each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Log = 0,
    Saver = 1,
}

/// What went wrong first; and since when calls are under way.
#[derive(Debug, Default)]
pub(super) struct Health {
    failure: Mutex<Option<Failure>>,
    under_way: Mutex<[Option<Instant>; 2]>,
}

/// A failure that is told again each time somebody asks: `io::Error` cannot be copied.
#[derive(Debug)]
struct Failure {
    what: String,
    code: Option<i32>,
    kind: io::ErrorKind,
    message: String,
}

impl Failure {
    fn to_error(&self) -> StorageError {
        StorageError::Io {
            what: self.what.clone(),
            source: match self.code {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(self.kind, self.message.clone()),
            },
        }
    }
}

/// A thread that panicked while it held a lock leaves plain values behind: they are still worth reading.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Health {
    /// The first failure, or a call that takes longer than `patience`.
    pub(super) fn check(&self, patience: Duration) -> Result<(), StorageError> {
        self.failed()?;
        let since = lock(&self.under_way).iter().flatten().min().copied();
        match since.map(|since| since.elapsed()) {
            Some(elapsed) if elapsed > patience => Err(StorageError::Stuck { patience }),
            _ => Ok(()),
        }
    }

    pub(super) fn failed(&self) -> Result<(), StorageError> {
        match &*lock(&self.failure) {
            Some(failure) => Err(failure.to_error()),
            None => Ok(()),
        }
    }

    /// Only the first failure counts: what comes after it may be its consequence.
    pub(super) fn fail(&self, what: String, source: &io::Error) {
        lock(&self.failure).get_or_insert_with(|| Failure {
            what,
            code: source.raw_os_error(),
            kind: source.kind(),
            message: source.to_string(),
        });
    }
}

/// The data directory, for one thread.
#[derive(Clone)]
pub(super) struct Disk {
    files: Arc<dyn Files>,
    dir: Arc<Path>,
    health: Arc<Health>,
    lane: Lane,
}

impl Disk {
    pub(super) fn new(files: Arc<dyn Files>, dir: &Path) -> Disk {
        Disk {
            files,
            dir: dir.into(),
            health: Arc::default(),
            lane: Lane::Log,
        }
    }

    pub(super) fn for_saver(&self) -> Disk {
        Disk {
            lane: Lane::Saver,
            ..self.clone()
        }
    }

    pub(super) fn health(&self) -> &Arc<Health> {
        &self.health
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn call<T>(
        &self,
        what: &str,
        path: &Path,
        run: impl FnOnce(&dyn Files) -> io::Result<T>,
    ) -> Result<T, StorageError> {
        self.health.failed()?;
        lock(&self.health.under_way)[self.lane as usize] = Some(Instant::now());
        let result = run(&*self.files);
        lock(&self.health.under_way)[self.lane as usize] = None;
        result.map_err(|source| {
            let what = format!("cannot {what} {}", path.display());
            self.health.fail(what.clone(), &source);
            StorageError::Io { what, source }
        })
    }

    pub(super) fn list(&self) -> Result<Vec<String>, StorageError> {
        self.call("list", &self.dir, |files| files.list(&self.dir))
    }

    pub(super) fn create(&self, name: &str) -> Result<DiskFile, StorageError> {
        let path = self.path(name);
        let file = self.call("create", &path, |files| files.create(&path))?;
        Ok(self.wrap(path, file))
    }

    pub(super) fn open(&self, name: &str) -> Result<DiskFile, StorageError> {
        let path = self.path(name);
        let file = self.call("open", &path, |files| files.open(&path))?;
        Ok(self.wrap(path, file))
    }

    fn wrap(&self, path: PathBuf, file: Box<dyn File>) -> DiskFile {
        DiskFile {
            disk: self.clone(),
            path,
            file,
        }
    }

    /// The whole of a file.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, StorageError> {
        self.open(name)?.read_all()
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path(name);
        self.call("remove", &path, |files| files.remove(&path))
    }

    pub(super) fn sync_dir(&self) -> Result<(), StorageError> {
        self.call("sync", &self.dir, |files| files.sync_dir(&self.dir))
    }

    /// Gives `name` + `.part`, whole and synced, its name. Durable when it returns.
    pub(super) fn publish(&self, name: &str) -> Result<(), StorageError> {
        let from = self.path(&format!("{name}{PART}"));
        let to = self.path(name);
        self.call("rename", &from, |files| files.rename(&from, &to))?;
        self.sync_dir()
    }

    /// Makes a file of these bytes, or puts them in place of what it held, so that a crash leaves either.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<DiskFile, StorageError> {
        let mut file = self.create(&format!("{name}{PART}"))?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        self.publish(name)?;
        file.path = self.path(name);
        Ok(file)
    }
}

/// An open file.
pub(super) struct DiskFile {
    disk: Disk,
    path: PathBuf,
    file: Box<dyn File>,
}

impl DiskFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn len(&self) -> Result<u64, StorageError> {
        self.disk.call("measure", &self.path, |_| self.file.len())
    }

    pub(super) fn read_at(&self, into: &mut [u8], offset: u64) -> Result<(), StorageError> {
        self.disk
            .call("read", &self.path, |_| self.file.read_at(into, offset))
    }

    pub(super) fn read_all(&self) -> Result<Vec<u8>, StorageError> {
        let length = self.len()?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    pub(super) fn write_at(&mut self, bytes: &[u8], offset: u64) -> Result<(), StorageError> {
        let (disk, path, file) = (&self.disk, &self.path, &mut self.file);
        disk.call("write", path, |_| file.write_at(bytes, offset))
    }

    pub(super) fn set_len(&mut self, bytes: u64) -> Result<(), StorageError> {
        let (disk, path, file) = (&self.disk, &self.path, &mut self.file);
        disk.call("truncate", path, |_| file.set_len(bytes))
    }

    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        let (disk, path, file) = (&self.disk, &self.path, &mut self.file);
        disk.call("sync", path, |_| file.sync_data())
    }
}
