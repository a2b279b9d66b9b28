//! Links of chain nodes to the front-end. A node dials; it registers first.

use crate::coordinator::NodeLink;
use kvservice_backend::link::{
    LinkError, LinkSender, NODE_PATH, Receive, accept, close_with_reason, link, pump, receive_first,
};
use kvservice_backend::net::{TcpListener, TcpStream};
use kvservice_shared::chain::{FromNode, ToNode};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// Node connections at once.
const CONNECTIONS_MAX: usize = 256;

/// What node links tell the task that owns the coordinator.
#[derive(Debug)]
pub enum NodeInput {
    /// A node connected.
    Up {
        /// Its connection.
        link: NodeLink,
        /// The way to it.
        sender: NodeSender,
    },
    /// It said something; `Register` first.
    Message {
        /// On which connection.
        link: NodeLink,
        /// What.
        message: FromNode,
    },
    /// Its connection is gone.
    Down {
        /// Which.
        link: NodeLink,
    },
}

/// The way to a node.
#[derive(Debug)]
pub enum NodeSender {
    /// Over the network.
    Link(LinkSender),
    /// In this process.
    Here(mpsc::UnboundedSender<ToNode>),
}

impl NodeSender {
    /// Hands a message over.
    pub fn send(&self, message: ToNode) {
        match self {
            NodeSender::Link(link) => {
                link.send(&message);
            }
            NodeSender::Here(to) => {
                let _ = to.send(message);
            }
        }
    }

    /// Closes the connection once what was handed over has been sent.
    pub fn finish(self) {
        if let NodeSender::Link(link) = self {
            link.finish();
        }
    }
}

/// Accepts nodes until the inputs' receiver is gone.
pub async fn accept_nodes(listener: TcpListener, inputs: mpsc::Sender<NodeInput>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut next_link = 1;
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a node");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = inputs.closed() => return,
        };
        let id = NodeLink(next_link);
        next_link += 1;
        let inputs = inputs.clone();
        tokio::spawn(async move {
            let from = stream
                .peer_addr()
                .map(|a| a.to_string())
                .unwrap_or_default();
            match serve_node(id, stream, inputs).await {
                LinkError::Closed => tracing::debug!(from, "a node's link ended"),
                error => tracing::info!(from, %error, "a node's link ended"),
            }
            drop(place);
        });
    }
}

async fn serve_node(id: NodeLink, stream: TcpStream, inputs: mpsc::Sender<NodeInput>) -> LinkError {
    let mut socket = match accept(stream, NODE_PATH).await {
        Ok(socket) => socket,
        Err(error) => return error,
    };
    let first = match receive_first(&mut socket).await {
        Ok(register @ FromNode::Register(_)) => register,
        Ok(_) => {
            close_with_reason(&mut socket, "a node registers first").await;
            return LinkError::Refused("it did not register first".to_owned());
        }
        Err(error) => {
            close_with_reason(&mut socket, &error.to_string()).await;
            return error;
        }
    };
    let (sender, pumped) = link();
    let up = NodeInput::Up {
        link: id,
        sender: NodeSender::Link(sender),
    };
    let register = NodeInput::Message {
        link: id,
        message: first,
    };
    for input in [up, register] {
        if inputs.send(input).await.is_err() {
            return LinkError::Closed;
        }
    }
    let error = pump(
        socket,
        pumped,
        FromLink {
            id,
            inputs: inputs.clone(),
        },
        None,
    )
    .await;
    let _ = inputs.send(NodeInput::Down { link: id }).await;
    error
}

struct FromLink {
    id: NodeLink,
    inputs: mpsc::Sender<NodeInput>,
}

impl Receive<FromNode> for FromLink {
    async fn receive(&mut self, message: FromNode) -> bool {
        self.inputs
            .send(NodeInput::Message {
                link: self.id,
                message,
            })
            .await
            .is_ok()
    }
}
