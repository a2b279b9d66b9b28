//! The one task that owns the replica: feeds it what happens, carries out what it says.
//!
//! It drains everything that is waiting before it lets the replica speak, so that batches form by
//! themselves under load and a lone request waits for nobody. Only the meta data are waited for; the links'
//! queues never make it wait.

use crate::chain::{Event, Halt, LinkId, Message, Output, Replica};
use crate::link::{
    Dialler, FrontEnd, FrontEndSender, Held, Identity, LinkSender, accept_peers, keep_front_end,
    keep_link,
};
use crate::net::TcpListener;
use crate::storage::disk::OpenError;
use crate::storage::{Journal, Progress, State, StorageError};
use kvservice_shared::chain::{Downstream, Incarnation, ToNode, Upstream};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::shutdown::Shutdown;

/// Inputs that may wait; beyond that links are not read.
const INPUTS_MAX: usize = 1024;
/// Inputs that are taken in before the replica's output is carried out.
const INPUTS_PER_ROUND: usize = 256;
/// How often the replica hears that time passes.
const TICK: Duration = Duration::from_millis(10);
/// A node that asked to leave and gets no answer stops in its place after this.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What the tasks around the replica tell it.
#[derive(Debug)]
pub enum Input {
    /// The front-end's link stands.
    FrontEndUp {
        /// Counts links to the front-end.
        generation: u64,
        /// The way to it.
        sender: FrontEndSender,
    },
    /// It broke.
    FrontEndDown {
        /// Which.
        generation: u64,
    },
    /// The front-end said something.
    FromFrontEnd {
        /// On which link.
        generation: u64,
        /// What.
        message: ToNode,
        /// What it holds of the answers' queue until the replica has it.
        held: Held,
    },
    /// A dialled link stands.
    PeerUp {
        /// To whom.
        peer: Incarnation,
        /// Counts links to this peer.
        generation: u64,
        /// The way to it.
        sender: LinkSender,
    },
    /// It broke, or could not be made.
    PeerDown {
        /// To whom.
        peer: Incarnation,
        /// Which.
        generation: u64,
    },
    /// A dialled peer said something.
    FromSuccessor {
        /// Who.
        peer: Incarnation,
        /// On which link.
        generation: u64,
        /// What.
        message: Upstream,
    },
    /// Somebody dialled.
    InboundUp {
        /// Which link.
        link: LinkId,
        /// The way back.
        sender: LinkSender,
    },
    /// Such a link broke.
    InboundDown {
        /// Which.
        link: LinkId,
    },
    /// Somebody who dialled said something.
    FromPredecessor {
        /// On which link.
        link: LinkId,
        /// Who.
        from: Incarnation,
        /// What.
        message: Downstream,
    },
}

/// How a node ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It was told something that a correct cluster never says, or was refused.
    #[error("{0}")]
    Fatal(String),
    /// Its storage failed.
    #[error("storage: {0}")]
    Storage(#[from] StorageError),
    /// Its data cannot be read.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// Its disk is nearly full.
    #[error("{dir}: {left} bytes are left on the disk, less than the reserve of {reserve} bytes")]
    Full {
        /// The data directory.
        dir: String,
        /// Bytes left.
        left: u64,
        /// Bytes that must be left (`--disk-reserve`).
        reserve: u64,
    },
    /// It cannot listen for other nodes any more.
    #[error("cannot listen for other nodes: {0}")]
    Listener(std::io::Error),
}

/// Runs a node until it is asked to stop, and leaves the chain then.
///
/// `listener` takes links from other nodes; without it (variation 1) there are none.
///
/// # Errors
/// Where the node must not go on; its data are left as they are.
pub async fn run<S: State, J: Journal>(
    replica: Replica<S>,
    journal: J,
    listener: Option<TcpListener>,
    front_end: FrontEnd,
    mut shutdown: Shutdown,
) -> Result<(), RunError> {
    let (inputs_tx, mut inputs) = mpsc::channel(INPUTS_MAX);
    let (identity, me) = watch::channel(Identity {
        id: replica.id(),
        cluster: replica.cluster(),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(keep_front_end(front_end, inputs_tx.clone()));
    if let Some(listener) = listener {
        tasks.spawn(accept_peers(listener, me.clone(), inputs_tx.clone()));
    }
    let mut node = Node {
        replica,
        journal,
        progress: Progress::default(),
        front_end: None,
        dialled: BTreeMap::new(),
        inbound: BTreeMap::new(),
        identity,
        me,
        inputs: inputs_tx,
        started: Instant::now(),
    };
    let news = node.journal.news();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(INPUTS_PER_ROUND);
    let mut leave_by: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            () = news.notified() => {
                node.take_progress()?;
            }
            _ = ticks.tick() => {
                node.take_progress()?;
                node.step(Event::Tick);
            }
            _ = inputs.recv_many(&mut batch, INPUTS_PER_ROUND) => {
                for input in batch.drain(..) {
                    node.take(input);
                }
            }
            () = shutdown.requested(), if leave_by.is_none() => {
                leave_by = Some(Instant::now() + LEAVE_TIMEOUT);
                tracing::info!("leaving the chain");
                node.step(Event::Leave);
            }
        }
        let halt = node.carry_out()?;
        let overdue = leave_by.is_some_and(|at| Instant::now() >= at);
        match halt {
            Some(Halt::Left) => tracing::info!("left the chain"),
            Some(Halt::InPlace) => tracing::info!("stopping in place: the chain needs this node"),
            Some(Halt::Fatal(reason)) => return Err(RunError::Fatal(reason)),
            None if overdue => tracing::warn!("stopping in place: the front-end does not answer"),
            None => continue,
        }
        node.journal.close()?;
        return Ok(());
    }
}

struct Node<S, J> {
    replica: Replica<S>,
    journal: J,
    progress: Progress,
    front_end: Option<(u64, FrontEndSender)>,
    dialled: BTreeMap<Incarnation, Dialler>,
    inbound: BTreeMap<LinkId, LinkSender>,
    identity: watch::Sender<Identity>,
    me: watch::Receiver<Identity>,
    inputs: mpsc::Sender<Input>,
    started: Instant,
}

impl<S: State, J: Journal> Node<S, J> {
    fn step(&mut self, event: Event) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.replica.step(now, event);
    }

    /// Whether this link to a peer is the one that counts.
    fn is_current(&self, peer: Incarnation, generation: u64) -> bool {
        self.dialled
            .get(&peer)
            .is_some_and(|d| d.generation == generation && d.sender.is_some())
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::FrontEndUp { generation, sender } => {
                self.front_end = Some((generation, sender));
                self.step(Event::FrontEndUp);
            }
            Input::FrontEndDown { generation } => {
                if self
                    .front_end
                    .as_ref()
                    .is_some_and(|(current, _)| *current == generation)
                {
                    self.front_end = None;
                    self.step(Event::FrontEndDown);
                }
            }
            Input::FromFrontEnd {
                generation,
                message,
                held,
            } => {
                if self
                    .front_end
                    .as_ref()
                    .is_some_and(|(current, _)| *current == generation)
                {
                    self.step(Event::FrontEnd(message));
                }
                // The answers count before anything else runs: nothing is awaited until they are carried out.
                drop(held);
            }
            Input::PeerUp {
                peer,
                generation,
                sender,
            } => {
                if let Some(dialler) = self.dialled.get_mut(&peer)
                    && generation > dialler.generation
                {
                    dialler.generation = generation;
                    dialler.sender = Some(sender);
                    self.step(Event::PeerUp(peer));
                }
            }
            Input::PeerDown { peer, generation } => {
                if let Some(dialler) = self.dialled.get_mut(&peer)
                    && generation >= dialler.generation
                {
                    dialler.generation = generation;
                    dialler.sender = None;
                    self.step(Event::PeerDown(peer));
                }
            }
            Input::FromSuccessor {
                peer,
                generation,
                message,
            } => {
                if self.is_current(peer, generation) {
                    self.step(Event::FromSuccessor(peer, message));
                }
            }
            Input::InboundUp { link, sender } => {
                self.inbound.insert(link, sender);
            }
            Input::InboundDown { link } => {
                if self.inbound.remove(&link).is_some() {
                    self.step(Event::PredecessorDown(link));
                }
            }
            Input::FromPredecessor {
                link,
                from,
                message,
            } => {
                if self.inbound.contains_key(&link) {
                    self.step(Event::FromPredecessor {
                        link,
                        from,
                        message,
                    });
                }
            }
        }
    }

    /// Carries out what the replica says, until it has nothing more to say.
    fn carry_out(&mut self) -> Result<Option<Halt>, RunError> {
        loop {
            let output = self.replica.flush();
            if output.is_empty() {
                return Ok(None);
            }
            let halt = self.carry_out_one(output)?;
            if halt.is_some() {
                return Ok(halt);
            }
            if !self.take_progress()? {
                return Ok(None);
            }
        }
    }

    /// Tells the replica what the journal did. Whether there was news.
    fn take_progress(&mut self) -> Result<bool, RunError> {
        let progress = self.journal.progress()?;
        let before = std::mem::replace(&mut self.progress, progress);
        // Not compared with what the journal said before: a cut may have come between.
        let grown = self.replica.is_news(progress.durable);
        if grown {
            self.step(Event::Durable(progress.durable));
        }
        let saved = (progress.written, progress.checkpoint) != (before.written, before.checkpoint);
        if saved {
            self.step(Event::Saved {
                written: progress.written,
                durable: progress.checkpoint,
            });
        }
        Ok(grown || saved)
    }

    fn carry_out_one(&mut self, output: Output) -> Result<Option<Halt>, RunError> {
        let Output {
            meta,
            journal,
            links,
            messages,
            halt,
        } = output;
        if let Some(meta) = meta {
            self.journal.store_meta(&meta)?;
            let cluster = meta.cluster;
            self.identity
                .send_if_modified(|me| std::mem::replace(&mut me.cluster, cluster) != cluster);
            if let Some(view) = &meta.view {
                let members: Vec<&str> = view.members.iter().map(|m| m.name.as_str()).collect();
                let member = self.replica.is_member();
                tracing::info!(epoch = %view.epoch, chain = members.join(" → "), member, "view");
            }
        }
        if !journal.is_empty() {
            self.journal.write(journal)?;
        }
        if let Some(wanted) = links {
            self.dialled
                .retain(|_, dialler| wanted.contains(&dialler.peer));
            for peer in wanted {
                let (id, me, inputs) = (peer.id, self.me.clone(), self.inputs.clone());
                self.dialled
                    .entry(id)
                    .or_insert_with(|| keep_link(peer, me, inputs));
            }
        }
        for message in messages {
            self.send(message);
        }
        Ok(halt)
    }

    fn send(&mut self, message: Message) {
        match message {
            Message::FrontEnd(message) => {
                if let Some((_, sender)) = &self.front_end {
                    sender.send(message);
                }
            }
            Message::Down(peer, message) => {
                if let Some(sender) = self.dialled.get(&peer).and_then(|d| d.sender.as_ref()) {
                    sender.send(&message);
                }
            }
            Message::Up(link, message) => {
                if let Some(sender) = self.inbound.get(&link) {
                    sender.send(&message);
                }
            }
            Message::CloseDown(peer) => {
                if let Some(dialler) = self.dialled.get_mut(&peer) {
                    dialler.sender = None;
                }
            }
            Message::CloseUp(link) => {
                self.inbound.remove(&link);
            }
        }
    }
}
