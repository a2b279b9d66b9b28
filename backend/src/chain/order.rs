//! The head: puts writes in order, once each, and answers.
//!
//! A write is decided against the state as it will be after every ordered entry. Its answer waits until the
//! entry is committed. A repeated write gets the stored decision, or waits for the pending one.
//!
//! A read is answered from committed state at once, except that it waits for pending writes that its own
//! connection sent earlier to the keys it reads, and, on a new head, until everything that the log held at
//! take-over is committed: a former head may have answered from it.

use super::data::{self, Data};
use super::log::Log;
use super::pending::{Change, Known, Named, Pending, Touch, What};
use super::replica::{Replica, Role};
use crate::storage::State;
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::{
    Answer, AnswerBody, ChainOp, ChainRequest, FromNode, OpenToken, Write,
};
use kvservice_shared::codec::{Batch, BatchBuilder, Decision, Effect, Entry};
use kvservice_shared::ids::{ConnId, RequestId, Seq, SessionSeq, SessionUuid, Ticket};
use kvservice_shared::limits;
use std::collections::{BTreeMap, VecDeque};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// An answers frame is closed once it passes this many bytes.
const ANSWERS_BYTES_TARGET: usize = 1024 * 1024;

/// What a head keeps beyond its log and state.
#[derive(Debug)]
pub(super) struct Head {
    /// Reads wait until this is committed.
    floor: Seq,
    builder: Option<BatchBuilder>,
    pending: Pending,
    /// Who waits for which entry to be committed, in order of entries.
    waiting: VecDeque<(Seq, Waiter)>,
    answers: Vec<Answer>,
    /// Connections that sent a pending write again which the entry ascribes to an earlier connection. Until it is
    /// committed their reads wait, of any key.
    ///
    /// Without it: a connection is lost with a write pending; the client sends the write again on another, and
    /// then a read, which finds no pending write of *its* connection and is answered from before the write.
    resent: BTreeMap<ConnId, Seq>,
}

#[derive(Debug)]
enum Waiter {
    Write(Ticket),
    Open(Ticket, OpenToken, SessionUuid),
    Get(Ticket, String),
    List {
        ticket: Ticket,
        prefix: String,
        after: String,
        limit: u32,
    },
    Dump(Ticket),
}

impl Head {
    /// A new head: lays over the applied state what the log holds beyond it.
    pub(super) fn take_over<S: State>(log: &Log, data: &Data<S>) -> Head {
        let mut pending = Pending::default();
        for batch in log.after_seq(data.applied()) {
            for entry in batch.entries().filter(|entry| entry.seq > data.applied()) {
                let touch = Touch::of_log(&entry.effect);
                let what = What::from(&entry.effect);
                pending.ordered(data, entry.seq, &entry.evict, what, touch);
            }
        }
        Head {
            floor: match canary::is_on(Canary::NoReadFloor) {
                true => Seq::ZERO,
                false => log.last(),
            },
            builder: None,
            pending,
            waiting: VecDeque::new(),
            answers: Vec::new(),
            resent: BTreeMap::new(),
        }
    }

    /// Reads of this connection wait until this is committed.
    fn reads_wait_until(&self, conn: ConnId, own: Option<Seq>) -> Seq {
        let resent = self.resent.get(&conn).copied().unwrap_or(Seq::ZERO);
        own.unwrap_or(Seq::ZERO).max(self.floor).max(resent)
    }

    /// A new view, or a new connection: the front-end sends everything that is unanswered again.
    pub(super) fn forget_waiting(&mut self) {
        self.waiting.clear();
        self.answers.clear();
        self.resent.clear();
    }

    fn answer(&mut self, ticket: Ticket, body: AnswerBody) {
        self.answers.push(Answer { ticket, body });
    }

    fn wait(&mut self, seq: Seq, waiter: Waiter) {
        let at = match self.waiting.back() {
            Some((last, _)) if *last > seq => self.waiting.partition_point(|(of, _)| *of <= seq),
            _ => self.waiting.len(),
        };
        self.waiting.insert(at, (seq, waiter));
    }

    /// An entry was applied: it is committed.
    pub(super) fn on_applied<S: State>(&mut self, data: &mut Data<S>, entry: &Entry<'_>) {
        self.pending.applied(entry);
        if !self.resent.is_empty() {
            self.resent.retain(|_, until| *until > entry.seq);
        }
        while self
            .waiting
            .front()
            .is_some_and(|(seq, _)| *seq <= entry.seq)
        {
            let Some((seq, waiter)) = self.waiting.pop_front() else {
                return;
            };
            let (ticket, body) = match waiter {
                Waiter::Write(ticket) => {
                    assert_eq!(seq, entry.seq, "every entry answers its own waiters");
                    match entry.effect {
                        Effect::Write { decision, .. } => (ticket, data::answer_to(seq, decision)),
                        Effect::Open { .. } => continue,
                    }
                }
                Waiter::Open(ticket, token, uuid) => (ticket, opened(data, uuid, token)),
                Waiter::Get(ticket, key) => (ticket, data.read(&key)),
                Waiter::List {
                    ticket,
                    prefix,
                    after,
                    limit,
                } => (ticket, data.list(&prefix, &after, limit)),
                Waiter::Dump(ticket) => (ticket, data.start_dump(ticket)),
            };
            self.answer(ticket, body);
        }
    }
}

fn opened<S: State>(data: &Data<S>, uuid: SessionUuid, token: OpenToken) -> AnswerBody {
    let session = data.sessions().named(uuid);
    match session.and_then(|session| Some((session, data.sessions().get(session)?))) {
        Some((session, open)) => AnswerBody::Opened {
            session,
            resumed: open.resumed(token),
            opened: open.opened(),
        },
        None => AnswerBody::NoSession,
    }
}

/// Names a request for ever: an id that comes again with another hash is refused.
fn request_hash(write: &Write) -> u64 {
    // Each part's hash is the seed of the next one's, so it matters where one ends.
    let part = |seed: u64, bytes: &[u8]| xxh3_64_with_seed(bytes, seed);
    match write {
        Write::Set { key, value } => part(part(1, key.as_bytes()), &value.0),
        Write::TestSet { key, test, value } => {
            let key = part(if test.is_some() { 2 } else { 3 }, key.as_bytes());
            let test = part(key, test.as_ref().map_or(&[][..], |test| &test.0));
            part(test, &value.0)
        }
        Write::Delete { key } => part(4, key.as_bytes()),
    }
}

impl<S: State> Replica<S> {
    pub(super) fn on_requests(&mut self, requests: Vec<ChainRequest>) {
        if requests.len() > 1 {
            let keys = requests.iter().filter_map(|request| match &request.op {
                ChainOp::Get { key }
                | ChainOp::Write {
                    write: Write::TestSet { key, .. } | Write::Delete { key },
                    ..
                } => Some(key.as_str()),
                _ => None,
            });
            self.data.warm_keys(keys);
        }
        for ChainRequest { ticket, conn, op } in requests {
            match op {
                ChainOp::Get { key } => self.on_get(ticket, conn, key),
                ChainOp::List {
                    prefix,
                    after,
                    limit,
                } => {
                    let limit = limit.min(limits::LIST_ENTRIES_MAX);
                    self.on_list(ticket, conn, prefix, after, limit);
                }
                ChainOp::DumpStart => self.on_dump_start(ticket),
                ChainOp::DumpNext { dump } => self.on_dump_next(ticket, dump),
                ChainOp::DumpEnd { dump } => self.on_dump_end(dump),
                ChainOp::Open { uuid, token } => self.on_open(ticket, uuid, token),
                ChainOp::Write {
                    session,
                    request,
                    write,
                } => {
                    self.on_write(ticket, conn, session, request, write);
                }
            }
        }
    }

    /// What the head keeps and the data, of one that is the head.
    fn head_mut(&mut self) -> Option<(&mut Head, &mut Data<S>)> {
        match &mut self.role {
            Role::Member(member) => member.head.as_mut().map(|head| (head, &mut self.data)),
            _ => None,
        }
    }

    fn on_get(&mut self, ticket: Ticket, conn: ConnId, key: String) {
        let Some((head, data)) = self.head_mut() else {
            return;
        };
        let until = head.reads_wait_until(conn, head.pending.last_of(conn, &key));
        if until > data.applied() {
            head.wait(until, Waiter::Get(ticket, key));
        } else {
            head.answer(ticket, data.read(&key));
        }
    }

    fn on_list(&mut self, ticket: Ticket, conn: ConnId, prefix: String, after: String, limit: u32) {
        let Some((head, data)) = self.head_mut() else {
            return;
        };
        let own = head.pending.last_of_prefix(conn, &prefix);
        let own = own.filter(|_| !canary::is_on(Canary::ListIgnoresPending));
        let until = head.reads_wait_until(conn, own);
        if until > data.applied() {
            head.wait(
                until,
                Waiter::List {
                    ticket,
                    prefix,
                    after,
                    limit,
                },
            );
        } else {
            head.answer(ticket, data.list(&prefix, &after, limit));
        }
    }

    /// A dump shows all that was acknowledged before it was asked for, as a read does; it has no connection
    /// with writes of its own.
    fn on_dump_start(&mut self, ticket: Ticket) {
        let Some((head, data)) = self.head_mut() else {
            return;
        };
        if head.floor > data.applied() {
            head.wait(head.floor, Waiter::Dump(ticket));
        } else {
            head.answer(ticket, data.start_dump(ticket));
        }
    }

    fn on_dump_next(&mut self, ticket: Ticket, dump: Ticket) {
        if let Some((head, data)) = self.head_mut() {
            head.answer(ticket, data.dump_page(dump));
        }
    }

    fn on_dump_end(&mut self, dump: Ticket) {
        if let Some((head, data)) = self.head_mut() {
            let waits = |waiter: &Waiter| matches!(waiter, Waiter::Dump(ticket) if *ticket == dump);
            head.waiting.retain(|(_, waiter)| !waits(waiter));
            data.dumps_mut().end(dump);
        }
    }

    fn on_open(&mut self, ticket: Ticket, uuid: SessionUuid, token: OpenToken) {
        let too_few = self.too_few_replicas();
        let Some((head, data)) = self.head_mut() else {
            return;
        };
        match head.pending.session_named(data, uuid) {
            Some(Named::Applied(_)) => head.answer(ticket, opened(data, uuid, token)),
            Some(Named::Pending(session, _)) => {
                head.wait(session.0, Waiter::Open(ticket, token, uuid));
            }
            None => {
                if let Some(body) = too_few {
                    return head.answer(ticket, body);
                }
                let evict = head.pending.to_evict(data, true, SessionSeq(Seq::ZERO));
                let effect = Effect::Open { uuid, token };
                let (builder, seq) = self.next_entry();
                builder.push(&evict, &effect);
                if let Some((head, data)) = self.head_mut() {
                    let what = What::from(&effect);
                    head.pending.ordered(data, seq, &evict, what, None);
                    head.wait(seq, Waiter::Open(ticket, token, uuid));
                }
            }
        }
    }

    fn on_write(
        &mut self,
        ticket: Ticket,
        conn: ConnId,
        session: SessionSeq,
        request: RequestId,
        write: Write,
    ) {
        let too_few = self.too_few_replicas();
        let hash = request_hash(&write);
        let Some((head, data)) = self.head_mut() else {
            return;
        };
        match head.pending.known(data, session, request) {
            Known::New => {}
            Known::NoSession => return head.answer(ticket, AnswerBody::NoSession),
            Known::Forgotten => return head.answer(ticket, AnswerBody::Forgotten),
            Known::Pending(known, seq) if known == hash => {
                if !canary::is_on(Canary::ResentReadsAtOnce) {
                    let until = head.resent.entry(conn).or_default();
                    *until = seq.max(*until);
                }
                return head.wait(seq, Waiter::Write(ticket));
            }
            Known::Applied => {
                let outcome = data
                    .sessions()
                    .get(session)
                    .and_then(|s| s.outcome(request));
                let body = match outcome {
                    Some(outcome) if outcome.hash == hash => data::answer_again(outcome),
                    _ => AnswerBody::IdReused,
                };
                return head.answer(ticket, body);
            }
            Known::Pending(..) => return head.answer(ticket, AnswerBody::IdReused),
        }
        if let Some(body) = too_few {
            return head.answer(ticket, body);
        }
        let held = match &write {
            Write::Set { .. } => None,
            Write::TestSet { key, .. } if canary::is_on(Canary::DecideOnApplied) => data.get(key),
            Write::TestSet { key, .. } | Write::Delete { key } => head.pending.get(data, key),
        };
        let decision = match &write {
            Write::Set { key, value } => Decision::Set {
                key,
                value: &value.0,
            },
            Write::TestSet { key, test, value } => {
                let holds = match (test, &held) {
                    (None, None) => true,
                    (Some(test), Some(held)) => test.0 == held.value,
                    _ => false,
                };
                match (&held, holds) {
                    (_, true) => Decision::Swapped {
                        key,
                        value: &value.0,
                    },
                    (Some(held), false) => Decision::NotSwapped {
                        found: Some(&held.value),
                        revision: held.revision,
                    },
                    (None, false) => Decision::NotSwapped {
                        found: None,
                        revision: Seq::ZERO,
                    },
                }
            }
            Write::Delete { key } if held.is_some() => Decision::Deleted { key },
            Write::Delete { .. } => Decision::NothingToDelete,
        };
        let evict = head.pending.to_evict(data, false, session);
        let effect = Effect::Write {
            session,
            request,
            hash,
            decision,
        };
        let (builder, seq) = self.next_entry();
        builder.push(&evict, &effect);
        let what = What::from(&effect);
        let without_effect = matches!(
            decision,
            Decision::NotSwapped { .. } | Decision::NothingToDelete
        );
        let (key, change) = match write {
            Write::Set { key, value } | Write::TestSet { key, value, .. } => {
                (key, Change::Put(value.0))
            }
            Write::Delete { key } => (key, Change::Remove),
        };
        // A write that changes nothing still comes before later reads of its connection.
        let change = match without_effect {
            true => Change::None,
            false => change,
        };
        if let Some((head, data)) = self.head_mut() {
            let touch = Touch { key, change, conn };
            head.pending.ordered(data, seq, &evict, what, Some(touch));
            head.wait(seq, Waiter::Write(ticket));
        }
    }

    fn too_few_replicas(&self) -> Option<AnswerBody> {
        let members = self.view().map_or(0, |view| view.members.len());
        let members = u32::try_from(members).unwrap_or(u32::MAX);
        let wanted = self.settings().min_replicas;
        (members < wanted).then_some(AnswerBody::TooFewReplicas { members, wanted })
    }

    /// The batch that takes the next entry, and that entry's sequence number.
    fn next_entry(&mut self) -> (&mut BatchBuilder, Seq) {
        let epoch = self.epoch();
        let full = self.head_mut().is_some_and(|(head, _)| {
            head.builder
                .as_ref()
                .is_some_and(|b| b.bytes_len() > limits::CHAIN_BATCH_BYTES_TARGET)
        });
        if full {
            self.seal_batch();
        }
        let first = self.log.last().next();
        let Some((head, _)) = self.head_mut() else {
            unreachable!("only a head orders");
        };
        let builder = head
            .builder
            .get_or_insert_with(|| BatchBuilder::new(epoch, first));
        let seq = builder.next_seq();
        (builder, seq)
    }

    /// Closes the batch that is being made: into the log, and down the chain.
    pub(super) fn seal_batch(&mut self) {
        let Some(builder) = self.head_mut().and_then(|(head, _)| head.builder.take()) else {
            return;
        };
        let batch: Batch = builder.finish();
        self.append(batch.clone());
        self.forward(&[batch]);
    }

    pub(super) fn flush_answers(&mut self) {
        let epoch = self.epoch();
        let Some((head, _)) = self.head_mut() else {
            return;
        };
        if head.answers.is_empty() {
            return;
        }
        let mut frame = Vec::with_capacity(head.answers.len());
        let mut bytes = 0;
        for answer in std::mem::take(&mut head.answers) {
            if bytes > ANSWERS_BYTES_TARGET {
                let answers = std::mem::take(&mut frame);
                bytes = 0;
                self.tell_front_end(FromNode::Answers { epoch, answers });
            }
            bytes += answer.body.bytes();
            frame.push(answer);
        }
        self.tell_front_end(FromNode::Answers {
            epoch,
            answers: frame,
        });
    }
}
