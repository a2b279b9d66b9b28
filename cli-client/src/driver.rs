//! The task under a [`crate::Client`]: it owns the session and the socket, feeds the session what
//! happens, and carries out what the session asks for. All decisions are the session's.

use crate::config::Config;
use crate::connection::Connection;
use crate::link::{Incoming, Link};
use crate::wire::{self, ConnectError};
use kvservice_shared::api::{Op, Response};
use kvservice_shared::ids::{RequestId, SessionUuid};
use kvservice_shared::limits::IN_FLIGHT_REQUESTS_MAX;
use kvservice_shared::session::{Action, ConnState, Session, SessionConfig};
use std::collections::HashMap;
use std::future::{pending, poll_fn};
use std::ops::ControlFlow;
use std::pin::Pin;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// What a handle asks of the driver.
pub(crate) enum Order {
    /// Requests that go out as one frame: at least one, at most [`IN_FLIGHT_REQUESTS_MAX`].
    Submit(Submission),
    /// End the session; the sender is dropped when that is done.
    Close(oneshot::Sender<()>),
    /// Connect again after a takeover.
    Reopen,
}

/// Requests, each with where its answer goes.
pub(crate) type Submission = Vec<(Op, oneshot::Sender<Response>)>;

/// How long a goodbye may take to go out.
const GOODBYE: Duration = Duration::from_millis(500);
/// Pings within one silence timeout while an answer is awaited.
const PINGS_PER_SILENCE: u32 = 3;

/// The future that opens a socket.
type Opening = Pin<Box<dyn Future<Output = Result<Box<Link>, ConnectError>> + Send>>;

/// The connection, as far as it has come.
enum Line {
    Down,
    Opening(Opening),
    Up(Box<Link>),
}

/// What happened on the line.
enum LineEvent {
    Opened(Result<Box<Link>, ConnectError>),
    Incoming(Incoming),
}

impl Line {
    /// The next event; never, while there is no connection. Dropping the future loses nothing.
    async fn next(&mut self) -> LineEvent {
        match self {
            Line::Down => pending().await,
            Line::Opening(opening) => {
                LineEvent::Opened(poll_fn(|cx| opening.as_mut().poll(cx)).await)
            }
            Line::Up(link) => LineEvent::Incoming(link.next().await),
        }
    }
}

pub(crate) struct Driver {
    config: Config,
    session: Session,
    /// The session counts milliseconds from here.
    epoch: Instant,
    line: Line,
    orders: mpsc::Receiver<Order>,
    /// An order taken from the queue that does not fit into the session's window yet. Nothing more
    /// is taken until it does: the queue fills, and those who submit wait.
    held: Option<Submission>,
    waiting: HashMap<RequestId, oneshot::Sender<Response>>,
    state: watch::Sender<Connection>,
    /// Something came in since the last ping was due.
    heard: bool,
    ping_at: Instant,
}

impl Driver {
    pub(crate) fn new(
        config: Config,
        uuid: SessionUuid,
        orders: mpsc::Receiver<Order>,
    ) -> (Driver, watch::Receiver<Connection>) {
        let epoch = Instant::now();
        let session = Session::new(
            SessionConfig {
                uuid,
                request_timeout_ms: config.request_timeout.map_or(0, millis_at_least_one),
                silence_timeout_ms: millis_at_least_one(config.silence_timeout),
                jitter_seed: uuid.0.as_u64_pair().0,
            },
            0,
        );
        let (state, watcher) = watch::channel(Connection::of(&session, epoch));
        let driver = Driver {
            config,
            session,
            epoch,
            line: Line::Down,
            orders,
            held: None,
            waiting: HashMap::new(),
            state,
            heard: false,
            ping_at: epoch,
        };
        (driver, watcher)
    }

    /// Runs until the client is closed or its last handle is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            self.carry_out();
            let wake_at = self.wake_at();
            tokio::select! {
                event = self.line.next() => self.on_line(event),
                order = self.orders.recv(), if self.held.is_none() => {
                    if self.on_order(order).await.is_break() {
                        return;
                    }
                }
                () = sleep_until(wake_at) => self.on_time(),
            }
            if self.take_orders().await.is_break() {
                return;
            }
        }
    }

    /// Takes every order that is there before anything is written, so that those which were given
    /// together go out together.
    async fn take_orders(&mut self) -> ControlFlow<()> {
        loop {
            if let Some(held) = self.held.take() {
                self.submit(held);
                if self.held.is_some() {
                    return ControlFlow::Continue(());
                }
            }
            match self.orders.try_recv() {
                Ok(order) => self.on_order(Some(order)).await?,
                // The last handle is gone: `recv` says so too, on the next turn.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    return ControlFlow::Continue(());
                }
            }
        }
    }

    async fn on_order(&mut self, order: Option<Order>) -> ControlFlow<()> {
        match order {
            Some(Order::Submit(requests)) => self.submit(requests),
            Some(Order::Reopen) => {
                let now = self.now_ms();
                self.session.reopen(now);
            }
            Some(Order::Close(done)) => {
                self.shut_down().await;
                drop(done);
                return ControlFlow::Break(());
            }
            None => {
                self.shut_down().await;
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn now_ms(&self) -> u64 {
        // 2^64 milliseconds outlast the process.
        self.epoch.elapsed().as_millis() as u64
    }

    /// Hands the requests to the session, or holds them while its window has no room for them all.
    fn submit(&mut self, requests: Submission) {
        let unanswered = self.session.unanswered();
        if unanswered + requests.len() > IN_FLIGHT_REQUESTS_MAX {
            self.held = Some(requests);
            return;
        }
        if unanswered == 0 && !self.session.is_suspect() {
            self.ping_at = Instant::now() + self.ping_interval();
        }
        let now = self.now_ms();
        let (mut ops, replies): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let ids = match ops.pop() {
            Some(op) if ops.is_empty() => self.session.submit(op, now).map(|id| vec![id]),
            Some(op) => {
                ops.push(op);
                self.session.submit_batch(ops, now)
            }
            None => return,
        };
        // A session that is closed or taken over takes nothing; the senders are dropped, and their
        // calls end with `Error::Closed`. That it is not full was checked, and nobody submits
        // `hello`.
        if let Ok(ids) = ids {
            self.waiting.extend(ids.into_iter().zip(replies));
        }
    }

    fn on_line(&mut self, event: LineEvent) {
        let now = self.now_ms();
        match event {
            LineEvent::Opened(Ok(link)) => {
                self.line = Line::Up(link);
                self.heard = true;
                self.ping_at = Instant::now() + self.ping_interval();
                self.session.connected(now);
            }
            LineEvent::Opened(Err(error)) => {
                self.line = Line::Down;
                self.session.disconnected(None, &error.to_string(), now);
            }
            LineEvent::Incoming(Incoming::Text(text)) => {
                self.heard = true;
                self.session.received(&text, now);
            }
            LineEvent::Incoming(Incoming::Alive) => {
                self.heard = true;
                self.session.heard(now);
            }
            LineEvent::Incoming(Incoming::Ended { code, reason }) => {
                self.line = Line::Down;
                self.session.disconnected(code, &reason, now);
            }
        }
    }

    fn on_time(&mut self) {
        let now = self.now_ms();
        let ping_interval = self.ping_interval();
        if let Line::Up(link) = &mut self.line
            && self.ping_at <= Instant::now()
        {
            self.ping_at = Instant::now() + ping_interval;
            // One that has just spoken is alive without being asked.
            if !std::mem::take(&mut self.heard) {
                link.send(Message::Ping(Bytes::new()));
            }
        }
        self.session.tick(now);
    }

    fn ping_interval(&self) -> Duration {
        self.config.silence_timeout / PINGS_PER_SILENCE
    }

    /// When [`Driver::on_time`] is next needed: when the session says, and for a ping while an
    /// answer is awaited (`hello`'s too).
    fn wake_at(&self) -> Option<Instant> {
        let session = self
            .session
            .next_wake_ms()
            .map(|ms| self.epoch + Duration::from_millis(ms));
        let awaited = self.session.unanswered() > 0 || *self.session.state() == ConnState::Greeting;
        let ping = (awaited && matches!(self.line, Line::Up(_))).then_some(self.ping_at);
        session.into_iter().chain(ping).min()
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.session.poll() {
            match action {
                Action::Connect => {
                    let (server, timeout) =
                        (self.config.server.clone(), self.config.connect_timeout);
                    self.line = Line::Opening(Box::pin(async move {
                        Ok(Box::new(Link::new(wire::open(&server, timeout).await?)))
                    }));
                }
                Action::Send(text) => {
                    if let Line::Up(link) = &mut self.line {
                        link.send(Message::text(text));
                    }
                }
                Action::Completed { id, result } => {
                    if let Some(reply) = self.waiting.remove(&id) {
                        // Nobody waits for it any more: the call was dropped.
                        let _ = reply.send(Response {
                            id: Some(id),
                            result,
                        });
                    }
                }
                Action::CloseSocket => self.line = Line::Down,
                Action::StateChanged => {
                    self.state
                        .send_replace(Connection::of(&self.session, self.epoch));
                }
            }
        }
    }

    /// Ends the session, and says goodbye if the server listens.
    async fn shut_down(&mut self) {
        let line = std::mem::replace(&mut self.line, Line::Down);
        self.session.close();
        self.carry_out();
        self.state.send_replace(Connection::Closed);
        if let Line::Up(link) = line {
            // A server that does not take it sees the socket close instead.
            let _ = tokio::time::timeout(GOODBYE, link.close()).await;
        }
    }
}

/// The session reads 0 as "never".
fn millis_at_least_one(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => pending().await,
    }
}
