//! `kvservice-server`: reads the command line, binds the ports, and runs what was asked for until it is told
//! to stop.

use clap::Parser;
use kvservice_backend::flags::{LogFormat, bind};
use kvservice_backend::pages;
use kvservice_backend::shutdown::on_signal;
use kvservice_backend::start::Storage;
use kvservice_server::flags::{Command, Flags};
use kvservice_server::{recover, runtime};
use std::net::SocketAddr;
use std::process::ExitCode;

/// Threads for what may block: reading the page's files, mostly.
const BLOCKING_THREADS_MAX: usize = 4;

/// Requests are many small allocations, made on one task and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = Flags::parse();
    flags.log.start();
    pages::small();
    // One thread: the tasks here hand small things to each other all the time, and the machine's other cores
    // have the chain to run.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(run(flags.command));
            // All is said and done: a thread that still waits for a disk or a keyboard is not waited for.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            match flags.log.log_format {
                LogFormat::Text => eprintln!("error: {message}"),
                LogFormat::Json => tracing::error!("{message}"),
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), String> {
    let shutdown = on_signal().map_err(|error| format!("cannot listen for signals: {error}"))?;
    match command {
        Command::Single(flags) => {
            let (clients, addr) = bind("--listen", &flags.client.listen).await?;
            let config = flags.config(addr.port());
            if matches!(config.storage, Storage::Memory) {
                tracing::warn!("storage is memory: all data are gone when this process ends");
            }
            listening("listening for clients", addr);
            runtime::run_single(config, clients, shutdown)
                .await
                .map_err(|e| e.to_string())
        }
        Command::Chain(flags) => {
            let (clients, addr) = bind("--listen", &flags.client.listen).await?;
            listening("listening for clients", addr);
            let (nodes, addr) = bind("--chain-listen", &flags.nodes.chain_listen).await?;
            listening("listening for nodes", addr);
            let config = flags.config(addr.port());
            runtime::run_chain(config, clients, nodes, shutdown)
                .await
                .map_err(|e| e.to_string())
        }
        Command::Recover(flags) => {
            let (nodes, addr) = bind("--chain-listen", &flags.nodes.chain_listen).await?;
            listening("listening for nodes", addr);
            recover::run(flags.config(addr.port()), nodes, shutdown)
                .await
                .map_err(|e| e.to_string())
        }
    }
}

/// Logs the address, which `:0` leaves to the system, and warns where others can reach it.
fn listening(what: &'static str, addr: SocketAddr) {
    tracing::info!(%addr, "{what}");
    if !addr.ip().to_canonical().is_loopback() {
        tracing::warn!(
            %addr,
            "reachable from other machines, and there is no authentication: whoever reaches this port can \
             read and change everything"
        );
    }
}
