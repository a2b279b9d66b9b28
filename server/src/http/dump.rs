//! `GET /v1/dump`: all keys at one point, as JSON lines, while the chain serves.
//!
//! A task for each dump asks for a page when the one before the last has gone to the socket, so a slow reader
//! costs two pages here, and what it makes the head keep is bounded there. The last line says that the dump is
//! whole. One that cannot go on (another head, a shutdown) ends without it, and its connection with an error: no
//! reader takes it for whole.

use super::{AnyAnswer, origin, set, text};
use crate::edge::{Edge, FromConn};
use crate::gateway::{DumpAnswer, DumpPage};
use bytes::Bytes;
use http_body_util::Either;
use hyper::body::{Body, Frame};
use hyper::header;
use hyper::{Method, Request, Response, StatusCode};
use kvservice_backend::shutdown::Shutdown;
use kvservice_shared::api::{DumpEnd, ListEntry};
use kvservice_shared::ids::ConnId;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::{mpsc, oneshot};

/// Why a dump ended early, for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Broken(String);

const STOPPING: &str = "the server stops";

pub(super) async fn answer<B>(
    request: &Request<B>,
    local: SocketAddr,
    edge: &Arc<Edge>,
    shutdown: &Shutdown,
) -> AnyAnswer {
    if request.method() != Method::GET {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        set(&mut answer, header::ALLOW, "GET");
        return answer.map(Either::Left);
    }
    if let Err(why) = origin::check_read(request.headers(), local, &edge.config.allow_origins) {
        return text(StatusCode::FORBIDDEN, format!("{why}\n")).map(Either::Left);
    }
    let (started, starts) = oneshot::channel();
    let (to_body, pieces) = mpsc::channel(1);
    let (to_reader, pages) = mpsc::unbounded_channel();
    let reader = Reader {
        edge: Arc::clone(edge),
        conn: edge.next_conn(),
        pages,
        to_body,
    };
    // A task of its own: a client that goes takes this answer's future along, and the head must still hear of it.
    tokio::spawn(reader.run(to_reader, started, shutdown.clone()));
    if let Err(reason) = starts.await.unwrap_or_else(|_| Err(STOPPING.to_owned())) {
        let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));
        set(&mut answer, header::RETRY_AFTER, "1");
        return answer.map(Either::Left);
    }
    let body = DumpBody {
        pieces,
        whole: false,
    };
    let mut answer = Response::new(Either::Right(body));
    set(&mut answer, header::CONTENT_TYPE, "application/x-ndjson");
    set(&mut answer, header::CACHE_CONTROL, "no-store");
    set(&mut answer, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(
        &mut answer,
        header::CONTENT_DISPOSITION,
        "attachment; filename=\"kvservice.jsonl\"",
    );
    answer
}

/// What is written next.
enum Piece {
    Lines(String),
    /// With the last line.
    Last(String),
    Broken(Broken),
}

/// Brings pages from the gateway to the connection.
struct Reader {
    edge: Arc<Edge>,
    conn: ConnId,
    pages: mpsc::UnboundedReceiver<DumpAnswer>,
    to_body: mpsc::Sender<Piece>,
}

impl Reader {
    async fn run(
        mut self,
        to_reader: mpsc::UnboundedSender<DumpAnswer>,
        started: oneshot::Sender<Result<(), String>>,
        mut shutdown: Shutdown,
    ) {
        let conn = self.conn;
        let first = FromConn::Dump {
            conn,
            to: to_reader,
        };
        if self.edge.gateway.send(first).await.is_err() {
            return;
        }
        let drain = self.edge.config.drain_timeout;
        let mut stop = pin!(async {
            shutdown.requested().await;
            tokio::time::sleep(drain).await;
        });
        let ended = tokio::select! {
            ended = self.read(started) => ended,
            () = &mut stop => Err(Broken(STOPPING.to_owned())),
        };
        if let Err(broken) = ended {
            tracing::info!(%conn, reason = %broken, "a dump ended early");
            // A client that takes nothing is not waited for: a body that just ends is an error too.
            let _ = self.to_body.try_send(Piece::Broken(broken));
        }
        // The gateway is gone only where everything ends.
        let _ = self.edge.gateway.send(FromConn::Closed { conn }).await;
    }

    /// Reads to the end, or until the client is gone.
    async fn read(&mut self, started: oneshot::Sender<Result<(), String>>) -> Result<(), Broken> {
        let mut started = Some(started);
        let mut keys = 0;
        loop {
            let Ok(room) = self.to_body.reserve().await else {
                return Ok(());
            };
            if started.is_none() {
                let next = FromConn::DumpNext { conn: self.conn };
                if self.edge.gateway.send(next).await.is_err() {
                    return Err(Broken(STOPPING.to_owned()));
                }
            }
            let answer = tokio::select! {
                answer = self.pages.recv() => answer,
                () = self.to_body.closed() => return Ok(()),
            };
            let answer = answer.unwrap_or_else(|| Err(STOPPING.to_owned()));
            let page = match (answer, started.take()) {
                (Ok(page), first) => {
                    if first.is_some_and(|first| first.send(Ok(())).is_err()) {
                        return Ok(());
                    }
                    page
                }
                (Err(reason), Some(first)) => {
                    // Refused: the status says so.
                    let _ = first.send(Err(reason));
                    return Ok(());
                }
                (Err(reason), None) => return Err(Broken(reason)),
            };
            keys += page.entries.len() as u64;
            let mut lines = lines(&page);
            if page.more {
                room.send(Piece::Lines(lines));
                continue;
            }
            let revision = page.revision;
            DumpEnd { revision, keys }.write_dump_line(&mut lines);
            room.send(Piece::Last(lines));
            return Ok(());
        }
    }
}

fn lines(page: &DumpPage) -> String {
    /// Of a line, beside key and value: about right for text, and text is what most values are.
    const OVERHEAD: usize = 48;
    let bytes = |entry: &ListEntry| entry.key.len() + entry.value.0.len() + OVERHEAD;
    let mut lines = String::with_capacity(page.entries.iter().map(bytes).sum());
    for entry in &page.entries {
        entry.write_dump_line(&mut lines);
    }
    lines
}

/// The dump as it is written to the socket.
pub(super) struct DumpBody {
    pieces: mpsc::Receiver<Piece>,
    /// The last line was written.
    whole: bool,
}

impl Body for DumpBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.whole {
            return Poll::Ready(None);
        }
        let lines = match ready!(self.pieces.poll_recv(cx)) {
            Some(Piece::Lines(lines)) => lines,
            Some(Piece::Last(lines)) => {
                self.whole = true;
                lines
            }
            Some(Piece::Broken(broken)) => return Poll::Ready(Some(Err(broken))),
            None => return Poll::Ready(Some(Err(Broken("it just ended".to_owned())))),
        };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(lines)))))
    }

    fn is_end_stream(&self) -> bool {
        self.whole
    }
}
