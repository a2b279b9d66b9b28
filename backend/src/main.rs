//! `kvservice-backend`: one node of the chain.

use clap::Parser;
use kvservice_backend::flags::{self, LogFlags, StorageFlags};
use kvservice_backend::start::{self, Start, Storage};
use kvservice_backend::storage::disk::Fsync;
use kvservice_backend::{pages, shutdown};
use std::process::ExitCode;

/// A node of a kvservice chain: holds a copy of the data and passes writes on.
///
/// Start a front-end first (`kvservice-server chain`), then any number of nodes. A node joins by itself, whenever
/// it is started; SIGTERM or ctrl-c makes it leave the chain and end. Data are kept on disk: started again,
/// it has them, and is sent what it missed.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// Where other nodes reach this one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7411",
        value_parser = flags::parse_host_port)]
    listen: String,
    /// Where the front-end listens for nodes (its --chain-listen)
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7401",
        value_parser = flags::parse_host_port)]
    frontend: String,
    /// The address to tell others, where it is not the one listened on
    #[arg(long, value_name = "HOST:PORT", value_parser = flags::parse_host_port)]
    advertise: Option<String>,
    #[command(flatten)]
    storage: StorageFlags,
    /// Log kept for nodes that come back, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024 * 1024)]
    log_retention: usize,
    /// Log between two checkpoints, in bytes (or half of the data's size, where that is more)
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024 * 1024)]
    checkpoint_bytes: usize,
    #[command(flatten)]
    log: LogFlags,
}

/// Requests are many small allocations, made on one task and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    flags.log.start();
    pages::small();
    match run(flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(1)
        }
    }
}

async fn run(flags: Flags) -> Result<(), String> {
    let stop = shutdown::on_signal().map_err(|error| format!("cannot handle signals: {error}"))?;
    let (listener, local) = flags::bind("--listen", &flags.listen).await?;
    if local.ip().is_unspecified() && flags.advertise.is_none() {
        return Err(format!(
            "--listen {} is every address of this machine: say with --advertise HOST:PORT where other nodes \
             reach this one",
            flags.listen
        ));
    }
    // The port may have been 0.
    let address = flags.advertise.unwrap_or_else(|| local.to_string());
    tracing::info!(addr = %local, advertised = address, "listening for nodes");
    let storage = flags.storage.storage("backend", local.port());
    match &storage {
        Storage::Memory => tracing::warn!(
            "data are in memory only: they are gone with this process, and safe only while another node has them"
        ),
        Storage::Disk { options, .. } => {
            if let Fsync::Interval(interval) = options.fsync {
                tracing::warn!(
                    ?interval,
                    "a power cut of all nodes loses what was acknowledged in the last interval"
                );
            }
        }
    }
    if !local.ip().is_loopback() {
        tracing::warn!(
            addr = %local,
            "listening beyond this machine: there is no authentication yet, whoever reaches this port can \
             read and change everything"
        );
    }
    let start = Start {
        address,
        log_retention_bytes: flags.log_retention,
        checkpoint_bytes: flags.checkpoint_bytes,
        storage,
    };
    start::run(start, listener, flags.frontend, stop)
        .await
        .map_err(|error| error.to_string())
}
