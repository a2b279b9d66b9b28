//! The work on one request, stage by stage, in one thread: what the processes do between two system calls.
//!
//! Run as it is, it prints CPU time; under `valgrind --tool=callgrind` the stages' instructions are counted, which
//! are the same whatever else the machine does.

mod chain;
mod meter;
mod stages;

use chain::Chain;
use clap::{Parser, ValueEnum};
use kvservice_shared::api::json::requests_to_json;
use kvservice_shared::api::{Op, Request, Value};
use kvservice_shared::ids::{ConnId, RequestId};
use meter::{Meter, STAGES};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the load does.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Workload {
    Set,
    Get,
    Testset,
}

/// Runs requests through a front-end and a chain in one thread, and says what each stage costs.
#[derive(Parser)]
struct Options {
    /// What the requests are
    #[arg(value_enum)]
    workload: Workload,
    /// Requests of one connection in one frame
    #[arg(short = 'P', long, value_name = "N", default_value_t = 16)]
    pipeline: u64,
    /// Connections whose frames travel together
    #[arg(short, long, value_name = "N", default_value_t = 4)]
    connections: u64,
    /// Keys that there are
    #[arg(short = 'r', long, value_name = "N", default_value_t = 100_000)]
    keys: u64,
    /// Bytes of a value
    #[arg(short = 'd', long, value_name = "BYTES", default_value_t = 64)]
    value_bytes: usize,
    /// Nodes
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// Requests that are counted
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1_000_000)]
    requests: u64,
}

struct Load {
    options: Options,
    last_id: u64,
    /// The same numbers in every run.
    random: fastrand::Rng,
}

impl Load {
    fn key(&self, number: u64) -> String {
        format!("key:{number:012}")
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.random.u64(..end)
    }

    fn value(&mut self) -> Value {
        let letter = b'a' + u8::try_from(self.below(26)).expect("26 letters");
        Value::from(vec![letter; self.options.value_bytes])
    }

    fn op(&mut self, workload: Workload, key: String) -> Op {
        match workload {
            Workload::Set => Op::Set {
                key,
                value: self.value(),
            },
            Workload::Get => Op::Get { key },
            Workload::Testset => Op::TestSet {
                key,
                test: Some(self.value()),
                value: self.value(),
            },
        }
    }

    /// One frame of each connection.
    fn frames(
        &mut self,
        workload: Workload,
        mut next: impl FnMut(&mut Load) -> u64,
    ) -> Vec<(ConnId, String)> {
        let (connections, pipeline) = (self.options.connections, self.options.pipeline);
        let mut frames = Vec::new();
        for conn in 1..=connections {
            let mut requests = Vec::new();
            for _ in 0..pipeline {
                self.last_id += 1;
                let number = next(self);
                let key = self.key(number);
                requests.push(Request {
                    id: RequestId::new(self.last_id).expect("ids begin at one"),
                    op: self.op(workload, key),
                });
            }
            frames.push((ConnId(conn), requests_to_json(&requests)));
        }
        frames
    }
}

fn main() {
    let options = Options::parse();
    let mut meter = Meter::default();
    let mut chain = Chain::new(options.nodes, options.connections, &mut meter);
    let (keys, requests, workload) = (options.keys, options.requests, options.workload);
    let in_a_round = options.connections * options.pipeline;
    let mut load = Load {
        options,
        last_id: 0,
        random: fastrand::Rng::with_seed(88_172_645),
    };
    let mut at = 0;
    while at < keys {
        let frames = load.frames(Workload::Set, |_| {
            at += 1;
            at % keys
        });
        chain.serve(&frames, &mut meter);
    }
    meter.set(true);
    let rounds = requests.div_ceil(in_a_round);
    let mut answered = 0;
    for _ in 0..rounds {
        let frames = load.frames(workload, |load| load.below(keys));
        for answers in chain.serve(&frames, &mut meter) {
            assert!(!answers.contains("error"), "{answers}");
            answered += answers.matches("\"id\":").count() as u64;
        }
    }
    meter.set(false);
    assert_eq!(answered, rounds * in_a_round, "each request has an answer");
    assert!(chain.agree(&mut meter), "the nodes differ");
    let spent = meter.per_request(answered);
    println!("{:<14} {:<26} ns/request", "where", "what");
    for ((_, place, what), ns) in STAGES.iter().zip(spent) {
        println!("{place:<14} {what:<26} {ns:>10.1}");
    }
    println!("{:<41} {:>10.1}", "together", spent.iter().sum::<f64>());
}
