//! The network under links and edges: the system's, or the one that `tests/net` simulates.
//!
//! Everything that listens or dials takes its sockets from here. The feature is never on in what ships: only
//! `tests/net` has it, and that is a workspace of its own.

#[cfg(not(feature = "simulated-network"))]
pub use tokio::net::{TcpListener, TcpStream};
#[cfg(feature = "simulated-network")]
pub use turmoil::net::{TcpListener, TcpStream};
