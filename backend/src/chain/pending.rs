//! What a head knows beyond the applied state: the effect of entries that it ordered and that are not
//! committed yet. Decisions are made against the state *as it will be* after all of them.
//!
//! Laid over [`Data`], it answers: what will this key hold, which sessions will be open, what will each
//! have forgotten. It is made anew from the log by every new head, and shrinks as entries are applied.

use super::data::Data;
use super::sessions::outcome_cost;
use crate::storage::{Record, State};
use bytes::Bytes;
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::OpenToken;
use kvservice_shared::codec::{Decision, Effect, Entry};
use kvservice_shared::ids::{ConnId, RequestId, Seq, SessionSeq, SessionUuid};
use kvservice_shared::limits;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// No client connection has this number: for entries that an earlier head ordered.
pub const NO_CONN: ConnId = ConnId(0);

/// The overlay.
#[derive(Debug, Default)]
pub struct Pending {
    keys: HashMap<String, VecDeque<PendingKey>>,
    sessions: HashMap<SessionSeq, PendingSession>,
    opened: HashMap<SessionUuid, (SessionSeq, OpenToken)>,
    evicted: HashSet<SessionSeq>,
    /// Sessions with pending entries, least recently used first.
    by_use: BTreeMap<Seq, SessionSeq>,
    /// Bytes that pending outcomes will add, at most.
    bytes: usize,
    /// Which key each pending entry touches, oldest first.
    order: VecDeque<Touched>,
}

#[derive(Debug)]
struct PendingKey {
    seq: Seq,
    conn: ConnId,
    change: Change,
}

#[derive(Debug)]
enum Change {
    Put(Bytes),
    Remove,
    None,
}

#[derive(Debug)]
struct Touched {
    seq: Seq,
    key: Option<String>,
    session: SessionSeq,
    cost: usize,
}

#[derive(Debug, Default)]
struct PendingSession {
    ids: BTreeMap<RequestId, (u64, Seq, usize)>,
    opened: bool,
    uuid: Option<SessionUuid>,
    last_used: Seq,
    forgotten: u64,
    count: usize,
    bytes: usize,
}

/// What is known of a write before it is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Not seen: a first attempt.
    New,
    /// Ordered with this hash, and not committed yet.
    Pending(u64, Seq),
    /// Committed: the outcome is in the sessions.
    Applied,
    /// At or below the highest id forgotten.
    Forgotten,
    /// The session is not open.
    NoSession,
}

impl Pending {
    /// What a key will hold.
    pub fn get<S: State>(&self, data: &Data<S>, key: &str) -> Option<Record> {
        let queue = self.keys.get(key);
        let newest = queue.and_then(|queue| {
            queue
                .iter()
                .rev()
                .find(|write| !matches!(write.change, Change::None))
        });
        match newest {
            Some(PendingKey {
                change: Change::Put(value),
                seq,
                ..
            }) => Some(Record {
                value: value.clone(),
                revision: *seq,
            }),
            Some(_) => None,
            None => data.get(key),
        }
    }

    /// The last pending write of this connection to a key.
    pub fn last_of(&self, conn: ConnId, key: &str) -> Option<Seq> {
        self.keys
            .get(key)?
            .iter()
            .rev()
            .find(|write| write.conn == conn)
            .map(|write| write.seq)
    }

    /// The last pending write of this connection to a key with this prefix.
    pub fn last_of_prefix(&self, conn: ConnId, prefix: &str) -> Option<Seq> {
        let touches = |touched: &&Touched| {
            touched.key.as_deref().is_some_and(|key| {
                key.starts_with(prefix)
                    && self.keys.get(key).is_some_and(|queue| {
                        queue.iter().any(|w| w.seq == touched.seq && w.conn == conn)
                    })
            })
        };
        self.order
            .iter()
            .rev()
            .find(touches)
            .map(|touched| touched.seq)
    }

    /// The session of this name as it will be: pending, or applied and not about to be evicted.
    pub fn session_named<S: State>(&self, data: &Data<S>, uuid: SessionUuid) -> Option<Named> {
        if let Some(&(session, token)) = self.opened.get(&uuid) {
            return Some(Named::Pending(session, token));
        }
        let session = data.sessions().named(uuid)?;
        (!self.evicted.contains(&session)).then_some(Named::Applied(session))
    }

    /// What is known of a write.
    pub fn known<S: State>(
        &self,
        data: &Data<S>,
        session: SessionSeq,
        request: RequestId,
    ) -> Known {
        if self.evicted.contains(&session) {
            return Known::NoSession;
        }
        let pending = self.sessions.get(&session);
        let applied = data.sessions().get(session);
        if let Some(pending) = pending
            && let Some(&(hash, seq, _)) = pending.ids.get(&request)
            && !canary::is_on(Canary::PendingForgotten)
        {
            return Known::Pending(hash, seq);
        }
        let forgotten = match (pending, applied) {
            (Some(pending), _) => pending.forgotten,
            (None, Some(applied)) => applied.forgotten(),
            (None, None) => return Known::NoSession,
        };
        if request.0 <= forgotten && !canary::is_on(Canary::WindowForgotten) {
            return Known::Forgotten;
        }
        match applied {
            Some(applied) if applied.outcome(request).is_some() => Known::Applied,
            _ => Known::New,
        }
    }

    /// The sessions that must go so that all stay within their limits, with `opening` one more of them.
    pub fn to_evict<S: State>(
        &self,
        data: &Data<S>,
        opening: bool,
        spare: SessionSeq,
    ) -> Vec<SessionSeq> {
        let (applied, applied_bytes) = data.sessions().size();
        let mut count = applied + self.opened.len() + usize::from(opening);
        let mut bytes = applied_bytes + self.bytes;
        // Of those that will be evicted, what was opened lately is not counted any more.
        for evicted in self.evicted.iter().filter_map(|s| data.sessions().get(*s)) {
            count -= 1;
            bytes -= evicted.size().1.min(bytes);
        }
        let mut gone = Vec::new();
        if count <= limits::SESSIONS_MAX && bytes <= limits::SESSIONS_BYTES_MAX {
            return gone;
        }
        // Applied sessions without pending entries come first: whatever is pending is newer.
        let idle = data
            .sessions()
            .by_use()
            .filter(|s| !self.sessions.contains_key(s));
        let busy = self.by_use.values().copied();
        for session in idle.chain(busy) {
            if count <= limits::SESSIONS_MAX && bytes <= limits::SESSIONS_BYTES_MAX {
                break;
            }
            let going = self.evicted.contains(&session) && !canary::is_on(Canary::EvictTwice);
            if session == spare || going || gone.len() == 255 {
                continue;
            }
            count -= 1;
            bytes -= data
                .sessions()
                .get(session)
                .map_or(0, |s| s.size().1)
                .min(bytes);
            gone.push(session);
        }
        gone
    }

    /// Lays an ordered entry over the rest.
    pub fn ordered<S: State>(&mut self, data: &Data<S>, entry: &Entry<'_>, conn: ConnId) {
        let seq = entry.seq;
        for session in &entry.evict {
            self.evicted.insert(*session);
            if let Some(gone) = self.sessions.get_mut(session)
                && let Some(uuid) = gone.uuid
                && self
                    .opened
                    .get(&uuid)
                    .is_some_and(|(open, _)| open == session)
            {
                self.opened.remove(&uuid);
            }
        }
        let (session, key, cost) = match entry.effect {
            Effect::Open { uuid, token } => {
                let session = SessionSeq(seq);
                self.opened.insert(uuid, (session, token));
                let open = self.sessions.entry(session).or_default();
                open.opened = true;
                open.uuid = Some(uuid);
                (session, None, 256)
            }
            Effect::Write {
                session,
                request,
                hash,
                decision,
            } => {
                let (key, change, found) = match decision {
                    Decision::Set { key, value } | Decision::Swapped { key, value } => {
                        (Some(key), Change::Put(Bytes::copy_from_slice(value)), 0)
                    }
                    Decision::Deleted { key } => (Some(key), Change::Remove, 0),
                    Decision::NotSwapped { found, .. } => {
                        (None, Change::None, found.map_or(0, <[u8]>::len))
                    }
                    Decision::NothingToDelete => (None, Change::None, 0),
                };
                let cost = outcome_cost(found);
                self.count_outcome(data, session, request, (hash, seq, cost));
                if let Some(key) = key {
                    let write = PendingKey { seq, conn, change };
                    match self.keys.get_mut(key) {
                        Some(queue) => queue.push_back(write),
                        None => {
                            self.keys.insert(key.to_owned(), VecDeque::from([write]));
                        }
                    }
                }
                (session, key.map(str::to_owned), cost)
            }
        };
        self.use_session(session, seq);
        self.bytes += cost;
        self.order.push_back(Touched {
            seq,
            key,
            session,
            cost,
        });
    }

    /// A write that changes nothing still comes before later reads of its connection.
    pub fn touched_without_effect(&mut self, key: &str, conn: ConnId) {
        if let Some(touched) = self.order.back_mut()
            && touched.key.is_none()
        {
            touched.key = Some(key.to_owned());
            let write = PendingKey {
                seq: touched.seq,
                conn,
                change: Change::None,
            };
            self.keys
                .entry(key.to_owned())
                .or_default()
                .push_back(write);
        }
    }

    fn count_outcome<S: State>(
        &mut self,
        data: &Data<S>,
        session: SessionSeq,
        request: RequestId,
        record: (u64, Seq, usize),
    ) {
        let applied = data.sessions().get(session);
        let pending = self.sessions.entry(session).or_default();
        if pending.ids.is_empty()
            && !pending.opened
            && let Some(applied) = applied
        {
            (pending.count, pending.bytes) = applied.size();
            pending.forgotten = applied.forgotten();
        }
        pending.ids.insert(request, record);
        pending.count += 1;
        pending.bytes += record.2;
        // Forgets as the session itself will when the entry is applied.
        while pending.count > limits::SESSION_OUTCOMES_MAX
            || pending.bytes > limits::SESSION_OUTCOME_BYTES_MAX
        {
            let after = RequestId(pending.forgotten);
            let waiting = pending
                .ids
                .range((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded))
                .next()
                .map(|(id, (_, _, cost))| (*id, *cost));
            let known = applied.and_then(|applied| applied.lowest_above(pending.forgotten));
            let (lowest, cost) = match (waiting, known) {
                (Some(a), Some(b)) => {
                    if a.0 <= b.0 {
                        a
                    } else {
                        b
                    }
                }
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => break,
            };
            pending.forgotten = lowest.0;
            pending.count -= 1;
            pending.bytes -= cost;
        }
    }

    fn use_session(&mut self, session: SessionSeq, seq: Seq) {
        let pending = self.sessions.entry(session).or_default();
        self.by_use.remove(&pending.last_used);
        pending.last_used = seq;
        self.by_use.insert(seq, session);
    }

    /// The oldest pending entry was applied: it is in [`Data`] now.
    pub fn applied(&mut self, entry: &Entry<'_>) {
        let Some(touched) = self.order.pop_front() else {
            return;
        };
        assert_eq!(
            touched.seq, entry.seq,
            "entries are applied in the order they were ordered"
        );
        for session in &entry.evict {
            self.evicted.remove(session);
        }
        if let Some(key) = &touched.key
            && let Some(queue) = self.keys.get_mut(key)
        {
            if queue.front().is_some_and(|write| write.seq == entry.seq) {
                queue.pop_front();
            }
            if queue.is_empty() {
                self.keys.remove(key);
            }
        }
        self.bytes -= touched.cost;
        let Some(pending) = self.sessions.get_mut(&touched.session) else {
            return;
        };
        match entry.effect {
            Effect::Open { uuid, .. } => {
                pending.opened = false;
                if self
                    .opened
                    .get(&uuid)
                    .is_some_and(|(open, _)| *open == touched.session)
                {
                    self.opened.remove(&uuid);
                }
            }
            Effect::Write { request, .. } => {
                pending.ids.remove(&request);
            }
        }
        if pending.ids.is_empty() && !pending.opened {
            self.by_use.remove(&pending.last_used);
            self.sessions.remove(&touched.session);
        }
    }
}

/// A session found by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// Its opening is not committed yet.
    Pending(SessionSeq, OpenToken),
    /// It is in the applied state.
    Applied(SessionSeq),
}
