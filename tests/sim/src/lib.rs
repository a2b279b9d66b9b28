//! A deterministic simulator: replicas with their storage, coordinator, gateway and client sessions, all of them
//! the code that ships, under a network, disks, clocks and clients that one seed decides.
//!
//! | module | its purpose |
//! | --- | --- |
//! | [`cluster`] | one front-end, any number of nodes, what a process does with an event |
//! | [`net`] | connections: whole frames, in order; they stall, break and lose what is in flight |
//! | [`disk`] | a node's storage: a model, or the code that ships on a disk that loses power |
//! | [`oracle`] | what must hold, seen from above all processes |
//! | [`run`] | a seed's run: faults, then none; its clients, their history, its verdict |
//! | [`hunt`] | many runs at once, and the shortest one that fails |
//! | [`canaries`] | bugs that can be switched on, and within how many seeds they are found |
//!
//! The same seed and the same code give the same run to the byte, on any machine: nothing here reads a clock, a
//! random source, or the order of a hash map.

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test, however it is built"
)]

pub mod canaries;
pub mod cluster;
pub mod disk;
pub mod front_end;
pub mod hunt;
pub mod net;
pub mod node;
pub mod oracle;
pub mod rng;
pub mod run;
pub mod show;
