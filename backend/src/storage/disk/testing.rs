//! A disk for tests: it knows what is durable and what is not, counts calls, lets one fail, and loses power.
//!
//! After a power cut each 512-byte sector that was written and not synced is there or is not, and so is each
//! name that was made, changed or removed since the directory was synced. A failed sync makes nothing durable,
//! and the next one of the same file does not make up for it, as on Linux.

mod reseal;

pub use reseal::reseal;

use super::files::{File, Files, Lock};
use super::format::{NODE, encode_head};
use super::handle::lock;
use super::identity::NODE_MAGIC;
use kvservice_shared::ids::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::ThreadId;

const SECTOR: usize = 512;

/// One directory on such a disk. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<(Mutex<World>, Condvar)>);

#[derive(Default)]
struct World {
    calls: u64,
    cut_at: Option<u64>,
    fail_at: Option<u64>,
    /// The thread whose call failed.
    failed: Option<ThreadId>,
    /// Calls of that thread since.
    after_failure: u64,
    off: bool,
    hang: bool,
    /// Files that were opened before a power cut are gone.
    boot: u64,
    locked: bool,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    files: Vec<Content>,
}

/// A change of the directory that is not durable.
enum Change {
    Link(String, usize),
    Unlink(String),
    Rename(String, String, usize),
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

/// Numbers that look random: the tests must not depend on how a crate makes them.
struct Dice(u64);

impl Dice {
    fn coin(&mut self) -> bool {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33).is_multiple_of(2)
    }
}

impl World {
    /// Counts a call. Whether it is the one that fails.
    fn enter(&mut self, boot: Option<u64>) -> io::Result<bool> {
        self.calls += 1;
        if self.cut_at.is_some_and(|at| self.calls >= at) {
            self.off = true;
        }
        if self.off || boot.is_some_and(|boot| boot != self.boot) {
            return Err(io::Error::other("no power"));
        }
        let caller = std::thread::current().id();
        self.after_failure += u64::from(self.failed == Some(caller));
        let fails = self.fail_at == Some(self.calls);
        if fails {
            self.failed = Some(caller);
        }
        Ok(fails)
    }

    fn id(&self, name: &str) -> io::Result<usize> {
        let id = self.names.get(name).copied();
        id.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

fn broken() -> io::Error {
    io::Error::other("the test wants it to fail")
}

fn name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

impl SimDisk {
    fn world<T>(&self, run: impl FnOnce(&mut World) -> T) -> T {
        run(&mut lock(&self.0.0))
    }

    /// Calls made so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.world(|world| world.calls)
    }

    /// Calls that the thread whose call failed made after that. (Another may be between two calls just then, and
    /// not know yet.)
    #[must_use]
    pub fn calls_after_failure(&self) -> u64 {
        self.world(|world| world.after_failure)
    }

    /// Cuts the power before this call, counted from the start.
    pub fn cut_power_at(&self, call: u64) {
        self.world(|world| world.cut_at = Some(call));
    }

    /// Cuts the power now.
    pub fn cut_power(&self) {
        self.world(|world| world.off = true);
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.world(|world| world.off)
    }

    /// Lets this call fail, counted from the start.
    pub fn fail_at(&self, call: u64) {
        self.world(|world| world.fail_at = Some(call));
    }

    /// Whether a call was made to fail.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.world(|world| world.failed.is_some())
    }

    /// From now on syncs of files do not return, until told otherwise.
    pub fn hang_syncs(&self, hang: bool) {
        self.world(|world| world.hang = hang);
        self.0.1.notify_all();
    }

    /// Cuts the power if it is on, and comes back with what survived; `seed` decides which of what was not
    /// durable did.
    pub fn restart(&self, seed: u64) {
        let mut dice = Dice(seed);
        self.world(|world| {
            world.boot += 1;
            (world.off, world.locked, world.failed) = (false, false, None);
            (world.cut_at, world.fail_at) = (None, None);
            world.after_failure = 0;
            let keep_order = dice.coin();
            for change in std::mem::take(&mut world.changes) {
                if !dice.coin() {
                    // A file system with a journal keeps the order: nothing later survives either.
                    if keep_order {
                        break;
                    }
                    continue;
                }
                let names = &mut world.durable_names;
                match change {
                    Change::Link(name, id) => drop(names.insert(name, id)),
                    Change::Unlink(name) => drop(names.remove(&name)),
                    Change::Rename(from, to, id) => {
                        names.remove(&from);
                        names.insert(to, id);
                    }
                }
            }
            world.names = world.durable_names.clone();
            for file in &mut world.files {
                let length = if dice.coin() {
                    file.now.len()
                } else {
                    file.durable.len()
                };
                let mut survived = std::mem::take(&mut file.durable);
                survived.resize(survived.len().max(file.now.len()), 0);
                file.now.resize(survived.len(), 0);
                for sector in std::mem::take(&mut file.dirty) {
                    let from = (sector * SECTOR).min(survived.len());
                    let to = (from + SECTOR).min(survived.len());
                    if dice.coin() {
                        survived[from..to].copy_from_slice(&file.now[from..to]);
                    }
                }
                survived.truncate(length);
                file.now.clone_from(&survived);
                file.durable = survived;
            }
        });
    }

    /// The process that used it ended, and the machine did not: all that was written is there, and what was not
    /// synced may still be lost with the power.
    pub fn end_process(&self) {
        self.world(|world| {
            world.boot += 1;
            (world.off, world.locked, world.failed) = (false, false, None);
            (world.cut_at, world.fail_at) = (None, None);
            world.after_failure = 0;
        });
    }

    /// Makes an empty directory this node's.
    pub fn give_identity(&self, node: NodeId) {
        self.world(|world| {
            let bytes = encode_head(NODE_MAGIC, &node);
            let id = world.files.len();
            world.files.push(Content {
                now: bytes.clone(),
                durable: bytes,
                dirty: BTreeSet::new(),
            });
            world.names.insert(NODE.to_owned(), id);
            world.durable_names.insert(NODE.to_owned(), id);
        });
    }

    /// The names that are there.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.world(|world| world.names.keys().cloned().collect())
    }

    /// What a file holds.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn content(&self, name: &str) -> Vec<u8> {
        self.world(|world| world.files[world.names[name]].now.clone())
    }

    /// Changes what a file holds, durably.
    ///
    /// # Panics
    /// Where there is none.
    pub fn set_content(&self, name: &str, bytes: &[u8]) {
        self.world(|world| {
            let id = world.names[name];
            world.files[id] = Content {
                now: bytes.to_vec(),
                durable: bytes.to_vec(),
                dirty: BTreeSet::new(),
            };
        });
    }

    /// Removes a file, durably.
    pub fn lose(&self, name: &str) {
        self.world(|world| {
            world.names.remove(name);
            world.durable_names.remove(name);
        });
    }

    /// Another disk with the same files, all durable.
    #[must_use]
    pub fn copy(&self) -> SimDisk {
        let copy = SimDisk::default();
        self.world(|world| {
            copy.world(|other| {
                for (name, id) in &world.names {
                    let now = world.files[*id].now.clone();
                    other.names.insert(name.clone(), other.files.len());
                    other.files.push(Content {
                        durable: now.clone(),
                        now,
                        dirty: BTreeSet::new(),
                    });
                }
                other.durable_names = other.names.clone();
            });
        });
        copy
    }

    fn handle(&self, world: &World, id: usize) -> Box<dyn File> {
        Box::new(SimFile {
            disk: self.clone(),
            id,
            boot: world.boot,
        })
    }

    fn call<T>(&self, run: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        self.world(|world| {
            if world.enter(None)? {
                return Err(broken());
            }
            run(world)
        })
    }
}

struct SimLock(SimDisk, u64);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.world(|world| {
            if world.boot == self.1 {
                world.locked = false;
            }
        });
    }
}

impl Files for SimDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        self.call(|_| Ok(()))
    }

    fn lock(&self, _: &Path) -> io::Result<Lock> {
        self.call(|world| {
            if std::mem::replace(&mut world.locked, true) {
                return Ok(Lock::Taken("another test".to_owned()));
            }
            Ok(Lock::Held(Box::new(SimLock(self.clone(), world.boot))))
        })
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        self.call(|world| Ok(world.names.keys().cloned().collect()))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.call(|world| {
            let id = world.files.len();
            world.files.push(Content::default());
            world.names.insert(name(path), id);
            world.changes.push(Change::Link(name(path), id));
            Ok(self.handle(world, id))
        })
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.call(|world| {
            let id = world.id(&name(path))?;
            Ok(self.handle(world, id))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(|world| {
            let id = world.id(&name(from))?;
            world.names.remove(&name(from));
            world.names.insert(name(to), id);
            let change = Change::Rename(name(from), name(to), id);
            world.changes.push(change);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(|world| {
            world.id(&name(path))?;
            world.names.remove(&name(path));
            world.changes.push(Change::Unlink(name(path)));
            Ok(())
        })
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.call(|world| {
            world.changes.clear();
            world.durable_names = world.names.clone();
            Ok(())
        })
    }
}

struct SimFile {
    disk: SimDisk,
    id: usize,
    boot: u64,
}

impl SimFile {
    fn call<T>(&self, run: impl FnOnce(&mut Content, bool) -> io::Result<T>) -> io::Result<T> {
        self.disk.world(|world| {
            let fails = world.enter(Some(self.boot))?;
            let result = run(&mut world.files[self.id], fails);
            if fails { Err(broken()) } else { result }
        })
    }
}

impl Content {
    fn touch(&mut self, from: usize, to: usize) {
        if from < to {
            self.dirty.extend(from / SECTOR..=(to - 1) / SECTOR);
        }
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.call(|file, _| Ok(file.now.len() as u64))
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.call(|file, _| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let there = file.now.get(from..).and_then(|rest| rest.get(..into.len()));
            into.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.call(|file, fails| {
            let bytes = if fails {
                &bytes[..bytes.len() / 2]
            } else {
                bytes
            };
            let from = usize::try_from(offset).expect("tests write small files");
            let to = from + bytes.len();
            let before = file.now.len();
            file.now.resize(before.max(to), 0);
            file.now[from..to].copy_from_slice(bytes);
            file.touch(from.min(before), to);
            Ok(())
        })
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.call(|file, fails| {
            if !fails {
                let (before, after) = (file.now.len(), usize::try_from(bytes).expect("small"));
                file.now.resize(after, 0);
                file.touch(before.min(after), before.max(after));
            }
            Ok(())
        })
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let (world, hanging) = &*self.disk.0;
        let mut held = lock(world);
        while held.hang {
            held = hanging.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        drop(held);
        self.call(|file, fails| {
            let dirty = std::mem::take(&mut file.dirty);
            if !fails {
                file.durable.resize(file.now.len(), 0);
                for sector in dirty {
                    let from = (sector * SECTOR).min(file.now.len());
                    let to = (from + SECTOR).min(file.now.len());
                    file.durable[from..to].copy_from_slice(&file.now[from..to]);
                }
            }
            Ok(())
        })
    }
}
