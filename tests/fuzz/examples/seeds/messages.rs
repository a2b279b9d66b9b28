//! Messages between front-end and nodes, and batches.

use crate::{Outcome, write};
use kvservice_shared::api::{LearnerPhase, ListEntry, StorageKind, Value};
use kvservice_shared::chain::{
    Answer, AnswerBody, Boundaries, ChainOp, ChainRequest, Downstream, FromNode, Incarnation,
    LearnerReport, LinkHello, LinkReply, Member, OpenToken, OutcomeRecord, Refusal, Register,
    Report, Resume, Run, SessionRecord, Settings, SnapshotPart, StoredOutcome, ToNode, Unfinished,
    Upstream, View, Write,
};
use kvservice_shared::codec::{Batch, BatchBuilder, ChainMessage, Decision, Effect};
use kvservice_shared::ids::{
    Boot, ClusterId, ConnId, Epoch, NodeId, RequestId, Seq, SessionSeq, SessionUuid, Ticket,
};
use uuid::Uuid;

const FRAME_HEADER: usize = 6;

/// As `chain_message` reads it: the kind, and the body.
fn body_of(message: &impl ChainMessage) -> Vec<u8> {
    let frame = message.encode();
    [&frame[1..2], &frame[FRAME_HEADER..]].concat()
}

pub fn chain_messages() -> Outcome {
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    seeds.extend(to_node().iter().map(body_of));
    seeds.extend(from_node().iter().map(body_of));
    seeds.extend(answers().iter().map(body_of));
    seeds.extend(upstream().iter().map(body_of));
    seeds.extend(downstream().iter().map(body_of));
    seeds.push(body_of(&LinkHello {
        cluster: cluster(),
        from: incarnation(1),
        to: incarnation(2),
    }));
    seeds.push(body_of(&LinkReply::Accepted));
    seeds.push(body_of(&LinkReply::Refused {
        reason: "no".to_owned(),
    }));
    // One as it is.
    seeds.push([&[255], &ToNode::Beat.encode()[..]].concat());
    write("chain_message", seeds)
}

pub fn cluster() -> ClusterId {
    ClusterId(Uuid::from_u128(7))
}

pub fn epoch() -> Epoch {
    Epoch { term: 1, number: 3 }
}

pub fn incarnation(node: u128) -> Incarnation {
    Incarnation {
        node: NodeId(Uuid::from_u128(node)),
        boot: Boot(5),
    }
}

pub fn member(node: u128) -> Member {
    Member {
        id: incarnation(node),
        name: format!("n{node}"),
        address: format!("127.0.0.1:741{node}"),
        storage: StorageKind::Disk,
    }
}

pub fn view() -> View {
    View {
        cluster: cluster(),
        epoch: epoch(),
        members: vec![member(1), member(2)],
        settings: Settings::default(),
    }
}

fn boundaries() -> Boundaries {
    let run = |number, last| Run {
        epoch: Epoch { term: 0, number },
        last: Seq(last),
    };
    Boundaries {
        base: run(1, 4),
        runs: vec![run(1, 9), run(2, 12)],
    }
}

fn token() -> OpenToken {
    OpenToken {
        front_end: 1,
        ticket: 2,
    }
}

fn session() -> SessionSeq {
    SessionSeq(Seq(1))
}

fn to_node() -> Vec<ToNode> {
    let op = |op| ChainRequest {
        ticket: Ticket(3),
        conn: ConnId(1),
        op,
    };
    let write = |write| {
        op(ChainOp::Write {
            session: session(),
            request: RequestId(2),
            write,
        })
    };
    let key = || "key".to_owned();
    let value = || Value::from("value");
    vec![
        ToNode::Welcome {
            cluster: cluster(),
            name: "n1".to_owned(),
        },
        ToNode::Refused(Refusal::OtherCluster {
            ours: cluster(),
            yours: cluster(),
        }),
        ToNode::Claim { term: 2 },
        ToNode::View(view()),
        ToNode::Learner {
            epoch: epoch(),
            learner: member(3),
        },
        ToNode::Probe { nonce: 9 },
        ToNode::Requests {
            epoch: epoch(),
            requests: vec![
                op(ChainOp::Open {
                    uuid: SessionUuid(Uuid::from_u128(9)),
                    token: token(),
                }),
                write(Write::Set {
                    key: key(),
                    value: value(),
                }),
                write(Write::TestSet {
                    key: key(),
                    test: Some(value()),
                    value: value(),
                }),
                write(Write::Delete { key: key() }),
                op(ChainOp::Get { key: key() }),
                op(ChainOp::List {
                    prefix: key(),
                    after: key(),
                    limit: 3,
                }),
                op(ChainOp::DumpNext { dump: Ticket(1) }),
            ],
        },
        ToNode::StopInPlace,
    ]
}

fn from_node() -> Vec<FromNode> {
    vec![
        FromNode::Register(Box::new(Register {
            cluster: Some(cluster()),
            id: incarnation(1),
            address: "127.0.0.1:7411".to_owned(),
            storage: StorageKind::Memory,
            term: 1,
            view: Some(view()),
            offer: Some(member(2)),
            log: boundaries(),
        })),
        FromNode::Report(Report {
            epoch: epoch(),
            settled: true,
            durable: Seq(9),
            stable: Seq(8),
            committed: Seq(7),
            applied: Seq(7),
            hash: 1,
            keys: 2,
            learner: Some(LearnerReport {
                id: incarnation(3),
                phase: LearnerPhase::Log,
                behind: 3,
                received_bytes: 4,
                total_bytes: 5,
            }),
        }),
        FromNode::Down {
            epoch: epoch(),
            id: incarnation(2),
            offered: true,
        },
        FromNode::AskView,
    ]
}

fn answers() -> Vec<FromNode> {
    let entry = ListEntry {
        key: "key".to_owned(),
        value: Value::from("value"),
        revision: Seq(3),
    };
    let bodies = [
        AnswerBody::Opened {
            session: session(),
            resumed: true,
            opened: token(),
        },
        AnswerBody::NotSwapped {
            found: Some(Value::from("value")),
            revision: Seq(3),
        },
        AnswerBody::DumpPage {
            revision: Seq(9),
            entries: vec![entry],
            more: true,
        },
        AnswerBody::NoDump {
            reason: "no".to_owned(),
        },
    ];
    let answers = bodies.map(|body| Answer {
        ticket: Ticket(4),
        body,
    });
    vec![FromNode::Answers {
        epoch: epoch(),
        answers: answers.to_vec(),
    }]
}

fn upstream() -> Vec<Upstream> {
    vec![
        Upstream::Have {
            epoch: epoch(),
            log: boundaries(),
            unfinished: Some(Unfinished {
                next: Resume::Keys("key".to_owned()),
                received_bytes: 9,
            }),
        },
        Upstream::Stable {
            epoch: epoch(),
            stable: Seq(9),
            complete: true,
        },
        Upstream::Stale { epoch: epoch() },
    ]
}

fn downstream() -> Vec<Downstream> {
    let part = |part| Downstream::Snapshot {
        epoch: epoch(),
        part,
    };
    vec![
        Downstream::Link {
            view: view(),
            learner: true,
        },
        Downstream::Append {
            epoch: epoch(),
            settle: Some(Seq(1)),
            committed: Seq(2),
            batches: vec![batch(epoch(), Seq(1), 6), batch(epoch(), Seq(7), 1)],
        },
        part(SnapshotPart::Begin {
            at: Seq(9),
            at_epoch: epoch(),
            total_bytes: 100,
        }),
        part(keys(2)),
        part(sessions()),
        part(evicted()),
        part(SnapshotPart::End { at: Seq(9) }),
        Downstream::Beat {
            epoch: epoch(),
            committed: Seq(9),
        },
    ]
}

pub fn keys(count: u64) -> SnapshotPart {
    let entry = |at: u64| (format!("key {at}"), Value::from("value"), Seq(at + 1));
    SnapshotPart::Keys {
        after: None,
        through: Some("z".to_owned()),
        entries: (0..count).map(entry).collect(),
    }
}

pub fn sessions() -> SnapshotPart {
    let outcomes = [
        StoredOutcome::Set,
        StoredOutcome::NotSwapped {
            found: Some(Value::from("value")),
            revision: Seq(2),
        },
        StoredOutcome::NothingToDelete,
    ];
    let record = |(at, outcome)| {
        let seq = Seq(at + 1);
        (
            RequestId(at),
            OutcomeRecord {
                hash: at,
                seq,
                outcome,
            },
        )
    };
    SnapshotPart::Sessions {
        after: SessionSeq(Seq::ZERO),
        through: None,
        sessions: vec![SessionRecord {
            session: session(),
            uuid: SessionUuid(Uuid::from_u128(9)),
            token: token(),
            reopened: true,
            last_used: Seq(4),
            forgotten: 0,
            outcomes: (1..).zip(outcomes).map(record).collect(),
        }],
    }
}

pub fn evicted() -> SnapshotPart {
    SnapshotPart::Evicted {
        names: vec![(Seq(3), 1, SessionUuid(Uuid::from_u128(11)))],
    }
}

/// So many entries, one of each sort.
pub fn batch(epoch: Epoch, first: Seq, entries: u64) -> Batch {
    let mut builder = BatchBuilder::new(epoch, first);
    let (key, value) = ("key", b"value".as_slice());
    for at in 0..entries {
        let decision = match at % 6 {
            1 => Decision::Set { key, value },
            2 => Decision::Swapped { key, value },
            3 => Decision::NotSwapped {
                found: Some(value),
                revision: Seq(1),
            },
            4 => Decision::Deleted { key },
            5 => Decision::NothingToDelete,
            _ => {
                let uuid = SessionUuid(Uuid::from_u128(u128::from(first.0 + at)));
                let token = token();
                builder.push(&[], &Effect::Open { uuid, token });
                continue;
            }
        };
        let write = Effect::Write {
            session: SessionSeq(first),
            request: RequestId(at),
            hash: at,
            decision,
        };
        let evict = [session()];
        builder.push(&evict[..usize::from(at == 5)], &write);
    }
    builder.finish()
}

pub fn keys_after() -> SnapshotPart {
    SnapshotPart::Keys {
        after: Some("z".to_owned()),
        through: None,
        entries: vec![("ö".to_owned(), Value::from(vec![0xff, 0x00]), Seq(3))],
    }
}

pub fn batches() -> Outcome {
    let whole = batch(epoch(), Seq(10), 12);
    let raw = |how: u8| [&[how], &whole.bytes()[..]].concat();
    let plan: Vec<u8> = [2].into_iter().chain(0..200).collect();
    write("batch", [raw(0), raw(1), plan])
}
