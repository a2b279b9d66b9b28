//! One client's WebSocket connection: a task that turns frames into requests and answers into frames.
//!
//! It knows JSON, limits and time; what requests mean, the order of ids and sessions are the gateway's. One
//! task polls everything (socket, answers, timer, shutdown) without locks or split halves: a wake-up reads
//! all frames that are ready and passes their requests on in one message, and writes all answers that are
//! ready with one flush.
//!
//! Invariants, whatever the client does:
//!
//! - At most [`IN_FLIGHT_REQUESTS_MAX`] requests are passed on and not yet answered *into the socket*. What
//!   one frame brings beyond that waits in `backlog`, and nothing more is read.
//! - Answers are encoded only when the socket has taken the frames before them, so at most one frame beyond
//!   `WRITE_BUFFER_BYTES` is ever encoded and unsent; the rest waits as values, counted in bytes.
//! - A client that takes nothing is cut off by `stall.rs`, one that says nothing by `silence_timeout`.

mod bounds;

use crate::edge::{ConnReceiver, Edge, FromConn, ToConn};
use crate::stall::StallGuard;
use bounds::{Inbound, Silence, UnansweredBytes, Verdict};
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use kvservice_backend::shutdown::Shutdown;
use kvservice_shared::api::json::decode_requests;
use kvservice_shared::api::{Request, Response};
use kvservice_shared::ids::ConnId;
use kvservice_shared::limits::{
    CLIENT_FRAME_BYTES_MAX, IN_FLIGHT_REQUESTS_MAX, KEY_BYTES_MAX, LIST_BYTES_MAX,
    LIST_ENTRIES_MAX, VALUE_BYTES_MAX,
};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

/// Read from the socket at a time. Frames that are larger get a buffer of their own size.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// Encoded frames are collected up to here before they are written.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;
/// An array of answers is closed once it passes this many bytes.
const ARRAY_BYTES_TARGET: usize = 1024 * 1024;
/// The largest possible frame is one page of `list` whose every byte JSON writes as `\u0000`.
const WRITE_BUFFER_BYTES_MAX: usize = WRITE_BUFFER_BYTES
    + ARRAY_BYTES_TARGET
    + 6 * (LIST_BYTES_MAX + VALUE_BYTES_MAX + 2 * KEY_BYTES_MAX)
    + 128 * LIST_ENTRIES_MAX as usize;
/// Frames (pings, say) that are read while the client takes no bytes: each may leave a pong in tungstenite's
/// buffer.
const FRAMES_READ_WHILE_STALLED_MAX: usize = 64;
/// Longest reason in a close frame, in bytes.
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// Serves one client until it or `shutdown` ends it. `read_ahead` is what the client sent after its handshake.
pub(crate) async fn run(edge: Arc<Edge>, io: StallGuard, read_ahead: Bytes, shutdown: Shutdown) {
    let (conn, to, answers) = edge.open();
    if edge
        .gateway
        .send(FromConn::Opened { conn, to })
        .await
        .is_err()
    {
        return;
    }
    tracing::debug!(%conn, "opened");
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(CLIENT_FRAME_BYTES_MAX))
        .max_frame_size(Some(CLIENT_FRAME_BYTES_MAX));
    let part = read_ahead.to_vec();
    let ws = WebSocketStream::from_partially_read(io, part, Role::Server, Some(config)).await;
    let mut connection = Connection::new(&edge, conn, ws, answers, shutdown);
    let end = connection.serve().await;
    connection.finish(end).await;
    drop(connection);
    // The gateway's task may be gone, at shutdown.
    let _ = edge.gateway.send(FromConn::Closed { conn }).await;
}

/// Why a connection ends.
enum End {
    /// The client left, or its socket broke: there is nobody to tell.
    Gone(String),
    /// It is told, with a close frame.
    Close(Closing),
}

struct Closing {
    code: u16,
    reason: String,
    /// Whether frames can still be read: not after one that broke the protocol or a limit.
    readable: bool,
}

impl Closing {
    fn new(code: CloseCode, reason: impl Into<String>) -> Closing {
        Closing {
            code: code.into(),
            reason: reason.into(),
            readable: true,
        }
    }
}

/// What a wake-up of the task came to.
enum Step {
    Pass(Vec<Request>),
    End(End),
}

struct Answer {
    response: Response,
    /// From the gateway; the others refuse what could not be read.
    passed_on: bool,
}

struct Connection<'a> {
    edge: &'a Edge,
    conn: ConnId,
    ws: WebSocketStream<StallGuard>,
    answers: ConnReceiver,
    /// Requests read and not yet passed on.
    backlog: VecDeque<Request>,
    /// Passed on, and their answers not yet handed to the socket.
    in_flight: usize,
    unanswered: UnansweredBytes,
    /// Answers not yet encoded.
    pending: VecDeque<Answer>,
    /// Of `pending`, those made here.
    refusals: usize,
    /// The client has sent an array, so it reads arrays.
    arrays: bool,
    /// Something was handed to tungstenite and not yet flushed.
    unflushed: bool,
    ping_due: bool,
    closing: Option<Closing>,
    /// The client sent its close frame: only the reply to it is still sent.
    closed_by_client: bool,
    frames_while_stalled: usize,
    inbound: Inbound<'a>,
    silence: Silence,
    timer: Pin<Box<Sleep>>,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Shutdown was asked for; answers are waited for until then.
    drain_until: Option<Instant>,
}

impl<'a> Connection<'a> {
    fn new(
        edge: &'a Edge,
        conn: ConnId,
        ws: WebSocketStream<StallGuard>,
        answers: ConnReceiver,
        mut shutdown: Shutdown,
    ) -> Connection<'a> {
        let silence = Silence::new(Instant::now(), ws.get_ref().bytes_read(), &edge.config);
        Connection {
            edge,
            conn,
            answers,
            backlog: VecDeque::new(),
            in_flight: 0,
            unanswered: UnansweredBytes::default(),
            pending: VecDeque::new(),
            refusals: 0,
            arrays: false,
            unflushed: false,
            ping_due: false,
            closing: None,
            closed_by_client: false,
            frames_while_stalled: 0,
            inbound: Inbound::new(edge, ws.get_ref().bytes_read()),
            timer: Box::pin(sleep_until(silence.due())),
            silence,
            stop: Box::pin(async move { shutdown.requested().await }),
            drain_until: None,
            ws,
        }
    }

    async fn serve(&mut self) -> End {
        loop {
            match poll_fn(|cx| self.poll_step(cx)).await {
                Step::Pass(requests) => {
                    let message = FromConn::Requests {
                        conn: self.conn,
                        requests,
                    };
                    // Waiting here is the back-pressure: the gateway never waits for a connection.
                    if self.edge.gateway.send(message).await.is_err() {
                        return End::Close(Closing::new(CloseCode::Away, "the server stops"));
                    }
                }
                Step::End(end) => return end,
            }
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if self.drain_until.is_none() && self.stop.as_mut().poll(cx).is_ready() {
            let until = Instant::now() + self.edge.config.drain_timeout;
            self.drain_until = Some(until);
            self.timer.as_mut().reset(until);
        }
        self.poll_answers(cx);
        loop {
            let socket_ready = match self.poll_write(cx) {
                Ok(ready) => ready,
                Err(error) => return Poll::Ready(Step::End(End::Gone(error.to_string()))),
            };
            if let Some(end) = self.poll_read(cx) {
                return Poll::Ready(Step::End(end));
            }
            if let Some(requests) = self.take_window() {
                return Poll::Ready(Step::Pass(requests));
            }
            if let Some(end) = self.ended() {
                return Poll::Ready(Step::End(end));
            }
            if !socket_ready || self.pending.is_empty() {
                break;
            }
        }
        self.poll_timer(cx).map(Step::End)
    }

    /// Takes what the gateway has sent.
    fn poll_answers(&mut self, cx: &mut Context<'_>) {
        while self.closing.is_none() {
            match self.answers.poll_recv(cx) {
                Poll::Ready(Some(ToConn::Responses(responses))) => {
                    self.pending
                        .extend(responses.into_iter().map(|response| Answer {
                            response,
                            passed_on: true,
                        }));
                }
                Poll::Ready(Some(ToConn::Close { code, reason })) => {
                    self.closing = Some(Closing {
                        code,
                        reason,
                        readable: true,
                    });
                }
                Poll::Ready(None) => {
                    self.closing = Some(Closing::new(CloseCode::Away, "the server stops"));
                }
                Poll::Pending => break,
            }
        }
    }

    /// Encodes and writes as much as the socket takes; true when it took everything.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, WsError> {
        if self.closed_by_client {
            while self.take_answer().is_some() {}
            return Ok(true);
        }
        while self.ping_due || !self.pending.is_empty() {
            match self.ws.poll_ready_unpin(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Ok(false),
            }
            let frame = if self.ping_due {
                self.ping_due = false;
                Message::Ping(Bytes::new())
            } else {
                Message::Text(self.encode())
            };
            Pin::new(&mut self.ws).start_send(frame)?;
            self.unflushed = true;
        }
        // A stall may be that of pongs, which tungstenite sends by itself; then it is flushed here alone.
        if self.unflushed || self.ws.get_ref().is_stalled() {
            match self.ws.poll_flush_unpin(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => return Ok(false),
            }
            self.unflushed = false;
        }
        Ok(true)
    }

    /// The next frame of answers: one for a client that never sent an array, else all that are waiting up to
    /// about [`ARRAY_BYTES_TARGET`].
    fn encode(&mut self) -> Utf8Bytes {
        let array = self.arrays && self.pending.len() > 1;
        let mut text = String::with_capacity(if array { 1024 } else { 192 });
        text.push_str(if array { "[" } else { "" });
        while let Some(answer) = self.take_answer() {
            answer.write_json(&mut text);
            if !array {
                break;
            }
            if self.pending.is_empty() || text.len() >= ARRAY_BYTES_TARGET {
                text.push(']');
                break;
            }
            text.push(',');
        }
        Utf8Bytes::from(text)
    }

    fn take_answer(&mut self) -> Option<Response> {
        let Answer {
            response,
            passed_on,
        } = self.pending.pop_front()?;
        if passed_on {
            assert!(
                self.in_flight > 0,
                "more answers than requests on {}",
                self.conn
            );
            self.in_flight -= 1;
            self.answers.release(&response);
        } else {
            self.refusals -= 1;
        }
        self.unanswered.answered();
        Some(response)
    }

    fn may_read(&self) -> bool {
        let config = &self.edge.config;
        // A client that closes is read until it has done so.
        self.closed_by_client
            || (self.closing.is_none()
                && self.drain_until.is_none()
                && self.in_flight + self.backlog.len() + self.refusals < IN_FLIGHT_REQUESTS_MAX
                && self.answers.queued_bytes() <= config.unsent_bytes_max
                && self.unanswered.bytes <= config.unsent_bytes_max
                && self.frames_while_stalled < FRAMES_READ_WHILE_STALLED_MAX)
    }

    /// Reads every frame that is ready, as far as there is room for what they ask.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Option<End> {
        if !self.ws.get_ref().is_stalled() {
            self.frames_while_stalled = 0;
        }
        while self.may_read() {
            let read = Pin::new(&mut self.ws).poll_next(cx);
            if let Err(closing) = self
                .inbound
                .count(self.ws.get_ref().bytes_read(), read.is_ready())
            {
                self.closing = Some(closing);
                break;
            }
            match read {
                Poll::Ready(Some(Ok(message))) => self.take_frame(message),
                Poll::Ready(Some(Err(error))) => match closing_after(&error) {
                    Some(closing) => self.closing = Some(closing),
                    None => return Some(End::Gone(error.to_string())),
                },
                Poll::Ready(None) => return Some(End::Gone("closed by the client".to_string())),
                Poll::Pending => break,
            }
        }
        self.silence.heard_so_far(self.ws.get_ref().bytes_read());
        None
    }

    fn take_frame(&mut self, message: Message) {
        if self.ws.get_ref().is_stalled() {
            self.frames_while_stalled += 1;
        }
        match message {
            Message::Text(_) | Message::Binary(_) if self.closed_by_client => {}
            Message::Text(text) => {
                let decoded = decode_requests(&text);
                self.arrays |= decoded.batch;
                self.unanswered.asked(decoded.requests.len(), text.len());
                for request in decoded.requests {
                    match request {
                        Ok(request) => self.backlog.push_back(request),
                        Err(response) => {
                            self.refusals += 1;
                            self.pending.push_back(Answer {
                                response,
                                passed_on: false,
                            });
                        }
                    }
                }
            }
            Message::Binary(_) => {
                let reason = "binary frame: kvservice.v1.json is text only";
                self.closing = Some(Closing::new(CloseCode::Unsupported, reason));
            }
            Message::Close(_) => self.closed_by_client = true,
            // Pongs are sent by tungstenite as it reads on.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }

    /// Requests that may be passed on now. What was read before an end that nobody asked for is dropped: it
    /// was never applied, and its client cannot be told either way.
    fn take_window(&mut self) -> Option<Vec<Request>> {
        if self.closing.is_some() || self.closed_by_client {
            self.backlog.clear();
        }
        if self.answers.queued_bytes() > self.edge.config.unsent_bytes_max {
            return None;
        }
        let room = IN_FLIGHT_REQUESTS_MAX - self.in_flight;
        let count = self.backlog.len().min(room);
        if count == 0 {
            return None;
        }
        self.in_flight += count;
        Some(self.backlog.drain(..count).collect())
    }

    /// Whether all is said that is to be said.
    fn ended(&mut self) -> Option<End> {
        if !self.pending.is_empty() || self.unflushed || self.closed_by_client {
            return None;
        }
        if let Some(closing) = self.closing.take() {
            return Some(End::Close(closing));
        }
        let answered = self.in_flight == 0 && self.backlog.is_empty();
        (self.drain_until.is_some() && answered)
            .then(|| End::Close(Closing::new(CloseCode::Away, "the server stops")))
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if let Some(until) = self.drain_until
                && now >= until
            {
                let reason = "the server stops; what is unanswered has an unknown outcome";
                return Poll::Ready(End::Close(Closing::new(CloseCode::Away, reason)));
            }
            if !self.may_read() {
                // It cannot be heard, so it is not silent.
                self.silence.heard = now;
            }
            let config = &self.edge.config;
            match self.silence.judge(now, config) {
                Verdict::Wait(until) => {
                    self.timer
                        .as_mut()
                        .reset(self.drain_until.map_or(until, |d| d.min(until)));
                }
                Verdict::Ping(until) => {
                    self.timer.as_mut().reset(until);
                    self.ping_due = true;
                    // An error shows again, and is handled, at the next step.
                    if self.poll_write(cx).is_err() {
                        cx.waker().wake_by_ref();
                    }
                }
                Verdict::Gone => {
                    let reason = format!("nothing heard for {:?}", config.silence_timeout);
                    return Poll::Ready(End::Close(Closing::new(CloseCode::Policy, reason)));
                }
            }
        }
        Poll::Pending
    }

    /// Says goodbye, and waits (not for long) until the client has heard it.
    async fn finish(&mut self, end: End) {
        let Closing {
            code,
            reason,
            readable,
        } = match end {
            End::Gone(why) => {
                tracing::debug!(conn = %self.conn, why, "gone");
                return;
            }
            End::Close(closing) => closing,
        };
        tracing::debug!(conn = %self.conn, code, reason, "closing");
        let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
        let frame = CloseFrame {
            code: code.into(),
            reason: reason.into(),
        };
        let farewell = async {
            self.ws.close(Some(frame)).await?;
            if readable {
                while let Some(Ok(message)) = self.ws.next().await {
                    if message.is_close() {
                        return Ok(());
                    }
                }
            }
            // To drop a socket with unread bytes resets it, and the client may lose the close frame.
            let io = self.ws.get_mut();
            io.shutdown().await?;
            let mut discarded = vec![0; READ_BUFFER_BYTES];
            while io.read(&mut discarded).await? > 0 {}
            Ok::<(), WsError>(())
        };
        // A client that does not answer has had its time; one that is gone needs no farewell.
        let _ = timeout(self.edge.config.close_timeout, farewell).await;
    }
}

/// How to close after a frame that could not be read; `None` where the client is gone.
fn closing_after(error: &WsError) -> Option<Closing> {
    let (code, reason) = match error {
        WsError::Capacity(_) => (
            CloseCode::Size,
            format!("a frame holds at most {CLIENT_FRAME_BYTES_MAX} bytes"),
        ),
        WsError::Utf8(_) => (CloseCode::Invalid, "a text frame must be UTF-8".to_string()),
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        WsError::Protocol(error) => (CloseCode::Protocol, error.to_string()),
        _ => return None,
    };
    Some(Closing {
        readable: false,
        ..Closing::new(code, reason)
    })
}
