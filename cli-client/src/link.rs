//! One socket as the driver sees it: frames in, frames out, neither waiting for the other.

use crate::wire::{self, Socket};
use futures_util::{Sink, Stream};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// An open socket and the frames that wait to go out on it. Their number is bounded by the
/// session's window, since the session sends nothing that is not one of its unanswered requests.
pub(crate) struct Link {
    socket: Socket,
    outbox: VecDeque<Message>,
    /// Frames were handed to the socket since it was last flushed.
    dirty: bool,
}

/// What came of a socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A text frame.
    Text(Utf8Bytes),
    /// A ping or a pong: the other side is alive.
    Alive,
    /// It is over; the reason is for people.
    Ended { code: Option<u16>, reason: String },
}

impl Link {
    pub(crate) fn new(socket: Socket) -> Link {
        Link {
            socket,
            outbox: VecDeque::new(),
            dirty: false,
        }
    }

    /// Queues a frame; [`Link::next`] sends it.
    pub(crate) fn send(&mut self, frame: Message) {
        self.outbox.push_back(frame);
    }

    /// Sends what is queued and waits for something to come in. Dropping the future loses nothing.
    ///
    /// Both directions go on in one task: a server that reads nothing more until its answers are
    /// taken would otherwise wait for us while we wait for it.
    pub(crate) async fn next(&mut self) -> Incoming {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            // What the server said before it closed is worth more than "broken pipe".
            return match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(Some(Ok(frame))) => Poll::Ready(incoming(frame)),
                _ => Poll::Ready(broken(&error)),
            };
        }
        match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
            Some(Ok(frame)) => {
                if frame.is_close() {
                    // The answer to it is made by the library, and goes out if there is room for
                    // it.
                    let _ = Pin::new(&mut self.socket).poll_flush(cx);
                }
                Poll::Ready(incoming(frame))
            }
            Some(Err(error)) => Poll::Ready(broken(&error)),
            None => Poll::Ready(broken(&WsError::ConnectionClosed)),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        while !self.outbox.is_empty() {
            ready!(Pin::new(&mut self.socket).poll_ready(cx))?;
            if let Some(frame) = self.outbox.pop_front() {
                Pin::new(&mut self.socket).start_send(frame)?;
                self.dirty = true;
            }
        }
        if self.dirty {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what is queued and says goodbye, without waiting for the answer.
    pub(crate) async fn close(mut self) -> Result<(), WsError> {
        poll_fn(|cx| self.poll_send(cx)).await?;
        self.socket.close(None).await
    }
}

fn incoming(frame: Message) -> Incoming {
    match frame {
        Message::Text(text) => Incoming::Text(text),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Incoming::Alive,
        Message::Binary(_) => Incoming::Ended {
            code: None,
            reason: "the server sent a binary frame, which this protocol has none of".to_owned(),
        },
        Message::Close(frame) => {
            let (code, reason) = match frame {
                None => (None, "the server closed it".to_owned()),
                Some(CloseFrame { code, reason }) if reason.is_empty() => (
                    Some(code.into()),
                    format!("the server closed it, code {code}"),
                ),
                Some(CloseFrame { code, reason }) => (Some(code.into()), reason.to_string()),
            };
            Incoming::Ended { code, reason }
        }
    }
}

fn broken(error: &WsError) -> Incoming {
    Incoming::Ended {
        code: None,
        reason: wire::broken_reason(error),
    }
}
