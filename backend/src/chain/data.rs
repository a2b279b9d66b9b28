//! The replicated state at the applied point: keys, sessions, and a hash of both.

use super::dump::Dumps;
use super::sessions::{self, Sessions};
use crate::storage::{Record, State};
use kvservice_shared::api::{ListEntry, Value};
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::{AnswerBody, OutcomeRecord, SnapshotPart, StoredOutcome};
use kvservice_shared::codec::{Decision, Effect, Entry};
use kvservice_shared::ids::{Seq, SessionSeq, Ticket};
use kvservice_shared::limits;
use std::ops::{Bound, ControlFlow};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The replicated state.
#[derive(Debug)]
pub struct Data<S> {
    state: S,
    sessions: Sessions,
    applied: Seq,
    keys_hash: u64,
    /// While a snapshot is under way, parts of the state are newer than `applied`.
    rolling: bool,
    dumps: Dumps,
}

/// Where a snapshot that is being read stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Next are the keys after this one.
    Keys(Option<String>),
    /// Next are the sessions opened after this one.
    Sessions(SessionSeq),
    /// Next are the names of evicted sessions.
    Evicted,
    /// Next is the end.
    End,
}

fn record_hash(key: &str, value: &[u8], revision: Seq) -> u64 {
    value_hash(xxh3_64(key.as_bytes()), value, revision)
}

fn value_hash(key_hash: u64, value: &[u8], revision: Seq) -> u64 {
    xxh3_64_with_seed(value, key_hash.wrapping_add(revision.0))
}

impl<S: State> Data<S> {
    /// Nothing at all, over an empty store.
    pub fn new(state: S) -> Data<S> {
        Data {
            state,
            sessions: Sessions::default(),
            applied: Seq::ZERO,
            keys_hash: 0,
            rolling: false,
            dumps: Dumps::default(),
        }
    }

    /// The last entry applied.
    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// Hash of keys and sessions. Equal on every node at the same applied point.
    pub fn hash(&self) -> u64 {
        self.keys_hash ^ self.sessions.hash().rotate_left(32)
    }

    /// The sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// What a key holds.
    pub fn get(&self, key: &str) -> Option<Record> {
        self.state.get(key)
    }

    /// Number of keys.
    pub fn keys(&self) -> u64 {
        self.state.keys()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.state.bytes()
    }

    /// These entries are applied next: gets what they write from far away.
    pub fn warm(&self, entries: &[Entry<'_>]) {
        self.state
            .warm(entries.iter().filter_map(|entry| match entry.effect {
                Effect::Write {
                    decision:
                        Decision::Set { key, .. }
                        | Decision::Swapped { key, .. }
                        | Decision::Deleted { key },
                    ..
                } => Some(key),
                _ => None,
            }));
    }

    /// These keys are read next.
    pub fn warm_keys<'k>(&self, keys: impl Iterator<Item = &'k str>) {
        self.state.warm(keys);
    }

    /// Applies the next entry.
    ///
    /// # Panics
    /// Where it is not the next one, or belongs to a session that is not open: bugs.
    pub fn apply(&mut self, entry: &Entry<'_>) {
        self.step(entry, Self::write);
    }

    /// The same while a checkpoint is taken in; the keys are there with [`Data::end_replay`].
    ///
    /// # Panics
    /// As [`Data::apply`].
    pub fn replay(&mut self, entry: &Entry<'_>) {
        self.step(entry, |data, key, value, seq| {
            data.state.load_newer(key, value, seq);
        });
    }

    fn step(&mut self, entry: &Entry<'_>, write: impl FnOnce(&mut Self, &str, Option<&[u8]>, Seq)) {
        assert_eq!(
            entry.seq,
            self.applied.next(),
            "entries are applied in order"
        );
        for (place, session) in entry.evict.iter().enumerate() {
            self.sessions.evict(
                *session,
                entry.seq,
                u32::try_from(place).unwrap_or(u32::MAX),
            );
        }
        match entry.effect {
            Effect::Open { uuid, token } => self.sessions.open(SessionSeq(entry.seq), uuid, token),
            Effect::Write {
                session,
                request,
                hash,
                decision,
            } => {
                let outcome = self.decide(entry.seq, decision, write);
                let record = OutcomeRecord {
                    hash,
                    seq: entry.seq,
                    outcome,
                };
                let open = self.sessions.record(session, request, record);
                assert!(
                    open || self.rolling,
                    "entry {} is of closed session {session}",
                    entry.seq
                );
            }
        }
        self.applied = entry.seq;
    }

    fn decide(
        &mut self,
        seq: Seq,
        decision: Decision<'_>,
        write: impl FnOnce(&mut Self, &str, Option<&[u8]>, Seq),
    ) -> StoredOutcome {
        match decision {
            Decision::Set { key, value } => {
                write(self, key, Some(value), seq);
                StoredOutcome::Set
            }
            Decision::Swapped { key, value } => {
                write(self, key, Some(value), seq);
                StoredOutcome::Swapped
            }
            Decision::Deleted { key } => {
                write(self, key, None, seq);
                StoredOutcome::Deleted
            }
            Decision::NotSwapped { found, revision } => StoredOutcome::NotSwapped {
                found: found.map(|value| Value(value.to_vec().into())),
                revision,
            },
            Decision::NothingToDelete => StoredOutcome::NothingToDelete,
        }
    }

    /// Whether a snapshot brought something newer already.
    fn newer(&self, key: &str, seq: Seq) -> bool {
        self.rolling
            && !canary::is_on(Canary::SnapshotUndone)
            && self
                .state
                .revision(key)
                .is_some_and(|revision| revision > seq)
    }

    /// Writes a key, or removes it.
    fn write(&mut self, key: &str, value: Option<&[u8]>, seq: Seq) {
        if self.newer(key, seq) {
            return;
        }
        let Some(value) = value else {
            if let Some(old) = self.state.remove(key) {
                self.forget_hash(key, &old);
                self.dumps.changed(key, &old.value, old.revision);
            }
            return;
        };
        let Data {
            state,
            keys_hash,
            dumps,
            ..
        } = self;
        let key_hash = xxh3_64(key.as_bytes());
        state.put(key, value, seq, &mut |old, revision| {
            debug_assert!(revision <= seq, "{key} goes from {revision} to {seq}");
            *keys_hash = keys_hash.wrapping_sub(value_hash(key_hash, old, revision));
            dumps.changed(key, old, revision);
        });
        *keys_hash = keys_hash.wrapping_add(value_hash(key_hash, value, seq));
    }

    fn forget_hash(&mut self, key: &str, old: &Record) {
        let hash = record_hash(key, &old.value, old.revision);
        self.keys_hash = self.keys_hash.wrapping_sub(hash);
    }

    /// Reads one key for a client.
    pub fn read(&self, key: &str) -> AnswerBody {
        match self.state.get(key) {
            Some(Record { value, revision }) => AnswerBody::Value {
                value: Some(Value(value)),
                revision,
            },
            None => AnswerBody::Value {
                value: None,
                revision: Seq::ZERO,
            },
        }
    }

    /// Reads one page of keys for a client.
    pub fn list(&self, prefix: &str, after: &str, limit: u32) -> AnswerBody {
        let from = if after.is_empty() || after < prefix {
            Bound::Included(prefix)
        } else {
            Bound::Excluded(after)
        };
        let mut entries: Vec<ListEntry> = Vec::new();
        let mut bytes = 0;
        let mut more = false;
        self.state.scan(from, &mut |key, value, revision| {
            if !key.starts_with(prefix) {
                return ControlFlow::Break(());
            }
            if entries.len() >= limit as usize || bytes >= limits::LIST_BYTES_MAX {
                more = true;
                return ControlFlow::Break(());
            }
            bytes += key.len() + value.len();
            let value = Value(value.to_vec().into());
            entries.push(ListEntry {
                key: key.to_owned(),
                value,
                revision,
            });
            ControlFlow::Continue(())
        });
        AnswerBody::List { entries, more }
    }

    /// Starts a dump of everything as it is now, and reads its first page for a client.
    pub fn start_dump(&mut self, dump: Ticket) -> AnswerBody {
        match self.dumps.start(dump, self.applied, self.state.keys()) {
            Ok(()) => self.dump_page(dump),
            Err(reason) => AnswerBody::NoDump { reason },
        }
    }

    /// Reads the next page of a dump for a client.
    pub fn dump_page(&mut self, dump: Ticket) -> AnswerBody {
        self.dumps.page(dump, &self.state)
    }

    /// The dumps that are being read.
    pub fn dumps_mut(&mut self) -> &mut Dumps {
        &mut self.dumps
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.dumps.clear();
        self.state.clear();
        self.sessions = Sessions::default();
        self.keys_hash = 0;
        self.applied = Seq::ZERO;
        self.rolling = false;
    }

    /// Drops everything, to take in a snapshot that starts at `at`.
    pub fn begin_snapshot(&mut self, at: Seq) {
        self.clear();
        self.applied = at;
        self.rolling = true;
    }

    /// Takes in a key of a checkpoint, into a store without it.
    pub fn load_key(&mut self, key: &str, value: &[u8], revision: Seq) {
        self.keys_hash = self
            .keys_hash
            .wrapping_add(record_hash(key, value, revision));
        self.state.load(key, value, revision);
    }

    /// A checkpoint that began at `base` was taken in: the log after that comes next, by [`Data::replay`].
    pub fn begin_replay(&mut self, base: Seq) {
        self.applied = base;
        self.rolling = true;
    }

    /// Checkpoint and log were taken in.
    pub fn end_replay(&mut self) {
        let hash = &mut self.keys_hash;
        self.state.loaded(&mut |counts, key, value, revision| {
            let record = record_hash(key, value, revision);
            *hash = match counts {
                true => hash.wrapping_add(record),
                false => hash.wrapping_sub(record),
            };
        });
        self.rolling = false;
    }

    /// Whether a snapshot is under way.
    pub fn is_rolling(&self) -> bool {
        self.rolling
    }

    /// The snapshot is whole: from here on nothing is newer than the applied point.
    pub fn end_snapshot(&mut self) {
        self.rolling = false;
    }

    /// Takes in a range of keys.
    pub fn replace_keys(
        &mut self,
        after: Option<&str>,
        through: Option<&str>,
        entries: &[(String, Value, Seq)],
    ) {
        let mut gone: Vec<String> = Vec::new();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.state.scan(from, &mut |key, _, _| {
            if through.is_some_and(|through| key > through) {
                return ControlFlow::Break(());
            }
            gone.push(key.to_owned());
            ControlFlow::Continue(())
        });
        for key in gone {
            if let Some(old) = self.state.remove(&key) {
                self.forget_hash(&key, &old);
            }
        }
        for (key, value, revision) in entries {
            let keys_hash = &mut self.keys_hash;
            self.state
                .put(key, &value.0, *revision, &mut |old, revision| {
                    *keys_hash = keys_hash.wrapping_sub(record_hash(key, old, revision));
                });
            *keys_hash = keys_hash.wrapping_add(record_hash(key, &value.0, *revision));
        }
    }

    /// The sessions, to take in a range of them.
    pub fn sessions_mut(&mut self) -> &mut Sessions {
        &mut self.sessions
    }

    /// Reads the next part of a snapshot, of about so many bytes; moves the cursor on.
    pub fn snapshot_part(&self, cursor: &mut Cursor, part_bytes: usize) -> SnapshotPart {
        match cursor.clone() {
            Cursor::Keys(after) => {
                let mut entries: Vec<(String, Value, Seq)> = Vec::new();
                let mut bytes = 0;
                let mut more = false;
                let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                self.state.scan(from, &mut |key, value, revision| {
                    if bytes >= part_bytes {
                        more = true;
                        return ControlFlow::Break(());
                    }
                    bytes += key.len() + value.len() + 16;
                    entries.push((key.to_owned(), Value(value.to_vec().into()), revision));
                    ControlFlow::Continue(())
                });
                let last = entries.last().map(|(key, ..)| key.clone());
                let through = if more { last } else { None };
                *cursor = match &through {
                    Some(key) => Cursor::Keys(Some(key.clone())),
                    None => Cursor::Sessions(SessionSeq(Seq::ZERO)),
                };
                SnapshotPart::Keys {
                    after,
                    through,
                    entries,
                }
            }
            Cursor::Sessions(after) => {
                let (mut sessions, more) = self.sessions.page(after, part_bytes);
                if canary::is_on(Canary::SnapshotWithoutSessions) {
                    sessions.clear();
                }
                let last = sessions.last().map(|session| session.session);
                let through = if more { last } else { None };
                *cursor = match through {
                    Some(session) => Cursor::Sessions(session),
                    None => Cursor::Evicted,
                };
                SnapshotPart::Sessions {
                    after,
                    through,
                    sessions,
                }
            }
            Cursor::Evicted => {
                let names = self.sessions.evicted();
                *cursor = Cursor::End;
                SnapshotPart::Evicted { names }
            }
            Cursor::End => SnapshotPart::End { at: self.applied },
        }
    }
}

/// The answer to a decided write.
pub fn answer_to(seq: Seq, decision: Decision<'_>) -> AnswerBody {
    match decision {
        Decision::Set { .. } => AnswerBody::Set { revision: seq },
        Decision::Swapped { .. } => AnswerBody::Swapped { revision: seq },
        Decision::NotSwapped { found, revision } => AnswerBody::NotSwapped {
            found: found.map(|v| Value(v.to_vec().into())),
            revision,
        },
        Decision::Deleted { .. } => AnswerBody::Deleted {
            revision: Some(seq),
        },
        Decision::NothingToDelete => AnswerBody::Deleted { revision: None },
    }
}

/// The answer to a repeated write that was decided before.
pub fn answer_again(record: &OutcomeRecord) -> AnswerBody {
    sessions::answer(record)
}
