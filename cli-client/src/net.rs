//! The network under a client: the system's, or the one that `tests/net` simulates. The feature is never on in
//! what ships.

#[cfg(not(feature = "simulated-network"))]
pub use tokio::net::TcpStream;
#[cfg(feature = "simulated-network")]
pub use turmoil::net::TcpStream;
