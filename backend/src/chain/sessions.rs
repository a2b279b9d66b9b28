//! The replicated sessions: what came of each session's recent writes.
//!
//! Everything here is a function of the log. The head decides which sessions an entry evicts and says so in
//! the entry; forgetting inside one session (its 1,024 highest ids, within 4 MiB) follows from what the
//! session holds. Sessions evicted lately are remembered by name, so that a `hello` that reopens one
//! is never mistaken for a resumption.

use kvservice_shared::chain::{AnswerBody, OpenToken, OutcomeRecord, SessionRecord, StoredOutcome};
use kvservice_shared::ids::{RequestId, Seq, SessionSeq, SessionUuid};
use kvservice_shared::limits;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Names of evicted sessions that are remembered.
const EVICTED_MAX: usize = 65_536;
/// What a session costs beside its outcomes, in bytes.
const SESSION_COST: usize = 256;

/// Bytes that an outcome costs.
#[must_use]
pub fn outcome_cost(found_len: usize) -> usize {
    96 + found_len
}

fn record_cost(record: &OutcomeRecord) -> usize {
    outcome_cost(match &record.outcome {
        StoredOutcome::NotSwapped {
            found: Some(value), ..
        } => value.0.len(),
        _ => 0,
    })
}

/// One session.
#[derive(Debug)]
pub struct Session {
    uuid: SessionUuid,
    token: OpenToken,
    reopened: bool,
    last_used: Seq,
    /// Under which use it stands in `by_use`: the last one, or an earlier one while it is in `used`.
    listed: Seq,
    forgotten: u64,
    /// By growing id. Ids nearly always grow, so this is a queue.
    outcomes: VecDeque<(RequestId, OutcomeRecord)>,
    bytes: usize,
}

impl Session {
    /// What came of a write, if it is remembered.
    #[must_use]
    pub fn outcome(&self, request: RequestId) -> Option<&OutcomeRecord> {
        // Most are asked for before they are there.
        if self.outcomes.back().is_none_or(|(last, _)| *last < request) {
            return None;
        }
        let at = self
            .outcomes
            .binary_search_by_key(&request, |(id, _)| *id)
            .ok()?;
        Some(&self.outcomes[at].1)
    }

    /// The highest id whose outcome was forgotten; 0 for none.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Outcomes remembered, and their bytes.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.outcomes.len(), self.bytes)
    }

    /// The lowest remembered id above `id`, and its cost.
    #[must_use]
    pub fn lowest_above(&self, id: u64) -> Option<(RequestId, usize)> {
        // Nearly always near the front: bisecting looks at a dozen places in memory that is not at hand.
        const NEAR: usize = 64;
        let above = |(known, _): &(RequestId, OutcomeRecord)| known.0 > id;
        let near = self.outcomes.iter().take(NEAR).position(above);
        let at = near.unwrap_or_else(|| self.outcomes.partition_point(|outcome| !above(outcome)));
        self.outcomes
            .get(at)
            .map(|(known, record)| (*known, record_cost(record)))
    }

    /// The `hello` that opened it.
    #[must_use]
    pub fn opened(&self) -> OpenToken {
        self.token
    }

    /// The answer to a `hello` that names this session.
    ///
    /// A repetition of the `hello` that opened it is told what that one was told. A session that was
    /// evicted and reopened is resumed only once it has a write of its own: what the client sent before
    /// the eviction is not known here.
    #[must_use]
    pub fn resumed(&self, token: OpenToken) -> bool {
        token != self.token && !(self.reopened && self.outcomes.is_empty() && self.forgotten == 0)
    }
}

/// The answer that a stored outcome stands for.
#[must_use]
pub fn answer(record: &OutcomeRecord) -> AnswerBody {
    match &record.outcome {
        StoredOutcome::Set => AnswerBody::Set {
            revision: record.seq,
        },
        StoredOutcome::Swapped => AnswerBody::Swapped {
            revision: record.seq,
        },
        StoredOutcome::NotSwapped { found, revision } => AnswerBody::NotSwapped {
            found: found.clone(),
            revision: *revision,
        },
        StoredOutcome::Deleted => AnswerBody::Deleted {
            revision: Some(record.seq),
        },
        StoredOutcome::NothingToDelete => AnswerBody::Deleted { revision: None },
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    by_seq: BTreeMap<SessionSeq, Session>,
    by_uuid: HashMap<SessionUuid, SessionSeq>,
    /// Under the use that is [`Session::listed`].
    by_use: BTreeSet<(Seq, SessionSeq)>,
    /// Sessions that were used since they were listed, each once: most of the time nobody asks for the order.
    used: Vec<SessionSeq>,
    bytes: usize,
    evicted: BTreeMap<(Seq, u32), SessionUuid>,
    evicted_names: HashMap<SessionUuid, u32>,
    hash: u64,
}

fn outcome_hash(session: SessionSeq, request: RequestId, record: &OutcomeRecord) -> u64 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&session.0.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&request.0.to_le_bytes());
    bytes[16..].copy_from_slice(&record.seq.0.to_le_bytes());
    xxh3_64_with_seed(&bytes, record.hash)
}

fn session_hash(session: SessionSeq, uuid: SessionUuid) -> u64 {
    xxh3_64_with_seed(uuid.0.as_bytes(), session.0.0)
}

impl Sessions {
    /// The session, if it is open.
    #[must_use]
    pub fn get(&self, session: SessionSeq) -> Option<&Session> {
        self.by_seq.get(&session)
    }

    /// The open session of this name.
    #[must_use]
    pub fn named(&self, uuid: SessionUuid) -> Option<SessionSeq> {
        self.by_uuid.get(&uuid).copied()
    }

    /// Sessions, and the bytes that they take.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.by_seq.len(), self.bytes)
    }

    /// Sessions, least recently used first.
    pub fn by_use(&mut self) -> impl Iterator<Item = SessionSeq> {
        self.list_used();
        self.by_use.iter().map(|(_, session)| *session)
    }

    fn list_used(&mut self) {
        for session in self.used.drain(..) {
            if let Some(open) = self.by_seq.get_mut(&session) {
                self.by_use.remove(&(open.listed, session));
                open.listed = open.last_used;
                self.by_use.insert((open.listed, session));
            }
        }
    }

    /// Hash of all sessions and outcomes, whatever the order they came in.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Opens a session. Opening one that a snapshot brought already changes nothing.
    pub fn open(&mut self, session: SessionSeq, uuid: SessionUuid, token: OpenToken) {
        if self.by_seq.contains_key(&session) {
            return;
        }
        let reopened = self.evicted_names.contains_key(&uuid);
        self.insert(SessionRecord {
            session,
            uuid,
            token,
            reopened,
            last_used: session.0,
            forgotten: 0,
            outcomes: Vec::new(),
        });
    }

    /// Removes a session and remembers its name. `by` is the entry that evicts it, `place` its place there.
    pub fn evict(&mut self, session: SessionSeq, by: Seq, place: u32) {
        if let Some(uuid) = self.remove(session) {
            self.remember_evicted(by, place, uuid);
        }
    }

    /// Records what came of a write. `false`: the session is not open. A write that a snapshot
    /// brought already, or that is forgotten, changes nothing.
    pub fn record(
        &mut self,
        session: SessionSeq,
        request: RequestId,
        record: OutcomeRecord,
    ) -> bool {
        let Some(open) = self.by_seq.get_mut(&session) else {
            return false;
        };
        if request.0 <= open.forgotten {
            return true;
        }
        let at = match open.outcomes.back() {
            Some((last, _)) if *last >= request => {
                match open.outcomes.binary_search_by_key(&request, |(id, _)| *id) {
                    Ok(_) => return true,
                    Err(at) => at,
                }
            }
            _ => open.outcomes.len(),
        };
        if record.seq > open.last_used {
            if open.listed == open.last_used {
                self.used.push(session);
            }
            open.last_used = record.seq;
        }
        let cost = record_cost(&record);
        self.hash = self
            .hash
            .wrapping_add(outcome_hash(session, request, &record));
        open.outcomes.insert(at, (request, record));
        open.bytes += cost;
        self.bytes += cost;
        while open.outcomes.len() > limits::SESSION_OUTCOMES_MAX
            || open.bytes > limits::SESSION_OUTCOME_BYTES_MAX
        {
            let Some((id, old)) = open.outcomes.pop_front() else {
                break;
            };
            open.forgotten = id.0;
            let cost = record_cost(&old);
            open.bytes -= cost;
            self.bytes -= cost;
            self.hash = self.hash.wrapping_sub(outcome_hash(session, id, &old));
        }
        true
    }

    /// The sessions opened after `after`, for a snapshot, until their bytes pass `bytes_max`.
    #[must_use]
    pub fn page(&self, after: SessionSeq, bytes_max: usize) -> (Vec<SessionRecord>, bool) {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut page = Vec::new();
        let mut bytes = 0;
        for (&session, open) in self.by_seq.range((Excluded(after), Unbounded)) {
            if bytes >= bytes_max {
                return (page, true);
            }
            bytes += SESSION_COST + open.bytes;
            page.push(SessionRecord {
                session,
                uuid: open.uuid,
                token: open.token,
                reopened: open.reopened,
                last_used: open.last_used,
                forgotten: open.forgotten,
                outcomes: open.outcomes.iter().cloned().collect(),
            });
        }
        (page, false)
    }

    /// The names of sessions evicted lately, for a snapshot.
    #[must_use]
    pub fn evicted(&self) -> Vec<(Seq, u32, SessionUuid)> {
        self.evicted
            .iter()
            .map(|(&(seq, place), &uuid)| (seq, place, uuid))
            .collect()
    }

    /// Takes in a page of a snapshot: what else was opened in its range goes.
    pub fn replace(
        &mut self,
        after: SessionSeq,
        through: Option<SessionSeq>,
        page: Vec<SessionRecord>,
    ) {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        if through.is_some_and(|through| through <= after) {
            return;
        }
        let range = (Excluded(after), through.map_or(Unbounded, Included));
        let gone: Vec<SessionSeq> = self
            .by_seq
            .range(range)
            .map(|(session, _)| *session)
            .collect();
        for session in gone {
            self.remove(session);
        }
        for record in page {
            self.insert(record);
        }
    }

    /// Takes in sessions of a checkpoint.
    pub fn load(&mut self, sessions: Vec<SessionRecord>) {
        for record in sessions {
            self.insert(record);
        }
    }

    /// Takes in the names of a snapshot.
    pub fn remember_evicted(&mut self, by: Seq, place: u32, uuid: SessionUuid) {
        if self.evicted.insert((by, place), uuid).is_some() {
            return;
        }
        *self.evicted_names.entry(uuid).or_insert(0) += 1;
        if self.evicted.len() > EVICTED_MAX
            && let Some((_, oldest)) = self.evicted.pop_first()
            && let Some(count) = self.evicted_names.get_mut(&oldest)
        {
            *count -= 1;
            if *count == 0 {
                self.evicted_names.remove(&oldest);
            }
        }
    }

    fn insert(&mut self, record: SessionRecord) {
        let SessionRecord {
            session,
            uuid,
            token,
            reopened,
            last_used,
            forgotten,
            outcomes,
        } = record;
        self.remove(session);
        let bytes = outcomes
            .iter()
            .map(|(_, outcome)| record_cost(outcome))
            .sum::<usize>();
        self.bytes += SESSION_COST + bytes;
        self.hash = self.hash.wrapping_add(session_hash(session, uuid));
        for (request, outcome) in &outcomes {
            self.hash = self
                .hash
                .wrapping_add(outcome_hash(session, *request, outcome));
        }
        self.by_use.insert((last_used, session));
        self.by_uuid.insert(uuid, session);
        let outcomes = outcomes.into();
        let open = Session {
            uuid,
            token,
            reopened,
            last_used,
            listed: last_used,
            forgotten,
            outcomes,
            bytes,
        };
        self.by_seq.insert(session, open);
    }

    fn remove(&mut self, session: SessionSeq) -> Option<SessionUuid> {
        let open = self.by_seq.get(&session)?;
        if open.listed != open.last_used {
            // Nothing that is gone stays in `used`.
            self.list_used();
        }
        let open = self.by_seq.remove(&session)?;
        self.bytes -= SESSION_COST + open.bytes;
        self.hash = self.hash.wrapping_sub(session_hash(session, open.uuid));
        for (request, record) in &open.outcomes {
            self.hash = self
                .hash
                .wrapping_sub(outcome_hash(session, *request, record));
        }
        self.by_use.remove(&(open.listed, session));
        if self.by_uuid.get(&open.uuid) == Some(&session) {
            self.by_uuid.remove(&open.uuid);
        }
        Some(open.uuid)
    }
}
