//! Requests that change nothing, without a session.

use crate::config::Config;
use crate::error::Error;
use crate::link::{Incoming, Link};
use crate::{check, wire};
use kvservice_shared::api::json::decode_responses;
use kvservice_shared::api::{ApiError, ErrorCode, Op, Request, Response};
use kvservice_shared::ids::RequestId;
use tokio::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::Message;

/// Between two attempts to connect again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Asks for what changes nothing: `get`, `list`, `status`.
///
/// A read can be sent again without harm, so it needs no session; and opening one is a write, which
/// the server refuses while its chain is incomplete. [`Op::Status`] asked here is answered even
/// then. One request is under way at a time. Use a [`crate::Client`] for everything else.
pub struct Reader {
    config: Config,
    link: Link,
    /// Without a session, ids must grow.
    last_id: RequestId,
}

impl Reader {
    /// Connects; one attempt.
    ///
    /// # Errors
    /// [`Error::Connect`].
    pub async fn connect(config: Config) -> Result<Reader, Error> {
        let link = open(&config).await?;
        Ok(Reader {
            config,
            link,
            last_id: RequestId(0),
        })
    }

    /// Sends one request and waits for its answer; connects again and asks again if the connection
    /// is lost meanwhile.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a request that changes something or breaks a limit. If no answer came
    /// within [`Config::request_timeout`]: [`Error::Connect`] where the connection was lost, else
    /// [`Error::Api`]. An error that the server answers with is in [`Response::result`].
    pub async fn ask(&mut self, op: Op) -> Result<Response, Error> {
        check::op(&op)?;
        if op.kind().is_write() {
            return Err(Error::Invalid("a reader does not write".to_owned()));
        }
        let deadline = self
            .config
            .request_timeout
            .map(|timeout| Instant::now() + timeout);
        self.last_id = RequestId(self.last_id.0 + 1);
        let request = Request {
            id: self.last_id,
            op,
        };
        loop {
            let lost = match within(deadline, self.ask_once(&request)).await? {
                Ok(response) => return Ok(response),
                Err(lost) => lost,
            };
            self.link = within(deadline, self.reconnect())
                .await
                .map_err(|_| Error::Connect(format!("the connection was lost: {lost}")))?;
        }
    }

    /// The answer, or why the connection ended before it came.
    async fn ask_once(&mut self, request: &Request) -> Result<Response, String> {
        self.link.send(Message::text(request.to_json()));
        loop {
            match self.link.next().await {
                Incoming::Text(text) => {
                    let kind_of = |id| (id == request.id).then_some(request.op.kind());
                    let responses =
                        decode_responses(&text, kind_of).map_err(|error| error.to_string())?;
                    let own = |response: &Response| response.id == Some(request.id);
                    if let Some(response) = responses.into_iter().find(own) {
                        return Ok(response);
                    }
                }
                Incoming::Alive => {}
                Incoming::Ended { reason, .. } => return Err(reason),
            }
        }
    }

    async fn reconnect(&self) -> Link {
        loop {
            match open(&self.config).await {
                Ok(link) => return link,
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }

    /// Closes the connection.
    pub async fn close(self) {
        // A server that does not take the goodbye sees the socket close instead.
        let _ = tokio::time::timeout(RETRY_PAUSE, self.link.close()).await;
    }
}

async fn open(config: &Config) -> Result<Link, Error> {
    match wire::open(&config.server, config.connect_timeout).await {
        Ok(socket) => Ok(Link::new(socket)),
        Err(error) => Err(Error::Connect(error.to_string())),
    }
}

async fn within<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Result<T, Error> {
    match deadline {
        None => Ok(future.await),
        Some(at) => tokio::time::timeout_at(at, future).await.map_err(|_| {
            Error::Api(ApiError::not_applied(
                ErrorCode::Timeout,
                "no answer came in time",
            ))
        }),
    }
}
