//! `kvservice-backend`: one node of the chain.

use clap::Parser;
use kvservice_backend::chain::Config;
use kvservice_backend::flags::{self, LogFlags};
use kvservice_backend::link::FrontEnd;
use kvservice_backend::storage::{MemoryJournal, MemoryState};
use kvservice_backend::{runtime, shutdown};
use kvservice_shared::api::StorageKind;
use kvservice_shared::chain::Incarnation;
use kvservice_shared::ids::{Boot, NodeId};
use std::process::ExitCode;
use uuid::Uuid;

/// A node of a kvservice chain: holds a copy of the data and passes writes on.
///
/// Start a front-end first (`kvservice-server chain`), then any number of nodes. A node joins by itself, whenever
/// it is started; SIGTERM or ctrl-c makes it leave the chain and end. Data are kept in memory and are gone
/// with the process; the other nodes have them.
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
    /// Keep data in memory only (the only storage of this version, and its default)
    #[arg(long)]
    memory: bool,
    /// Log kept for nodes that come back, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64 * 1024 * 1024)]
    log_retention: usize,
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
    let random = Uuid::new_v4().as_u64_pair();
    let id = Incarnation {
        node: NodeId(Uuid::new_v4()),
        boot: Boot(random.0 ^ random.1),
    };
    // The port may have been 0.
    let address = flags.advertise.unwrap_or_else(|| local.to_string());
    tracing::info!(addr = %local, advertised = address, node = %id.node, "listening for nodes");
    tracing::warn!(
        "data are in memory only: they are gone with this process, and safe only while another node has them"
    );
    if !local.ip().is_loopback() {
        tracing::warn!(
            addr = %local,
            "listening beyond this machine: there is no authentication yet, whoever reaches this port can \
             read and change everything"
        );
    }
    let config = Config {
        id,
        address,
        storage: StorageKind::Memory,
        log_retention_bytes: flags.log_retention,
        checkpoint_bytes: 0,
    };
    let storage = (MemoryState::default(), MemoryJournal::default());
    runtime::run(
        config,
        Some(listener),
        FrontEnd::At(flags.frontend),
        storage,
        stop,
    )
    .await
    .map_err(|error| error.to_string())
}
