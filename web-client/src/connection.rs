//! The only file that touches the socket: a browser's WebSocket, driven by `shared`'s session.
//!
//! The session thinks, this carries out. Sockets are numbered: what an old one still reports is nobody's
//! business any more.

use crate::browser;
use crate::state::link::Link;
use crate::state::{Event, Ticket};
use kvservice_shared::api::{ApiError, ErrorCode, Op, Outcome};
use kvservice_shared::ids::{RequestId, SessionUuid};
use kvservice_shared::session::{Action, ConnState, Session, SessionConfig};
use std::collections::BTreeMap;
use std::rc::Rc;
use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::Closure;
use web_sys::{CloseEvent, MessageEvent, WebSocket};

/// From a request to giving up on it, in milliseconds: twice what the front-end takes to.
const REQUEST_TIMEOUT_MS: u64 = 10_000;
/// A socket that is silent for so long though an answer is due is given up, in milliseconds.
const SILENCE_TIMEOUT_MS: u64 = 6_000;

/// What a browser reports where the server sent no close code: none in its frame, and no frame.
const NO_CODE: [u16; 2] = [1005, 1006];

/// Something a socket reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    socket: u64,
    kind: SignalKind,
}

#[derive(Clone, Debug, PartialEq)]
enum SignalKind {
    Opened,
    Text(String),
    Other,
    Closed { code: u16, reason: String },
}

/// The session and its socket.
pub struct Connection {
    session: Session,
    socket: Option<Socket>,
    sockets: u64,
    tickets: BTreeMap<RequestId, Ticket>,
    events: Vec<Event>,
    notify: Rc<dyn Fn(Signal)>,
}

impl Connection {
    /// Opens a session of its own. `notify` must hand each signal back to [`Connection::signal`].
    pub fn new(notify: impl Fn(Signal) + 'static, now_ms: u64) -> Connection {
        let uuid = uuid::Builder::from_random_bytes(browser::random_bytes()).into_uuid();
        let config = SessionConfig {
            uuid: SessionUuid(uuid),
            request_timeout_ms: REQUEST_TIMEOUT_MS,
            silence_timeout_ms: SILENCE_TIMEOUT_MS,
            jitter_seed: uuid.as_u64_pair().0,
        };
        let mut connection = Connection {
            session: Session::new(config, now_ms),
            socket: None,
            sockets: 0,
            tickets: BTreeMap::new(),
            events: Vec::new(),
            notify: Rc::new(notify),
        };
        connection.pump(now_ms);
        connection
    }

    /// Sends a request; its answer comes with [`Connection::take_events`].
    pub fn submit(&mut self, ticket: Ticket, op: Op, now_ms: u64) {
        match self.session.submit(op, now_ms) {
            Ok(id) => {
                self.tickets.insert(id, ticket);
            }
            Err(e) => {
                let error = ApiError {
                    code: ErrorCode::Unavailable,
                    message: e.to_string(),
                    outcome: Outcome::NotApplied,
                };
                self.events.push(Event::Answered {
                    ticket,
                    result: Err(error),
                });
            }
        }
        self.pump(now_ms);
    }

    /// A socket reported something.
    pub fn signal(&mut self, signal: Signal, now_ms: u64) {
        if self
            .socket
            .as_ref()
            .is_none_or(|socket| socket.number != signal.socket)
        {
            return;
        }
        match signal.kind {
            SignalKind::Opened => self.session.connected(now_ms),
            SignalKind::Text(text) => self.session.received(&text, now_ms),
            SignalKind::Other => self.session.heard(now_ms),
            SignalKind::Closed { code, reason } => {
                self.socket = None;
                let code = (!NO_CODE.contains(&code)).then_some(code);
                self.session.disconnected(code, &reason, now_ms);
            }
        }
        self.pump(now_ms);
    }

    /// Time passed.
    pub fn tick(&mut self, now_ms: u64) {
        self.session.tick(now_ms);
        self.pump(now_ms);
    }

    /// When [`Connection::tick`] is next needed.
    pub fn next_wake_ms(&self) -> Option<u64> {
        self.session.next_wake_ms()
    }

    /// Closes the connection for good, until [`Connection::reopen`].
    pub fn close(&mut self, now_ms: u64) {
        self.session.close();
        self.pump(now_ms);
    }

    /// Opens it again.
    pub fn reopen(&mut self, now_ms: u64) {
        self.session.reopen(now_ms);
        self.pump(now_ms);
    }

    /// What the page should hear.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Does what the session wants done.
    fn pump(&mut self, now_ms: u64) {
        while let Some(action) = self.session.poll() {
            match action {
                Action::Connect => {
                    self.sockets += 1;
                    match Socket::open(self.sockets, &self.notify) {
                        Ok(socket) => self.socket = Some(socket),
                        Err(reason) => self.session.disconnected(None, &reason, now_ms),
                    }
                }
                Action::Send(text) => {
                    // A socket that is closing takes no more; its close event is on the way.
                    if let Some(socket) = &self.socket {
                        let _ = socket.inner.send_with_str(&text);
                    }
                }
                Action::Completed { id, result } => {
                    if let Some(ticket) = self.tickets.remove(&id) {
                        self.events.push(Event::Answered { ticket, result });
                    }
                }
                Action::CloseSocket => self.socket = None,
                Action::StateChanged => {}
            }
            // Also without a change of state: the reason of a refusal may be new.
            let link = link(self.session.state(), self.session.refusal());
            self.events.push(Event::Link(link));
        }
    }
}

/// The session's state in the page's words.
fn link(state: &ConnState, refusal: Option<&ApiError>) -> Link {
    match state {
        ConnState::Connecting { attempt } => Link::Connecting { attempt: *attempt },
        ConnState::Greeting => Link::Greeting {
            refusal: refusal.map(|e| e.message.clone()),
        },
        ConnState::Live { .. } => Link::Live,
        ConnState::Waiting {
            attempt,
            retry_at_ms,
            reason,
        } => Link::Waiting {
            attempt: *attempt,
            retry_at_ms: *retry_at_ms,
            reason: reason.clone(),
        },
        ConnState::TakenOver => Link::TakenOver,
        ConnState::Closed => Link::Closed,
    }
}

/// One socket. Dropping it closes it, and nothing more is heard of it.
struct Socket {
    number: u64,
    inner: WebSocket,
    _on_open: Closure<dyn Fn()>,
    _on_message: Closure<dyn Fn(MessageEvent)>,
    _on_close: Closure<dyn Fn(CloseEvent)>,
}

impl Socket {
    fn open(number: u64, notify: &Rc<dyn Fn(Signal)>) -> Result<Socket, String> {
        let url = browser::socket_url();
        let inner = WebSocket::new(&url).map_err(|_| format!("{url} cannot be opened"))?;
        inner.set_binary_type(web_sys::BinaryType::Arraybuffer);
        let tell = |notify: &Rc<dyn Fn(Signal)>| {
            let notify = notify.clone();
            move |kind| {
                notify(Signal {
                    socket: number,
                    kind,
                })
            }
        };
        let tell_open = tell(notify);
        let on_open = Closure::<dyn Fn()>::new(move || tell_open(SignalKind::Opened));
        let tell_message = tell(notify);
        let on_message = Closure::<dyn Fn(MessageEvent)>::new(move |event: MessageEvent| {
            tell_message(match event.data().as_string() {
                Some(text) => SignalKind::Text(text),
                // Nothing in the protocol is binary; it is a sign of life, no more.
                None => SignalKind::Other,
            });
        });
        let tell_close = tell(notify);
        let on_close = Closure::<dyn Fn(CloseEvent)>::new(move |event: CloseEvent| {
            tell_close(SignalKind::Closed {
                code: event.code(),
                reason: event.reason(),
            });
        });
        inner.set_onopen(Some(on_open.as_ref().unchecked_ref()));
        inner.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        // An error is always followed by a close, which says more.
        inner.set_onclose(Some(on_close.as_ref().unchecked_ref()));
        Ok(Socket {
            number,
            inner,
            _on_open: on_open,
            _on_message: on_message,
            _on_close: on_close,
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.inner.set_onopen(None);
        self.inner.set_onmessage(None);
        self.inner.set_onclose(None);
        let _ = self.inner.close();
    }
}
