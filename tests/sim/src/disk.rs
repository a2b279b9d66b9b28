//! A simulated node's storage: a model of it, or the storage that ships on a simulated disk.

mod model;
mod real;

use kvservice_backend::chain::{JournalOp, Meta, Restored};
use kvservice_backend::storage::{Progress, Restore};
use kvservice_shared::ids::NodeId;
use model::Model;
pub use real::Real;

/// What a disk could not do; the node halts.
pub type Trouble = String;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// It ends; the machine goes on. Of a model, what was not synced is lost but for the first so many operations.
    Process {
        /// Operations.
        written: usize,
    },
    /// The machine loses power. The seed says what survives of what was not synced.
    Power(u64),
}

/// A node's disk.
#[derive(Debug)]
pub enum Disk {
    /// A model.
    Model(Box<Model>),
    /// The real code.
    Real(Box<Real>),
}

impl Default for Disk {
    fn default() -> Disk {
        Disk::Model(Box::default())
    }
}

impl Disk {
    /// An empty one.
    pub fn new(real: bool) -> Disk {
        match real {
            true => Disk::Real(Box::default()),
            false => Disk::default(),
        }
    }

    /// Makes the meta data durable.
    pub fn store_meta(&mut self, meta: Meta) -> Result<(), Trouble> {
        match self {
            Disk::Model(model) => model.meta = meta,
            Disk::Real(real) => real.store_meta(&meta)?,
        }
        Ok(())
    }

    /// Takes operations; they are durable at once, unless the disk is held.
    pub fn write(&mut self, ops: Vec<JournalOp>) -> Result<(), Trouble> {
        match self {
            Disk::Model(model) => model.write(ops),
            Disk::Real(real) => real.write(ops)?,
        }
        Ok(())
    }

    /// What waits becomes durable.
    pub fn sync(&mut self) -> Result<(), Trouble> {
        match self {
            Disk::Model(model) => model.sync(),
            Disk::Real(real) => real.sync()?,
        }
        Ok(())
    }

    /// Time passes: what is done in the background goes on a little.
    pub fn tick(&mut self) -> Result<(), Trouble> {
        match self {
            Disk::Model(_) => Ok(()),
            Disk::Real(real) => real.tick(),
        }
    }

    /// How far it is.
    pub fn progress(&mut self) -> Result<Progress, Trouble> {
        match self {
            Disk::Model(model) => Ok(model.progress()),
            Disk::Real(real) => real.progress(),
        }
    }

    /// Operations that wait.
    pub fn unsynced(&self) -> usize {
        match self {
            Disk::Model(model) => model.unsynced(),
            Disk::Real(_) => 0,
        }
    }

    /// Lets what is written wait, or go on with the next write.
    pub fn hold(&mut self, held: bool) {
        match self {
            Disk::Model(model) => model.held = held,
            Disk::Real(real) => real.held = held,
        }
    }

    /// The process ends.
    pub fn crash(&mut self, how: Crash) {
        match (self, how) {
            (Disk::Model(model), Crash::Process { written }) => model.crash(written),
            (Disk::Model(model), Crash::Power(seed)) => {
                let keep = (seed % (model.unsynced() as u64 + 1)) as usize;
                model.crash(keep);
            }
            (Disk::Real(real), how) => real.crash(how),
        }
    }

    /// What a process that starts finds.
    pub fn open(&mut self, node: NodeId, restore: &mut dyn Restore) -> Result<Restored, Trouble> {
        match self {
            Disk::Model(model) => Ok(model.open(restore)),
            Disk::Real(real) => real.open(node, restore),
        }
    }
}
