//! The front-end: where clients connect, and position 0 of the chain.
//!
//! | module | holds |
//! | --- | --- |
//! | [`flags`] | the command line: `single`, `chain`, `recover` |
//! | [`config`] | what those commands are told, as plain data |
//! | [`edge`] | the seam between client connections and the task that owns the gateway |
//! | [`http`] | the one client port: handshake, health, the browser's files |
//! | [`connection`] | one client's WebSocket connection |

pub mod config;
pub mod connection;
pub mod edge;
pub mod flags;
pub mod http;
mod stall;
