//! The bare hop: a WebSocket server on one thread that sends back what it is sent.

use super::{Places, Started};
use crate::process::{Process, free_address, wait_until};
use crate::wire::json::socket_config;
use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use std::net::{SocketAddr, TcpStream};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// Starts it as a process of its own.
///
/// # Errors
/// It does not start.
pub fn start(places: &Places) -> Result<Started> {
    let own = std::env::current_exe().context("where am I?")?;
    let address = free_address()?;
    let args = ["hop".to_owned(), "--listen".to_owned(), address.to_string()];
    let mut processes = vec![Process::start("hop", &own, args, &places.dir)?];
    wait_until("the hop listens", &mut processes, || {
        TcpStream::connect(address).is_ok()
    })?;
    Ok((processes, vec![address]))
}

/// Serves until killed.
///
/// # Errors
/// It cannot listen.
pub fn serve(listen: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        loop {
            let (stream, _) = listener.accept().await.context("cannot accept")?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(async move {
                let config = Some(socket_config());
                let Ok(mut socket) =
                    tokio_tungstenite::accept_async_with_config(stream, config).await
                else {
                    return;
                };
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    })
}
