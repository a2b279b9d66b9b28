//! Makes the seeds of the corpora and the data directories. To be run again when a format changes:
//!
//! ```sh
//! cargo run --manifest-path tests/fuzz/Cargo.toml --example seeds
//! ```
//! Seeds are named `seed-…`; what a fuzzer found has a hash for a name, and stays.

use kvservice_backend::chain::{JournalOp, Meta};
use kvservice_backend::storage::Journal;
use kvservice_backend::storage::disk::testing::SimDisk;
use kvservice_backend::storage::disk::{DiskJournal, open};
use kvservice_fuzz::directory::{DIRECTORIES, options, path_of};
use kvservice_server::coordinator::Stored;
use kvservice_server::view_store::ViewStore;
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
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const PROTOCOL: &str = include_str!("../../../docs/client-protocol.md");
const FRAME_HEADER: usize = 6;
const MENDED: u8 = 128;

fn main() -> Outcome {
    client_protocol()?;
    text_commands()?;
    chain_messages()?;
    batches()?;
    view_files()?;
    directories()
}

/// Writes the seeds of a target in place of those that it had.
fn write(target: &str, seeds: impl IntoIterator<Item = Vec<u8>>) -> Outcome {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    fs::create_dir_all(&corpus)?;
    for old in fs::read_dir(&corpus)? {
        let old = old?;
        if old.file_name().to_string_lossy().starts_with("seed-") {
            fs::remove_file(old.path())?;
        }
    }
    for (number, seed) in seeds.into_iter().enumerate() {
        fs::write(corpus.join(format!("seed-{number:02}")), seed)?;
    }
    Ok(())
}

/// The examples of the reference, by what their fenced block is marked with.
fn examples(mark: &str) -> Vec<Vec<u8>> {
    let (mut found, mut inside) = (Vec::new(), false);
    for line in PROTOCOL.lines() {
        match line.strip_prefix("```") {
            Some(marks) => inside = marks.starts_with(mark),
            None if inside => found.push(line.as_bytes().to_vec()),
            None => {}
        }
    }
    found
}

fn client_protocol() -> Outcome {
    write("client_frame", examples("json request"))?;
    write("server_frame", examples("json response"))?;
    write("dump_line", examples("json dump"))
}

fn text_commands() -> Outcome {
    let lines = [
        "get(color)",
        "set(color,red)",
        "testset(color,red,blue)",
        "testset(id,,newVal)",
        "delete(color)",
        "list(co)",
        "list()",
        "status",
        "help",
        "exit",
        r#"set("full name","Grace \"Amazing\" Hopper")"#,
        r#" get ( "\u00e4\ud83d\ude00\n\t\\\/" ) "#,
    ];
    write("text_command", lines.map(Vec::from))
}

/// As `chain_message` reads it: the kind, and the body.
fn body_of(message: &impl ChainMessage) -> Vec<u8> {
    let frame = message.encode();
    [&frame[1..2], &frame[FRAME_HEADER..]].concat()
}

fn chain_messages() -> Outcome {
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

fn cluster() -> ClusterId {
    ClusterId(Uuid::from_u128(7))
}

fn epoch() -> Epoch {
    Epoch { term: 1, number: 3 }
}

fn incarnation(node: u128) -> Incarnation {
    Incarnation {
        node: NodeId(Uuid::from_u128(node)),
        boot: Boot(5),
    }
}

fn member(node: u128) -> Member {
    Member {
        id: incarnation(node),
        name: format!("n{node}"),
        address: format!("127.0.0.1:741{node}"),
        storage: StorageKind::Disk,
    }
}

fn view() -> View {
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
            offer: Some(incarnation(2)),
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

fn keys(count: u64) -> SnapshotPart {
    let entry = |at: u64| (format!("key {at}"), Value::from("value"), Seq(at + 1));
    SnapshotPart::Keys {
        after: None,
        through: Some("z".to_owned()),
        entries: (0..count).map(entry).collect(),
    }
}

fn sessions() -> SnapshotPart {
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

fn evicted() -> SnapshotPart {
    SnapshotPart::Evicted {
        names: vec![(Seq(3), 1, SessionUuid(Uuid::from_u128(11)))],
    }
}

/// So many entries, one of each sort.
fn batch(epoch: Epoch, first: Seq, entries: u64) -> Batch {
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

fn batches() -> Outcome {
    let whole = batch(epoch(), Seq(10), 12);
    let raw = |how: u8| [&[how], &whole.bytes()[..]].concat();
    let plan: Vec<u8> = [2].into_iter().chain(0..200).collect();
    write("batch", [raw(0), raw(1), plan])
}

fn view_files() -> Outcome {
    let dir = std::env::temp_dir().join(format!("kvservice-seeds-{}", std::process::id()));
    let (mut store, _) = ViewStore::open(&dir)?;
    let mut seeds = Vec::new();
    for view in [None, Some(view())] {
        let mut stored = Stored {
            cluster: Some(cluster()),
            term: 1,
            view,
            next_name: 3,
            ..Stored::default()
        };
        let node = NodeId(Uuid::from_u128(1));
        stored.names.insert(node, "n1".to_owned());
        store.save(&stored)?;
        let file = fs::read(dir.join("view.json"))?;
        seeds.extend([0, 1].map(|how: u8| [&[how], &file[..]].concat()));
    }
    drop(store);
    fs::remove_dir_all(dir)?;
    write("view_file", seeds)
}

/// Makes the three directories, and of their files the seeds of the targets that change one.
fn directories() -> Outcome {
    let mut logs = Vec::new();
    let mut checkpoints = Vec::new();
    let mut metas = Vec::new();
    for (number, directory) in (0..).zip(DIRECTORIES) {
        let path = path_of(directory);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        let disk = lived(directory)?;
        let mut places = [0_u8; 3];
        for name in disk.names() {
            let content = disk.content(&name);
            fs::write(path.join(&name), &content)?;
            let (kind, seeds) = match name.split('-').next() {
                Some("log") => (0, &mut logs),
                Some("checkpoint") => (1, &mut checkpoints),
                _ => (2, &mut metas),
            };
            for how in [number, number + 3 * (MENDED / 3 + 1)] {
                seeds.push([&[how, places[kind]], &content[..]].concat());
            }
            places[kind] += 1;
        }
    }
    write("log_dir", logs)?;
    write("checkpoint_dir", checkpoints)?;
    write("meta_file", metas)
}

/// The disk of a node, in memory, and what it was told.
struct Node {
    disk: SimDisk,
    journal: DiskJournal,
    end: Run,
}

/// A node that has lived: several segments, a cut, a checkpoint; stopped or not, or not done with learning.
fn lived(directory: &str) -> Outcome<SimDisk> {
    let mut node = Node::start()?;
    if directory == "learning" {
        node.learn()?;
        return Ok(node.disk.copy());
    }
    node.append(1, 6, 2)?;
    let base = node.end;
    node.save(base)?;
    node.append(1, 6, 6)?;
    node.cut(2)?;
    node.append(2, 3, 6)?;
    if directory == "stopped" {
        node.journal.close()?;
        return Ok(node.disk.copy());
    }
    node.settle()?;
    Ok(node.disk.copy())
}

impl Node {
    fn start() -> Outcome<Node> {
        let disk = SimDisk::default();
        let files = Arc::new(disk.clone());
        let mut nothing = Nothing;
        let opened = open(Path::new("/data"), options(), files, &mut nothing)?;
        let mut journal = opened.journal;
        journal.store_meta(&Meta {
            cluster: Some(cluster()),
            term: 1,
            view: Some(view()),
            offer: Some(incarnation(2)),
        })?;
        Ok(Node {
            disk,
            journal,
            end: Run::default(),
        })
    }

    /// Batches of so many entries, in the epoch of this number, each synced.
    fn append(&mut self, number: u64, entries: u64, batches: u64) -> Outcome {
        for _ in 0..batches {
            let epoch = Epoch { term: 0, number };
            let batch = batch(epoch, self.end.last.next(), entries);
            self.end = Run {
                epoch,
                last: batch.last(),
            };
            let seq = Seq(self.end.last.0 - entries);
            self.journal
                .write(vec![JournalOp::Committed { seq }, JournalOp::Append(batch)])?;
            self.settle()?;
        }
        Ok(())
    }

    /// Drops so many batches of six entries.
    fn cut(&mut self, batches: u64) -> Outcome {
        self.end.last.0 -= 6 * batches;
        let keep = self.end.last;
        self.journal.write(vec![JournalOp::Cut { keep }])?;
        Ok(())
    }

    fn save(&mut self, base: Run) -> Outcome {
        let parts = [keys(4), keys_after(), sessions(), evicted()];
        let whole_at = self.end.last;
        let mut ops = vec![JournalOp::Begin { base }];
        ops.extend(parts.map(JournalOp::Part));
        ops.push(JournalOp::End { whole_at });
        self.journal.write(ops)?;
        while self.journal.progress()?.checkpoint != Some(base.last) {
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Takes in a snapshot, whose checkpoint is not whole yet.
    fn learn(&mut self) -> Outcome {
        let epoch = Epoch { term: 0, number: 1 };
        self.end = Run {
            epoch,
            last: Seq(50),
        };
        let base = self.end;
        self.journal.write(vec![JournalOp::Reset { base }])?;
        self.append(1, 6, 4)
    }

    fn settle(&mut self) -> Outcome {
        while self.journal.progress()?.durable < self.end.last {
            std::thread::yield_now();
        }
        Ok(())
    }
}

fn keys_after() -> SnapshotPart {
    SnapshotPart::Keys {
        after: Some("z".to_owned()),
        through: None,
        entries: vec![("ö".to_owned(), Value::from(vec![0xff, 0x00]), Seq(3))],
    }
}

/// A directory that is new has no checkpoint to take in.
struct Nothing;

impl kvservice_backend::storage::Restore for Nothing {
    fn clear(&mut self) {}
    fn key(&mut self, _: &str, _: &[u8], _: Seq) {}
    fn sessions(&mut self, _: Vec<SessionRecord>) {}
    fn evicted(&mut self, _: Vec<(Seq, u32, SessionUuid)>) {}
}
