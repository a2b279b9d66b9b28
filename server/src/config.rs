//! What a front-end is told, as plain data. [`crate::flags`] makes these from the command line; tests make
//! them by hand.

use kvservice_backend::start::Storage;
use kvservice_shared::limits;
use std::path::PathBuf;
use std::time::Duration;

/// Variation 2: the front-end of a chain.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// Where the view lives.
    pub data_dir: PathBuf,
    /// Found a new cluster at once where `data_dir` holds no view; changes nothing where it does.
    pub init: bool,
    /// A link that is silent for this long is broken. Reaches the nodes with the view.
    pub failure_timeout: Duration,
    /// With fewer members than this, writes are refused. At least 1. Reaches the nodes with the view.
    pub min_replicas: u32,
    /// How long an empty front-end waits for nodes that hold data before it founds a cluster, and how long
    /// one with a view waits for its members. Reaches the nodes with the view.
    pub grace: Duration,
    /// From a request's arrival to giving up on it.
    pub request_timeout: Duration,
    /// The client port.
    pub edge: EdgeConfig,
}

/// Variation 1: the front-end over one replica in its own process.
#[derive(Clone, Debug)]
pub struct SingleConfig {
    /// Where the data live.
    pub storage: Storage,
    /// From a request's arrival to giving up on it.
    pub request_timeout: Duration,
    /// The client port.
    pub edge: EdgeConfig,
}

/// The operator's way out where the protocol will not decide alone.
#[derive(Clone, Debug)]
pub struct RecoverConfig {
    /// The front-end's directory.
    pub data_dir: PathBuf,
    /// Make the view without asking.
    pub yes: bool,
    /// How long to wait for nodes to report.
    pub grace: Duration,
}

/// The client port. The defaults are the shipped values; tests shorten the times.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// The browser client's files; `None` means a `web` folder beside the binary. Looked up at each request.
    pub web_dir: Option<PathBuf>,
    /// Origins that may connect besides the page's own and loopback, each `scheme://host[:port]`.
    pub allow_origins: Vec<String>,
    /// Most connections at once; those beyond are answered 503.
    pub max_connections: usize,
    /// From accepting a connection, or from its last answer, to the end of the next request's headers.
    pub handshake_timeout: Duration,
    /// A client that is silent for this long is pinged.
    pub ping_after: Duration,
    /// A client that is silent for this long is gone. More than `ping_after`.
    pub silence_timeout: Duration,
    /// A client that takes none of the bytes waiting for it for this long is cut off.
    pub write_stall_timeout: Duration,
    /// At shutdown, how long a connection may still wait for answers to what it has passed on.
    pub drain_timeout: Duration,
    /// How long a close frame waits for the client's own.
    pub close_timeout: Duration,
    /// A connection with more bytes of answers waiting than this is not read.
    pub unsent_bytes_max: usize,
    /// Bytes that all connections together may hold of incoming frames; the one that would pass it is closed
    /// with code 1013. At least one frame.
    pub inbound_bytes_max: usize,
}

impl Default for EdgeConfig {
    fn default() -> EdgeConfig {
        EdgeConfig {
            web_dir: None,
            allow_origins: Vec::new(),
            max_connections: 10_000,
            handshake_timeout: Duration::from_secs(10),
            ping_after: Duration::from_secs(15),
            silence_timeout: Duration::from_secs(45),
            write_stall_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(2),
            unsent_bytes_max: 8 * 1024 * 1024,
            inbound_bytes_max: 64 * limits::CLIENT_FRAME_BYTES_MAX,
        }
    }
}
