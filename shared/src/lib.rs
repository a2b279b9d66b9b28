//! What both ends of a wire must agree on.
//!
//! This crate is compiled natively for the front-end, the chain nodes and the terminal client, and
//! to wasm32 for the browser. It knows no socket, clock, thread, random source or async runtime:
//! every module is plain data, a codec, or a pure state machine.
//!
//! | module | holds |
//! | --- | --- |
//! | [`ids`] | newtypes of fixed width for everything that is counted or named |
//! | [`limits`] | every maximum, with its unit in its name |
//! | [`api`] | the client protocol: requests, responses, errors, status (JSON) |
//! | [`command`] | the text grammar of the terminal's and the browser's prompt |
//! | [`session`] | the client's half of exactly-once: what is unanswered, retry, backoff, resume |
//! | [`chain`] | views, pointer tables and the messages between nodes |
//! | [`codec`] | the binary frames that carry those messages |

pub mod api;
pub mod canary;
pub mod chain;
pub mod codec;
pub mod command;
pub mod ids;
pub mod limits;
pub mod session;

// `wasm-pack test` runs the same tests in a browser.
#[cfg(all(test, target_arch = "wasm32"))]
wasm_bindgen_test::wasm_bindgen_test_configure!(run_in_browser);

/// What property tests share.
#[cfg(test)]
mod testing {
    use proptest::test_runner::Config;

    /// So many cases natively; in the browser, which runs all tests on its one thread, fewer.
    pub(crate) fn cases(natively: u32) -> Config {
        Config::with_cases(if cfg!(target_arch = "wasm32") {
            natively / 8
        } else {
            natively
        })
    }
}
