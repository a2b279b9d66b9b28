//! A front-end and a chain in one thread, without sockets: every message is encoded and decoded as on the way.

use crate::meter::{Meter, Stage};
use crate::stages::{
    messages, stage_admit, stage_answer, stage_commit, stage_decode, stage_durable, stage_encode,
    stage_follow, stage_order, stage_parse, stage_print,
};
use kvservice_backend::chain::{Config, Event, JournalOp, LinkId, Message, Output, Replica};
use kvservice_backend::storage::MemoryState;
use kvservice_server::gateway::{self, Gateway, Input, Route};
use kvservice_shared::api::{Request, Response, StorageKind};
use kvservice_shared::chain::{
    Downstream, FromNode, Incarnation, Member, Settings, ToNode, Upstream, View,
};
use kvservice_shared::ids::{Boot, ClusterId, ConnId, Epoch, NodeId};
use std::collections::VecDeque;
use uuid::Uuid;

const EPOCH: Epoch = Epoch { term: 1, number: 1 };

/// Front-end and nodes.
pub struct Chain {
    gateway: Gateway,
    nodes: Vec<Node>,
}

struct Node {
    id: Incarnation,
    replica: Replica<MemoryState>,
}

/// A message under way between two nodes.
enum Hop {
    Down { to: usize, message: Downstream },
    Up { to: usize, message: Upstream },
}

fn incarnation(at: usize) -> Incarnation {
    Incarnation {
        node: NodeId(Uuid::from_u128(at as u128 + 1)),
        boot: Boot(1),
    }
}

impl Chain {
    /// So many nodes, linked, all empty; connections 1 to `connections` are open.
    pub fn new(nodes: usize, connections: u64, meter: &mut Meter) -> Chain {
        let members: Vec<Member> = (0..nodes)
            .map(|at| Member {
                id: incarnation(at),
                name: format!("n{}", at + 1),
                address: format!("127.0.0.1:{}", at + 1),
                storage: StorageKind::Memory,
            })
            .collect();
        let cluster = ClusterId(Uuid::from_u128(7));
        let view = View {
            cluster,
            epoch: EPOCH,
            members: members.clone(),
            settings: Settings::default(),
        };
        let config = gateway::Config {
            request_timeout_ms: 5000,
            pending_bytes_max: 1 << 30,
            boot: 1,
        };
        let nodes = members.into_iter().map(|member| {
            let config = Config {
                id: member.id,
                address: member.address,
                storage: member.storage,
                log_retention_bytes: 8 << 20,
                checkpoint_bytes: 64 << 20,
                part_bytes: 128 << 10,
            };
            Node {
                id: member.id,
                replica: Replica::new(config, MemoryState::default()),
            }
        });
        let mut chain = Chain {
            gateway: Gateway::new(config),
            nodes: nodes.collect(),
        };
        let mut hops = VecDeque::new();
        for at in 0..chain.nodes.len() {
            let name = format!("n{}", at + 1);
            let replica = &mut chain.nodes[at].replica;
            replica.step(0, Event::FrontEndUp);
            replica.step(0, Event::FrontEnd(ToNode::Welcome { cluster, name }));
            replica.step(0, Event::FrontEnd(ToNode::View(view.clone())));
        }
        for at in 0..chain.nodes.len() {
            if let Some(next) = chain.nodes.get(at + 1).map(|next| next.id) {
                chain.nodes[at].replica.step(0, Event::PeerUp(next));
            }
            let output = chain.nodes[at].replica.flush();
            chain.take(at, output, &mut hops, meter);
        }
        chain.carry(&mut hops, meter);
        chain.gateway.step(0, Input::Route(Route::Head(EPOCH)));
        for conn in 1..=connections {
            chain.gateway.step(0, Input::Opened(ConnId(conn)));
        }
        chain
    }

    /// Serves one frame of each connection; gives back the frames of answers.
    pub fn serve(&mut self, frames: &[(ConnId, String)], meter: &mut Meter) -> Vec<String> {
        let requests: Vec<(ConnId, Vec<Request>)> = meter.time(Stage::Parse, || {
            let parsed = frames.iter();
            parsed
                .map(|(conn, frame)| (*conn, stage_parse(frame)))
                .collect()
        });
        let requests = meter.time(Stage::Admit, || stage_admit(&mut self.gateway, requests));
        let mut responses = self.ask(requests, meter);
        // Writes of a connection without a session wait for one first.
        loop {
            let held = meter.time(Stage::Admit, || stage_admit(&mut self.gateway, Vec::new()));
            if held.is_empty() {
                break;
            }
            responses.extend(self.ask(held, meter));
        }
        responses.sort_by_key(|(conn, _)| *conn);
        let groups: Vec<Vec<Response>> = responses
            .chunk_by(|a, b| a.0 == b.0)
            .map(|group| group.iter().map(|(_, response)| response.clone()).collect())
            .collect();
        meter.time(Stage::Print, || {
            groups.iter().map(|group| stage_print(group)).collect()
        })
    }

    fn ask(
        &mut self,
        requests: Vec<kvservice_shared::chain::ChainRequest>,
        meter: &mut Meter,
    ) -> Vec<(ConnId, Response)> {
        let message = ToNode::Requests {
            epoch: EPOCH,
            requests,
        };
        let frame = meter.time(Stage::SendRequests, || stage_encode(&message));
        let message = meter.time(Stage::TakeRequests, || stage_decode::<ToNode>(frame));
        let head = &mut self.nodes[0].replica;
        let output = meter.time(Stage::Order, || stage_order(head, message));
        let mut hops = VecDeque::new();
        let mut answers = self.take(0, output, &mut hops, meter);
        answers.extend(self.carry(&mut hops, meter));
        let mut responses = Vec::new();
        for answer in answers {
            let frame = meter.time(Stage::SendAnswers, || stage_encode(&answer));
            let answer = meter.time(Stage::TakeAnswers, || stage_decode::<FromNode>(frame));
            if let FromNode::Answers { epoch, answers } = answer {
                responses.extend(meter.time(Stage::Answer, || {
                    stage_answer(&mut self.gateway, epoch, answers)
                }));
            }
        }
        responses
    }

    /// Delivers messages until there are none; gives what the front-end is told.
    fn carry(&mut self, hops: &mut VecDeque<Hop>, meter: &mut Meter) -> Vec<FromNode> {
        let mut told = Vec::new();
        while let Some(hop) = hops.pop_front() {
            let (at, output) = match hop {
                Hop::Down { to, message } => {
                    let frame = meter.time(Stage::SendBatch, || stage_encode(&message));
                    let message =
                        meter.time(Stage::TakeBatch, || stage_decode::<Downstream>(frame));
                    let from = incarnation(to - 1);
                    let node = &mut self.nodes[to].replica;
                    let output = meter.time(Stage::Follow, || stage_follow(node, from, message));
                    (to, output)
                }
                Hop::Up { to, message } => {
                    let frame = meter.time(Stage::Stable, || stage_encode(&message));
                    let message = meter.time(Stage::Stable, || stage_decode::<Upstream>(frame));
                    let from = incarnation(to + 1);
                    let node = &mut self.nodes[to].replica;
                    let stage = if to == 0 {
                        Stage::Commit
                    } else {
                        Stage::Stable
                    };
                    let output = meter.time(stage, || stage_commit(node, from, message));
                    (to, output)
                }
            };
            told.extend(self.take(at, output, hops, meter));
        }
        told
    }

    /// Carries out what a node says, its disk included, which is done at once.
    fn take(
        &mut self,
        at: usize,
        output: Output,
        hops: &mut VecDeque<Hop>,
        meter: &mut Meter,
    ) -> Vec<FromNode> {
        let mut told = Vec::new();
        let mut output = output;
        loop {
            let durable = output.journal.iter().rev().find_map(|op| match op {
                JournalOp::Append(batch) => Some(batch.last()),
                _ => None,
            });
            for message in messages(output) {
                match message {
                    Message::FrontEnd(message) => told.push(message),
                    Message::Down(_, message) => hops.push_back(Hop::Down {
                        to: at + 1,
                        message,
                    }),
                    Message::Up(LinkId(_), message) => hops.push_back(Hop::Up {
                        to: at - 1,
                        message,
                    }),
                    Message::CloseDown(_) | Message::CloseUp(_) => panic!("nobody fails here"),
                }
            }
            let Some(durable) = durable else { return told };
            let node = &mut self.nodes[at].replica;
            output = meter.time(Stage::Durable, || stage_durable(node, durable));
        }
    }

    /// Whether all nodes hold the same.
    pub fn agree(&mut self, meter: &mut Meter) -> bool {
        // A heartbeat brings the last committed point down.
        let mut hops = VecDeque::new();
        for at in 0..self.nodes.len() {
            for now in 1..=40 {
                self.nodes[at].replica.step(now * 10, Event::Tick);
            }
            let output = self.nodes[at].replica.flush();
            self.take(at, output, &mut hops, meter);
            self.carry(&mut hops, meter);
        }
        let first = self.nodes[0].replica.points();
        let mut rest = self.nodes[1..].iter();
        rest.all(|node| node.replica.points() == first)
    }
}
