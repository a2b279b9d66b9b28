//! Redis: a master and its replicas, and Sentinels where one is to take over.

use super::{Places, Started, program};
use crate::process::{Process, free_address, wait_until};
use crate::wire::resp::{OwnedReply, ask};
use anyhow::{Context, Result};
use std::fs;
use std::net::SocketAddr;

/// What the Sentinels call the master.
const MASTER: &str = "bench";

/// Starts a master and its replicas; clients connect to the master.
///
/// # Errors
/// They do not start.
pub fn start(places: &Places, nodes: u16, always: bool) -> Result<Started> {
    let master = free_address()?;
    let mut processes = vec![server(places, "master", master, None, always)?];
    for number in 1..nodes {
        let name = format!("replica{number}");
        let replica = server(places, &name, free_address()?, Some(master), always)?;
        processes.push(replica);
    }
    let online = usize::from(nodes) - 1;
    wait_until("the replicas of Redis are online", &mut processes, || {
        let info = info(master, "replication").unwrap_or_default();
        info.starts_with("# Replication") && info.matches("state=online").count() == online
    })?;
    Ok((processes, vec![master]))
}

fn server(
    places: &Places,
    name: &str,
    address: SocketAddr,
    master: Option<SocketAddr>,
    always: bool,
) -> Result<Process> {
    let dir = places.dir.join(name);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let durable: &[&str] = match always {
        true => &["--appendonly", "yes", "--appendfsync", "always"],
        false => &["--appendonly", "no"],
    };
    let mut args: Vec<String> = ["--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]
        .into_iter()
        // Replicas begin at once and not after five seconds; nothing else is changed from the defaults.
        .chain(["--repl-diskless-sync-delay", "0"])
        .chain(durable.iter().copied())
        .map(str::to_owned)
        .collect();
    args.extend(["--port".to_owned(), address.port().to_string()]);
    args.extend(["--dir".to_owned(), dir.display().to_string()]);
    if let Some(master) = master {
        let port = master.port().to_string();
        args.extend(["--replicaof".to_owned(), master.ip().to_string(), port]);
    }
    Process::start(name, &program("redis-server"), args, &places.dir)
}

/// Starts three Sentinels with their defaults over a master that runs; returns where they listen.
///
/// # Errors
/// They do not start, or do not find each other.
pub fn start_sentinels(
    places: &Places,
    processes: &mut Vec<Process>,
    master: SocketAddr,
) -> Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for number in 1..=3 {
        let address = free_address()?;
        let file = places.dir.join(format!("sentinel{number}.conf"));
        // No more than Redis's manual names as the minimum.
        let config = format!(
            "port {}\nbind 127.0.0.1\nsentinel monitor {MASTER} {} {} 2\n",
            address.port(),
            master.ip(),
            master.port(),
        );
        fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
        let args = [file.display().to_string(), "--sentinel".to_owned()];
        let name = format!("sentinel{number}");
        processes.push(Process::start(
            &name,
            &program("redis-server"),
            args,
            &places.dir,
        )?);
        addresses.push(address);
    }
    let sentinels = addresses.clone();
    wait_until(
        "the Sentinels know each other and the replicas",
        processes,
        || {
            sentinels.iter().all(|&address| {
                let info = info(address, "sentinel").unwrap_or_default();
                info.contains("status=ok") && info.contains("slaves=2,sentinels=3")
            })
        },
    )?;
    Ok(addresses)
}

/// Whom a Sentinel takes for the master.
pub async fn master(sentinel: SocketAddr) -> Result<SocketAddr> {
    let reply = ask(sentinel, &["SENTINEL", "get-master-addr-by-name", MASTER]).await?;
    let word = |item: &OwnedReply| match item {
        OwnedReply::Bulk(Some(bytes)) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    };
    let address = match &reply {
        OwnedReply::Array(items) => items.iter().map(word).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    let address = address.map(|words| words.join(":"));
    address
        .and_then(|address| address.parse().ok())
        .with_context(|| format!("the Sentinel at {sentinel} names no master: {reply:?}"))
}

fn info(address: SocketAddr, section: &str) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let reply = runtime.block_on(ask(address, &["INFO", section]))?;
    match reply {
        OwnedReply::Bulk(Some(bytes)) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        other => anyhow::bail!("INFO says {other:?}"),
    }
}
