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
    more_args: Vec<String>,
}

impl Single {
    /// Starts one, and waits until clients can connect.
    ///
    /// # Panics
    /// Where it does not come up.
    pub async fn start(round: &Round, more_args: &[&str]) -> Single {
        let address = lasting_address();
        let more_args: Vec<String> = more_args.iter().map(|&arg| arg.to_owned()).collect();
        let process = serve(round, address, &more_args).await;
        Single {
            process,
            address,
            more_args,
        }
    }

    /// Starts one that keeps its data in the round's directory.
    ///
    /// # Panics
    /// Where it does not come up.
    pub async fn on_disk(round: &Round) -> Single {
        let dir = round.dir().join("single-data");
        Single::start(round, &["--data-dir", &dir.display().to_string()]).await
    }

    /// Kills it, and starts it again on the same address: in memory, with nothing in it.
    ///
    /// # Panics
    /// Where it does not come up.
    pub async fn restart(&mut self, round: &Round) {
        self.process.kill();
        self.process = serve(round, self.address, &self.more_args).await;
    }
}

async fn serve(round: &Round, address: SocketAddr, more_args: &[String]) -> Process {
    let listen = address.to_string();
    let level = log_level();
    // As a chain's by default: a slow machine is no error.
    let args = [
        "single",
        "--listen",
        &listen,
        "--request-timeout=30s",
        "--log",
        &level,
    ];
    let mut args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    args.extend_from_slice(more_args);
    if !more_args.iter().any(|arg| arg == "--data-dir") {
        args.push("--memory".to_owned());
    }
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
