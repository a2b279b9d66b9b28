//! The front-end: where clients connect, and position 0 of the chain.
//!
//! | module | holds |
//! | --- | --- |
//! | [`flags`] | the command line: `single`, `chain`, `recover` |
//! | [`config`] | what those commands are told, as plain data |
//! | [`edge`] | the seam between client connections and the task that owns the gateway |
//! | [`http`] | the one client port: handshake, health, the browser's files |
//! | [`connection`] | one client's WebSocket connection |
//! | [`gateway`] | client sessions to the head, what is unanswered: pure |
//! | [`coordinator`] | views, failures, joins, outages: pure |
//! | [`nodes`] | the links of chain nodes |
//! | [`view_store`] | the front-end's directory |
//! | [`runtime`] | the one task that drives gateway and coordinator, for both variations |
//! | [`recover`] | the operator's way out |

pub mod config;
pub mod connection;
pub mod coordinator;
pub mod edge;
pub mod flags;
pub mod gateway;
pub mod http;
pub mod nodes;
pub mod recover;
pub mod runtime;
mod stall;
pub mod view_store;
