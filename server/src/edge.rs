//! The seam between client connections and the one task that owns the gateway.
//!
//! A connection task decodes, bounds and encodes; the gateway's task orders, remembers and answers. They
//! share nothing but two kinds of channel:
//!
//! - **to the gateway**, [`FromConn`], bounded and common to all connections: a full one makes connections
//!   wait, and so stops them from reading their sockets;
//! - **to a connection**, [`ToConn`], through its [`ConnSender`], which never makes the gateway wait. It needs
//!   no bound of its own: a connection passes on at most [`limits::IN_FLIGHT_REQUESTS_MAX`] requests whose
//!   answers it has not yet handed to its socket. The *bytes* of those answers are counted, by connection and
//!   for all together, so that the gateway can refuse with `busy` before they matter.
//!
//! [`limits::IN_FLIGHT_REQUESTS_MAX`]: kvservice_shared::limits::IN_FLIGHT_REQUESTS_MAX

use crate::config::EdgeConfig;
use crate::gateway::DumpAnswer;
use kvservice_shared::api::{Reply, Request, Response};
use kvservice_shared::ids::ConnId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::sync::{mpsc, watch};

pub use crate::http::serve;

/// Whether the chain serves; the reason, in words for people, where it does not. Read by `/healthz`.
pub type Health = Result<(), String>;

/// What connection tasks send to the task that owns the gateway.
///
/// Of one connection: `Opened`, then any number of `Requests`, then `Closed`. Of one reader of a dump: `Dump`, then
/// a `DumpNext` for each page after the first, then `Closed`.
#[derive(Debug)]
pub enum FromConn {
    /// A client connected.
    Opened {
        /// Its number, never used again.
        conn: ConnId,
        /// The way back to it.
        to: ConnSender,
    },
    /// Requests in the order in which the client sent them; never empty.
    Requests {
        /// Whose.
        conn: ConnId,
        /// Each wants exactly one response.
        requests: Vec<Request>,
    },
    /// A dump is wanted, and its first page.
    Dump {
        /// The reader's number, never used again.
        conn: ConnId,
        /// The way back to it. Holds a page at most: the next one is asked for once there is room for it.
        to: mpsc::UnboundedSender<DumpAnswer>,
    },
    /// Its next page is wanted.
    DumpNext {
        /// The reader.
        conn: ConnId,
    },
    /// The connection is gone. Answers to what it still waits for go nowhere.
    Closed {
        /// Whose.
        conn: ConnId,
    },
}

/// What the gateway sends to a connection.
#[derive(Debug)]
pub enum ToConn {
    /// Answers, in any order; one for each request passed on.
    Responses(Vec<Response>),
    /// Send what came before, then close. Nothing sent after it arrives.
    Close {
        /// The WebSocket close code.
        code: u16,
        /// For people; at most 123 bytes are sent.
        reason: String,
    },
}

/// Everything that client connections share: one for each client port.
#[derive(Debug)]
pub struct Edge {
    /// To the task that owns the gateway.
    pub gateway: mpsc::Sender<FromConn>,
    /// The port's limits and times.
    pub config: EdgeConfig,
    /// What `/healthz` says.
    pub health: watch::Receiver<Health>,
    conn_last: AtomicU64,
    queued_bytes: Arc<AtomicUsize>,
    pub(crate) inbound_bytes: AtomicUsize,
}

impl Edge {
    /// An edge without connections.
    #[must_use]
    pub fn new(
        gateway: mpsc::Sender<FromConn>,
        config: EdgeConfig,
        health: watch::Receiver<Health>,
    ) -> Edge {
        Edge {
            gateway,
            config,
            health,
            conn_last: AtomicU64::new(0),
            queued_bytes: Arc::default(),
            inbound_bytes: AtomicUsize::new(0),
        }
    }

    /// Bytes of answers that wait in all connections together; see [`ConnSender::global_queued_bytes`].
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// The next number of a connection, or of a reader of a dump.
    pub(crate) fn next_conn(&self) -> ConnId {
        ConnId(self.conn_last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(crate) fn open(&self) -> (ConnId, ConnSender, ConnReceiver) {
        let conn = self.next_conn();
        let (to, from) = conn_channel(Arc::clone(&self.queued_bytes));
        (conn, to, from)
    }
}

/// The gateway's end of the way to one connection.
#[derive(Clone, Debug)]
pub struct ConnSender {
    tx: mpsc::UnboundedSender<Queued>,
    counters: Counters,
}

/// The connection's end.
#[derive(Debug)]
pub struct ConnReceiver {
    rx: mpsc::UnboundedReceiver<Queued>,
    counters: Counters,
    /// Bytes received and not yet released.
    held: usize,
}

#[derive(Clone, Debug)]
struct Counters {
    conn: Arc<AtomicUsize>,
    global: Arc<AtomicUsize>,
}

impl Counters {
    fn add(&self, bytes: usize) {
        self.conn.fetch_add(bytes, Ordering::Relaxed);
        self.global.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sub(&self, bytes: usize) {
        self.conn.fetch_sub(bytes, Ordering::Relaxed);
        self.global.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Queued {
    message: ToConn,
    bytes: usize,
}

/// The way to one connection. `global` counts the bytes of all that share it.
#[must_use]
pub fn conn_channel(global: Arc<AtomicUsize>) -> (ConnSender, ConnReceiver) {
    let (tx, rx) = mpsc::unbounded_channel();
    let counters = Counters {
        conn: Arc::default(),
        global,
    };
    (
        ConnSender {
            tx,
            counters: counters.clone(),
        },
        ConnReceiver {
            rx,
            counters,
            held: 0,
        },
    )
}

impl ConnSender {
    /// Queues a message; never waits. False where the connection is gone, which is no error: its
    /// [`FromConn::Closed`] is on its way.
    pub fn send(&self, message: ToConn) -> bool {
        let bytes = match &message {
            ToConn::Responses(responses) => responses.iter().map(response_bytes).sum(),
            ToConn::Close { .. } => 0,
        };
        // Counted first, so that the receiver never takes off what was not yet put on.
        self.counters.add(bytes);
        let sent = self.tx.send(Queued { message, bytes }).is_ok();
        if !sent {
            self.counters.sub(bytes);
        }
        sent
    }

    /// Bytes of answers, about, that this connection has not yet handed to its socket.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.counters.conn.load(Ordering::Relaxed)
    }

    /// The same for all connections of the port together.
    #[must_use]
    pub fn global_queued_bytes(&self) -> usize {
        self.counters.global.load(Ordering::Relaxed)
    }
}

impl ConnReceiver {
    /// The next message; `None` once every sender is gone. Its bytes stay counted until
    /// [`ConnReceiver::release`].
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<ToConn>> {
        self.rx.poll_recv(cx).map(|queued| {
            queued.map(|queued| {
                self.held += queued.bytes;
                queued.message
            })
        })
    }

    /// As [`ConnReceiver::poll_recv`], for tests and tools that play a connection.
    pub async fn recv(&mut self) -> Option<ToConn> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Takes off a received response that is now the socket's.
    pub fn release(&mut self, response: &Response) {
        let bytes = response_bytes(response);
        self.held -= bytes;
        self.counters.sub(bytes);
    }

    /// Bytes of answers, about, that wait here or were received and not released.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.counters.conn.load(Ordering::Relaxed)
    }
}

impl Drop for ConnReceiver {
    fn drop(&mut self) {
        // From `close` on a sender fails, and takes its own bytes off again.
        self.rx.close();
        while let Ok(queued) = self.rx.try_recv() {
            self.counters.sub(queued.bytes);
        }
        self.counters.sub(self.held);
    }
}

/// What a response weighs while it waits: the same at both ends of the channel.
pub(crate) fn response_bytes(response: &Response) -> usize {
    /// Of a response and of a list entry, beside what they point to.
    const OVERHEAD: usize = 96;
    let held = match &response.result {
        Ok(Reply::Get { value, .. } | Reply::TestSet { value, .. }) => {
            value.as_ref().map_or(0, |value| value.0.len())
        }
        Ok(Reply::Set { value, .. }) => value.0.len(),
        Ok(Reply::List { entries, .. }) => entries
            .iter()
            .map(|entry| OVERHEAD + entry.key.len() + entry.value.0.len())
            .sum(),
        Ok(Reply::Status(_)) => 16 * 1024,
        Ok(Reply::Delete { .. } | Reply::Hello { .. }) => 0,
        Err(error) => error.message.len(),
    };
    OVERHEAD + held
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvservice_shared::api::Value;
    use kvservice_shared::ids::{RequestId, Seq};

    fn get(bytes: usize) -> Response {
        let value = Some(Value::from(vec![b'x'; bytes]));
        Response {
            id: RequestId::new(1),
            result: Ok(Reply::Get {
                value,
                revision: Seq(1),
            }),
        }
    }

    #[tokio::test]
    async fn bytes_are_counted_until_released_or_dropped() {
        let global = Arc::new(AtomicUsize::new(0));
        let (to_a, mut a) = conn_channel(Arc::clone(&global));
        let (to_b, b) = conn_channel(Arc::clone(&global));
        assert!(to_a.send(ToConn::Responses(vec![get(1000), get(2000)])));
        assert!(to_b.send(ToConn::Responses(vec![get(5000)])));
        assert!(to_a.queued_bytes() >= 3000 && to_a.queued_bytes() < 4000);
        assert!(to_a.global_queued_bytes() >= 8000);

        let Some(ToConn::Responses(responses)) = a.recv().await else {
            panic!("no responses")
        };
        assert!(a.queued_bytes() >= 3000, "received is not yet released");
        a.release(&responses[0]);
        assert!((2000..3000).contains(&a.queued_bytes()));
        assert!(to_a.send(ToConn::Responses(vec![get(10)])));
        drop(a);
        assert_eq!(to_a.queued_bytes(), 0);
        assert!(
            !to_a.send(ToConn::Responses(vec![get(1)])),
            "nobody is there"
        );
        assert_eq!(to_a.queued_bytes(), 0);
        drop(b);
        assert_eq!(to_b.global_queued_bytes(), 0);
    }
}
