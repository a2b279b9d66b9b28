//! What a head knows beyond the applied state: the effect of entries that it ordered and that are not
//! committed yet. Decisions are made against the state *as it will be* after all of them.
//!
//! Laid over [`Data`], it answers: what will this key hold, which sessions will be open, what will each
//! have forgotten. It is made anew from the log by every new head, and shrinks as entries are applied.

use super::data::Data;
use super::sessions::outcome_cost;
use crate::storage::{Record, State};
use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable, hash_table};
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::OpenToken;
use kvservice_shared::codec::{Decision, Effect, Entry};
use kvservice_shared::ids::{ConnId, RequestId, Seq, SessionSeq, SessionUuid};
use kvservice_shared::limits;
use std::collections::VecDeque;
use std::hash::BuildHasher;

/// Sessions that one entry can evict.
const EVICTIONS_MAX: usize = 255;
/// No client connection has this number: for entries that an earlier head ordered.
const NO_CONN: ConnId = ConnId(0);

/// The overlay.
#[derive(Debug, Default)]
pub struct Pending {
    /// What each pending entry touches, oldest first: one for each sequence number.
    order: VecDeque<Touched>,
    /// Of each key that is touched, the newest entry that touches it.
    newest: HashTable<Seq>,
    hasher: DefaultHashBuilder,
    sessions: HashMap<SessionSeq, PendingSession>,
    opened: HashMap<SessionUuid, (SessionSeq, OpenToken)>,
    evicted: HashSet<SessionSeq>,
    /// Bytes that pending outcomes will add, at most.
    bytes: usize,
}

/// What an entry does to a key that it touches.
#[derive(Debug)]
pub enum Change {
    /// Writes this value.
    Put(Bytes),
    /// Removes it.
    Remove,
    /// Nothing, but it was looked at: later reads of the connection come after it.
    None,
}

/// The key that an entry touches, and what it does to it.
#[derive(Debug)]
pub struct Touch {
    /// The key.
    pub key: String,
    /// What it does to it.
    pub change: Change,
    /// The connection that asked for it.
    pub conn: ConnId,
}

impl Touch {
    /// What an entry of the log touches, whoever asked for it.
    pub fn of_log(effect: &Effect<'_>) -> Option<Touch> {
        let Effect::Write { decision, .. } = effect else {
            return None;
        };
        let (key, change) = match *decision {
            Decision::Set { key, value } | Decision::Swapped { key, value } => {
                (key, Change::Put(Bytes::copy_from_slice(value)))
            }
            Decision::Deleted { key } => (key, Change::Remove),
            Decision::NotSwapped { .. } | Decision::NothingToDelete => return None,
        };
        Some(Touch {
            key: key.to_owned(),
            change,
            conn: NO_CONN,
        })
    }
}

/// What of an ordered entry counts beside the key that it touches.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// It opens a session.
    Open(SessionUuid, OpenToken),
    /// It decides a write.
    Write {
        /// The session that it belongs to.
        session: SessionSeq,
        /// The client's id.
        request: RequestId,
        /// Hash of the request.
        hash: u64,
        /// Bytes that its outcome costs.
        cost: usize,
    },
}

impl From<&Effect<'_>> for What {
    fn from(effect: &Effect<'_>) -> What {
        match *effect {
            Effect::Open { uuid, token } => What::Open(uuid, token),
            Effect::Write {
                session,
                request,
                hash,
                decision,
            } => {
                let found = match decision {
                    Decision::NotSwapped { found, .. } => found.map_or(0, <[u8]>::len),
                    _ => 0,
                };
                What::Write {
                    session,
                    request,
                    hash,
                    cost: outcome_cost(found),
                }
            }
        }
    }
}

#[derive(Debug)]
struct Touched {
    seq: Seq,
    touch: Option<Touch>,
    /// The entry before it that touches the same key; maybe one that is applied by now.
    earlier: Option<Seq>,
    session: SessionSeq,
    cost: usize,
}

/// A pending write of a session.
#[derive(Clone, Copy, Debug)]
struct PendingWrite {
    request: RequestId,
    hash: u64,
    seq: Seq,
    cost: usize,
}

#[derive(Debug, Default)]
struct PendingSession {
    /// By growing id. Ids nearly always grow, so this is a queue.
    writes: VecDeque<PendingWrite>,
    opened: bool,
    uuid: Option<SessionUuid>,
    last_used: Seq,
    forgotten: u64,
    count: usize,
    bytes: usize,
}

impl PendingSession {
    /// Where the write with this id is, or would be.
    fn place(&self, request: RequestId) -> Result<usize, usize> {
        match (self.writes.front(), self.writes.back()) {
            (_, Some(last)) if last.request < request => Err(self.writes.len()),
            (Some(first), _) if first.request == request => Ok(0),
            _ => self
                .writes
                .binary_search_by_key(&request, |write| write.request),
        }
    }

    fn write(&self, request: RequestId) -> Option<&PendingWrite> {
        let at = self.place(request).ok()?;
        self.writes.get(at)
    }
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
    /// The pending entries that touch a key, newest first.
    fn touching<'a>(&'a self, key: &str) -> impl Iterator<Item = (Seq, &'a Touch)> {
        let hash = self.hasher.hash_one(key);
        let is_it = |seq: &Seq| {
            let touched = self.at(*seq).and_then(|touched| touched.touch.as_ref());
            touched.is_some_and(|touch| touch.key == key)
        };
        let newest = match self.newest.is_empty() {
            true => None,
            false => self.newest.find(hash, is_it).copied(),
        };
        let chain = std::iter::successors(newest.and_then(|seq| self.at(seq)), |touched| {
            touched.earlier.and_then(|seq| self.at(seq))
        });
        chain.filter_map(|touched| Some((touched.seq, touched.touch.as_ref()?)))
    }

    /// A pending entry.
    fn at(&self, seq: Seq) -> Option<&Touched> {
        let first = self.order.front()?.seq;
        let at = seq.0.checked_sub(first.0)?;
        self.order.get(usize::try_from(at).ok()?)
    }

    /// What a key will hold.
    pub fn get<S: State>(&self, data: &Data<S>, key: &str) -> Option<Record> {
        let mut changes = self.touching(key);
        match changes.find(|(_, touch)| !matches!(touch.change, Change::None)) {
            Some((revision, touch)) => match &touch.change {
                Change::Put(value) => Some(Record {
                    value: value.clone(),
                    revision,
                }),
                Change::Remove | Change::None => None,
            },
            None => data.get(key),
        }
    }

    /// The last pending write of this connection to a key.
    pub fn last_of(&self, conn: ConnId, key: &str) -> Option<Seq> {
        let mut touching = self.touching(key);
        touching
            .find(|(_, touch)| touch.conn == conn)
            .map(|(seq, _)| seq)
    }

    /// The last pending write of this connection to a key with this prefix.
    pub fn last_of_prefix(&self, conn: ConnId, prefix: &str) -> Option<Seq> {
        let touches = |touched: &&Touched| {
            let touch = touched.touch.as_ref();
            touch.is_some_and(|touch| touch.conn == conn && touch.key.starts_with(prefix))
        };
        let newest = self.order.iter().rev().find(touches);
        newest.map(|touched| touched.seq)
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
            && let Some(write) = pending.write(request)
            && !canary::is_on(Canary::PendingForgotten)
        {
            return Known::Pending(write.hash, write.seq);
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
        data: &mut Data<S>,
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
        // As many as can go, those that are going already and `spare`.
        let wanted = EVICTIONS_MAX + self.evicted.len() + 1;
        let idle: Vec<SessionSeq> = data
            .sessions_mut()
            .by_use()
            .filter(|session| !self.sessions.contains_key(session))
            .take(wanted)
            .collect();
        let mut busy: Vec<(Seq, SessionSeq)> = Vec::new();
        if idle.len() < wanted {
            let pending = self.sessions.iter();
            busy.extend(pending.map(|(session, pending)| (pending.last_used, *session)));
            busy.sort_unstable();
        }
        let busy = busy.into_iter().map(|(_, session)| session);
        for session in idle.into_iter().chain(busy) {
            if count <= limits::SESSIONS_MAX && bytes <= limits::SESSIONS_BYTES_MAX {
                break;
            }
            let going = self.evicted.contains(&session) && !canary::is_on(Canary::EvictTwice);
            if session == spare || going || gone.len() == EVICTIONS_MAX {
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

    /// Lays an ordered entry over the rest: whom it evicts, what it is, what it touches.
    pub fn ordered<S: State>(
        &mut self,
        data: &Data<S>,
        seq: Seq,
        evict: &[SessionSeq],
        what: What,
        touch: Option<Touch>,
    ) {
        for session in evict {
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
        let (session, cost) = match what {
            What::Open(uuid, token) => {
                let session = SessionSeq(seq);
                self.opened.insert(uuid, (session, token));
                let open = self.sessions.entry(session).or_default();
                open.opened = true;
                open.uuid = Some(uuid);
                (session, 256)
            }
            What::Write {
                session,
                request,
                hash,
                cost,
            } => {
                let write = PendingWrite {
                    request,
                    hash,
                    seq,
                    cost,
                };
                self.count_outcome(data, session, write);
                (session, cost)
            }
        };
        self.sessions.entry(session).or_default().last_used = seq;
        self.bytes += cost;
        let earlier = touch.as_ref().and_then(|touch| self.touch(seq, &touch.key));
        self.order.push_back(Touched {
            seq,
            touch,
            earlier,
            session,
            cost,
        });
    }

    /// Notes that this entry is the newest one to touch a key; gives the one that was so far.
    fn touch(&mut self, seq: Seq, key: &str) -> Option<Seq> {
        let Pending {
            order,
            newest,
            hasher,
            ..
        } = self;
        let first = order.front().map_or(seq, |touched| touched.seq);
        let key_of = |seq: Seq| {
            let at = usize::try_from(seq.0 - first.0).ok();
            let touched = at.and_then(|at| order.get(at));
            touched.and_then(|touched| touched.touch.as_ref())
        };
        let hash = hasher.hash_one(key);
        let same = |other: &Seq| key_of(*other).is_some_and(|touch| touch.key == key);
        // Every entry in the table is pending, so its key is there.
        let rehash = |other: &Seq| match key_of(*other) {
            Some(touch) => hasher.hash_one(touch.key.as_str()),
            None => hash,
        };
        match newest.entry(hash, same, rehash) {
            hash_table::Entry::Occupied(mut known) => Some(std::mem::replace(known.get_mut(), seq)),
            hash_table::Entry::Vacant(place) => {
                place.insert(seq);
                None
            }
        }
    }

    fn count_outcome<S: State>(
        &mut self,
        data: &Data<S>,
        session: SessionSeq,
        write: PendingWrite,
    ) {
        let applied = data.sessions().get(session);
        let pending = self.sessions.entry(session).or_default();
        if pending.writes.is_empty()
            && !pending.opened
            && let Some(applied) = applied
        {
            (pending.count, pending.bytes) = applied.size();
            pending.forgotten = applied.forgotten();
        }
        match pending.place(write.request) {
            Ok(at) => pending.writes[at] = write,
            Err(at) => pending.writes.insert(at, write),
        }
        pending.count += 1;
        pending.bytes += write.cost;
        // Forgets as the session itself will when the entry is applied.
        while pending.count > limits::SESSION_OUTCOMES_MAX
            || pending.bytes > limits::SESSION_OUTCOME_BYTES_MAX
        {
            let forgotten = pending.forgotten;
            let at = pending
                .writes
                .partition_point(|write| write.request.0 <= forgotten);
            let waiting = pending.writes.get(at);
            let waiting = waiting.map(|write| (write.request, write.cost));
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
        if let Some(touch) = &touched.touch {
            let hash = self.hasher.hash_one(touch.key.as_str());
            // Else a newer one touches the key, and stands there instead.
            let newest = self.newest.find_entry(hash, |seq| *seq == entry.seq);
            if let Ok(newest) = newest {
                newest.remove();
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
                if let Ok(at) = pending.place(request) {
                    pending.writes.remove(at);
                }
            }
        }
        if pending.writes.is_empty() && !pending.opened {
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
