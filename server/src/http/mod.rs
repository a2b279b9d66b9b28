//! The one client port: accepts connections, speaks HTTP until one becomes a WebSocket, and hands that to
//! [`crate::connection`].
//!
//! | path | serves |
//! | --- | --- |
//! | `/v1/ws` | the client protocol (`handshake`) |
//! | `/v1/dump` | all keys at one point, as JSON lines (`dump`) |
//! | `/healthz` | 200 `ok` while the chain serves, else 503 and the reason |
//! | all others | the browser client's files (`files`) |

mod dump;
mod files;
mod handshake;
mod origin;
mod page;

pub(crate) use origin::is_origin;

use crate::connection;
use crate::edge::Edge;
use crate::stall::StallGuard;
use bytes::Bytes;
use dump::DumpBody;
use files::Files;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use kvservice_backend::net::{TcpListener, TcpStream};
use kvservice_backend::shutdown::Shutdown;
use kvservice_shared::api::{DUMP_PATH, WS_PATH};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// Largest request line and headers together, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Connections beyond `max_connections` that are told so at one time; those beyond these are dropped.
const REFUSALS_MAX: usize = 64;
/// After a failed `accept` (no file descriptors left, mostly), when to try again. Nothing says when there are
/// some again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How often a failing `accept` is logged.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// An answer that is there at once.
type Answer = Response<Full<Bytes>>;
/// An answer, or a dump, whose pages come one by one.
type AnyAnswer = Response<Either<Full<Bytes>, DumpBody>>;

/// Serves clients on `listener` until `shutdown`; then accepts no more, lets every connection finish, and
/// returns once they have, within the times that the configuration gives them.
pub async fn serve(listener: TcpListener, edge: Arc<Edge>, mut shutdown: Shutdown) {
    let slots = Arc::new(Semaphore::new(edge.config.max_connections));
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let files = Arc::new(Files::new(edge.config.web_dir.clone()));
    let mut complained_at = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.requested() => break,
            accepted = listener.accept() => accepted,
        };
        let tcp = match accepted {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                accept_failed(&error, &mut complained_at).await;
                continue;
            }
        };
        let (slot, full) = match Arc::clone(&slots).try_acquire_owned() {
            Ok(slot) => (slot, false),
            Err(_) => match Arc::clone(&refusals).try_acquire_owned() {
                Ok(slot) => (slot, true),
                Err(_) => continue,
            },
        };
        let client = Client {
            edge: Arc::clone(&edge),
            files: Arc::clone(&files),
            full,
        };
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            client.serve(tcp, shutdown).await;
            drop(slot);
        });
    }
    drop(listener);
    let config = &edge.config;
    let all = u32::try_from(config.max_connections).unwrap_or(u32::MAX);
    let patience = config.drain_timeout + 2 * config.close_timeout;
    if timeout(patience, slots.acquire_many(all)).await.is_err() {
        tracing::warn!("some connections did not finish in time");
    }
}

/// Says so, though not each time, and waits a little.
async fn accept_failed(error: &io::Error, complained_at: &mut Option<Instant>) {
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        return;
    }
    if complained_at.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
        *complained_at = Some(Instant::now());
        tracing::warn!(%error, "cannot accept connections; `ulimit -n` bounds how many there can be");
    }
    tokio::time::sleep(ACCEPT_RETRY).await;
}

/// One accepted socket.
struct Client {
    edge: Arc<Edge>,
    files: Arc<Files>,
    /// There are too many already: it is told so, and no more.
    full: bool,
}

impl Client {
    async fn serve(self, tcp: TcpStream, mut shutdown: Shutdown) {
        let Ok(local) = tcp.local_addr() else { return };
        // Answers are written whole: there is nothing to gain by waiting for more.
        if tcp.set_nodelay(true).is_err() {
            return;
        }
        let config = &self.edge.config;
        let io = TokioIo::new(StallGuard::new(tcp, config.write_stall_timeout));
        let client = &self;
        let asked = &AtomicBool::new(false);
        let upgraded = &AtomicBool::new(false);
        let stop = &shutdown.clone();
        let mut http = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(config.handshake_timeout)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(
                io,
                service_fn(|request| -> Boxed<'_> {
                    asked.store(true, Ordering::Relaxed);
                    Box::pin(async move {
                        let answer = client.route(request, local, stop).await;
                        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                            upgraded.store(true, Ordering::Relaxed);
                        }
                        Ok(answer)
                    })
                }),
            );
        let served = {
            let mut stop = pin!(shutdown.requested());
            let mut stopping = false;
            poll_fn(|cx| {
                if !stopping && stop.as_mut().poll(cx).is_ready() {
                    stopping = true;
                    Pin::new(&mut http).graceful_shutdown();
                    // Browsers open connections that they may never use; hyper would wait for a request.
                    if !asked.load(Ordering::Relaxed) {
                        return Poll::Ready(Ok(()));
                    }
                }
                http.poll_without_shutdown(cx)
            })
            .await
        };
        let http1::Parts { io, read_buf, .. } = http.into_parts();
        let mut io = io.into_inner();
        if let Err(error) = served {
            tracing::debug!(%error, "broken HTTP connection");
        } else if upgraded.load(Ordering::Relaxed) {
            connection::run(self.edge, io, read_buf, shutdown).await;
        } else {
            // It is closed either way.
            let _ = io.shutdown().await;
        }
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        local: SocketAddr,
        shutdown: &Shutdown,
    ) -> AnyAnswer {
        if !self.full && request.uri().path() == DUMP_PATH {
            dump::answer(&request, local, &self.edge, shutdown).await
        } else {
            self.answer(request, local).await.map(Either::Left)
        }
    }

    async fn answer(&self, request: Request<Incoming>, local: SocketAddr) -> Answer {
        if self.full {
            let mut answer = text(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many connections; try again\n",
            );
            set(&mut answer, header::RETRY_AFTER, "1");
            set(&mut answer, header::CONNECTION, "close");
            return answer;
        }
        let path = request.uri().path();
        if path == WS_PATH {
            return handshake::answer(&request, local, &self.edge.config.allow_origins);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            set(&mut answer, header::ALLOW, "GET, HEAD");
            return answer;
        }
        if path == "/healthz" {
            return match &*self.edge.health.borrow() {
                Ok(()) => text(StatusCode::OK, "ok\n"),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            };
        }
        Files::answer(&self.files, path, request.headers()).await
    }
}

type Boxed<'a> = Pin<Box<dyn Future<Output = Result<AnyAnswer, Infallible>> + Send + 'a>>;

/// An answer for people and scripts, never stored.
fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    set(
        &mut answer,
        header::CONTENT_TYPE,
        "text/plain; charset=utf-8",
    );
    set(&mut answer, header::CACHE_CONTROL, "no-store");
    set(&mut answer, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    answer
}

fn set<B>(answer: &mut Response<B>, name: HeaderName, value: &'static str) {
    answer
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
}
