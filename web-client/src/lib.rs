//! The browser client: one page that shows the chain alive, its keys, and a prompt.
//!
//! | module | holds | compiled |
//! | --- | --- | --- |
//! | [`state`] | everything that the page knows: a pure reducer | everywhere |
//! | [`layout`] | where everything in the picture of the chain stands: pure | everywhere |
//! | [`notices`] | what stands above the picture when something is to be done: pure | everywhere |
//! | [`text`] | words and numbers as people read them: pure | everywhere |
//! | `app` | the one component with state: feeds events in, carries effects out | wasm32 |
//! | `connection` | the only file that touches the socket; drives `shared`'s session | wasm32 |
//! | `browser` | clock, storage, media queries, randomness | wasm32 |
//! | `components` | what is drawn, a component a file | wasm32 |
//!
//! The pure modules have their tests beside them: `cargo test -p kvservice-web-client` runs them natively.

pub mod layout;
pub mod notices;
pub mod state;
pub mod text;

#[cfg(target_arch = "wasm32")]
pub mod app;
#[cfg(target_arch = "wasm32")]
mod browser;
#[cfg(target_arch = "wasm32")]
mod components;
#[cfg(target_arch = "wasm32")]
mod connection;
