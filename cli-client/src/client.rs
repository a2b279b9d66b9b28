//! The handle that programs hold, and what they get back.

use crate::check;
use crate::config::Config;
use crate::connection::Connection;
use crate::driver::{Driver, Order, Submission};
use crate::error::Error;
use kvservice_shared::api::{
    ApiError, ErrorCode, ListEntry, Op, Outcome, Reply, Response, Status, Value,
};
use kvservice_shared::ids::{Seq, SessionUuid};
use kvservice_shared::limits::{BATCH_REQUESTS_MAX, LIST_ENTRIES_MAX};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot, watch};

/// Orders that wait for the driver. A request waits here for room in the session's window, and its
/// caller waits for room here.
const QUEUE_ORDERS: usize = 64;

/// A connection to kvservice, and the session that makes its retries safe.
///
/// A handle is cheap to clone; all clones share one connection and one session. When the last one
/// is dropped, and the last [`Call`], the connection closes.
///
/// Requests of one handle are sent in the order in which they are submitted. While there is no
/// connection they wait for it, up to [`Config::request_timeout`].
#[derive(Clone, Debug)]
pub struct Client {
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<Connection>,
}

/// A request under way: a future of its response. Dropping it does not take the request back.
#[derive(Debug)]
pub struct Call {
    reply: oneshot::Receiver<Response>,
    /// Keeps the driver alive until the answer is there, even if every [`Client`] is dropped.
    _orders: mpsc::Sender<Order>,
}

impl Call {
    /// Whether the answer is here, so that awaiting it does not wait.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.reply.is_empty()
    }
}

impl Future for Call {
    type Output = Result<Response, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.reply)
            .poll(cx)
            .map_err(|_| Error::Closed)
    }
}

/// A value with the revision that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The value.
    pub value: Value,
    /// Grows with every write.
    pub revision: Seq,
}

/// What a test-and-set came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// The test held; the new value was written with this revision.
    Swapped(Seq),
    /// The test failed; this is what the key holds, if anything.
    Held(Option<Found>),
}

/// One page of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of their keys' bytes.
    pub entries: Vec<ListEntry>,
    /// Whether there are keys after the last.
    pub more: bool,
}

impl Client {
    /// A client under a new session. It connects in the background, and again whenever the
    /// connection is lost.
    ///
    /// # Panics
    /// Outside a tokio runtime (with its I/O and time enabled).
    #[must_use]
    pub fn start(config: Config) -> Client {
        let uuid = SessionUuid(uuid::Uuid::new_v4());
        let (orders, queue) = mpsc::channel(QUEUE_ORDERS);
        let (driver, state) = Driver::new(config, uuid, queue);
        tokio::spawn(driver.run());
        Client { orders, state }
    }

    /// As [`Client::start`], and waits for the first connection.
    ///
    /// # Errors
    /// [`Error::Connect`] or the server's [`Error::Api`] if the first attempt fails: nothing
    /// listens there, say, or the server cannot take a session yet. Nothing is retried then; to
    /// keep trying, use [`Client::start`].
    pub async fn connect(config: Config) -> Result<Client, Error> {
        let client = Client::start(config);
        let mut state = client.watch();
        loop {
            match &*state.borrow_and_update() {
                Connection::Live { .. } => break,
                Connection::Waiting { reason, .. } => return Err(Error::Connect(reason.clone())),
                Connection::Greeting {
                    refusal: Some(error),
                } => {
                    return Err(Error::Api(error.clone()));
                }
                Connection::TakenOver | Connection::Closed => return Err(Error::Closed),
                Connection::Connecting { .. } | Connection::Greeting { refusal: None } => {}
            }
            if state.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
        Ok(client)
    }

    /// How the connection stands, now and whenever it changes. A reader that is slower than the
    /// changes sees the last one.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Connection> {
        self.state.clone()
    }

    /// Sends one request and waits for the answer.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn call(&self, op: Op) -> Result<Reply, Error> {
        Ok(self.submit(op).await?.await?.result?)
    }

    /// Sends one request. Returns once it has its place in the order of this connection; the
    /// [`Call`] ends when it is answered.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Closed`].
    pub async fn submit(&self, op: Op) -> Result<Call, Error> {
        check::op(&op)?;
        let (reply, receiver) = oneshot::channel();
        self.order(vec![(op, reply)]).await?;
        Ok(Call {
            reply: receiver,
            _orders: self.orders.clone(),
        })
    }

    /// Sends requests as one frame (as more, if they are too long for one). Returns once they have
    /// their place in the order of this connection.
    ///
    /// # Errors
    /// [`Error::Invalid`] if one of them is invalid, or they are none, or more than 1,024
    /// ([`Client::pipeline`] takes any number); [`Error::Closed`].
    pub async fn submit_batch(&self, ops: Vec<Op>) -> Result<Vec<Call>, Error> {
        check::batch(&ops)?;
        let (requests, calls): (Submission, Vec<Call>) = ops
            .into_iter()
            .map(|op| {
                let (reply, receiver) = oneshot::channel();
                (
                    (op, reply),
                    Call {
                        reply: receiver,
                        _orders: self.orders.clone(),
                    },
                )
            })
            .unzip();
        self.order(requests).await?;
        Ok(calls)
    }

    /// Sends any number of requests, as few frames as they fit into, and waits for all answers.
    /// They are in the order of the requests.
    ///
    /// # Errors
    /// [`Error::Invalid`] if one of them is invalid; then none is sent. Every other error is one
    /// request's own.
    pub async fn pipeline(&self, ops: Vec<Op>) -> Result<Vec<Result<Reply, Error>>, Error> {
        ops.iter().try_for_each(check::op)?;
        let mut calls = Vec::with_capacity(ops.len());
        let mut ops = ops.into_iter();
        loop {
            let batch: Vec<Op> = ops.by_ref().take(BATCH_REQUESTS_MAX).collect();
            if batch.is_empty() {
                break;
            }
            let requests = batch.len();
            match self.submit_batch(batch).await {
                Ok(batch) => calls.extend(batch.into_iter().map(Ok)),
                Err(error) => calls.extend((0..requests).map(|_| Err(error.clone()))),
            }
        }
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            answers.push(match call {
                Ok(call) => call.await.and_then(|response| Ok(response.result?)),
                Err(error) => Err(error),
            });
        }
        Ok(answers)
    }

    async fn order(&self, requests: Submission) -> Result<(), Error> {
        self.orders
            .send(Order::Submit(requests))
            .await
            .map_err(|_| Error::Closed)
    }

    /// Reads one key; `None` if it was never set, or deleted.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, key: impl Into<String>) -> Result<Option<Found>, Error> {
        match self.call(Op::Get { key: key.into() }).await? {
            Reply::Get { value, revision } => Ok(value.map(|value| Found { value, revision })),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes one key. Returns the revision.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn set(&self, key: impl Into<String>, value: impl Into<Value>) -> Result<Seq, Error> {
        match self
            .call(Op::Set {
                key: key.into(),
                value: value.into(),
            })
            .await?
        {
            Reply::Set { revision, .. } => Ok(revision),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes one key if it holds `test`; with `None`, if it holds nothing.
    ///
    /// # Errors
    /// See [`Error`]. A test that fails is no error.
    pub async fn test_set(
        &self,
        key: impl Into<String>,
        test: Option<Value>,
        value: impl Into<Value>,
    ) -> Result<Swap, Error> {
        match self
            .call(Op::TestSet {
                key: key.into(),
                test,
                value: value.into(),
            })
            .await?
        {
            Reply::TestSet {
                swapped: true,
                revision,
                ..
            } => Ok(Swap::Swapped(revision)),
            Reply::TestSet {
                swapped: false,
                value,
                revision,
            } => Ok(Swap::Held(value.map(|value| Found { value, revision }))),
            other => Err(unexpected(&other)),
        }
    }

    /// Removes one key. Returns whether there was anything.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, key: impl Into<String>) -> Result<bool, Error> {
        match self.call(Op::Delete { key: key.into() }).await? {
            Reply::Delete { deleted, .. } => Ok(deleted),
            other => Err(unexpected(&other)),
        }
    }

    /// The keys that start with `prefix` and come after `after` (empty: from the first), as many as
    /// fit on a page. Go on after the last entry's key while [`Page::more`]; each page is current,
    /// the pages together are not one snapshot.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(
        &self,
        prefix: impl Into<String>,
        after: impl Into<String>,
    ) -> Result<Page, Error> {
        let op = Op::List {
            prefix: prefix.into(),
            after: after.into(),
            limit: LIST_ENTRIES_MAX,
        };
        match self.call(op).await? {
            Reply::List { entries, more } => Ok(Page { entries, more }),
            other => Err(unexpected(&other)),
        }
    }

    /// The chain as the front-end sees it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn status(&self) -> Result<Status, Error> {
        match self.call(Op::Status).await? {
            Reply::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends the session and closes the connection, after everything that was submitted before. What
    /// is unanswered then fails; all clones of this handle are closed with it.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        // A driver that is gone has closed already.
        if self.orders.send(Order::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }

    /// Connects again after [`Connection::TakenOver`].
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn reopen(&self) -> Result<(), Error> {
        self.orders
            .send(Order::Reopen)
            .await
            .map_err(|_| Error::Closed)
    }
}

/// An answer of another kind than its request. The session reads an answer by what was asked, so
/// this does not happen; and a program is not brought down for it if it does.
fn unexpected(reply: &Reply) -> Error {
    Error::Api(ApiError {
        code: ErrorCode::Internal,
        message: format!("the answer is of another kind than the request: {reply:?}"),
        outcome: Outcome::Unknown,
    })
}
