//! The client port against clients of every kind, with a gateway of the test's own behind it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "edge/rig.rs"]
mod rig;

#[path = "edge/dump.rs"]
mod dump;
#[path = "edge/files.rs"]
mod files;
#[path = "edge/handshake.rs"]
mod handshake;
#[path = "edge/limits.rs"]
mod limits;
#[path = "edge/protocol.rs"]
mod protocol;
#[path = "edge/shutdown.rs"]
mod shutdown;
