//! Every call that touches the file system goes through here, so that tests can count the calls, let one fail,
//! and forget what was never synced.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a data directory may be held by.
pub enum Lock {
    /// This process holds it, for as long as the value lives.
    Held(Box<dyn Send + Sync>),
    /// Another holds it: what is known of that one.
    Taken(String),
}

/// The calls on directories. None is retried by whoever calls.
pub trait Files: Send + Sync {
    /// Makes a directory and those above it; no error where it exists. Durable when it returns.
    ///
    /// # Errors
    /// As the system says.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the lock that a file stands for; makes the file where there is none.
    ///
    /// # Errors
    /// As the system says; that it is taken is none.
    fn lock(&self, path: &Path) -> io::Result<Lock>;
    /// The names in a directory.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes an empty file for reading and writing; empties one that is there.
    ///
    /// # Errors
    /// As the system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// As the system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Gives a file another name, in place of what had it.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// As the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The calls on an open file.
#[expect(
    clippy::len_without_is_empty,
    reason = "the length is a call that may fail, and nobody asks for emptiness"
)]
pub trait File: Send {
    /// Its length, in bytes.
    ///
    /// # Errors
    /// As the system says.
    fn len(&self) -> io::Result<u64>;
    /// Fills `into` with what is at `offset`.
    ///
    /// # Errors
    /// As the system says; `UnexpectedEof` where the file ends before.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`; the file grows where it must.
    ///
    /// # Errors
    /// As the system says. How much was written is unknown then.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file, or lengthens it with zeros.
    ///
    /// # Errors
    /// As the system says.
    fn set_len(&mut self, bytes: u64) -> io::Result<()>;
    /// Makes content and length durable.
    ///
    /// # Errors
    /// As the system says. What is durable is unknown then, and no later call tells.
    fn sync_data(&mut self) -> io::Result<()>;
}

/// The real ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemFiles;

impl Files for SystemFiles {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        // A new directory is durable once the one above knows it, and so on up.
        let mut missing = Vec::new();
        let mut above = dir;
        while !above.as_os_str().is_empty() && !above.exists() {
            missing.push(above);
            let Some(parent) = above.parent() else { break };
            above = parent;
        }
        fs::create_dir_all(dir)?;
        for made in missing {
            match made.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent)?,
                _ => self.sync_dir(Path::new("."))?,
            }
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Lock::Held(Box::new(file)))
            }
            Err(fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message: whoever holds the lock may be about to write this.
                let known = file.take(64).read_to_string(&mut holder).is_ok();
                let holder = holder.trim();
                Ok(Lock::Taken(if known && !holder.is_empty() {
                    format!("process {holder}")
                } else {
                    "another process".to_owned()
                }))
            }
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(
            fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(path)?,
        ))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(
            fs::OpenOptions::new().read(true).write(true).open(path)?,
        ))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }
}

impl File for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(into, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        fs::File::set_len(self, bytes)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        fs::File::sync_data(self)
    }
}
