//! The storage that ships, on a disk that loses power: unsynced sectors and names survive or do not, calls fail,
//! the disk is full.

use super::{Crash, Trouble};
use crate::cluster::TICK_MS;
use kvservice_backend::chain::{JournalOp, Meta, Restored};
use kvservice_backend::storage::disk::testing::SimDisk;
use kvservice_backend::storage::disk::{DiskJournal, Opened, Options, open_by_hand};
use kvservice_backend::storage::{Journal, Progress, Restore};
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::ids::NodeId;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Small segments: the log is closed, sealed and trimmed all the time.
const SEGMENT_BYTES: u64 = 16 * 1024;
/// A sync that takes longer halts the node, as `--disk-timeout` says.
const DISK_TIMEOUT_MS: u64 = 1000;
/// Tasks of the saver that a tick lets it do.
const TASKS_PER_TICK: usize = 2;

/// A data directory and, while a process uses it, its journal.
#[derive(Default)]
pub struct Real {
    disk: SimDisk,
    journal: Option<DiskJournal>,
    pub(super) held: bool,
    /// Its syncs never end, for so many ticks so far.
    hung: Option<u64>,
    identified: bool,
}

impl fmt::Debug for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Real")
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl Real {
    fn journal(&mut self) -> Result<&mut DiskJournal, Trouble> {
        self.journal
            .as_mut()
            .ok_or_else(|| "no process uses this disk".to_owned())
    }

    pub(super) fn store_meta(&mut self, meta: &Meta) -> Result<(), Trouble> {
        if self.hung.is_some() && !canary::is_on(Canary::HungSyncTolerated) {
            return Err("the meta data are not stored in time".to_owned());
        }
        self.journal()?.store_meta(meta).map_err(trouble)
    }

    pub(super) fn write(&mut self, ops: Vec<JournalOp>) -> Result<(), Trouble> {
        if ops.is_empty() {
            return Ok(());
        }
        self.journal()?.write(ops).map_err(trouble)?;
        match self.held || self.hung.is_some() {
            true => Ok(()),
            false => self.journal()?.work_log().map(drop).map_err(trouble),
        }
    }

    pub(super) fn sync(&mut self) -> Result<(), Trouble> {
        if self.hung.is_some() {
            return Ok(());
        }
        self.journal()?.work_log().map(drop).map_err(trouble)
    }

    pub(super) fn tick(&mut self) -> Result<(), Trouble> {
        if let Some(ticks) = &mut self.hung {
            *ticks += 1;
            let late =
                *ticks * TICK_MS > DISK_TIMEOUT_MS && !canary::is_on(Canary::HungSyncTolerated);
            return match late {
                true => Err("a sync takes too long".to_owned()),
                false => Ok(()),
            };
        }
        if self.held {
            return Ok(());
        }
        let journal = self.journal()?;
        journal.work_log().map_err(trouble)?;
        for _ in 0..TASKS_PER_TICK {
            journal.work_saver().map_err(trouble)?;
        }
        Ok(())
    }

    pub(super) fn progress(&mut self) -> Result<Progress, Trouble> {
        self.journal()?.progress().map_err(trouble)
    }

    pub(super) fn crash(&mut self, how: Crash) {
        self.journal = None;
        self.held = false;
        self.hung = None;
        match how {
            Crash::Process { .. } if self.disk.is_off() => self.disk.restart(self.disk.calls()),
            Crash::Process { .. } => self.disk.end_process(),
            Crash::Power(seed) => self.disk.restart(seed),
        }
    }

    /// From now on syncs do not end, until the process does.
    pub fn hang(&mut self) {
        self.hung.get_or_insert(0);
    }

    /// The call after so many more fails.
    pub fn fail_after(&mut self, calls: u64) {
        self.disk.fail_at(self.disk.calls() + 1 + calls);
    }

    /// The power goes in the middle of what the next calls do.
    pub fn cut_power_after(&mut self, calls: u64) {
        self.disk.cut_power_at(self.disk.calls() + 1 + calls);
    }

    pub(super) fn open(
        &mut self,
        node: NodeId,
        restore: &mut dyn Restore,
    ) -> Result<Restored, Trouble> {
        if !std::mem::replace(&mut self.identified, true) {
            self.disk.give_identity(node);
        }
        let options = Options {
            segment_bytes: SEGMENT_BYTES,
            ..Options::default()
        };
        let files = Arc::new(self.disk.clone());
        let Opened {
            node: found,
            meta,
            checkpoint,
            log_base,
            committed,
            log,
            journal,
            ..
        } = open_by_hand(Path::new("data"), options, files, restore).map_err(|e| e.to_string())?;
        if found != node {
            return Err(format!("this is the disk of {found}, not of {node}"));
        }
        self.journal = Some(journal);
        Ok(Restored {
            meta,
            checkpoint,
            log_base,
            committed,
            log,
        })
    }
}

fn trouble(error: impl fmt::Display) -> Trouble {
    error.to_string()
}
