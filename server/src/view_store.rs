//! The front-end's directory: one file, replaced as a whole, and a lock.
//!
//! ```text
//! DIR/lock        held while a process uses the directory
//! DIR/view.json   {"format":1,"crc32c":…,"stored":{…}}: the checksum is of the compact JSON of `stored`
//! ```
//! A new file is written beside the old one, synced, and renamed over it; then the directory is synced. A
//! crash leaves the old one or the new one.

use crate::coordinator::Stored;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;

/// The directory, locked.
#[derive(Debug)]
pub struct ViewStore {
    dir: PathBuf,
    _lock: File,
}

/// What is wrong with the directory. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum ViewStoreError {
    /// A file could not be made, read, written or synced.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process uses it.
    #[error("{0} is in use by another front-end: stop that one, or choose another --data-dir")]
    Locked(PathBuf),
    /// The file is damaged, or of another version.
    #[error(
        "{path} cannot be trusted: {what}. Restore it from a copy; or move it away: the front-end then adopts \
         what its nodes report (start it without --init)"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// In what way.
        what: String,
    },
}

#[derive(Serialize, Deserialize)]
struct FileForm<T> {
    format: u32,
    crc32c: u32,
    stored: T,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ViewStoreError {
    let path = path.to_owned();
    move |source| ViewStoreError::Io { path, source }
}

impl ViewStore {
    /// Opens the directory, making it if it is not there, and reads what is stored.
    ///
    /// # Errors
    /// Where another process has it, or the file does not verify.
    pub fn open(dir: &Path) -> Result<(ViewStore, Stored), ViewStoreError> {
        fs::create_dir_all(dir).map_err(io(dir))?;
        let lock_path = dir.join("lock");
        let lock = File::create(&lock_path).map_err(io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ViewStoreError::Locked(dir.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io(&lock_path)(source)),
        }
        let store = ViewStore {
            dir: dir.to_owned(),
            _lock: lock,
        };
        let stored = store.load()?;
        Ok((store, stored))
    }

    fn path(&self) -> PathBuf {
        self.dir.join("view.json")
    }

    fn load(&self) -> Result<Stored, ViewStoreError> {
        let path = self.path();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Stored::default()),
            Err(error) => return Err(io(&path)(error)),
        };
        let damaged = |what: String| ViewStoreError::Damaged {
            path: path.clone(),
            what,
        };
        let file: FileForm<serde_json::Value> =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if file.format != FORMAT {
            return Err(damaged(format!(
                "its format is {}, this program knows {FORMAT}",
                file.format
            )));
        }
        let stored: Stored =
            serde_json::from_value(file.stored).map_err(|error| damaged(error.to_string()))?;
        if checksum(&stored).map_err(damaged)? != file.crc32c {
            return Err(damaged("its checksum does not match".to_owned()));
        }
        Ok(stored)
    }

    /// Stores; returns once it is durable.
    ///
    /// # Errors
    /// Where a file cannot be written or synced. What is on disk then is not known: the process must end.
    pub fn save(&mut self, stored: &Stored) -> Result<(), ViewStoreError> {
        let path = self.path();
        let next = self.dir.join("view.json.new");
        let damaged = |what: String| ViewStoreError::Damaged {
            path: path.clone(),
            what,
        };
        let crc32c = checksum(stored).map_err(damaged)?;
        let mut text = serde_json::to_vec_pretty(&FileForm {
            format: FORMAT,
            crc32c,
            stored,
        })
        .map_err(|error| damaged(error.to_string()))?;
        text.push(b'\n');
        let mut file = File::create(&next).map_err(io(&next))?;
        file.write_all(&text).map_err(io(&next))?;
        file.sync_all().map_err(io(&next))?;
        fs::rename(&next, &path).map_err(io(&path))?;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(io(&self.dir))
    }
}

fn checksum(stored: &Stored) -> Result<u32, String> {
    let text = serde_json::to_vec(stored).map_err(|error| error.to_string())?;
    Ok(crc32c::crc32c(&text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvservice_shared::ids::{ClusterId, NodeId};
    use uuid::Uuid;

    fn some() -> Stored {
        let mut stored = Stored {
            cluster: Some(ClusterId(Uuid::from_u128(7))),
            term: 3,
            next_name: 1,
            ..Stored::default()
        };
        stored
            .names
            .insert(NodeId(Uuid::from_u128(9)), "n1".to_owned());
        stored
    }

    #[test]
    fn what_was_saved_is_there_again_and_the_directory_is_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("deep/down");
        let (mut store, stored) = ViewStore::open(&dir).unwrap();
        assert_eq!(stored, Stored::default());
        store.save(&some()).unwrap();
        assert!(matches!(
            ViewStore::open(&dir),
            Err(ViewStoreError::Locked(_))
        ));
        drop(store);
        assert_eq!(ViewStore::open(&dir).unwrap().1, some());
    }

    #[test]
    fn a_truncated_or_changed_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = ViewStore::open(dir.path()).unwrap();
        store.save(&some()).unwrap();
        drop(store);
        let path = dir.path().join("view.json");
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() - 2 {
            fs::write(&path, &whole[..end]).unwrap();
            assert!(
                matches!(
                    ViewStore::open(dir.path()),
                    Err(ViewStoreError::Damaged { .. })
                ),
                "cut at {end}"
            );
        }
        let text = String::from_utf8(whole).unwrap();
        fs::write(&path, text.replace("\"term\": 3", "\"term\": 4")).unwrap();
        assert!(matches!(
            ViewStore::open(dir.path()),
            Err(ViewStoreError::Damaged { .. })
        ));
    }
}
