//! One WebSocket, to send what no client would, and to hear every frame that comes back.

use crate::soon;
use futures_util::{SinkExt, StreamExt};
use kvservice_shared::api::WS_PATH;
use serde_json::Value as Json;
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

/// One WebSocket.
#[derive(Debug)]
pub struct Raw {
    socket: WebSocketStream<TcpStream>,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A text frame.
    Text(String),
    /// A binary frame.
    Binary(Vec<u8>),
    /// The end: the close frame's code and reason, where there was one.
    End(Option<u16>, String),
}

impl Raw {
    /// Connects to the client port.
    ///
    /// # Panics
    /// Where it does not take the connection.
    pub async fn connect(address: SocketAddr) -> Raw {
        match Raw::try_connect(address, WS_PATH).await {
            Ok(raw) => raw,
            Err(error) => panic!("{address} does not take a connection: {error}"),
        }
    }

    /// Connects, with any path.
    ///
    /// # Errors
    /// It does not take the connection.
    ///
    /// # Panics
    /// Where it does not answer in time.
    pub async fn try_connect(address: SocketAddr, path: &str) -> Result<Raw, WsError> {
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            // No bounds of our own: what is sent here may be anything.
            let config = WebSocketConfig::default()
                .max_message_size(None)
                .max_frame_size(None);
            let url = format!("ws://{address}{path}");
            let connected =
                tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await;
            let (socket, _) = connected?;
            Ok(Raw { socket })
        };
        soon("a connection", connecting).await
    }

    /// Sends a frame; that the other end is gone shows in what is heard.
    pub async fn send(&mut self, message: Message) {
        let _ = soon("room for a frame", self.socket.send(message)).await;
    }

    /// Sends a text frame.
    pub async fn say(&mut self, text: impl Into<String>) {
        self.send(Message::text(text.into())).await;
    }

    /// The next frame of data, or the end.
    ///
    /// # Panics
    /// Where nothing comes in time.
    pub async fn hear(&mut self) -> Heard {
        loop {
            match soon("a frame", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return Heard::Text(text.to_string()),
                Some(Ok(Message::Binary(bytes))) => return Heard::Binary(bytes.to_vec()),
                Some(Ok(Message::Close(frame))) => {
                    // The reply has been made ready; a server waits for it before it lets go.
                    let _ = soon("room for a reply", self.socket.flush()).await;
                    let code = frame.as_ref().map(|frame| frame.code.into());
                    let reason = frame.map(|frame| frame.reason.to_string());
                    return Heard::End(code, reason.unwrap_or_default());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Heard::End(None, error.to_string()),
                None => return Heard::End(None, String::new()),
            }
        }
    }

    /// The next frame, which is JSON.
    ///
    /// # Panics
    /// Where something else comes.
    pub async fn hear_json(&mut self) -> Json {
        match self.hear().await {
            Heard::Text(text) => match serde_json::from_str(&text) {
                Ok(json) => json,
                Err(error) => panic!("{error}: {text}"),
            },
            other => panic!("{other:?} where JSON was due"),
        }
    }

    /// Sends a text frame, and returns the next, which is JSON.
    ///
    /// # Panics
    /// Where something else comes.
    pub async fn ask(&mut self, text: impl Into<String>) -> Json {
        self.say(text).await;
        self.hear_json().await
    }

    /// The end, whatever is sent before it.
    ///
    /// # Panics
    /// Where it does not come.
    pub async fn hear_end(&mut self) -> (Option<u16>, String) {
        loop {
            if let Heard::End(code, reason) = self.hear().await {
                return (code, reason);
            }
        }
    }
}
