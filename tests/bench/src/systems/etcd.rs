//! etcd: members of one cluster.

use super::{Places, Started, program};
use crate::process::{Process, free_address, wait_until};
use crate::wire::etcd::leads;
use anyhow::{Context, Result};
use std::net::SocketAddr;

/// Starts the members, and waits until all know their leader; clients connect to all of them in turn.
///
/// # Errors
/// They do not start.
pub fn start(places: &Places, nodes: u16) -> Result<Started> {
    let addresses = (0..nodes)
        .map(|_| Ok((free_address()?, free_address()?)))
        .collect::<Result<Vec<_>>>()?;
    let name = |number: usize| format!("m{number}");
    let peers = addresses.iter().zip(1..);
    let cluster: Vec<String> = peers
        .map(|((_, peer), number)| format!("{}=http://{peer}", name(number)))
        .collect();
    let mut processes = Vec::new();
    for ((clients, peer), number) in addresses.iter().zip(1..) {
        let args = [
            format!("--name={}", name(number)),
            format!("--data-dir={}", places.dir.join(name(number)).display()),
            format!("--listen-client-urls=http://{clients}"),
            format!("--advertise-client-urls=http://{clients}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster={}", cluster.join(",")),
            "--initial-cluster-state=new".to_owned(),
            // What large values write in a run is more than the 2 GiB that are allowed otherwise.
            "--quota-backend-bytes=8589934592".to_owned(),
        ];
        let process = Process::start(&name(number), &program("etcd"), args, &places.dir)?;
        processes.push(process);
    }
    let clients: Vec<SocketAddr> = addresses.iter().map(|(clients, _)| *clients).collect();
    wait_until("the members of etcd have a leader", &mut processes, || {
        matches!(leader(&clients), Ok(Some(_)))
    })?;
    Ok((processes, clients))
}

/// The leader's place among the members, if all know one.
///
/// # Errors
/// A member cannot be asked.
pub fn leader(clients: &[SocketAddr]) -> Result<Option<usize>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    let mut leader = None;
    for (index, &address) in clients.iter().enumerate() {
        match runtime.block_on(leads(address))? {
            None => return Ok(None),
            Some(true) => leader = Some(index),
            Some(false) => {}
        }
    }
    Ok(leader)
}
