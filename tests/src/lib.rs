//! The harness of the whole-system tests: real processes on this machine, driven and watched by a test.
//!
//! | module | holds |
//! | --- | --- |
//! | [`rounds`] | a scenario, run as often as was asked for, its files kept when it fails |
//! | [`process`] | one process: its log, its signals, its end; none outlives its test |
//! | [`chain`] | a front-end and its nodes, and the conditions that a test waits for |
//! | [`single`] | variation 1, a front-end alone |
//! | [`small_disk`] | a disk that can be filled |
//! | [`load`] | clients that read and write all the while, and check every answer against the promises |
//! | [`raw`] | one WebSocket, to send what no client would |
//! | [`random`] | dice that fall the same way each time |
//! | [`nemesis`] | faults of all kinds at random, for as long as one likes, and a history that is checked |
//! | [`cli`] | `kvservice`, run as a shell runs it |
//!
//! A test waits for conditions, with a deadline that no healthy system comes near; it never waits for a
//! time, but where passing time is the very thing under test. What the machine can make slow (a gap in the
//! answers) is printed and never asserted.
//!
//! | variable | means |
//! | --- | --- |
//! | `KVSERVICE_BIN_DIR` | where the binaries are; else the directory that cargo built this test into |
//! | `KVSERVICE_REPEAT` | rounds of each test; else 1 |
//! | `KVSERVICE_TEST_LOG` | the servers' log level; else `info` |

pub mod chain;
pub mod cli;
pub mod load;
pub mod nemesis;
pub mod process;
pub mod random;
pub mod raw;
pub mod rounds;
pub mod single;
pub mod small_disk;

pub use uuid::Uuid;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

/// Longer than anything here takes on a busy machine: reaching it is a failure, not a wait.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks at a condition that cannot announce itself.
pub const POLL: Duration = Duration::from_millis(4);

/// Looks again until `look` finds something; `None` after [`PATIENCE`].
pub async fn search<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let searching = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, searching).await.ok()
}

/// Fails, rather than hangs, where what a test awaits does not come.
///
/// # Panics
/// After [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// How a client of this library names a server.
///
/// # Panics
/// Never: an address is one.
#[must_use]
pub fn server_address(address: SocketAddr) -> kvservice_client::ServerAddress {
    address
        .to_string()
        .parse()
        .expect("HOST:PORT names a server")
}
