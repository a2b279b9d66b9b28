//! One connection of the benchmark: a frame out, its answers in, and the same again. When the
//! connection is lost it opens another one under the same session, and what was not answered is
//! sent again.

use super::frames::{self, Requests};
use super::stats::Stats;
use crate::args::BenchTest;
use futures_util::{SinkExt, StreamExt};
use kvservice_client::wire::{self, Socket};
use kvservice_client::{Error, Op, Reply, ServerAddress};
use kvservice_shared::api::json::decode_responses;
use kvservice_shared::api::{OpKind, Request};
use kvservice_shared::ids::{RequestId, SessionUuid};
use kvservice_shared::session::HeldSession;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// What all connections of a test have in common.
pub struct Plan {
    pub server: ServerAddress,
    pub test: BenchTest,
    pub requests: Requests,
    /// Requests in one frame.
    pub pipeline: u64,
    pub keyspace: u64,
    /// A connection that awaits an answer and hears nothing for so long is given up and opened
    /// anew.
    pub silence: Duration,
    stats: Mutex<Stats>,
}

impl Plan {
    pub fn new(
        server: ServerAddress,
        test: BenchTest,
        requests: Requests,
        pipeline: u64,
        keyspace: u64,
        silence: Duration,
        stats: Stats,
    ) -> Plan {
        let stats = Mutex::new(stats);
        Plan {
            server,
            test,
            requests,
            pipeline,
            keyspace,
            silence,
            stats,
        }
    }

    /// One thread runs all connections, so the lock is never waited for.
    pub fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first pause between two attempts to connect again, and the longest. All connections together
/// try far more often, each at its own times.
const RETRY_PAUSE: Duration = Duration::from_millis(2);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// One connection with its session.
pub struct Connection {
    socket: Socket,
    session: SessionUuid,
    held: HeldSession,
    /// Ids go on from one test to the next: they are never used twice in a session.
    next_id: u64,
    random: u64,
}

/// A frame that is not wholly answered.
struct Frame {
    sent: Instant,
    first_id: u64,
    /// The number of each request's key; `None` once it is answered.
    waiting: Vec<Option<u64>>,
    left: usize,
}

impl Connection {
    /// Opens a connection under a new session.
    ///
    /// # Errors
    /// It cannot be reached, or takes no session.
    pub async fn open(server: &ServerAddress, timeout: Duration) -> Result<Connection, Error> {
        let session = SessionUuid(uuid::Uuid::new_v4());
        let mut socket = wire::open(server, timeout).await.map_err(no_connection)?;
        let mut held = HeldSession::default();
        hello(&mut socket, RequestId(1), session, timeout, &mut held).await?;
        // Never 0, which the generator would stay at.
        let random = session.0.as_u64_pair().0 | 1;
        Ok(Connection {
            socket,
            session,
            held,
            next_id: 2,
            random,
        })
    }

    /// Sends what the plan has for it, until that is over.
    ///
    /// # Errors
    /// The server does not speak the protocol; the message is for people.
    pub async fn run(&mut self, plan: &Arc<Plan>) -> Result<(), String> {
        let mut alarm = Box::pin(tokio::time::sleep(plan.silence));
        loop {
            let sent = Instant::now();
            let count = plan.stats().claim(plan.pipeline, sent);
            if count == 0 {
                return Ok(());
            }
            let waiting: Vec<_> = (0..count)
                .map(|_| Some(self.below(plan.keyspace)))
                .collect();
            let left = waiting.len();
            let mut frame = Frame {
                sent,
                first_id: self.next_id,
                waiting,
                left,
            };
            self.next_id += count;
            let mut ok = self.send(plan, &frame).await.is_ok();
            while frame.left > 0 {
                if !ok {
                    plan.stats().reconnects += 1;
                    self.reconnect(plan, &mut frame).await;
                    ok = frame.left == 0 || self.send(plan, &frame).await.is_ok();
                    continue;
                }
                match self.receive(plan.silence, alarm.as_mut()).await {
                    Some(text) => take(plan, &mut frame, &text)?,
                    None => ok = false,
                }
            }
        }
    }

    async fn send(&mut self, plan: &Plan, frame: &Frame) -> Result<(), ()> {
        let waiting = frame.waiting.iter().zip(frame.first_id..);
        let requests = waiting.filter_map(|(key, id)| Some((id, (*key)?)));
        let text = plan.requests.frame(frame.left, requests);
        self.socket.send(Message::text(text)).await.map_err(drop)
    }

    /// The next text frame; `None` if the connection is lost, or silent for too long.
    ///
    /// The alarm is only set anew when it goes off, not at each frame: that is cheaper.
    async fn receive(
        &mut self,
        silence: Duration,
        mut alarm: Pin<&mut Sleep>,
    ) -> Option<Utf8Bytes> {
        let begun = tokio::time::Instant::now();
        loop {
            tokio::select! {
                biased;
                frame = self.socket.next() => match frame {
                    Some(Ok(Message::Text(text))) => return Some(text),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Ok(Message::Close(_))) => {
                        // The answer to it is made by the library, and goes out if there is room
                        // for it.
                        let _ = tokio::time::timeout(RETRY_PAUSE, self.socket.flush()).await;
                        return None;
                    }
                    Some(Ok(Message::Binary(_)) | Err(_)) | None => return None,
                },
                () = alarm.as_mut() => {
                    let over = tokio::time::Instant::now() >= begun + silence;
                    alarm.as_mut().reset(begun + silence);
                    if over {
                        return None;
                    }
                }
            }
        }
    }

    /// Opens the session's next connection, however long that takes. If the server has forgotten
    /// the session, writes of the frame that were sent before have an unknown outcome.
    async fn reconnect(&mut self, plan: &Plan, frame: &mut Frame) {
        let mut pause = RETRY_PAUSE;
        loop {
            if let Ok(mut socket) = wire::open(&plan.server, plan.silence).await {
                let id = RequestId(self.next_id);
                self.next_id += 1;
                let held = &mut self.held;
                if let Ok(same) = hello(&mut socket, id, self.session, plan.silence, held).await {
                    self.socket = socket;
                    if !same && frames::kind(plan.test).is_write() {
                        frame.give_up(plan);
                    }
                    return;
                }
            }
            let micros = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
            let jitter = Duration::from_micros(self.below(micros));
            tokio::time::sleep((pause + jitter) / 2).await;
            pause = (2 * pause).min(RETRY_PAUSE_MAX);
        }
    }

    /// A number from 0 up to the limit, without it. xorshift64: which key it is need not be more
    /// random than that.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * u128::from(limit)) >> 64) as u64
    }
}

impl Frame {
    fn give_up(&mut self, plan: &Plan) {
        let mut stats = plan.stats();
        for waiting in &mut self.waiting {
            if waiting.take().is_some() {
                stats.failed(frames::lost());
            }
        }
        self.left = 0;
    }
}

/// Counts the answers in a text frame.
fn take(plan: &Plan, frame: &mut Frame, text: &str) -> Result<(), String> {
    let now = Instant::now();
    let mut stats = plan.stats();
    frames::read_answers(text, frames::kind(plan.test), |id, answer| {
        let index = id
            .checked_sub(frame.first_id)
            .and_then(|index| usize::try_from(index).ok());
        // An answer to something that is answered already, or was never asked, counts for nothing.
        if let Some(slot) = index.and_then(|index| frame.waiting.get_mut(index))
            && slot.take().is_some()
        {
            frame.left -= 1;
            stats.answered(answer, frame.sent, now);
        }
    })
}

/// Names the session; returns whether the server holds the one of the `hello` before.
async fn hello(
    socket: &mut Socket,
    id: RequestId,
    session: SessionUuid,
    timeout: Duration,
    held: &mut HeldSession,
) -> Result<bool, Error> {
    let greeted = tokio::time::timeout(timeout, greet(socket, id, session)).await;
    let late = || no_connection(format!("no answer to hello within {timeout:?}"));
    match greeted.unwrap_or_else(|_| Err(late())) {
        Ok((resumed, opened)) => Ok(held.answered(resumed, opened)),
        Err(error) => {
            held.answer_lost();
            Err(error)
        }
    }
}

/// `resumed` and `opened` of the answer.
async fn greet(
    socket: &mut Socket,
    id: RequestId,
    session: SessionUuid,
) -> Result<(bool, Option<Box<str>>), Error> {
    let hello = Request {
        id,
        op: Op::Hello { session },
    };
    socket
        .send(Message::text(hello.to_json()))
        .await
        .map_err(no_connection)?;
    loop {
        let text = match socket.next().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Err(error)) => return Err(no_connection(error)),
            Some(Ok(Message::Binary(_) | Message::Close(_))) | None => {
                return Err(no_connection("the server closed the connection"));
            }
        };
        let kind_of = |answered| (answered == id).then_some(OpKind::Hello);
        let responses = decode_responses(&text, kind_of).map_err(no_connection)?;
        let own = responses
            .into_iter()
            .find(|response| response.id == Some(id));
        match own.map(|response| response.result) {
            Some(Ok(Reply::Hello {
                resumed, opened, ..
            })) => return Ok((resumed, opened)),
            Some(Ok(_)) => return Err(no_connection("the answer to hello is none")),
            Some(Err(error)) => return Err(Error::Api(error)),
            None => {}
        }
    }
}

fn no_connection(reason: impl ToString) -> Error {
    Error::Connect(reason.to_string())
}
