//! `kvservice-server recover`: the operator's way out where the protocol will not decide alone.
//!
//! Run with the front-end stopped, on its directory and its port for nodes. It waits for nodes to report, lists
//! who reports with what, names what may be lost, and only then makes a view of the one node that holds most;
//! the others join it anew. The view has a new term, so what older front-ends and heads still say is refused.

use crate::config::RecoverConfig;
use crate::coordinator::{NodeLink, Stored};
use crate::nodes::{NodeInput, NodeSender, accept_nodes};
use crate::view_store::{ViewStore, ViewStoreError};
use kvservice_backend::net::TcpListener;
use kvservice_backend::shutdown::Shutdown;
use kvservice_shared::chain::{FromNode, Member, Register, Settings, View};
use kvservice_shared::ids::Epoch;
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Why nothing was recovered. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The directory.
    #[error(transparent)]
    ViewStore(#[from] ViewStoreError),
    /// Nobody came.
    #[error(
        "no node with data reported within the grace: start the nodes that still have data, then try again"
    )]
    Nobody,
    /// The operator did not want it.
    #[error("nothing was changed")]
    Declined,
    /// Standard input or output.
    #[error("{0}")]
    Terminal(#[from] std::io::Error),
}

/// Waits, lists, asks, and makes the view.
///
/// # Errors
/// Where nothing was changed, and why.
pub async fn run(
    config: RecoverConfig,
    nodes: TcpListener,
    mut shutdown: Shutdown,
) -> Result<(), RecoverError> {
    let (mut store, stored) = ViewStore::open(&config.data_dir)?;
    let reports = gather(&config, nodes, &mut shutdown).await;
    let reports: Vec<Register> = reports.into_values().collect();
    let candidates = candidates(&reports);
    let mut out = std::io::stdout().lock();
    describe(&mut out, &stored, &candidates)?;
    let Some(recovered) = recovered(&stored, &reports) else {
        return Err(RecoverError::Nobody);
    };
    if !config.yes && !confirmed(&mut out)? {
        return Err(RecoverError::Declined);
    }
    store.save(&recovered)?;
    writeln!(
        out,
        "view {} is stored. Start the front-end again with --data-dir {}; the other nodes rejoin by themselves.",
        recovered.view.as_ref().map_or(0, |view| view.epoch.number),
        config.data_dir.display()
    )?;
    Ok(())
}

/// The nodes that report until the grace ends.
async fn gather(
    config: &RecoverConfig,
    nodes: TcpListener,
    shutdown: &mut Shutdown,
) -> BTreeMap<NodeLink, Register> {
    let (tx, mut inputs) = mpsc::channel(64);
    let accepting = tokio::spawn(accept_nodes(nodes, tx));
    let until = Instant::now() + config.grace;
    let mut senders: BTreeMap<NodeLink, NodeSender> = BTreeMap::new();
    let mut reports = BTreeMap::new();
    eprintln!(
        "waiting {} s for nodes to report",
        config.grace.as_secs_f32()
    );
    loop {
        let input = tokio::select! {
            input = inputs.recv() => input,
            () = tokio::time::sleep_until(until) => break,
            () = shutdown.requested() => break,
        };
        match input {
            Some(NodeInput::Up { link, sender }) => {
                senders.insert(link, sender);
            }
            Some(NodeInput::Message {
                link,
                message: FromNode::Register(register),
            }) => {
                reports.insert(link, *register);
            }
            Some(NodeInput::Message { .. }) => {}
            Some(NodeInput::Down { link }) => {
                senders.remove(&link);
                reports.remove(&link);
            }
            None => break,
        }
    }
    accepting.abort();
    reports
}

/// The nodes that have data, the best first.
fn candidates(reports: &[Register]) -> Vec<&Register> {
    let mut candidates: Vec<&Register> = reports
        .iter()
        .filter(|register| register.cluster.is_some())
        .collect();
    candidates.sort_by_key(|register| std::cmp::Reverse(rank(register)));
    candidates
}

/// Who holds most: the newest view it acted in, then the newest and longest log.
fn rank(register: &Register) -> (Epoch, Epoch, u64) {
    let view = register
        .view
        .as_ref()
        .map_or(Epoch::NONE, |view| view.epoch);
    let last = register
        .log
        .runs
        .last()
        .map_or(register.log.base.epoch, |run| run.epoch);
    (view, last, register.log.last().0)
}

fn describe(
    out: &mut impl Write,
    stored: &Stored,
    candidates: &[&Register],
) -> std::io::Result<()> {
    match &stored.view {
        Some(view) => {
            let names: Vec<String> = view
                .members
                .iter()
                .map(|m| format!("{} ({})", m.name, m.address))
                .collect();
            writeln!(
                out,
                "stored here: view {} of cluster {}: {}",
                view.epoch,
                view.cluster,
                names.join(" → ")
            )?;
        }
        None => writeln!(out, "stored here: no view")?,
    }
    if candidates.is_empty() {
        return writeln!(out, "no node with data reported");
    }
    writeln!(out, "nodes with data, the best first:")?;
    for register in candidates {
        let name = stored
            .names
            .get(&register.id.node)
            .map_or("?", String::as_str);
        let view = register
            .view
            .as_ref()
            .map_or(Epoch::NONE, |view| view.epoch);
        writeln!(
            out,
            "  {name:4} {:21} last view {view}, log up to {}, storage {:?}, cluster {}",
            register.address,
            register.log.last(),
            register.storage,
            register
                .cluster
                .map_or_else(String::new, |cluster| cluster.to_string()),
        )?;
    }
    let chosen = candidates[0];
    let newest = stored.view.as_ref().map_or(Epoch::NONE, |view| view.epoch);
    let held = chosen.view.as_ref().map_or(Epoch::NONE, |view| view.epoch);
    writeln!(out, "the new chain starts with {} alone.", chosen.address)?;
    if held < newest {
        writeln!(
            out,
            "RISK: it acted last in view {held}, the chain was in view {newest} since: every write acknowledged \
             after it left may be LOST."
        )?;
    } else {
        writeln!(
            out,
            "It acted in the newest view that is known here, so it holds every write that was acknowledged, \
             unless a view is newer than all that report."
        )?;
    }
    writeln!(
        out,
        "Entries that other nodes hold and it does not are given up; a node that calls such an entry committed \
         will refuse to join and must be wiped."
    )
}

fn confirmed(out: &mut impl Write) -> std::io::Result<bool> {
    write!(out, "make this view? (yes/no) ")?;
    out.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim() == "yes")
}

/// What a front-end remembers once its operator decided to go on with the node that holds most, of those that
/// report. `None`: none of them has data.
#[must_use]
pub fn recovered(stored: &Stored, reports: &[Register]) -> Option<Stored> {
    let chosen = *candidates(reports).first()?;
    let mut stored = stored.clone();
    let name = stored
        .names
        .get(&chosen.id.node)
        .cloned()
        .unwrap_or_else(|| {
            stored.next_name += 1;
            format!("n{}", stored.next_name)
        });
    stored.names.insert(chosen.id.node, name.clone());
    let known = [stored.view.as_ref(), chosen.view.as_ref()];
    let newest = known
        .iter()
        .flatten()
        .map(|view| view.epoch)
        .max()
        .unwrap_or(Epoch::NONE);
    let term = stored.term.max(chosen.term).max(newest.term) + 1;
    let number = known
        .iter()
        .flatten()
        .map(|view| view.epoch.number)
        .max()
        .unwrap_or(0)
        + 1;
    let settings = known
        .iter()
        .flatten()
        .next()
        .map_or_else(Settings::default, |view| view.settings);
    if let Some(cluster) = chosen.cluster {
        let member = Member {
            id: chosen.id,
            name,
            address: chosen.address.clone(),
            storage: chosen.storage,
        };
        let epoch = Epoch { term, number };
        stored.cluster = Some(cluster);
        stored.view = Some(View {
            cluster,
            epoch,
            members: vec![member],
            settings,
        });
    }
    stored.term = term;
    Some(stored)
}
