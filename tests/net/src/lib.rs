//! The code that ships, edges and all, over a simulated network: front-end, back-ends and native clients run their own
//! runtimes, with tokio-tungstenite and hyper, on hosts of [turmoil], whose network holds, loses and delays what they
//! send, and whose clock is not the day's.
//!
//! | module | its purpose |
//! | --- | --- |
//! | [`cluster`] | the hosts: one front-end, nodes in memory, clients; crashed, stopped, started again |
//! | [`fault`] | what is done to links and hosts, and how it is undone |
//! | [`scenario`] | which faults, and when: named ones, and any at random |
//! | [`client`] | what clients ask, over and over, and what they were told |
//! | [`record`] | the history of it |
//! | [`run`] | a seed's run: faults under load, then none; its verdict |
//! | [`hunt`] | many seeds, each in a process of its own |
//! | [`entropy`] | the random source of the process, which the seed decides too |
//!
//! [turmoil]: https://docs.rs/turmoil

#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test, however it is built"
)]

pub mod client;
pub mod cluster;
pub mod entropy;
pub mod fault;
pub mod hunt;
pub mod record;
pub mod run;
pub mod scenario;
