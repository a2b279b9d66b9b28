//! Variation 1 under test: a front-end alone.

use crate::process::{Process, binary, lasting_address};
use crate::rounds::Round;
use kvservice_client::{Config, Op, Reader, Reply, Status};
use std::env;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// `kvservice-server single`.
#[derive(Debug)]
pub struct Single {
    /// The process.
    pub process: Process,
    /// Where its clients connect.
    pub address: SocketAddr,
}

impl Single {
    /// Starts one, and waits until clients can connect.
    ///
    /// # Panics
    /// Where it does not come up.
    pub async fn start(round: &Round, more_args: &[&str]) -> Single {
        let address = lasting_address();
        let listen = address.to_string();
        let args = [
            "single",
            "--listen",
            &listen,
            "--memory",
            "--log",
            &log_level(),
        ];
        let args: Vec<String> = args
            .iter()
            .chain(more_args)
            .map(|&arg| arg.to_owned())
            .collect();
        let program = binary("kvservice-server");
        let mut process = Process::start("single", &program, &args, round.dir());
        assert_eq!(process.listens("clients").await, address);
        Single { process, address }
    }
}

/// The level at which the servers log.
pub(crate) fn log_level() -> String {
    env::var("KVSERVICE_TEST_LOG").unwrap_or_else(|_| "info".to_owned())
}

/// The arguments that name a browser client's files.
#[must_use]
pub fn web_args(dir: &Path) -> [String; 2] {
    ["--web-dir".to_owned(), dir.display().to_string()]
}

/// What the front-end at `address` answers to `status`.
///
/// # Errors
/// Nobody answers, or it refuses; the reason is for people.
pub async fn status_of(address: SocketAddr) -> Result<Status, String> {
    let config = Config::new(crate::server_address(address))
        .request_timeout(Duration::from_secs(3))
        .connect_timeout(Duration::from_secs(3));
    let mut reader = Reader::connect(config)
        .await
        .map_err(|error| error.to_string())?;
    let response = reader
        .ask(Op::Status)
        .await
        .map_err(|error| error.to_string())?;
    reader.close().await;
    match response.result {
        Ok(Reply::Status(status)) => Ok(*status),
        Ok(other) => Err(format!("{other:?} to status")),
        Err(error) => Err(error.to_string()),
    }
}
