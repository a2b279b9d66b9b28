//! Clients that read and write all the while, and check every answer against what is promised.
//!
//! Each client has a session of its own and does one thing after another: it writes keys that are its alone
//! and keys that all share, counts up by testset, reads, lists, deletes. What is checked, at each answer or at
//! the end ([`Load::stop`]):
//!
//! - **No error.** Every request is answered, whatever happens to the chain, unless the test allows errors
//!   ([`Allow`]); and a write refused as "not applied" never shows.
//! - **Acknowledged is readable.** A key of one client's own always reads as its last acknowledged write
//!   left it, there and then and at the end.
//! - **No read goes backwards.** Before a request is sent, the highest revision is noted that any answer to any
//!   client has shown for its key; the answer shows none below.
//! - **Exactly once.** Every value is written by one request only, so it goes with one revision for ever: a
//!   write that is applied twice shows with two. A counter ends at the number of its acknowledged increments:
//!   a retry that is taken for a new request fails its test, and is missing in that number.

mod book;
mod worker;

pub use book::Figures;

use crate::chain::Chain;
use crate::{PATIENCE, POLL, server_address};
use book::Book;
use kvservice_client::{Client, Config, Op};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use worker::{Worker, verify};

/// Which errors a test takes for right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// None.
    Nothing,
    /// Requests may be refused and not applied: the chain is too short, or there is none.
    Refusals,
    /// Outcomes may be unknown too: the sessions are gone with the data.
    Unknown,
}

/// Clients at work. Stop them with [`Load::stop`]; dropping this ends them without a verdict.
#[derive(Debug)]
pub struct Load {
    server: SocketAddr,
    book: Arc<Book>,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Worker>>,
}

impl Load {
    /// Starts so many clients of the front-end at `server`.
    #[must_use]
    pub fn start(server: SocketAddr, clients: usize, allow: Allow) -> Load {
        // One load after another may work on one chain: each has keys of its own.
        static LOADS: AtomicU64 = AtomicU64::new(0);
        let name = format!("load{}", LOADS.fetch_add(1, Ordering::Relaxed));
        let book = Arc::new(Book::new(name, allow));
        let stop = Arc::new(AtomicBool::new(false));
        let workers = (0..clients).map(|index| {
            let client = Client::start(patient(server));
            let worker = Worker::new(index, client, Arc::clone(&book), Arc::clone(&stop));
            tokio::spawn(worker.run())
        });
        Load {
            server,
            workers: workers.collect(),
            book,
            stop,
        }
    }

    /// Waits until so many more writes are acknowledged.
    ///
    /// # Panics
    /// Where they are not in time, or an answer was wrong.
    pub async fn progress(&self, writes: u64) {
        let goal = self.book.acknowledged() + writes;
        let deadline = Instant::now() + PATIENCE;
        while self.book.acknowledged() < goal {
            self.book.assert_right();
            assert!(
                Instant::now() < deadline,
                "{} of {writes} writes are still not acknowledged",
                goal - self.book.acknowledged()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Lets the clients finish, reads everything back, and gives the verdict.
    ///
    /// # Panics
    /// Where a promise was broken.
    pub async fn stop(mut self) -> Figures {
        self.stop.store(true, Ordering::Relaxed);
        let mut done = Vec::new();
        for mut worker in std::mem::take(&mut self.workers) {
            match tokio::time::timeout(PATIENCE, &mut worker).await {
                Ok(Ok(worker)) => done.push(worker),
                Ok(Err(error)) => panic!("a client panicked: {error}"),
                Err(_) => {
                    worker.abort();
                    self.book.assert_right();
                    panic!("a client still waits for its answer");
                }
            }
        }
        let figures = self.book.figures();
        let client = Client::start(patient(self.server));
        verify(&client, &self.book, &done).await;
        client.close().await;
        self.book.assert_right();
        figures
    }

    /// As [`Load::stop`], then waits until `members` members hold one state; prints the figures.
    ///
    /// # Panics
    /// Where a promise was broken, or the members do not come to one state.
    pub async fn stop_and_settle(self, chain: &mut Chain, members: usize) -> Figures {
        let figures = self.stop().await;
        chain.settle(members).await;
        figures
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.abort();
        }
    }
}

/// A client that waits as long as it takes: to give up, or to take a slow server for a dead one, would be
/// this machine's fault.
#[must_use]
pub fn patient(server: SocketAddr) -> Config {
    Config::new(server_address(server))
        .no_request_timeout()
        .silence_timeout(PATIENCE)
        .connect_timeout(PATIENCE)
}

/// Writes so many keys, `fill:00000000` and up, with values of that many bytes.
///
/// # Panics
/// Where one is refused.
pub async fn fill(server: SocketAddr, keys: u32, value_bytes: usize) {
    let client = Client::start(patient(server));
    let ops = (0..keys).map(|n| Op::Set {
        key: format!("fill:{n:08}"),
        value: fill_value(n, value_bytes).into(),
    });
    let answers = client
        .pipeline(ops.collect())
        .await
        .expect("every request is valid");
    for answer in answers {
        answer.expect("the chain takes writes");
    }
    client.close().await;
}

/// Reads back what [`fill`] wrote.
///
/// # Panics
/// Where a key is missing or holds something else.
pub async fn assert_filled(server: SocketAddr, keys: u32, value_bytes: usize) {
    let client = Client::start(patient(server));
    let (mut n, mut after) = (0, String::new());
    loop {
        let page = client
            .list("fill:", after)
            .await
            .expect("the chain serves reads");
        for entry in &page.entries {
            assert_eq!(entry.key, format!("fill:{n:08}"));
            assert_eq!(entry.value, fill_value(n, value_bytes).into());
            n += 1;
        }
        match page.entries.last() {
            Some(last) if page.more => after = last.key.clone(),
            _ => break,
        }
    }
    assert_eq!(n, keys, "keys are missing at the end");
    client.close().await;
}

fn fill_value(n: u32, bytes: usize) -> String {
    let mut value = format!("{n}:");
    value.extend(std::iter::repeat_n('x', bytes.saturating_sub(value.len())));
    value
}

/// A pause between two attempts of a client that was refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);
