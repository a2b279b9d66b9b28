//! Links to other nodes: those that this node dials, and those that dial it.

use super::{
    LinkError, LinkSender, PEER_PATH, Receive, accept, dial, link, pump, receive_first, send_first,
};
use crate::chain::LinkId;
use crate::net::{TcpListener, TcpStream};
use crate::runtime::Input;
use kvservice_shared::chain::{Downstream, Incarnation, LinkHello, LinkReply, Member, Upstream};
use kvservice_shared::ids::ClusterId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Inbound links at once. A chain has two predecessors for each node, and now and then a teacher.
const INBOUND_MAX: usize = 256;
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Who we say we are.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// This node, this start.
    pub id: Incarnation,
    /// Its cluster, once it has one.
    pub cluster: Option<ClusterId>,
}

/// Keeps a link to a peer until the handle is dropped: dials, and dials again when it breaks.
#[derive(Debug)]
pub struct Dialler {
    /// Whom.
    pub peer: Member,
    /// The link, while it stands.
    pub sender: Option<LinkSender>,
    /// Grows with each link that this process dials, to whomever: what comes from an older one is dropped, be it
    /// one of an earlier dialler to the same peer.
    pub generation: u64,
    _stop: oneshot::Sender<()>,
}

fn next_generation() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Starts dialling.
pub fn keep_link(
    peer: Member,
    me: watch::Receiver<Identity>,
    inputs: mpsc::Sender<Input>,
) -> Dialler {
    let (stop, stopped) = oneshot::channel();
    let generation = next_generation();
    let target = peer.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = dial_for_ever(target, me, inputs) => {}
            _ = stopped => {}
        }
    });
    Dialler {
        peer,
        sender: None,
        generation,
        _stop: stop,
    }
}

async fn dial_for_ever(peer: Member, me: watch::Receiver<Identity>, inputs: mpsc::Sender<Input>) {
    let mut wait = RETRY_MIN;
    loop {
        let generation = next_generation();
        let identity = *me.borrow();
        let error = match greet(&peer, identity).await {
            Ok(socket) => {
                wait = RETRY_MIN;
                let (sender, link) = link();
                let up = Input::PeerUp {
                    peer: peer.id,
                    generation,
                    sender,
                };
                if inputs.send(up).await.is_err() {
                    return;
                }
                let receive = FromSuccessor {
                    peer: peer.id,
                    generation,
                    inputs: inputs.clone(),
                };
                pump(socket, link, receive, None).await
            }
            Err(error) => error,
        };
        tracing::debug!(peer = peer.name, address = peer.address, %error, "link is down");
        if inputs
            .send(Input::PeerDown {
                peer: peer.id,
                generation,
            })
            .await
            .is_err()
        {
            return;
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

async fn greet(
    peer: &Member,
    me: Identity,
) -> Result<tokio_tungstenite::WebSocketStream<TcpStream>, LinkError> {
    let Some(cluster) = me.cluster else {
        return Err(LinkError::Refused("this node has no cluster yet".into()));
    };
    let mut socket = dial(&peer.address, PEER_PATH).await?;
    send_first(
        &mut socket,
        &LinkHello {
            cluster,
            from: me.id,
            to: peer.id,
        },
    )
    .await?;
    match receive_first(&mut socket).await? {
        LinkReply::Accepted => Ok(socket),
        LinkReply::Refused { reason } => Err(LinkError::Refused(reason)),
    }
}

struct FromSuccessor {
    peer: Incarnation,
    generation: u64,
    inputs: mpsc::Sender<Input>,
}

impl Receive<Upstream> for FromSuccessor {
    async fn receive(&mut self, message: Upstream) -> bool {
        let (peer, generation) = (self.peer, self.generation);
        self.inputs
            .send(Input::FromSuccessor {
                peer,
                generation,
                message,
            })
            .await
            .is_ok()
    }
}

/// Accepts links until the inputs' receiver is gone.
pub async fn accept_peers(
    listener: TcpListener,
    me: watch::Receiver<Identity>,
    inputs: mpsc::Sender<Input>,
) {
    let places = Arc::new(Semaphore::new(INBOUND_MAX));
    let mut next_link = 1;
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: others may close some.
                    tracing::warn!(%error, "cannot accept a link");
                    tokio::time::sleep(RETRY_MAX).await;
                    continue;
                }
            },
            () = inputs.closed() => return,
        };
        let id = LinkId(next_link);
        next_link += 1;
        let (me, inputs) = (me.clone(), inputs.clone());
        tokio::spawn(async move {
            let from = stream
                .peer_addr()
                .map(|a| a.to_string())
                .unwrap_or_default();
            if let Err(error) = serve_peer(id, stream, me, inputs).await {
                tracing::debug!(from, %error, "inbound link ended");
            }
            drop(place);
        });
    }
}

async fn serve_peer(
    id: LinkId,
    stream: TcpStream,
    me: watch::Receiver<Identity>,
    inputs: mpsc::Sender<Input>,
) -> Result<(), LinkError> {
    let mut socket = accept(stream, PEER_PATH).await?;
    let hello: LinkHello = match receive_first(&mut socket).await {
        Ok(hello) => hello,
        Err(error) => {
            let reason = error.to_string();
            let _ = send_first(&mut socket, &LinkReply::Refused { reason }).await;
            return Err(error);
        }
    };
    let identity = *me.borrow();
    let reason = if hello.to != identity.id {
        Some(format!("here is {:?}, not {:?}", identity.id, hello.to))
    } else {
        match identity.cluster {
            Some(mine) if mine != hello.cluster => {
                Some(format!("here is cluster {mine}, not {}", hello.cluster))
            }
            _ => None,
        }
    };
    if let Some(reason) = reason {
        send_first(
            &mut socket,
            &LinkReply::Refused {
                reason: reason.clone(),
            },
        )
        .await?;
        return Err(LinkError::Refused(reason));
    }
    send_first(&mut socket, &LinkReply::Accepted).await?;
    let (sender, link) = link();
    let up = Input::InboundUp { link: id, sender };
    if inputs.send(up).await.is_err() {
        return Ok(());
    }
    let receive = FromPredecessor {
        link: id,
        from: hello.from,
        inputs: inputs.clone(),
    };
    let error = pump(socket, link, receive, None).await;
    let _ = inputs.send(Input::InboundDown { link: id }).await;
    Err(error)
}

struct FromPredecessor {
    link: LinkId,
    from: Incarnation,
    inputs: mpsc::Sender<Input>,
}

impl Receive<Downstream> for FromPredecessor {
    async fn receive(&mut self, message: Downstream) -> bool {
        let (link, from) = (self.link, self.from);
        self.inputs
            .send(Input::FromPredecessor {
                link,
                from,
                message,
            })
            .await
            .is_ok()
    }
}
