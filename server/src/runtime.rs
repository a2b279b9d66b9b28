//! The one task that owns coordinator and gateway: feeds them what happens, carries out what they say.
//!
//! It drains everything that is waiting, from clients and from nodes, before it lets them speak: batches form
//! by themselves under load. Only the view is waited for: it is durable before anyone hears of it.

use crate::config::{ChainConfig, EdgeConfig, SingleConfig};
use crate::coordinator::{self, Coordinator, NodeLink, Stored};
use crate::edge::{ConnSender, Edge, FromConn, Health, ToConn, serve};
use crate::gateway::{self, Gateway};
use crate::nodes::{NodeInput, NodeSender, accept_nodes};
use crate::view_store::{ViewStore, ViewStoreError};
use kvservice_backend::link::{FrontEnd, Queue, answer_bytes};
use kvservice_backend::net::TcpListener;
use kvservice_backend::runtime::RunError;
use kvservice_backend::shutdown::{Shutdown, shutdown};
use kvservice_backend::start::{self, Start, Storage};
use kvservice_shared::api::Response;
use kvservice_shared::chain::{FromNode, Settings, ToNode};
use kvservice_shared::ids::{ClusterId, ConnId};
use kvservice_shared::limits;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

/// Inputs of each kind that may wait; beyond that sockets are not read.
const INPUTS_MAX: usize = 4096;
/// Inputs of each kind that are taken in before outputs are carried out.
const INPUTS_PER_ROUND: usize = 1024;
/// How often coordinator and gateway hear that time passes.
const TICK: Duration = Duration::from_millis(10);
/// Bytes of unanswered requests, for all connections together.
const PENDING_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Log between two checkpoints of a single server, in bytes.
const CHECKPOINT_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of requests in one frame to the head, about.
const REQUESTS_BYTES_TARGET: usize = limits::CHAIN_BATCH_BYTES_TARGET;

/// Why a front-end ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its directory.
    #[error(transparent)]
    ViewStore(#[from] ViewStoreError),
    /// Variation 1's replica.
    #[error(transparent)]
    Replica(#[from] RunError),
    /// A task of its own ended by a bug.
    #[error("a task ended: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// The random source or the clock cannot be used.
    #[error("{0}")]
    System(String),
}

/// Runs variation 2's front-end until it is asked to stop.
///
/// # Errors
/// Where it must not go on.
pub async fn run_chain(
    config: ChainConfig,
    clients: TcpListener,
    nodes: TcpListener,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    let (store, stored) = ViewStore::open(&config.data_dir)?;
    let settings = Settings {
        failure_timeout_ms: millis(config.failure_timeout)
            .try_into()
            .unwrap_or(u32::MAX),
        min_replicas: config.min_replicas,
    };
    let coordinator = coordinator::Config {
        settings,
        init: config.init,
        grace_ms: millis(config.grace),
        wall_ms: wall_ms()?,
        fresh_cluster: ClusterId(Uuid::new_v4()),
        single: false,
    };
    let (node_inputs, inputs) = mpsc::channel(INPUTS_MAX);
    let mut tasks = JoinSet::new();
    tasks.spawn(accept_nodes(nodes, node_inputs));
    let front_end = FrontEndTask::new(coordinator, stored, Some(store), config.request_timeout);
    front_end.run(config.edge, clients, inputs, shutdown).await
}

/// Runs variation 1 until it is asked to stop: the same front-end over one replica in this process.
///
/// # Errors
/// Where it must not go on.
pub async fn run_single(
    config: SingleConfig,
    clients: TcpListener,
    shutdown_signal: Shutdown,
) -> Result<(), ServeError> {
    let coordinator = coordinator::Config {
        settings: Settings::default(),
        init: true,
        grace_ms: 0,
        wall_ms: wall_ms()?,
        fresh_cluster: ClusterId(Uuid::new_v4()),
        single: true,
    };
    let address = clients
        .local_addr()
        .map_or_else(|_| "in this process".to_owned(), |a| a.to_string());
    let (store, stored) = match &config.storage {
        Storage::Memory => (None, Stored::default()),
        Storage::Disk { dir, .. } => {
            let (store, stored) = ViewStore::open(&dir.join("front-end"))?;
            (Some(store), stored)
        }
    };
    let replica = Start {
        address,
        // Nobody will ever ask for the log.
        log_retention_bytes: 0,
        checkpoint_bytes: CHECKPOINT_BYTES,
        storage: match config.storage.clone() {
            Storage::Memory => Storage::Memory,
            Storage::Disk {
                dir,
                options,
                reserve_bytes,
            } => Storage::Disk {
                dir: dir.join("node"),
                options,
                reserve_bytes,
            },
        },
    };
    let (to_node, from_front_end) = mpsc::unbounded_channel::<ToNode>();
    let (to_front_end, mut from_node) = mpsc::unbounded_channel::<FromNode>();
    let (node_inputs, inputs) = mpsc::channel(INPUTS_MAX);
    let answers = Queue::default();
    let waiting = answers.clone();
    let mut tasks = JoinSet::new();
    let (node_stop, node_shutdown) = shutdown();
    tasks.spawn(async move {
        let front_end = FrontEnd::Here {
            from: from_front_end,
            to: to_front_end,
            answers: waiting,
        };
        let ended = start::run_once(&replica, None, front_end, node_shutdown).await;
        ended.map_err(ServeError::from)
    });
    tasks.spawn(async move {
        let link = NodeLink(1);
        let up = NodeInput::Up {
            link,
            sender: NodeSender::Here(to_node),
        };
        let mut next = Some(up);
        while let Some(input) = next {
            if node_inputs.send(input).await.is_err() {
                return Ok(());
            }
            next = from_node.recv().await.map(|message| {
                answers.sub(answer_bytes(&message));
                NodeInput::Message { link, message }
            });
        }
        let _ = node_inputs.send(NodeInput::Down { link }).await;
        Ok(())
    });
    let front_end = FrontEndTask::new(coordinator, stored, store, config.request_timeout);
    let serving = front_end.run(config.edge, clients, inputs, shutdown_signal);
    let replica_ended = async {
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok::<(), ServeError>(())
    };
    tokio::pin!(replica_ended);
    tokio::select! {
        served = serving => served?,
        ended = &mut replica_ended => return ended,
    }
    // Every client is answered: the replica closes its storage.
    node_stop.stop();
    replica_ended.await
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn wall_ms() -> Result<u64, ServeError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since
        .map(millis)
        .map_err(|_| ServeError::System("the clock stands before 1970: set it".to_owned()))
}

struct FrontEndTask {
    coordinator: Coordinator,
    gateway: Gateway,
    store: Option<ViewStore>,
    nodes: BTreeMap<NodeLink, NodeSender>,
    head: Option<NodeLink>,
    epoch: kvservice_shared::ids::Epoch,
    conns: HashMap<ConnId, ConnSender>,
    /// Readers of dumps.
    dumps: HashMap<ConnId, mpsc::UnboundedSender<gateway::DumpAnswer>>,
    started: Instant,
}

impl FrontEndTask {
    fn new(
        config: coordinator::Config,
        stored: Stored,
        store: Option<ViewStore>,
        request_timeout: Duration,
    ) -> FrontEndTask {
        let gateway = gateway::Config {
            request_timeout_ms: millis(request_timeout),
            pending_bytes_max: PENDING_BYTES_MAX,
            boot: Uuid::new_v4().as_u128(),
        };
        FrontEndTask {
            coordinator: Coordinator::new(config, stored),
            gateway: Gateway::new(gateway),
            store,
            nodes: BTreeMap::new(),
            head: None,
            epoch: kvservice_shared::ids::Epoch::NONE,
            conns: HashMap::new(),
            dumps: HashMap::new(),
            started: Instant::now(),
        }
    }

    fn now_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    async fn run(
        mut self,
        edge: EdgeConfig,
        clients: TcpListener,
        mut node_inputs: mpsc::Receiver<NodeInput>,
        mut shutdown: Shutdown,
    ) -> Result<(), ServeError> {
        let (conn_tx, mut conn_inputs) = mpsc::channel(INPUTS_MAX);
        let (health_tx, health) = watch::channel::<Health>(Err("starting".to_owned()));
        let edge = Arc::new(Edge::new(conn_tx, edge, health));
        let mut serving = JoinSet::new();
        serving.spawn(serve(clients, edge, shutdown.clone()));
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut from_nodes = Vec::with_capacity(INPUTS_PER_ROUND);
        let mut from_conns = Vec::with_capacity(INPUTS_PER_ROUND);
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                ended = serving.join_next() => {
                    // All clients were answered and closed. Asked first: their queue is closed then, and a
                    // closed queue is always ready.
                    if let Some(ended) = ended {
                        ended?;
                    }
                    for (_, sender) in std::mem::take(&mut self.nodes) {
                        sender.finish();
                    }
                    tracing::info!("stopped");
                    return Ok(());
                }
                _ = node_inputs.recv_many(&mut from_nodes, INPUTS_PER_ROUND), if !node_inputs.is_closed() || !node_inputs.is_empty() => {}
                _ = conn_inputs.recv_many(&mut from_conns, INPUTS_PER_ROUND) => {}
                _ = ticks.tick() => {
                    let now = self.now_ms();
                    self.coordinator.step(now, coordinator::Input::Tick);
                    self.gateway.step(now, gateway::Input::Tick);
                }
                () = shutdown.requested(), if !stopping => {
                    stopping = true;
                    tracing::info!("draining: answering what was asked");
                    let now = self.now_ms();
                    self.coordinator.step(now, coordinator::Input::Stop);
                }
            }
            // What came meanwhile from the other side goes along.
            while from_conns.len() < INPUTS_PER_ROUND
                && let Ok(input) = conn_inputs.try_recv()
            {
                from_conns.push(input);
            }
            while from_nodes.len() < INPUTS_PER_ROUND
                && let Ok(input) = node_inputs.try_recv()
            {
                from_nodes.push(input);
            }
            let now = self.now_ms();
            for input in from_nodes.drain(..) {
                self.take_node_input(now, input);
            }
            for input in from_conns.drain(..) {
                self.take_conn_input(now, input);
            }
            self.carry_out(&health_tx)?;
        }
    }

    fn take_node_input(&mut self, now: u64, input: NodeInput) {
        match input {
            NodeInput::Up { link, sender } => {
                self.nodes.insert(link, sender);
            }
            NodeInput::Message { link, message } => {
                if !self.nodes.contains_key(&link) {
                    return;
                }
                if let FromNode::Answers { epoch, answers } = message {
                    if self.head == Some(link) {
                        self.gateway
                            .step(now, gateway::Input::Answers(epoch, answers));
                    }
                    return;
                }
                self.coordinator
                    .step(now, coordinator::Input::Message(link, message));
            }
            NodeInput::Down { link } => {
                if self.nodes.remove(&link).is_some() {
                    self.coordinator
                        .step(now, coordinator::Input::Disconnected(link));
                }
            }
        }
    }

    fn take_conn_input(&mut self, now: u64, input: FromConn) {
        match input {
            FromConn::Opened { conn, to } => {
                self.conns.insert(conn, to);
                self.gateway.step(now, gateway::Input::Opened(conn));
            }
            FromConn::Requests { conn, requests } => {
                self.gateway
                    .step(now, gateway::Input::Requests(conn, requests));
            }
            FromConn::Dump { conn, to } => {
                self.dumps.insert(conn, to);
                self.gateway.step(now, gateway::Input::Dump(conn));
            }
            FromConn::DumpNext { conn } => {
                self.gateway.step(now, gateway::Input::DumpNext(conn));
            }
            FromConn::Closed { conn } => {
                self.conns.remove(&conn);
                self.dumps.remove(&conn);
                self.gateway.step(now, gateway::Input::Closed(conn));
            }
        }
    }

    fn carry_out(&mut self, health: &watch::Sender<Health>) -> Result<(), ServeError> {
        let out = self.coordinator.flush();
        if let (Some(stored), Some(store)) = (&out.store, &mut self.store) {
            // Blocks this thread, on purpose: nothing may be said before it is durable.
            store.save(stored)?;
        }
        for text in out.news {
            tracing::info!("{text}");
        }
        for (link, message) in out.messages {
            if let Some(node) = self.nodes.get(&link) {
                node.send(message);
            }
        }
        for link in out.close {
            if let Some(node) = self.nodes.remove(&link) {
                node.finish();
                let now = self.now_ms();
                self.coordinator
                    .step(now, coordinator::Input::Disconnected(link));
            }
        }
        if out.forgotten {
            let now = self.now_ms();
            self.gateway.step(now, gateway::Input::Forget);
        }
        if let Some(route) = out.route {
            self.set_route(route, health);
        }
        self.carry_out_gateway();
        Ok(())
    }

    fn set_route(&mut self, route: coordinator::Route, health: &watch::Sender<Health>) {
        let now = self.now_ms();
        self.head = None;
        let (route, healthy) = match route {
            coordinator::Route::Head(link, epoch) => {
                self.head = Some(link);
                self.epoch = epoch;
                (gateway::Route::Head(epoch), Ok(()))
            }
            coordinator::Route::Wait => (
                gateway::Route::Wait,
                Err("the head is being replaced".to_owned()),
            ),
            coordinator::Route::Closed(reason) => {
                (gateway::Route::Closed(reason.clone()), Err(reason))
            }
        };
        let _ = health.send_replace(healthy);
        self.gateway.step(now, gateway::Input::Route(route));
    }

    fn carry_out_gateway(&mut self) {
        let out = self.gateway.flush();
        if let Some(node) = self.head.and_then(|link| self.nodes.get(&link)) {
            let mut frame = Vec::with_capacity(out.requests.len().min(limits::CHAIN_REQUESTS_MAX));
            let mut bytes = 0;
            for request in out.requests {
                bytes += gateway::request_bytes(&request);
                frame.push(request);
                if frame.len() == limits::CHAIN_REQUESTS_MAX || bytes > REQUESTS_BYTES_TARGET {
                    bytes = 0;
                    let requests = std::mem::take(&mut frame);
                    node.send(ToNode::Requests {
                        epoch: self.epoch,
                        requests,
                    });
                }
            }
            if !frame.is_empty() {
                node.send(ToNode::Requests {
                    epoch: self.epoch,
                    requests: frame,
                });
            }
        }
        for (conn, answer) in out.dumps {
            if let Some(to) = self.dumps.get(&conn) {
                // A reader that is gone says so itself.
                let _ = to.send(answer);
            }
        }
        let mut responses = out.responses;
        if !out.status.is_empty() {
            let status = self.coordinator.status();
            for (conn, id) in out.status {
                responses.push((conn, Gateway::status_response(id, status.clone())));
            }
        }
        self.respond(responses);
        for (conn, code, reason) in out.close {
            if let Some(to) = self.conns.get(&conn) {
                to.send(ToConn::Close { code, reason });
            }
        }
    }

    /// All responses of one connection go in one message.
    fn respond(&mut self, mut responses: Vec<(ConnId, Response)>) {
        responses.sort_by_key(|(conn, _)| *conn);
        let mut rest = responses.into_iter().peekable();
        while let Some((conn, first)) = rest.next() {
            let mut group = vec![first];
            while let Some((_, response)) = rest.next_if(|(other, _)| *other == conn) {
                group.push(response);
            }
            if let Some(to) = self.conns.get(&conn) {
                gateway::shed(&mut group, to.queued_bytes(), to.global_queued_bytes());
                to.send(ToConn::Responses(group));
            }
        }
    }
}
