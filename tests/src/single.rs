//! Variation 1 under test: a front-end alone.

use crate::process::{Process, binary, lasting_address};
use crate::rounds::Round;
use kvservice_client::{Config, Op, Reader, Reply, Status};
use std::env;
use std::net::SocketAddr;
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
        let process = serve(round, address, more_args).await;
        Single { process, address }
    }

    /// Kills it, and starts it again on the same address: with nothing in it.
    ///
    /// # Panics
    /// Where it does not come up.
    pub async fn restart(&mut self, round: &Round) {
        self.process.kill();
        self.process = serve(round, self.address, &[]).await;
    }
}

async fn serve(round: &Round, address: SocketAddr, more_args: &[&str]) -> Process {
    let listen = address.to_string();
    let level = log_level();
    // As a chain's by default: a slow machine is no error.
    let args = [
        "single",
        "--listen",
        &listen,
        "--memory",
        "--request-timeout=30s",
        "--log",
        &level,
    ];
    let args = args.iter().chain(more_args).map(|&arg| arg.to_owned());
    let args: Vec<String> = args.collect();
    let mut process = Process::start("single", &binary("kvservice-server"), &args, round.dir());
    assert_eq!(process.listens("clients").await, address);
    process
}

/// The level at which the servers log.
pub(crate) fn log_level() -> String {
    env::var("KVSERVICE_TEST_LOG").unwrap_or_else(|_| "info".to_owned())
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
