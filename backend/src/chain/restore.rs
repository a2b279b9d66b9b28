//! A restarted node: its state from a checkpoint, its log, and what it remembers beside them.

use super::data::Data;
use super::effects::Meta;
use super::log::Log;
use super::replica::{Config, Replica};
use super::save::Saving;
use crate::storage::{Restore, State};
use kvservice_shared::chain::{Run, SessionRecord};
use kvservice_shared::codec::Batch;
use kvservice_shared::ids::{Seq, SessionUuid};

/// What a disk held beside the checkpoint's parts.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The meta data.
    pub meta: Meta,
    /// The checkpoint's base, and where it is whole.
    pub checkpoint: Option<(Run, Seq)>,
    /// The entry that the log follows.
    pub log_base: Run,
    /// An entry that is known to be committed, and so are all before it.
    pub committed: Seq,
    /// The log: at least from the checkpoint's base to where it is whole.
    pub log: Vec<Batch>,
}

/// Why what a disk held makes no replica.
#[derive(Debug, thiserror::Error)]
#[error("the log holds {base} to {last}, the checkpoint needs {from} to {to}")]
pub struct RestoreError {
    base: Seq,
    last: Seq,
    from: Seq,
    to: Seq,
}

/// A state that a checkpoint's parts are read into.
#[derive(Debug)]
pub struct Loading<S> {
    data: Data<S>,
}

impl<S: State> Loading<S> {
    /// Reads into an empty store.
    pub fn into(state: S) -> Loading<S> {
        Loading {
            data: Data::new(state),
        }
    }
}

impl<S: State> Restore for Loading<S> {
    fn key(&mut self, key: &str, value: &[u8], revision: Seq) {
        self.data.load_key(key, value, revision);
    }

    fn sessions(&mut self, sessions: Vec<SessionRecord>) {
        self.data.sessions_mut().load(sessions);
    }

    fn evicted(&mut self, names: Vec<(Seq, u32, SessionUuid)>) {
        for (by, place, uuid) in names {
            self.data.sessions_mut().remember_evicted(by, place, uuid);
        }
    }

    fn clear(&mut self) {
        self.data.clear();
    }
}

impl<S: State> Replica<S> {
    /// A node that starts again with what its disk held. It is no member of any view before it is told so: its
    /// boot is new.
    ///
    /// Of the log only what the checkpoint needs is applied, and what is known to be committed. The rest may have
    /// been decided otherwise meanwhile.
    ///
    /// # Errors
    /// Where the log does not reach from the checkpoint's base to where it is whole.
    pub fn restore(
        config: Config,
        loading: Loading<S>,
        restored: Restored,
    ) -> Result<Replica<S>, RestoreError> {
        let Restored {
            meta,
            checkpoint,
            log_base,
            committed,
            log,
        } = restored;
        let (base, whole_at) = checkpoint.unwrap_or_default();
        let mut kept = Log::after(log_base);
        for batch in log {
            kept.append(batch);
        }
        let error = RestoreError {
            base: log_base.last,
            last: kept.last(),
            from: base.last,
            to: whole_at,
        };
        if log_base.last > base.last || kept.last() < whole_at || kept.epoch_at(base.last).is_none()
        {
            return Err(error);
        }
        let known = whole_at.max(committed.min(kept.last()));
        let mut data = loading.data;
        data.begin_replay(base.last);
        for batch in kept.after_seq(base.last) {
            for entry in batch.entries() {
                if entry.seq > base.last && entry.seq <= known {
                    data.replay(&entry);
                }
            }
        }
        data.end_replay();
        let durable = kept.last();
        let log_bytes = kept
            .after_seq(base.last)
            .map(|b| b.bytes().len() as u64)
            .sum();
        let mut replica = Replica::empty(config, data);
        replica.saving = Saving::restored(log_bytes);
        replica.meta = meta;
        replica.log = kept;
        replica.durable = durable;
        Ok(replica)
    }
}
