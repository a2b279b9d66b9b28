//! The coordinator: the only one who makes views. Pure: an [`Input`] and the time in, an [`Output`] out.
//!
//! It knows the whole member list, so nobody is ever stranded, and it is the head's predecessor. Its rules are in
//! `docs/protocol.md`; in short: a view follows the last one by removals of members that did not answer after a
//! failure was noticed, or by one joined tail; after an outage it is any non-empty subset of the last view's
//! members that prove that they kept their data; and it is stored before anyone hears of it.
//!
//! | file | its purpose |
//! | --- | --- |
//! | `nodes` | registration, and who is connected |
//! | `failure` | noticing failures, asking who is left, the next view |
//! | `outage` | after a restart or a silence: whom to await, founding |
//! | `claim` | a front-end that knows less than the nodes: claiming a term, adoption |
//! | `join` | learners |
//! | `status` | what is told to people |

mod claim;
mod failure;
mod join;
mod nodes;
mod outage;
mod status;

use failure::{Accusation, Round};
use join::Joining;
use kvservice_shared::canary::{self, Canary};
use kvservice_shared::chain::{FromNode, Incarnation, Member, Register, Settings, ToNode, View};
use kvservice_shared::ids::{ClusterId, Epoch, NodeId};
use nodes::Node;
use outage::Phase;
use serde::{Deserialize, Serialize};
use status::Events;
use std::collections::{BTreeMap, VecDeque};

pub use status::Repair;

/// One connection of a node, numbered by the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeLink(pub u64);

/// What the front-end remembers: durable before anything that was decided with it leaves the process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// The cluster, once founded or adopted.
    pub cluster: Option<ClusterId>,
    /// The highest term claimed.
    pub term: u32,
    /// The current view.
    pub view: Option<View>,
    /// Names given to nodes.
    pub names: BTreeMap<NodeId, String>,
    /// The number in the next name.
    pub next_name: u64,
}

/// What the coordinator is told at start.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The flags that reach the nodes with the view.
    pub settings: Settings,
    /// Found a new cluster at once where nothing is stored.
    pub init: bool,
    /// How long to wait for nodes before calling anyone dead, in milliseconds.
    pub grace_ms: u64,
    /// Wall clock at time zero, in milliseconds since 1970: for events.
    pub wall_ms: u64,
    /// Random: the id of the cluster, should this front-end found one.
    pub fresh_cluster: ClusterId,
    /// Variation 1: one node, in this process.
    pub single: bool,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed.
    Tick,
    /// A node said something.
    Message(NodeLink, FromNode),
    /// A node's connection is gone.
    Disconnected(NodeLink),
    /// This process is stopping: no more views.
    Stop,
}

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub struct Output {
    /// Durable before the rest.
    pub store: Option<Stored>,
    /// Messages to nodes.
    pub messages: Vec<(NodeLink, ToNode)>,
    /// Connections to close, once what was sent is sent.
    pub close: Vec<NodeLink>,
    /// The cluster was given up with all that its log held, clients' sessions included.
    pub forgotten: bool,
    /// Where requests go now; everything that is unanswered is sent again.
    pub route: Option<Route>,
    /// For the log: what happened, in words.
    pub news: Vec<String>,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this connection, said in this epoch.
    Head(NodeLink, Epoch),
    /// Nowhere for the moment: the head is being replaced, or awaited.
    Wait,
    /// Nowhere until something changes that this process cannot bring about; the reason, for people.
    Closed(String),
}

/// The coordinator.
#[derive(Debug)]
pub struct Coordinator {
    config: Config,
    stored: Stored,
    phase: Phase,
    nodes: BTreeMap<NodeLink, Node>,
    round: Option<Round>,
    rounds: u64,
    foundings: u128,
    accusations: VecDeque<Accusation>,
    joining: Option<Joining>,
    /// Nodes that want in, first come first; a learner that failed goes to the back.
    queue: VecDeque<Incarnation>,
    events: Events,
    repair: Option<Repair>,
    stopping: bool,
    route: Option<Route>,
    /// Observed time: grows only while this process runs.
    clock_ms: u64,
    last_tick_ms: Option<u64>,
    last_beat_ms: u64,
    now_ms: u64,
    out: Output,
    store_late: Option<Stored>,
}

/// One tick counts as at most this much observed time: a process that was paused suspects nobody for it.
const TICK_MS_MAX: u64 = 50;
/// Heartbeats in one failure time-out.
const BEATS_PER_TIMEOUT: u64 = 8;

impl Coordinator {
    /// Takes up what is stored, or starts empty.
    #[must_use]
    pub fn new(config: Config, stored: Stored) -> Coordinator {
        let mut coordinator = Coordinator {
            config,
            stored,
            phase: Phase::Serving,
            nodes: BTreeMap::new(),
            round: None,
            rounds: 0,
            foundings: 0,
            accusations: VecDeque::new(),
            joining: None,
            queue: VecDeque::new(),
            events: Events::new(config.wall_ms),
            repair: None,
            stopping: false,
            route: None,
            clock_ms: 0,
            last_tick_ms: None,
            last_beat_ms: 0,
            now_ms: 0,
            out: Output::default(),
            store_late: None,
        };
        coordinator.start();
        coordinator
    }

    /// Takes one input. `now_ms` is any clock that does not go back, zero at start.
    pub fn step(&mut self, now_ms: u64, input: Input) {
        self.now_ms = now_ms;
        match input {
            Input::Tick => self.tick(),
            Input::Message(link, message) => self.on_message(link, message),
            Input::Disconnected(link) => self.on_disconnected(link),
            Input::Stop => self.stopping = true,
        }
        self.advance();
    }

    /// What is to be done because of all inputs since the last flush.
    pub fn flush(&mut self) -> Output {
        let route = self.route_now();
        if self.route.as_ref() != Some(&route) {
            self.route = Some(route.clone());
            self.out.route = Some(route);
        }
        let mut out = std::mem::take(&mut self.out);
        if canary::is_on(Canary::TellBeforeStored) && out.store.is_some() {
            // With the next that is to be stored.
            std::mem::swap(&mut out.store, &mut self.store_late);
        }
        out
    }

    /// The current view.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        self.stored.view.as_ref()
    }

    fn epoch(&self) -> Epoch {
        self.stored
            .view
            .as_ref()
            .map_or(Epoch::NONE, |view| view.epoch)
    }

    fn members(&self) -> &[Member] {
        self.stored.view.as_ref().map_or(&[], |view| &view.members)
    }

    fn timeout_ms(&self) -> u64 {
        u64::from(self.config.settings.failure_timeout_ms)
    }

    fn send(&mut self, link: NodeLink, message: ToNode) {
        self.out.messages.push((link, message));
    }

    fn store(&mut self) {
        self.out.store = Some(self.stored.clone());
    }

    fn news(&mut self, text: impl Into<String>) {
        self.out.news.push(text.into());
    }

    /// The connection of this very incarnation.
    fn link_of(&self, id: Incarnation) -> Option<NodeLink> {
        self.nodes
            .iter()
            .find(|(_, node)| node.register.id == id)
            .map(|(link, _)| *link)
    }

    fn tick(&mut self) {
        let passed = self
            .last_tick_ms
            .map_or(0, |last| self.now_ms.saturating_sub(last));
        self.last_tick_ms = Some(self.now_ms);
        self.clock_ms += passed.min(TICK_MS_MAX);
        if self.clock_ms - self.last_beat_ms >= self.timeout_ms() / BEATS_PER_TIMEOUT {
            self.last_beat_ms = self.clock_ms;
            for link in self.nodes.keys().copied().collect::<Vec<_>>() {
                self.send(link, ToNode::Beat);
            }
        }
        self.check_silence();
    }

    fn on_message(&mut self, link: NodeLink, message: FromNode) {
        if let FromNode::Register(register) = message {
            return self.on_register(link, *register);
        }
        let clock = self.clock_ms;
        let Some(node) = self.nodes.get_mut(&link) else {
            // Said before registering.
            return self.out.close.push(link);
        };
        node.heard_ms = clock;
        let id = node.register.id;
        match message {
            FromNode::Register(_) | FromNode::Answers { .. } => {}
            FromNode::Report(report) => {
                node.report = Some(report);
                self.check_repair();
            }
            FromNode::Down {
                epoch,
                id: accused,
                offered,
            } => {
                self.on_down(id, epoch, accused, offered);
            }
            FromNode::Ready { epoch, id: learner } => self.on_ready(id, epoch, learner),
            FromNode::Here { nonce } => self.on_here(id, nonce),
            FromNode::AskView => {
                if let Some(view) = self.stored.view.clone() {
                    self.send(link, ToNode::View(view));
                }
            }
            FromNode::Leave => self.on_leave(link, id),
        }
    }

    /// Makes the next view: stored first, then told to everyone, members or not.
    fn make_view(&mut self, members: Vec<Member>, epoch: Epoch) {
        assert!(!members.is_empty(), "a view is never empty");
        assert!(
            epoch > self.epoch(),
            "epochs only grow: {epoch} after {}",
            self.epoch()
        );
        let Some(cluster) = self.stored.cluster else {
            unreachable!("a cluster is founded before its first view");
        };
        let view = View {
            cluster,
            epoch,
            members,
            settings: self.config.settings,
        };
        let names: Vec<&str> = view.members.iter().map(|m| m.name.as_str()).collect();
        self.news(format!("view {epoch}: {}", names.join(" → ")));
        self.stored.view = Some(view.clone());
        self.stored.term = self.stored.term.max(epoch.term);
        self.store();
        for link in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.send(link, ToNode::View(view.clone()));
        }
        self.round = None;
        self.joining = None;
        // Whoever is not connected is awaited, and missed when the grace is over: no close will tell.
        let missing = view.members.iter().any(|m| self.link_of(m.id).is_none());
        self.phase = match missing {
            true => Phase::Awaiting {
                since_ms: self.clock_ms,
            },
            false => Phase::Serving,
        };
        // Even where the head is the same: it forgot whom to answer.
        self.route = None;
        self.queue.retain(|id| view.position(*id).is_none());
        // A member that was removed and lives comes back in, at the back.
        for node in self.nodes.values().filter(|node| !node.leaving) {
            let id = node.register.id;
            if view.position(id).is_none() && !self.queue.contains(&id) {
                self.queue.push_back(id);
            }
        }
    }

    fn next_epoch(&self) -> Epoch {
        let next = self.epoch().next();
        Epoch {
            term: next.term.max(self.stored.term),
            number: next.number,
        }
    }

    fn route_now(&self) -> Route {
        // Members that may still come are waited for; requests with them.
        if let Some(reason) = self.waiting_for().filter(|_| !self.is_in_grace()) {
            return Route::Closed(reason);
        }
        let head = self.stored.view.as_ref().and_then(|view| view.head());
        match head.and_then(|head| self.link_of(head.id)) {
            Some(link) => Route::Head(link, self.epoch()),
            None => Route::Wait,
        }
    }

    /// What can be done next, whatever happened.
    fn advance(&mut self) {
        if self.stopping && !canary::is_on(Canary::ViewsWhileStopping) {
            return;
        }
        self.advance_outage();
        self.advance_round();
        self.advance_join();
    }

    fn member_for(&mut self, register: &Register) -> Member {
        Member {
            id: register.id,
            name: self.name_of(register.id.node),
            address: register.address.clone(),
            storage: register.storage,
        }
    }

    /// The node's name, for ever: `n1`, `n2`, … in the order of coming.
    fn name_of(&mut self, node: NodeId) -> String {
        if let Some(name) = self.stored.names.get(&node) {
            return name.clone();
        }
        self.stored.next_name += 1;
        let name = format!("n{}", self.stored.next_name);
        self.stored.names.insert(node, name.clone());
        self.forget_names();
        name
    }

    /// Names of nodes that are long gone do not fill the file for ever.
    fn forget_names(&mut self) {
        const NAMES_MAX: usize = 256;
        while self.stored.names.len() > NAMES_MAX {
            let known = |node: &NodeId| {
                self.members().iter().any(|m| m.id.node == *node)
                    || self.nodes.values().any(|n| n.register.id.node == *node)
            };
            let gone = self.stored.names.keys().copied().find(|node| !known(node));
            match gone {
                Some(node) => self.stored.names.remove(&node),
                None => return,
            };
        }
    }
}
