//! The Rust client of kvservice, a replicated key-value store.
//!
//! A [`Client`] holds one connection and one session. It connects in the background, connects again
//! whenever the connection is lost, and then sends what was not answered under the same ids, so
//! that each write is applied once. Where the outcome of a write cannot be known, its error says so
//! ([`Error::outcome_unknown`]).
//!
//! ```no_run
//! use kvservice_client::{Client, Config, Op};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(Config::new("127.0.0.1:7400".parse()?)).await?;
//!
//! client.set("color", "red").await?;
//! let found = client.get("color").await?.ok_or("it was just set")?;
//! assert_eq!(found.value.as_str(), Some("red"));
//!
//! // Many requests in one frame; the answers are in the order of the requests.
//! let ops = (0..100).map(|n| Op::Set { key: format!("key:{n}"), value: "x".into() }).collect();
//! for answer in client.pipeline(ops).await? {
//!     answer?;
//! }
//!
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What is where
//! The decisions (ids, what to send again, when to connect again) are made by the pure state
//! machine [`kvservice_shared::session::Session`], which the browser client uses too. This crate
//! drives it: one task per client owns the session and the socket. Every queue has a bound: a
//! caller waits when the session's window of 1,024 requests is full.
//!
//! A [`Reader`] sends requests that change nothing, without a session.

mod address;
mod check;
mod client;
mod config;
mod connection;
mod driver;
mod error;
mod link;
mod net;
mod reader;
pub mod wire;

pub use address::{AddressError, ServerAddress};
pub use client::{Call, Client, Found, Page, Swap};
pub use config::Config;
pub use connection::Connection;
pub use error::Error;
pub use kvservice_shared::api::{
    ApiError, ErrorCode, Limits, ListEntry, Op, Outcome, Reply, Response, Status, Value,
};
pub use kvservice_shared::ids::Seq;
pub use reader::Reader;
