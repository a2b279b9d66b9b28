//! The socket under a client: TCP without delay, the WebSocket handshake, and bounds on every
//! buffer.
//!
//! [`crate::Client`] is built on it. It is public for programs that speak the protocol by
//! themselves, as `kvservice bench` does.

use crate::address::ServerAddress;
use crate::net::TcpStream;
use kvservice_shared::api::SUBPROTOCOL;
use kvservice_shared::limits::CLIENT_FRAME_BYTES_MAX;
use std::io;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error as WsError, ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// An open connection to a server.
pub type Socket = WebSocketStream<TcpStream>;

/// Longest frame taken from a server, in bytes. One page of `list`, the longest single answer, is
/// about 2 MiB before JSON's escapes make it longer; the rest is for answers that share a frame.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most bytes read from the socket at once. The library fills so much memory with zeros before each
/// read, so more is slower for the short answers that are usual.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// Frames are written out once this many bytes are buffered, or when flushed.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nothing could be reached at the address.
    #[error("{}", io_reason(.0))]
    Io(#[source] io::Error),
    /// The other side took longer than the connect timeout.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// Something answers there that is not a kvservice front-end, or not ready to be one.
    #[error("what answers there is not a kvservice server: {0}")]
    Handshake(String),
}

impl ConnectError {
    /// Whether nothing listens at the address.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self, ConnectError::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// Opens a connection, within `timeout` for all of it: name look-up, TCP and the WebSocket
/// handshake.
///
/// # Errors
/// See [`ConnectError`]. Dropping the future gives up.
pub async fn open(address: &ServerAddress, timeout: Duration) -> Result<Socket, ConnectError> {
    tokio::time::timeout(timeout, open_unbounded(address))
        .await
        .unwrap_or(Err(ConnectError::Timeout(timeout)))
}

async fn open_unbounded(address: &ServerAddress) -> Result<Socket, ConnectError> {
    let stream = TcpStream::connect(address.host_port())
        .await
        .map_err(ConnectError::Io)?;
    // Requests are small and wait for their answers: Nagle's algorithm would only hold them back.
    stream.set_nodelay(true).map_err(ConnectError::Io)?;
    let mut request = address
        .to_string()
        .into_client_request()
        .map_err(handshake_error)?;
    request.headers_mut().insert(
        SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOL),
    );
    let (socket, _response) =
        tokio_tungstenite::client_async_with_config(request, stream, Some(socket_config()))
            .await
            .map_err(handshake_error)?;
    Ok(socket)
}

/// The library leaves its write buffer unbounded unless told. A frame is taken only when the one
/// before it is out, so twice the longest frame is room enough.
fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(2 * CLIENT_FRAME_BYTES_MAX + WRITE_BUFFER_BYTES)
        .max_message_size(Some(ANSWER_BYTES_MAX))
        .max_frame_size(Some(ANSWER_BYTES_MAX))
}

fn handshake_error(error: WsError) -> ConnectError {
    match error {
        WsError::Io(error) => ConnectError::Io(error),
        WsError::Http(response) => {
            // A server that is shutting down or full says why in the body.
            let said = response
                .body()
                .as_deref()
                .map(String::from_utf8_lossy)
                .unwrap_or_default();
            let said: String = said
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(200)
                .collect();
            let status = response.status();
            ConnectError::Handshake(if said.is_empty() {
                format!("HTTP {status}")
            } else {
                format!("HTTP {status}, {said}")
            })
        }
        WsError::Protocol(ProtocolError::SecWebSocketSubProtocolError(
            SubProtocolError::NoSubProtocol | SubProtocolError::InvalidSubProtocol,
        )) => ConnectError::Handshake(format!("it does not offer the protocol {SUBPROTOCOL}")),
        other => ConnectError::Handshake(other.to_string()),
    }
}

/// The operating system's words without its error number.
fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

/// The reason for people of a connection that was open and broke.
pub(crate) fn broken_reason(error: &WsError) -> String {
    match error {
        WsError::Io(error) => io_reason(error),
        WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            "the server went away".to_owned()
        }
        WsError::ConnectionClosed | WsError::AlreadyClosed => "the server closed it".to_owned(),
        other => other.to_string(),
    }
}
