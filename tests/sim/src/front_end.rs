//! A simulated front-end process: what `server/src/runtime.rs` does around coordinator and gateway.

use crate::net::Process;
use kvservice_server::coordinator::{self, Coordinator, NodeLink, Stored};
use kvservice_server::gateway::{self, Gateway};
use kvservice_shared::chain::Settings;
use kvservice_shared::ids::{ClusterId, ConnId, Epoch, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What the flags say.
#[derive(Clone, Copy, Debug)]
pub struct Flags {
    pub settings: Settings,
    pub init: bool,
    pub grace_ms: u64,
    pub request_timeout_ms: u64,
}

/// A running front-end.
#[derive(Debug)]
pub struct FrontEnd {
    pub process: Process,
    pub coordinator: Coordinator,
    pub gateway: Gateway,
    /// Registered connections. A node's link has the number of its connection.
    pub nodes: BTreeSet<u64>,
    pub head: Option<NodeLink>,
    pub epoch: Epoch,
    pub clients: BTreeSet<ConnId>,
    /// Who told it of data, and of which cluster's.
    pub told_by: BTreeMap<NodeId, ClusterId>,
    pub paused: bool,
    pub stopping: bool,
    started_ms: u64,
}

impl FrontEnd {
    pub fn start(process: Process, flags: Flags, stored: Stored, now_ms: u64) -> FrontEnd {
        let life = u128::from(process.life);
        let coordinator = coordinator::Config {
            settings: flags.settings,
            init: flags.init,
            grace_ms: flags.grace_ms,
            wall_ms: 1_000_000,
            fresh_cluster: ClusterId(Uuid::from_u128(0xc000 + (life << 32))),
            single: false,
        };
        let gateway = gateway::Config {
            request_timeout_ms: flags.request_timeout_ms,
            pending_bytes_max: 256 * 1024 * 1024,
            boot: life << 64,
        };
        FrontEnd {
            process,
            coordinator: Coordinator::new(coordinator, stored),
            gateway: Gateway::new(gateway),
            nodes: BTreeSet::new(),
            head: None,
            epoch: Epoch::NONE,
            clients: BTreeSet::new(),
            told_by: BTreeMap::new(),
            paused: false,
            stopping: false,
            started_ms: now_ms,
        }
    }

    pub fn coordinate(&mut self, now_ms: u64, input: coordinator::Input) {
        self.coordinator.step(now_ms - self.started_ms, input);
    }

    pub fn serve(&mut self, now_ms: u64, input: gateway::Input) {
        self.gateway.step(now_ms - self.started_ms, input);
    }
}
