//! `kvservice dump` and `kvservice restore` against real servers, with writers at work whose every write is
//! known.

use kvservice_client::{Client, Config, ListEntry, Op, Reply, Seq, Value};
use kvservice_shared::api::{DumpEnd, DumpLine};
use kvservice_tests::chain::{Chain, Setup};
use kvservice_tests::cli::kvservice;
use kvservice_tests::process::binary;
use kvservice_tests::rounds::rounds;
use kvservice_tests::single::Single;
use kvservice_tests::{PATIENCE, POLL, server_address, soon};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tokio::task::JoinHandle;

const KEYS: u64 = 2048;
/// All values together are more than the buffers between a reader that pauses and the head can take.
const VALUE_BYTES: usize = 24 * 1024;
const WRITERS: u64 = 3;
/// Writes while a dump is being read.
const WRITES: usize = 2000;

fn key(number: u64) -> String {
    format!("key:{number:05}")
}

/// Every write that was acknowledged, by its revision: what the key holds since then.
type Written = BTreeMap<Seq, (String, Option<Value>)>;

/// Writers of known writes.
struct Writers {
    written: Arc<Mutex<Written>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Fills the store, and writes on.
    async fn start(server: SocketAddr) -> Writers {
        let written = Arc::default();
        let fill = client(server);
        let ops = (0..KEYS).map(|number| {
            let value = format!("{number:0VALUE_BYTES$}");
            set(key(number), value)
        });
        write(&fill, ops.collect(), &written).await;
        fill.close().await;
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..WRITERS).map(|writer| {
            let (written, stop) = (Arc::clone(&written), Arc::clone(&stop));
            tokio::spawn(async move {
                let client = client(server);
                let mut number = writer;
                while !stop.load(Ordering::Relaxed) {
                    let ops = (0..16).map(|_| {
                        number = (number + WRITERS * 7919) % (2 * KEYS);
                        // Keys there, keys that are new, and some that go.
                        match number % 5 {
                            0 => Op::Delete { key: key(number) },
                            _ => set(key(number), format!("{writer} {number}")),
                        }
                    });
                    write(&client, ops.collect(), &written).await;
                }
                client.close().await;
            })
        });
        let tasks = tasks.collect();
        Writers {
            written,
            stop,
            tasks,
        }
    }

    /// Waits for so many more writes.
    async fn progress(&self, writes: usize) {
        let count = || self.written.lock().expect("no writer panicked").len();
        let goal = count() + writes;
        soon("more writes", async {
            while count() < goal {
                tokio::time::sleep(POLL).await;
            }
        })
        .await;
    }

    async fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            soon("a writer", task).await.expect("no writer panicked");
        }
        self.written.lock().expect("no writer panicked").clone()
    }
}

fn client(server: SocketAddr) -> Client {
    Client::start(Config::new(server_address(server)).request_timeout(PATIENCE))
}

fn set(key: String, value: String) -> Op {
    Op::Set {
        key,
        value: value.into(),
    }
}

async fn write(client: &Client, ops: Vec<Op>, written: &Mutex<Written>) {
    let keys: Vec<String> = ops
        .iter()
        .map(|op| match op {
            Op::Set { key, .. } | Op::Delete { key } => key.clone(),
            other => panic!("{other:?} is no write"),
        })
        .collect();
    let answers = client.pipeline(ops).await.expect("the requests are valid");
    let mut written = written.lock().expect("no writer panicked");
    for (key, answer) in keys.into_iter().zip(answers) {
        match answer.expect("every write is answered") {
            Reply::Set { value, revision } => {
                written.insert(revision, (key, Some(value)));
            }
            Reply::Delete {
                deleted: true,
                revision,
            } => {
                written.insert(revision, (key, None));
            }
            Reply::Delete { deleted: false, .. } => {}
            other => panic!("{other:?} to a write"),
        }
    }
}

/// A `kvservice dump` at work, of which only as much is read as the test asks for.
struct Dumping {
    child: Child,
    chunks: Receiver<Vec<u8>>,
    read: Vec<u8>,
}

impl Dumping {
    fn start(server: SocketAddr) -> Dumping {
        let mut child = Command::new(binary("kvservice"))
            .env("KVSERVICE_SERVER", server.to_string())
            .arg("dump")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kvservice runs");
        let mut stdout = child.stdout.take().expect("it is a pipe");
        // Holds nothing: a chunk is read once the test takes the one before.
        let (to_test, chunks) = mpsc::sync_channel(0);
        thread::spawn(move || {
            let mut chunk = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = stdout.read(&mut chunk) {
                if to_test.send(chunk[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Dumping {
            child,
            chunks,
            read: Vec::new(),
        }
    }

    /// Reads the next piece; false at the end.
    fn read_some(&mut self) -> bool {
        match self.chunks.recv_timeout(PATIENCE) {
            Ok(chunk) => {
                self.read.extend(chunk);
                true
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => false,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the dump stands still"),
        }
    }

    /// Reads the rest: the exit status, all that came, and what was said.
    fn finish(mut self) -> (Option<i32>, String, String) {
        while self.read_some() {}
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("it is a pipe");
        stderr.read_to_string(&mut said).expect("it is text");
        let status = self.child.wait().expect("it is our child");
        let dump = String::from_utf8(std::mem::take(&mut self.read)).expect("it is JSON");
        (status.code(), dump, said)
    }
}

impl Drop for Dumping {
    fn drop(&mut self) {
        // Where the test failed. One that ended is not there any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(dump: &str) -> (Vec<ListEntry>, DumpEnd) {
    let mut entries = Vec::new();
    for line in dump.lines() {
        match DumpLine::parse(line.as_bytes()).expect("every line is one of a dump") {
            DumpLine::Entry(entry) => entries.push(entry),
            DumpLine::End(end) => return (entries, end),
        }
    }
    panic!("the dump has no end");
}

/// What the store held at this revision.
fn state_at(written: &Written, revision: Seq) -> Vec<ListEntry> {
    let mut state = BTreeMap::new();
    for (revision, (key, value)) in written.range(..=revision) {
        match value {
            Some(value) => state.insert(key, (value, *revision)),
            None => state.remove(key),
        };
    }
    let entry = |(key, (value, revision)): (&String, (&Value, Seq))| ListEntry {
        key: key.clone(),
        value: value.clone(),
        revision,
    };
    state.into_iter().map(entry).collect()
}

/// Dumps are read slowly while all keys change: each is the state at its revision, exactly. Restored elsewhere,
/// it is that state again, under other revisions.
#[test]
fn a_dump_under_load_is_one_state_and_can_be_restored() {
    rounds(async |round| {
        let mut chain = Chain::start(round, Setup::default()).await;
        let writers = Writers::start(chain.clients()).await;
        writers.progress(WRITES).await;
        let mut dumps: Vec<Dumping> = (0..2).map(|_| Dumping::start(chain.clients())).collect();
        for dump in &mut dumps {
            assert!(dump.read_some(), "a dump begins");
        }
        writers.progress(WRITES).await;
        for dump in &mut dumps {
            assert!(dump.read_some(), "a dump goes on");
            writers.progress(WRITES).await;
        }
        let dumps: Vec<_> = dumps.into_iter().map(Dumping::finish).collect();
        let written = writers.stop().await;
        let last = *written.last_key_value().expect("there were writes").0;
        let mut dump = String::new();
        for (status, text, said) in dumps {
            assert_eq!(status, Some(0), "{said}");
            let (entries, end) = parse(&text);
            assert!(
                last.0 - end.revision.0 >= WRITES as u64,
                "the dump of revision {} was read while others wrote up to {last}",
                end.revision
            );
            assert_eq!(end.keys, entries.len() as u64);
            // Not `assert_eq`: nobody reads megabytes.
            assert!(
                entries == state_at(&written, end.revision),
                "the dump is not the state at {}",
                end.revision
            );
            round.say(&format!("{} keys at {} of {last}", end.keys, end.revision));
            dump = text;
        }
        chain.settle(3).await;

        let single = Single::start(round, &[]).await;
        let restored = kvservice(single.address, &["restore"], dump.as_bytes());
        assert_eq!(restored.status, Some(0), "{}", restored.err);
        let again = kvservice(single.address, &["dump"], b"");
        assert_eq!(again.status, Some(0), "{}", again.err);
        let pairs = |dump: &str| -> Vec<(String, Value)> {
            let entries = parse(dump).0.into_iter();
            entries.map(|entry| (entry.key, entry.value)).collect()
        };
        assert!(pairs(&dump) == pairs(&again.out), "it is not what it was");
        let refused = kvservice(single.address, &["restore"], dump.as_bytes());
        assert_eq!(refused.status, Some(2), "{}", refused.err);
    });
}

/// No other head has the dump: it ends, and says that it is not whole.
#[test]
fn a_dump_whose_head_is_killed_is_incomplete() {
    rounds(async |round| {
        let mut chain = Chain::start(round, Setup::default()).await;
        let writers = Writers::start(chain.clients()).await;
        let mut dump = Dumping::start(chain.clients());
        assert!(dump.read_some(), "it begins");
        let head = chain.order_now().await[0];
        chain.kill(&[head]);
        chain.until_members(2).await;
        let (status, text, said) = dump.finish();
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("incomplete"), "{said}");
        assert!(!text.contains("\"end\""));
        writers.progress(WRITES).await;
        writers.stop().await;

        let again = kvservice(chain.clients(), &["dump"], b"");
        assert_eq!(again.status, Some(0), "the next head dumps: {}", again.err);
        chain.settle(2).await;
    });
}

/// What a reader that stands still makes the servers hold is bounded, and its time is too: others are served, and
/// dumped to, all the while.
#[test]
fn a_reader_that_stands_still_harms_nobody() {
    rounds(async |round| {
        let mut chain = Chain::start(round, Setup::default()).await;
        let writers = Writers::start(chain.clients()).await;
        let mut deaf = Dumping::start(chain.clients());
        assert!(deaf.read_some(), "it begins");
        tokio::time::timeout(Duration::from_secs(20), writers.progress(WRITES))
            .await
            .expect("writes go on");
        let other = kvservice(chain.clients(), &["dump"], b"");
        assert_eq!(other.status, Some(0), "{}", other.err);
        drop(deaf);
        writers.stop().await;
        chain.settle(3).await;
    });
}
