//! How each system is spoken to: its own protocol, with as little work of ours as that allows.

pub mod etcd;
pub mod json;
pub mod resp;

use crate::stats::Answer;
use crate::work::Op;
use anyhow::Result;
use std::net::SocketAddr;

/// A request under a number of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Counts up from 1, without gaps.
    pub tag: u64,
    /// What.
    pub op: Op,
    /// On which key.
    pub key: u64,
}

/// What a connection needs to know to speak to its system.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where.
    pub address: SocketAddr,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// On how many replicas beside the first a write has to be before it counts; only Redis must be told.
    pub replicas: u16,
}

/// One connection.
#[allow(async_fn_in_trait, reason = "all of it runs on one thread")]
pub trait Wire: Sized {
    /// Whether requests go out together, and the next when all are answered, as a client that pipelines does; else
    /// each is on its own.
    const BATCHES: bool;

    /// Most keys that one request fills.
    fn fill_max(target: &Target) -> u16;

    /// Connects.
    async fn open(target: &Target) -> Result<Self>;

    /// Whether requests that fall due at a rate are better sent now than with the next, once what is under way is
    /// answered.
    fn is_ready(&self) -> bool {
        true
    }

    /// Sends requests, whose tags go on from those before.
    async fn send(&mut self, requests: &[Request]) -> Result<()>;

    /// Waits for answers, and adds them. Nothing is lost if this is dropped.
    async fn receive(&mut self, answers: &mut Vec<(u64, Answer)>) -> Result<()>;
}
