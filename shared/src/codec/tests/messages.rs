//! Any message that travels in a frame.

use crate::api::{LearnerPhase, ListEntry, StorageKind, Value};
use crate::chain::{
    Answer, AnswerBody, Boundaries, ChainOp, ChainRequest, Downstream, FromNode, Incarnation,
    LearnerReport, LinkHello, LinkReply, Member, OpenToken, OutcomeRecord, Refusal, Register,
    Report, Resume, Run, SessionRecord, Settings, SnapshotPart, StoredOutcome, ToNode, Unfinished,
    Upstream, View, Write,
};
use crate::codec::{Batch, BatchBuilder, Decision, Effect};
use crate::ids::{
    Boot, ClusterId, ConnId, Epoch, NodeId, RequestId, Seq, SessionSeq, SessionUuid, Ticket,
};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use uuid::Uuid;

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn seq() -> impl Strategy<Value = Seq> {
    prop_oneof![0_u64..9, any::<u64>()].prop_map(Seq)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (any::<u32>(), any::<u64>()).prop_map(|(term, number)| Epoch { term, number })
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn key() -> impl Strategy<Value = String> {
    "\\PC{1,12}"
}

fn value() -> impl Strategy<Value = Value> {
    vec(any::<u8>(), 0..40).prop_map(|bytes| Value(Bytes::from(bytes)))
}

fn incarnation() -> impl Strategy<Value = Incarnation> {
    (uuid(), any::<u64>()).prop_map(|(node, boot)| Incarnation {
        node: NodeId(node),
        boot: Boot(boot),
    })
}

fn cluster() -> impl Strategy<Value = ClusterId> {
    uuid().prop_map(ClusterId)
}

fn session() -> impl Strategy<Value = SessionSeq> {
    seq().prop_map(SessionSeq)
}

fn session_uuid() -> impl Strategy<Value = SessionUuid> {
    uuid().prop_map(SessionUuid)
}

fn request_id() -> impl Strategy<Value = RequestId> {
    (1..=RequestId::MAX.0).prop_map(RequestId)
}

fn unfinished() -> impl Strategy<Value = Unfinished> {
    let next = prop_oneof![
        key().prop_map(Resume::Keys),
        seq().prop_map(|seq| Resume::Sessions(SessionSeq(seq))),
        Just(Resume::Ended),
    ];
    (next, any::<u64>()).prop_map(|(next, received_bytes)| Unfinished {
        next,
        received_bytes,
    })
}

fn token() -> impl Strategy<Value = OpenToken> {
    (any::<u64>(), any::<u64>()).prop_map(|(front_end, ticket)| OpenToken { front_end, ticket })
}

fn storage() -> impl Strategy<Value = StorageKind> {
    prop_oneof![Just(StorageKind::Disk), Just(StorageKind::Memory)]
}

fn member() -> impl Strategy<Value = Member> {
    (incarnation(), text(), text(), storage()).prop_map(|(id, name, address, storage)| Member {
        id,
        name,
        address,
        storage,
    })
}

fn view() -> impl Strategy<Value = View> {
    let settings = (any::<u32>(), any::<u32>()).prop_map(|(timeout, replicas)| Settings {
        failure_timeout_ms: timeout,
        min_replicas: replicas,
    });
    (cluster(), epoch(), vec(member(), 0..4), settings).prop_map(
        |(cluster, epoch, members, settings)| View {
            cluster,
            epoch,
            members,
            settings,
        },
    )
}

fn boundaries() -> impl Strategy<Value = Boundaries> {
    let run = || (epoch(), seq()).prop_map(|(epoch, last)| Run { epoch, last });
    (run(), vec(run(), 0..4)).prop_map(|(base, runs)| Boundaries { base, runs })
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        (key(), value()).prop_map(|(key, value)| Write::Set { key, value }),
        (key(), option::of(value()), value()).prop_map(|(key, test, value)| Write::TestSet {
            key,
            test,
            value
        }),
        key().prop_map(|key| Write::Delete { key }),
    ]
}

fn request() -> impl Strategy<Value = ChainRequest> {
    let op = prop_oneof![
        (session_uuid(), token()).prop_map(|(uuid, token)| ChainOp::Open { uuid, token }),
        (session(), request_id(), write()).prop_map(|(session, request, write)| {
            ChainOp::Write {
                session,
                request,
                write,
            }
        }),
        key().prop_map(|key| ChainOp::Get { key }),
        (text(), text(), any::<u32>()).prop_map(|(prefix, after, limit)| ChainOp::List {
            prefix,
            after,
            limit,
        }),
        Just(ChainOp::DumpStart),
        any::<u64>().prop_map(|dump| ChainOp::DumpNext { dump: Ticket(dump) }),
        any::<u64>().prop_map(|dump| ChainOp::DumpEnd { dump: Ticket(dump) }),
    ];
    (any::<u64>(), any::<u64>(), op).prop_map(|(ticket, conn, op)| ChainRequest {
        ticket: Ticket(ticket),
        conn: ConnId(conn),
        op,
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    let entries = || {
        let entry = (key(), value(), seq()).prop_map(|(key, value, revision)| ListEntry {
            key,
            value,
            revision,
        });
        vec(entry, 0..4)
    };
    let body = prop_oneof![
        (session(), any::<bool>(), token()).prop_map(|(session, resumed, opened)| {
            AnswerBody::Opened {
                session,
                resumed,
                opened,
            }
        }),
        seq().prop_map(|revision| AnswerBody::Set { revision }),
        seq().prop_map(|revision| AnswerBody::Swapped { revision }),
        (option::of(value()), seq())
            .prop_map(|(found, revision)| AnswerBody::NotSwapped { found, revision }),
        option::of(seq()).prop_map(|revision| AnswerBody::Deleted { revision }),
        (option::of(value()), seq())
            .prop_map(|(value, revision)| AnswerBody::Value { value, revision }),
        (entries(), any::<bool>()).prop_map(|(entries, more)| AnswerBody::List { entries, more }),
        Just(AnswerBody::Forgotten),
        Just(AnswerBody::NoSession),
        Just(AnswerBody::IdReused),
        (any::<u32>(), any::<u32>())
            .prop_map(|(members, wanted)| AnswerBody::TooFewReplicas { members, wanted }),
        (seq(), entries(), any::<bool>()).prop_map(|(revision, entries, more)| {
            AnswerBody::DumpPage {
                revision,
                entries,
                more,
            }
        }),
        text().prop_map(|reason| AnswerBody::NoDump { reason }),
    ];
    (any::<u64>(), body).prop_map(|(ticket, body)| Answer {
        ticket: Ticket(ticket),
        body,
    })
}

fn report() -> impl Strategy<Value = Report> {
    let phase = prop_oneof![
        Just(LearnerPhase::Snapshot),
        Just(LearnerPhase::Log),
        Just(LearnerPhase::Joint)
    ];
    let learner = (incarnation(), phase, any::<[u64; 3]>()).prop_map(|(id, phase, counts)| {
        let [behind, received_bytes, total_bytes] = counts;
        LearnerReport {
            id,
            phase,
            behind,
            received_bytes,
            total_bytes,
        }
    });
    let points = (seq(), seq(), seq(), seq());
    (
        epoch(),
        any::<bool>(),
        points,
        any::<(u64, u64)>(),
        option::of(learner),
    )
        .prop_map(|(epoch, settled, points, (hash, keys), learner)| {
            let (durable, stable, committed, applied) = points;
            Report {
                epoch,
                settled,
                durable,
                stable,
                committed,
                applied,
                hash,
                keys,
                learner,
            }
        })
}

fn register() -> impl Strategy<Value = Register> {
    (
        option::of(cluster()),
        incarnation(),
        text(),
        storage(),
        any::<u32>(),
        option::of(view()),
        option::of(member()),
        boundaries(),
    )
        .prop_map(
            |(cluster, id, address, storage, term, view, offer, log)| Register {
                cluster,
                id,
                address,
                storage,
                term,
                view,
                offer,
                log,
            },
        )
}

pub(super) fn to_node() -> impl Strategy<Value = ToNode> {
    let refusal = prop_oneof![
        (cluster(), cluster()).prop_map(|(ours, yours)| Refusal::OtherCluster { ours, yours }),
        (text(), text()).prop_map(|(address, by)| Refusal::AddressTaken { address, by }),
        Just(Refusal::Replaced),
        text().prop_map(Refusal::Other),
    ];
    prop_oneof![
        (cluster(), text()).prop_map(|(cluster, name)| ToNode::Welcome { cluster, name }),
        refusal.prop_map(ToNode::Refused),
        any::<u32>().prop_map(|term| ToNode::Claim { term }),
        view().prop_map(ToNode::View),
        (epoch(), member()).prop_map(|(epoch, learner)| ToNode::Learner { epoch, learner }),
        any::<u64>().prop_map(|nonce| ToNode::Probe { nonce }),
        (epoch(), vec(request(), 0..5))
            .prop_map(|(epoch, requests)| ToNode::Requests { epoch, requests }),
        Just(ToNode::StopInPlace),
        Just(ToNode::Beat),
    ]
}

pub(super) fn from_node() -> impl Strategy<Value = FromNode> {
    prop_oneof![
        register().prop_map(|register| FromNode::Register(Box::new(register))),
        report().prop_map(FromNode::Report),
        (epoch(), incarnation(), any::<bool>()).prop_map(|(epoch, id, offered)| FromNode::Down {
            epoch,
            id,
            offered
        }),
        (epoch(), incarnation()).prop_map(|(epoch, id)| FromNode::Ready { epoch, id }),
        any::<u64>().prop_map(|nonce| FromNode::Here { nonce }),
        (epoch(), vec(answer(), 0..5))
            .prop_map(|(epoch, answers)| FromNode::Answers { epoch, answers }),
        Just(FromNode::AskView),
        Just(FromNode::Leave),
    ]
}

pub(super) fn link_hello() -> impl Strategy<Value = LinkHello> {
    (cluster(), incarnation(), incarnation()).prop_map(|(cluster, from, to)| LinkHello {
        cluster,
        from,
        to,
    })
}

pub(super) fn link_reply() -> impl Strategy<Value = LinkReply> {
    prop_oneof![
        Just(LinkReply::Accepted),
        text().prop_map(|reason| LinkReply::Refused { reason }),
    ]
}

pub(super) fn upstream() -> impl Strategy<Value = Upstream> {
    prop_oneof![
        (epoch(), boundaries(), option::of(unfinished())).prop_map(|(epoch, log, unfinished)| {
            Upstream::Have {
                epoch,
                log,
                unfinished,
            }
        }),
        (epoch(), seq(), any::<bool>()).prop_map(|(epoch, stable, complete)| Upstream::Stable {
            epoch,
            stable,
            complete
        }),
        (epoch(), any::<u64>()).prop_map(|(epoch, bytes)| Upstream::Received { epoch, bytes }),
        epoch().prop_map(|epoch| Upstream::Stale { epoch }),
        epoch().prop_map(|epoch| Upstream::Beat { epoch }),
    ]
}

fn snapshot_part() -> impl Strategy<Value = SnapshotPart> {
    let outcome = prop_oneof![
        Just(StoredOutcome::Set),
        Just(StoredOutcome::Swapped),
        (option::of(value()), seq())
            .prop_map(|(found, revision)| StoredOutcome::NotSwapped { found, revision }),
        Just(StoredOutcome::Deleted),
        Just(StoredOutcome::NothingToDelete),
    ];
    let outcome = (request_id(), any::<u64>(), seq(), outcome)
        .prop_map(|(request, hash, seq, outcome)| (request, OutcomeRecord { hash, seq, outcome }));
    let record = (
        (session(), session_uuid(), token()),
        any::<bool>(),
        (seq(), any::<u64>()),
        vec(outcome, 0..3),
    )
        .prop_map(
            |((session, uuid, token), reopened, (last_used, forgotten), outcomes)| SessionRecord {
                session,
                uuid,
                token,
                reopened,
                last_used,
                forgotten,
                outcomes,
            },
        );
    prop_oneof![
        (seq(), epoch(), any::<u64>()).prop_map(|(at, at_epoch, total_bytes)| {
            SnapshotPart::Begin {
                at,
                at_epoch,
                total_bytes,
            }
        }),
        (
            option::of(key()),
            option::of(key()),
            vec((key(), value(), seq()), 0..4)
        )
            .prop_map(|(after, through, entries)| SnapshotPart::Keys {
                after,
                through,
                entries
            }),
        (session(), option::of(session()), vec(record, 0..3)).prop_map(
            |(after, through, sessions)| SnapshotPart::Sessions {
                after,
                through,
                sessions
            }
        ),
        vec((seq(), any::<u32>(), session_uuid()), 0..4)
            .prop_map(|names| SnapshotPart::Evicted { names }),
        seq().prop_map(|at| SnapshotPart::End { at }),
    ]
}

/// The parts of an [`Effect`], which borrows.
#[derive(Clone, Debug)]
pub(super) enum Made {
    Open(SessionUuid, OpenToken),
    Write(u64, RequestId, u64, MadeDecision),
}

#[derive(Clone, Debug)]
pub(super) enum MadeDecision {
    Set(String, Value),
    Swapped(String, Value),
    NotSwapped(Option<Value>, u64),
    Deleted(String),
    NothingToDelete,
}

pub(super) fn made() -> impl Strategy<Value = (Vec<u64>, Made)> {
    let decision = prop_oneof![
        (key(), value()).prop_map(|(key, value)| MadeDecision::Set(key, value)),
        (key(), value()).prop_map(|(key, value)| MadeDecision::Swapped(key, value)),
        (option::of(value()), any::<u64>())
            .prop_map(|(found, revision)| MadeDecision::NotSwapped(found, revision)),
        key().prop_map(MadeDecision::Deleted),
        Just(MadeDecision::NothingToDelete),
    ];
    let effect = prop_oneof![
        1 => (session_uuid(), token()).prop_map(|(uuid, token)| Made::Open(uuid, token)),
        4 => (any::<u64>(), request_id(), any::<u64>(), decision)
            .prop_map(|(of, request, hash, decision)| Made::Write(of, request, hash, decision)),
    ];
    (vec(any::<u64>(), 0..3), effect)
}

/// The effect as the entry at `seq` may have it: what it refers to came before it.
pub(super) fn effect(made: &Made, seq: Seq) -> Effect<'_> {
    let earlier = |raw: u64| Seq(1 + raw % (seq.0 - 1));
    let (session, request, hash, decision) = match made {
        Made::Open(uuid, token) => {
            return Effect::Open {
                uuid: *uuid,
                token: *token,
            };
        }
        Made::Write(session, request, hash, decision) => (session, request, hash, decision),
    };
    Effect::Write {
        session: SessionSeq(earlier(*session)),
        request: *request,
        hash: *hash,
        decision: match decision {
            MadeDecision::Set(key, value) => Decision::Set {
                key,
                value: &value.0,
            },
            MadeDecision::Swapped(key, value) => Decision::Swapped {
                key,
                value: &value.0,
            },
            MadeDecision::NotSwapped(Some(found), revision) => Decision::NotSwapped {
                found: Some(&found.0),
                revision: earlier(*revision),
            },
            MadeDecision::NotSwapped(None, _) => Decision::NotSwapped {
                found: None,
                revision: Seq::ZERO,
            },
            MadeDecision::Deleted(key) => Decision::Deleted { key },
            MadeDecision::NothingToDelete => Decision::NothingToDelete,
        },
    }
}

pub(super) fn build(epoch: Epoch, first: Seq, entries: &[(Vec<u64>, Made)]) -> Batch {
    let mut builder = BatchBuilder::new(epoch, first);
    for (evict, made) in entries {
        let evict: Vec<SessionSeq> = evict.iter().map(|raw| SessionSeq(Seq(*raw))).collect();
        let seq = builder.next_seq();
        builder.push(&evict, &effect(made, seq));
    }
    builder.finish()
}

/// Epoch, first sequence number and entries of a batch.
pub(super) fn batch_parts() -> impl Strategy<Value = (Epoch, Seq, Vec<(Vec<u64>, Made)>)> {
    let first = prop_oneof![2_u64..9, 2..u64::MAX / 2].prop_map(Seq);
    (epoch(), first, vec(made(), 1..6))
}

fn append() -> impl Strategy<Value = Downstream> {
    let batches = vec((epoch(), vec(made(), 1..4)), 0..4);
    (epoch(), option::of(seq()), seq(), 2_u64..99, batches).prop_map(
        |(epoch, settle, committed, first, parts)| {
            let mut next = Seq(first);
            let batches = parts.iter().map(|(epoch, entries)| {
                let batch = build(*epoch, next, entries);
                next = batch.last().next();
                batch
            });
            let batches = batches.collect();
            Downstream::Append {
                epoch,
                settle,
                committed,
                batches,
            }
        },
    )
}

pub(super) fn downstream() -> impl Strategy<Value = Downstream> {
    prop_oneof![
        (view(), any::<bool>()).prop_map(|(view, learner)| Downstream::Link { view, learner }),
        append(),
        (epoch(), snapshot_part()).prop_map(|(epoch, part)| Downstream::Snapshot { epoch, part }),
        (epoch(), seq()).prop_map(|(epoch, committed)| Downstream::Beat { epoch, committed }),
    ]
}
