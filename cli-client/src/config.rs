//! What a client is told once.

use crate::address::ServerAddress;
use std::time::Duration;

/// What a [`crate::Client`] is told once. Start from [`Config::new`] and change what you need:
///
/// ```
/// use kvservice_client::Config;
/// use std::time::Duration;
///
/// let config = Config::new("127.0.0.1:7400".parse()?).request_timeout(Duration::from_secs(30));
/// # Ok::<(), kvservice_client::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub(crate) server: ServerAddress,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) silence_timeout: Duration,
    pub(crate) connect_timeout: Duration,
}

impl Config {
    /// The default of [`Config::connect_timeout`].
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

    /// The defaults: requests time out after 5 s, a silent server after 3 s, an attempt to connect
    /// after 3 s.
    #[must_use]
    pub fn new(server: ServerAddress) -> Config {
        Config {
            server,
            request_timeout: Some(Duration::from_secs(5)),
            silence_timeout: Duration::from_secs(3),
            connect_timeout: Config::CONNECT_TIMEOUT,
        }
    }

    /// From a request's submission to giving up on it, over all attempts and reconnections.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Config {
        self.request_timeout = Some(timeout);
        self
    }

    /// Requests wait as long as it takes.
    #[must_use]
    pub fn no_request_timeout(mut self) -> Config {
        self.request_timeout = None;
        self
    }

    /// How long the connection may stay silent while an answer is awaited, before it is given up
    /// and opened anew. The client sends pings meanwhile, so only a server or a network that is
    /// stuck stays silent; an answer may take longer.
    #[must_use]
    pub fn silence_timeout(mut self, timeout: Duration) -> Config {
        self.silence_timeout = timeout;
        self
    }

    /// How long one attempt to connect may take.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Config {
        self.connect_timeout = timeout;
        self
    }
}
