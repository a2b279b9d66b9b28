//! What must hold whatever happens: the invariants of `docs/protocol.md`, seen from above all processes.
//!
//! The oracle looks into replicas after each event. It keeps the one history of committed entries, made from
//! whoever applies an entry first, and compares everybody else with it.

use crate::net::{Net, Way};
use crate::node::{Name, Node, name};
use crate::show;
use bytes::Bytes;
use kvservice_shared::chain::{Incarnation, View};
use kvservice_shared::codec::{Batch, Decision, Effect, Entry};
use kvservice_shared::ids::{Epoch, RequestId, Seq, SessionSeq, SessionUuid};
use kvservice_shared::limits::SESSIONS_MAX;
use std::collections::{BTreeMap, HashMap};

/// What is known of one life of a node.
#[derive(Debug, Default)]
struct Seen {
    epoch: Epoch,
    applied: Seq,
    whole: bool,
    /// Committed, and not compared yet. The log may have let go of them by the time a view is stored.
    uncompared: BTreeMap<Seq, Batch>,
    /// As a head: committed up to here, and checked to be everywhere.
    everywhere: Seq,
}

impl Seen {
    fn commits(&mut self, batch: &Batch) {
        let known = self.uncompared.insert(batch.first(), batch.clone());
        assert!(
            known.is_none_or(|known| known == *batch),
            "two batches are committed at {}",
            batch.first()
        );
    }

    /// Invariant 4.
    fn goes_on(&mut self, node: &Node) {
        let replica = &node.replica;
        if replica.view().is_none() {
            // New, or told that the cluster it waited for was given up.
            self.epoch = Epoch::NONE;
        }
        assert!(
            replica.epoch() >= self.epoch,
            "{} goes from epoch {} back to {}",
            name(node.id),
            self.epoch,
            replica.epoch()
        );
        self.epoch = replica.epoch();
    }
}

/// What a key held, from a revision on.
type Versions = Vec<(Seq, Option<Bytes>)>;

/// The committed history, and what was seen of everyone.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Committed batches by their first entry.
    batches: BTreeMap<Seq, Batch>,
    /// The last committed entry.
    end: Seq,
    /// The hash of the state at each applied point that somebody was seen at.
    hashes: BTreeMap<Seq, u64>,
    lives: BTreeMap<Incarnation, Seen>,
    sessions: HashMap<SessionSeq, SessionUuid>,
    /// The highest request id committed in each session.
    highest_ids: HashMap<SessionSeq, RequestId>,
    by_request: HashMap<(SessionUuid, RequestId), Vec<Seq>>,
    keys: BTreeMap<String, Versions>,
    view: Option<View>,
    view_in_doubt: bool,
    /// An operator gave up what the history held: it goes on from anywhere.
    given_up: bool,
    /// The front-end founded a second cluster, for the members of the first took its data with them.
    pub founded_anew: bool,
    /// The front-end was wiped, and told to found a cluster at once, whatever the nodes hold.
    pub may_found: bool,
    /// Sessions whose ids come out of order on purpose.
    pub any_order: bool,
}

impl Oracle {
    /// The last committed entry.
    pub fn end(&self) -> Seq {
        self.end
    }

    /// An operator decided to go on with what one node has: what was committed may be lost.
    pub fn give_up(&mut self) {
        let any_order = self.any_order;
        *self = Oracle {
            given_up: true,
            any_order,
            ..Oracle::default()
        };
    }

    /// The front-end lost its directory: a view that nobody heard of never was.
    pub fn doubt_view(&mut self) {
        self.view_in_doubt = true;
    }

    /// Whether the front-end lost its directory and made no view since; and had to look for what nodes hold.
    pub fn looks_for_data(&self) -> bool {
        self.view_in_doubt && !self.may_found
    }

    /// Where the writes of this name were committed, oldest first: more than one only after an eviction.
    pub fn committed(&self, session: SessionUuid, request: RequestId) -> &[Seq] {
        self.by_request
            .get(&(session, request))
            .map_or(&[], Vec::as_slice)
    }

    /// What a key held after an entry: the value and its revision.
    pub fn at(&self, key: &str, seq: Seq) -> (Option<&Bytes>, Seq) {
        let versions = self.keys.get(key).map_or(&[][..], Vec::as_slice);
        let at = versions.partition_point(|(from, _)| *from <= seq);
        match at.checked_sub(1).map(|at| &versions[at]) {
            Some((revision, Some(value))) => (Some(value), *revision),
            _ => (None, Seq::ZERO),
        }
    }

    /// Every value that was written: key, revision, value; of each key in order.
    pub fn writes(&self) -> impl Iterator<Item = (&str, Seq, &[u8])> {
        self.keys.iter().flat_map(|(key, versions)| {
            let values = versions.iter();
            values.filter_map(move |(revision, value)| {
                Some((key.as_str(), *revision, &value.as_ref()?[..]))
            })
        })
    }

    /// Every key that was ever written.
    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.keys.keys()
    }

    /// Looks at a node that took up a view and has not stored it. Nobody learns before of what it does in that view:
    /// it may never come to that.
    pub fn look_ahead(&mut self, node: &Node) {
        let (_, _, applied, _) = node.replica.points();
        let seen = self.lives.entry(node.id).or_default();
        seen.goes_on(node);
        for batch in node.replica.log().after_seq(seen.applied) {
            if batch.first() <= applied {
                seen.commits(batch);
            }
        }
    }

    /// Looks at a node after an event.
    pub fn observe(&mut self, node: &Node) {
        let replica = &node.replica;
        let (_, _, applied, hash) = replica.points();
        let who = name(node.id);
        let seen = self.lives.entry(node.id).or_default();
        seen.goes_on(node);
        let whole = replica.is_whole();
        let before = std::mem::replace(&mut seen.applied, applied);
        let was_whole = std::mem::replace(&mut seen.whole, whole);
        assert!(
            applied >= before || !(whole && was_whole),
            "{who} unapplies {before} to {applied}"
        );
        for batch in replica.log().after_seq(before) {
            if batch.first() <= applied {
                seen.commits(batch);
            }
        }
        for batch in std::mem::take(&mut seen.uncompared).values() {
            self.compare(who, batch, applied);
        }
        if whole {
            // Invariant 9.
            let known = *self.hashes.entry(applied).or_insert(hash);
            assert_eq!(
                known, hash,
                "{who} has another state at {applied} than others had"
            );
        }
    }

    /// Invariant 2: what is committed at one place is the same on every node, for ever.
    fn compare(&mut self, who: Name, batch: &Batch, applied: Seq) {
        if let Some(known) = self.batches.get(&batch.first()) {
            assert!(
                known == batch,
                "{who} commits {batch:?}, others had {known:?} there"
            );
        } else {
            let follows = batch.first() == self.end.next();
            assert!(
                follows || self.given_up,
                "{who} commits {batch:?}, committed is {}",
                self.end
            );
            self.batches.insert(batch.first(), batch.clone());
        }
        for entry in batch.entries() {
            if entry.seq > self.end && entry.seq <= applied {
                self.commit(&entry);
            }
        }
    }

    fn commit(&mut self, entry: &Entry<'_>) {
        self.end = entry.seq;
        let end = entry.seq;
        for session in &entry.evict {
            let open = self.sessions.remove(session).is_some();
            assert!(
                open || self.given_up,
                "{end} evicts session {session}, which is not open"
            );
        }
        match entry.effect {
            Effect::Open { uuid, .. } => {
                let twice = self.sessions.values().any(|open| *open == uuid);
                assert!(!twice, "{end} opens a session that is open");
                self.sessions.insert(SessionSeq(end), uuid);
                assert!(
                    self.sessions.len() <= SESSIONS_MAX,
                    "{end} opens one session too many"
                );
            }
            Effect::Write {
                session,
                request,
                decision,
                ..
            } => {
                let uuid = self.sessions.get(&session).copied();
                assert!(
                    uuid.is_some() || self.given_up,
                    "{end} is of {session}, which is not open"
                );
                // Invariant 7, and the order of one connection's writes.
                let highest = self.highest_ids.entry(session).or_insert(request);
                let is_first = *highest == request;
                assert!(
                    self.any_order || is_first || *highest < request,
                    "{end} is {session}#{request}, after #{highest}"
                );
                *highest = request.max(*highest);
                if let Some(uuid) = uuid {
                    let places = self.by_request.entry((uuid, request)).or_default();
                    let again = places.iter().any(|place| *place > session.0);
                    places.push(end);
                    assert!(!again, "{end} is {session}#{request} again: {places:?}");
                }
                self.change(end, decision);
            }
        }
    }

    fn change(&mut self, seq: Seq, decision: Decision<'_>) {
        let (key, value) = match decision {
            Decision::Set { key, value } | Decision::Swapped { key, value } => {
                (key, Some(Bytes::copy_from_slice(value)))
            }
            Decision::Deleted { key } => {
                let (held, _) = self.at(key, seq);
                assert!(
                    held.is_some() || self.given_up,
                    "{seq} deletes {key}, which holds nothing"
                );
                (key, None)
            }
            Decision::NotSwapped { .. } | Decision::NothingToDelete => return,
        };
        self.keys
            .entry(key.to_owned())
            .or_default()
            .push((seq, value));
    }

    /// The front-end made a view. Invariants 3, 5 and 6.
    pub fn view_made(&mut self, view: &View, nodes: &[&Node]) {
        if let Some(before) = self.view.replace(view.clone()) {
            if before.cluster != view.cluster {
                let left = nodes.iter().find(|node| before.position(node.id).is_some());
                assert!(
                    left.is_none() || self.may_found || self.view_in_doubt,
                    "a cluster is given up while {left:?} holds its data"
                );
                self.give_up();
                self.founded_anew = true;
                self.view = Some(view.clone());
                return;
            }
            let in_doubt = std::mem::take(&mut self.view_in_doubt);
            assert!(
                in_doubt || view.epoch > before.epoch,
                "view {} after {}",
                view.epoch,
                before.epoch
            );
            let ids = |view: &View| view.members.iter().map(|m| m.id.node).collect::<Vec<_>>();
            let (old, new) = (ids(&before), ids(view));
            let kept: Vec<_> = old.iter().filter(|id| new.contains(id)).copied().collect();
            let joined = kept == old && new.len() == old.len() + 1 && new[..old.len()] == old[..];
            let removed = kept == new;
            // Made in one step, and stored as one: a node joins just as another leaves.
            let several =
                view.epoch.number > before.epoch.number + 1 && new.len() <= kept.len() + 1;
            assert!(
                in_doubt || several || joined || removed,
                "view {} follows {}",
                show::view(view),
                show::view(&before)
            );
        }
        for node in nodes.iter().filter(|node| view.position(node.id).is_some()) {
            let (durable, ..) = node.replica.points();
            let who = name(node.id);
            assert!(
                durable >= self.end && node.replica.is_whole(),
                "{who} is a member of {} with {durable} of {}",
                show::view(view),
                self.end
            );
            self.holds(who, node, self.end);
        }
    }

    /// A node's log holds the committed entry at `seq`, as far as it is kept.
    fn holds(&self, who: Name, node: &Node, seq: Seq) {
        let committed = self
            .batches
            .range(..=seq)
            .next_back()
            .map(|(_, batch)| batch.epoch());
        if let (Some(committed), Some(held)) = (committed, node.replica.log().epoch_at(seq)) {
            assert_eq!(
                held, committed,
                "{who} holds another entry at {seq} than was committed"
            );
        }
    }

    /// Looks at a node and its neighbours. Invariants 1 and 3.
    pub fn check(&mut self, index: usize, nodes: &[Option<&Node>], net: &Net) {
        let Some(Some(this)) = nodes.get(index) else {
            return;
        };
        for successor in nodes.iter().flatten() {
            let Some(conn) = successor
                .replica
                .upstream()
                .and_then(|link| net.get(link.0))
            else {
                continue;
            };
            let dialler = conn.from(Way::Forth).process;
            let predecessor = nodes.iter().flatten().find(|node| node.process == dialler);
            let Some(predecessor) = predecessor else {
                continue;
            };
            if predecessor.replica.epoch() == successor.replica.epoch()
                && (predecessor.process == this.process || successor.process == this.process)
            {
                is_prefix(successor, predecessor);
            }
        }
        self.check_commit(this, nodes);
    }

    /// What a head commits is durable on every member.
    fn check_commit(&mut self, head: &Node, nodes: &[Option<&Node>]) {
        let Some(view) = head.replica.view() else {
            return;
        };
        let (_, _, applied, _) = head.replica.points();
        let is_head = head.replica.is_member() && view.head().is_some_and(|m| m.id == head.id);
        let known = self
            .lives
            .get(&head.id)
            .is_some_and(|seen| seen.everywhere >= applied);
        if !is_head || known {
            return;
        }
        for member in nodes
            .iter()
            .flatten()
            .filter(|node| view.position(node.id).is_some())
        {
            let (durable, ..) = member.replica.points();
            let who = name(member.id);
            assert!(
                durable >= applied,
                "{} commits {applied} in {}, {who} has {durable}",
                name(head.id),
                show::view(view)
            );
            self.holds(who, member, applied);
        }
        if let Some(seen) = self.lives.get_mut(&head.id) {
            seen.everywhere = applied;
        }
    }
}

/// By the log's own invariant, two logs with the same ordering epoch at an entry are the same up to there.
fn is_prefix(successor: &Node, predecessor: &Node) {
    let (short, long) = (successor.replica.log(), predecessor.replica.log());
    let (who, whose) = (name(successor.id), name(predecessor.id));
    assert!(
        short.last() <= long.last(),
        "{who} holds {}, its predecessor {whose} only {}",
        short.last(),
        long.last()
    );
    if let Some(epoch) = long.epoch_at(short.last()) {
        assert_eq!(
            epoch,
            short.last_epoch(),
            "{who} and its predecessor {whose} differ at {}",
            short.last()
        );
    }
}
