//! kvservice: a front-end and a chain of back-ends.

use super::{Places, Started};
use crate::process::{Process, free_address, wait_until};
use anyhow::{Context, Result};
use serde_json::Value as Json;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Starts a chain whose order is that of the processes.
///
/// # Errors
/// It does not start.
pub fn start(places: &Places, nodes: u16, memory: bool) -> Result<Started> {
    let (clients, chain) = (free_address()?, free_address()?);
    let dir = &places.dir;
    let args = [
        "chain".to_owned(),
        format!("--listen={clients}"),
        format!("--chain-listen={chain}"),
        format!("--data-dir={}", dir.join("front-end").display()),
        "--init".to_owned(),
    ];
    let server = places.bin_dir.join("kvservice-server");
    let mut processes = vec![Process::start("front-end", &server, args, dir)?];
    for number in 1..=nodes {
        let listen = free_address()?;
        let name = format!("n{number}");
        let mut args = vec![format!("--listen={listen}"), format!("--frontend={chain}")];
        args.push(match memory {
            true => "--memory".to_owned(),
            false => format!("--data-dir={}", dir.join(&name).display()),
        });
        let backend = places.bin_dir.join("kvservice-backend");
        processes.push(Process::start(&name, &backend, args, dir)?);
        until_members(&places.bin_dir, clients, number.into(), &mut processes)?;
    }
    Ok((processes, vec![clients]))
}

/// Waits until the chain has so many members, and nothing is missing.
///
/// # Errors
/// That does not happen.
pub fn until_members(
    bin_dir: &Path,
    clients: SocketAddr,
    count: usize,
    processes: &mut [Process],
) -> Result<()> {
    let what = format!("the chain has {count} members");
    wait_until(&what, processes, || {
        members(bin_dir, clients).is_some_and(|members| members.len() == count)
    })
}

/// The addresses of the members, from head to tail; `None` while the chain does not serve.
pub fn members(bin_dir: &Path, clients: SocketAddr) -> Option<Vec<SocketAddr>> {
    let output = Command::new(bin_dir.join("kvservice"))
        .args(["--server", &clients.to_string(), "-o", "json", "status"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let status: Json = serde_json::from_slice(&output.stdout).ok()?;
    status["waiting"].is_null().then_some(())?;
    let members = status["members"].as_array()?;
    members
        .iter()
        .map(|member| member["address"].as_str()?.parse().ok())
        .collect()
}

/// The process that listens at `address`.
///
/// # Errors
/// None of these does.
pub fn process_at(processes: &mut [Process], address: SocketAddr) -> Result<&mut Process> {
    let flag = format!("--listen={address}");
    processes
        .iter_mut()
        .find(|process| process.has_arg(&flag))
        .with_context(|| format!("no back-end of ours listens at {address}"))
}
