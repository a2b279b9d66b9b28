//! Links between nodes, and between nodes and the front-end: WebSockets that carry binary frames.
//!
//! A link has a [`LinkSender`], which never blocks and counts what waits, and a [`pump`] that one task runs. The
//! link lives no longer than its sender: dropping that closes it at once, whatever the peer does.
//! What a peer may make this process hold is bounded by the frame limit and by what the protocol lets
//! be unanswered; the sender only counts.

mod front_end;
mod peers;

pub use front_end::{FrontEnd, FrontEndSender, Held, answer_bytes, keep_front_end};
pub use peers::{Dialler, Identity, accept_peers, keep_link};

use crate::net::TcpStream;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use kvservice_shared::codec::{ChainMessage, CodecError};
use kvservice_shared::limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

/// The path of a node's link to the front-end.
pub const NODE_PATH: &str = "/v1/chain/node";
/// The path of a link between nodes.
pub const PEER_PATH: &str = "/v1/chain/peer";
/// A peer has this long for the WebSocket handshake, and again for its first frame.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// After the last frame was handed over, a closing link has this long to send it.
const LINGER: Duration = Duration::from_secs(1);
/// A close frame holds this much text.
const CLOSE_REASON_BYTES_MAX: usize = 123;
/// Frames handed to the socket before it is flushed.
const FRAMES_PER_FLUSH: usize = 64;

/// Why a link ended or did not come about.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection, or the WebSocket on it.
    #[error("{0}")]
    WebSocket(#[from] Box<WsError>),
    /// Something else than a frame of this protocol came.
    #[error("{0}")]
    Codec(#[from] CodecError),
    /// The peer sent a text frame: it is no node.
    #[error("the peer sent text where binary frames are due: is this the right port?")]
    Text,
    /// The peer did not say what it must in time.
    #[error("the peer did not finish its handshake in time")]
    Handshake,
    /// The peer said nothing for too long.
    #[error("silent for too long")]
    Silent,
    /// The peer, or this process, closed the link.
    #[error("closed")]
    Closed,
    /// The peer does not want this link.
    #[error("refused: {0}")]
    Refused(String),
}

impl From<WsError> for LinkError {
    fn from(error: WsError) -> LinkError {
        match error {
            WsError::ConnectionClosed | WsError::AlreadyClosed => LinkError::Closed,
            other => LinkError::WebSocket(Box::new(other)),
        }
    }
}

/// Read from a link's socket at a time. The library fills as much memory with zeros before each read.
const READ_BUFFER_BYTES: usize = 32 * 1024;

/// The WebSocket settings of every link: both directions bounded by the frame limit.
#[must_use]
pub fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(limits::CHAIN_FRAME_BYTES_MAX))
        .max_frame_size(Some(limits::CHAIN_FRAME_BYTES_MAX))
        .write_buffer_size(128 * 1024)
        .max_write_buffer_size(2 * limits::CHAIN_FRAME_BYTES_MAX)
}

/// The sending half of a link.
#[derive(Debug)]
pub struct LinkSender {
    frames: mpsc::UnboundedSender<Bytes>,
    queue: Queue,
    /// Dropped with the sender: the pump ends.
    close: Option<oneshot::Sender<()>>,
}

/// What waits to be sent on a link.
#[derive(Clone, Debug, Default)]
pub struct Queue(Arc<QueueState>);

#[derive(Debug, Default)]
struct QueueState {
    bytes: AtomicUsize,
    drained: Notify,
}

impl Queue {
    /// Counts bytes that wait.
    pub fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that wait no more.
    pub fn sub(&self, bytes: usize) {
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.0.drained.notify_waiters();
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Waits until less than `bytes` wait.
    pub async fn below(&self, bytes: usize) {
        loop {
            let drained = self.0.drained.notified();
            if self.bytes() < bytes {
                return;
            }
            drained.await;
        }
    }
}

impl LinkSender {
    /// Hands a message over. `false`: the link is gone.
    pub fn send<M: ChainMessage>(&self, message: &M) -> bool {
        let frame = message.encode();
        self.queue.add(frame.len());
        self.frames.send(frame).is_ok()
    }

    /// What waits.
    #[must_use]
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Closes the link once what was handed over has been sent, or after a moment.
    pub fn finish(mut self) {
        if let Some(close) = self.close.take() {
            tokio::spawn(async move {
                tokio::time::sleep(LINGER).await;
                drop(close);
            });
        }
    }
}

/// The receiving half: what [`pump`] needs.
#[derive(Debug)]
pub struct LinkPump {
    frames: mpsc::UnboundedReceiver<Bytes>,
    queue: Queue,
    closed: oneshot::Receiver<()>,
}

/// A link's two halves.
#[must_use]
pub fn link() -> (LinkSender, LinkPump) {
    let (frames_tx, frames) = mpsc::unbounded_channel();
    let (close, closed) = oneshot::channel();
    let queue = Queue::default();
    let sender = LinkSender {
        frames: frames_tx,
        queue: queue.clone(),
        close: Some(close),
    };
    (
        sender,
        LinkPump {
            frames,
            queue,
            closed,
        },
    )
}

/// Takes the messages of one link.
pub trait Receive<M> {
    /// One message; the link is not read on until this is done. `false` ends the link.
    fn receive(&mut self, message: M) -> impl Future<Output = bool> + Send;
}

/// Carries frames both ways until the link ends; says why.
///
/// Reading and writing do not wait for each other, so two ends that both have much to say do not block.
///
/// A peer that is silent for longer than `silence` is given up. Most links leave that to their state machines.
pub async fn pump<T, M, R>(
    socket: WebSocketStream<T>,
    mut link: LinkPump,
    mut receive: R,
    silence: Option<Duration>,
) -> LinkError
where
    T: AsyncRead + AsyncWrite + Unpin,
    M: ChainMessage,
    R: Receive<M>,
{
    let (mut sink, mut stream) = socket.split();
    let queue = link.queue.clone();
    let write = async {
        let mut frames = Vec::with_capacity(FRAMES_PER_FLUSH);
        loop {
            if link.frames.recv_many(&mut frames, FRAMES_PER_FLUSH).await == 0 {
                let _ = sink.close().await;
                return LinkError::Closed;
            }
            let mut bytes = 0;
            for frame in frames.drain(..) {
                bytes += frame.len();
                if let Err(error) = sink.feed(Message::Binary(frame)).await {
                    return error.into();
                }
            }
            if let Err(error) = sink.flush().await {
                return error.into();
            }
            queue.sub(bytes);
        }
    };
    let read = async {
        loop {
            let next = next_message(&mut stream);
            let next = match silence {
                Some(silence) => tokio::time::timeout(silence, next)
                    .await
                    .unwrap_or(Err(LinkError::Silent)),
                None => next.await,
            };
            match next {
                Ok(message) => {
                    if !receive.receive(message).await {
                        return LinkError::Closed;
                    }
                }
                Err(error) => return error,
            }
        }
    };
    tokio::select! {
        error = read => error,
        error = write => error,
        _ = &mut link.closed => LinkError::Closed,
    }
}

async fn next_message<S, M>(stream: &mut S) -> Result<M, LinkError>
where
    S: StreamExt<Item = Result<Message, WsError>> + Unpin,
    M: ChainMessage,
{
    loop {
        match stream.next().await {
            Some(Ok(Message::Binary(frame))) => return Ok(M::decode(frame)?),
            Some(Ok(Message::Text(_))) => return Err(LinkError::Text),
            Some(Ok(Message::Close(Some(close)))) if !close.reason.is_empty() => {
                return Err(LinkError::Refused(close.reason.to_string()));
            }
            Some(Ok(Message::Close(_))) | None => return Err(LinkError::Closed),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
        }
    }
}

/// Dials a peer.
///
/// # Errors
/// Where it cannot be reached in [`HANDSHAKE_TIMEOUT`], or is no WebSocket server.
pub async fn dial(address: &str, path: &str) -> Result<WebSocketStream<TcpStream>, LinkError> {
    let connect = async {
        let stream = TcpStream::connect(address).await.map_err(WsError::Io)?;
        stream.set_nodelay(true).map_err(WsError::Io)?;
        let url = format!("ws://{address}{path}");
        let config = Some(websocket_config());
        let (socket, _) = tokio_tungstenite::client_async_with_config(url, stream, config).await?;
        Ok(socket)
    };
    tokio::time::timeout(HANDSHAKE_TIMEOUT, connect)
        .await
        .map_err(|_| LinkError::Handshake)?
}

/// Takes a peer that dialled, on this path only.
///
/// # Errors
/// Where it does not finish its handshake in time, or asks for another path.
pub async fn accept(
    stream: TcpStream,
    path: &str,
) -> Result<WebSocketStream<TcpStream>, LinkError> {
    use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
    let _ = stream.set_nodelay(true);
    #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
    let check = |request: &Request, response: Response| {
        if request.uri().path() == path {
            return Ok(response);
        }
        let text =
            format!("this port is for chain nodes only ({path}); clients use the client port\n");
        let mut refusal = ErrorResponse::new(Some(text));
        *refusal.status_mut() = tokio_tungstenite::tungstenite::http::StatusCode::NOT_FOUND;
        Err(refusal)
    };
    let config = Some(websocket_config());
    let accept = tokio_tungstenite::accept_hdr_async_with_config(stream, check, config);
    let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, accept).await;
    Ok(accepted.map_err(|_| LinkError::Handshake)??)
}

/// Sends one message before a link's pump runs.
///
/// # Errors
/// Where the connection fails.
pub async fn send_first<M: ChainMessage>(
    socket: &mut WebSocketStream<TcpStream>,
    message: &M,
) -> Result<(), LinkError> {
    Ok(socket.send(Message::Binary(message.encode())).await?)
}

/// Closes a link before its pump runs, and says why: in words, because a peer of another version
/// understands nothing else.
pub async fn close_with_reason(socket: &mut WebSocketStream<TcpStream>, reason: &str) {
    let mut end = reason.len().min(CLOSE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let frame = CloseFrame {
        code: CloseCode::Policy,
        reason: reason[..end].into(),
    };
    let close = async {
        socket.close(Some(frame)).await?;
        // The other end closes in turn; what it still sends does not matter.
        while let Some(Ok(_)) = socket.next().await {}
        Ok::<(), WsError>(())
    };
    let _ = tokio::time::timeout(LINGER, close).await;
}

/// Receives one message before a link's pump runs.
///
/// # Errors
/// Where it does not come within [`HANDSHAKE_TIMEOUT`], or is something else.
pub async fn receive_first<M: ChainMessage>(
    socket: &mut WebSocketStream<TcpStream>,
) -> Result<M, LinkError> {
    let first = tokio::time::timeout(HANDSHAKE_TIMEOUT, next_message(socket)).await;
    first.map_err(|_| LinkError::Handshake)?
}
