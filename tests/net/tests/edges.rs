//! Handshakes that never begin, stop half-way or are held, and connections of which only one end knows that they are
//! dead: each is given up within its bound, by the code that ships, on the simulated network.

#![allow(missing_docs, clippy::unwrap_used)]

use futures_util::StreamExt;
use kvservice_backend::link::{HANDSHAKE_TIMEOUT, NODE_PATH, PEER_PATH};
use kvservice_backend::shutdown::ShutdownTrigger;
use kvservice_client::{Client, Config, Status};
use kvservice_net::client::CLIENT_PORT;
use kvservice_net::cluster::{
    CHAIN_PORT, FRONT_END, NODE_PORT, Weather, add_front_end, add_node, fast_dir, node_name,
};
use kvservice_net::entropy;
use kvservice_server::config::EdgeConfig;
use kvservice_shared::api::WS_PATH;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use turmoil::Sim;
use turmoil::net::TcpStream;

const SEEDS: std::ops::Range<u64> = 0..2;
const TICK: Duration = Duration::from_millis(4);
const SECOND: Duration = Duration::from_secs(1);
/// For latencies and the few messages that follow.
const SOON: Duration = Duration::from_millis(1_500);
/// A client waits as long at most before it connects, or asks for its session, once more.
const BACKOFF: Duration = Duration::from_secs(2);

struct Rig {
    sim: Sim<'static>,
    dir: TempDir,
    triggers: Rc<RefCell<BTreeMap<String, ShutdownTrigger>>>,
    status: Rc<RefCell<Option<Status>>>,
    /// Writes that were acknowledged.
    writes: Rc<Cell<u64>>,
}

impl Rig {
    /// A front-end, and this many nodes, which need not run yet.
    fn new(seed: u64, nodes: usize) -> Rig {
        entropy::seed(seed);
        let weather = Weather {
            tick: TICK,
            latency_most: Duration::from_millis(20),
            window: 64,
        };
        let mut rig = Rig {
            sim: weather.sim(seed),
            dir: fast_dir().unwrap(),
            triggers: Rc::default(),
            status: Rc::default(),
            writes: Rc::default(),
        };
        add_front_end(&mut rig.sim, rig.dir.path(), &rig.triggers);
        for node in 0..nodes {
            add_node(&mut rig.sim, &node_name(node), &rig.triggers);
        }
        rig
    }

    /// Two clients: one looks, and one writes, all the while.
    fn with_clients(self) -> Rig {
        self.with_writer(config().no_request_timeout())
    }

    fn with_writer(mut self, config_of_writer: Config) -> Rig {
        let status = Rc::clone(&self.status);
        self.sim.host("observer", move || {
            let status = Rc::clone(&status);
            async move {
                let client = Client::start(config());
                loop {
                    if let Ok(told) = client.status().await {
                        *status.borrow_mut() = Some(told);
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        let writes = Rc::clone(&self.writes);
        self.sim.host("writer", move || {
            let (writes, config) = (Rc::clone(&writes), config_of_writer.clone());
            async move {
                let client = Client::start(config);
                loop {
                    if client.set("key", "value").await.is_ok() {
                        writes.set(writes.get() + 1);
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        self
    }

    fn members(&self) -> Vec<String> {
        let status = self.status.borrow();
        let members = status.iter().flat_map(|status| &status.members);
        members
            .map(|m| m.address.split(':').next().unwrap_or_default().to_owned())
            .collect()
    }

    /// Steps until it is so; how long that took. Panics where it takes longer than `most`.
    fn until(&mut self, what: &str, most: Duration, is_so: impl Fn(&Rig) -> bool) -> Duration {
        let began = self.sim.elapsed();
        while !is_so(self) {
            let took = self.sim.elapsed() - began;
            assert!(
                took <= most,
                "{what}: not within {most:?}; {:?}",
                self.status
            );
            self.sim.step().unwrap();
        }
        self.sim.elapsed() - began
    }

    fn run_for(&mut self, duration: Duration) {
        let until = self.sim.elapsed() + duration;
        while self.sim.elapsed() < until {
            self.sim.step().unwrap();
        }
    }

    fn writes_go_on(&mut self, what: &str, most: Duration) -> Duration {
        let before = self.writes.get();
        self.until(what, most, |rig| rig.writes.get() > before + 2)
    }
}

fn config() -> Config {
    Config::new(format!("{FRONT_END}:{CLIENT_PORT}").parse().unwrap())
}

/// What a stranger does before it falls silent.
#[derive(Clone, Copy, Debug)]
enum Stranger {
    Nothing,
    /// Half of a request.
    Half,
    /// A byte of it each second, for ever.
    Drips,
    /// The whole handshake, and no frame.
    Handshake,
}

/// Connects, falls silent, and waits for its end; says after how long it came.
async fn strange(stranger: Stranger, host: &str, port: u16, path: &str) -> Duration {
    let began = tokio::time::Instant::now();
    let mut stream = TcpStream::connect((host, port)).await.unwrap();
    let half = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: webso");
    match stranger {
        Stranger::Nothing => {}
        Stranger::Half => stream.write_all(half.as_bytes()).await.unwrap(),
        Stranger::Drips => {
            let mut bytes = half.bytes().cycle();
            let mut answer = [0; 256];
            loop {
                let byte = bytes.next().unwrap();
                if stream.write_all(&[byte]).await.is_err() {
                    return began.elapsed();
                }
                let read = tokio::time::timeout(SECOND, stream.read(&mut answer)).await;
                if let Ok(Ok(0) | Err(_)) = read {
                    return began.elapsed();
                }
            }
        }
        Stranger::Handshake => {
            let url = format!("ws://{host}:{port}{path}");
            let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
            return began.elapsed();
        }
    }
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut rest).await;
    began.elapsed()
}

fn is_cut_off(
    stranger: Stranger,
    host: &'static str,
    port: u16,
    path: &'static str,
    after: Duration,
) {
    for seed in SEEDS {
        let mut rig = Rig::new(seed, 1);
        let took = Rc::new(Cell::new(None));
        let told = Rc::clone(&took);
        rig.sim.client("stranger", async move {
            told.set(Some(strange(stranger, host, port, path).await));
            Ok(())
        });
        rig.until("the stranger's end", after + SOON, |_| took.get().is_some());
        let took = took.get().unwrap();
        assert!(
            took >= after,
            "{stranger:?} on {host}:{port} was cut off after {took:?}"
        );
    }
}

#[test]
fn whoever_does_not_finish_a_handshake_is_cut_off() {
    let handshake = EdgeConfig::default().handshake_timeout;
    for stranger in [Stranger::Nothing, Stranger::Half, Stranger::Drips] {
        is_cut_off(
            stranger,
            FRONT_END,
            CHAIN_PORT,
            NODE_PATH,
            HANDSHAKE_TIMEOUT,
        );
        is_cut_off(stranger, "node1", NODE_PORT, PEER_PATH, HANDSHAKE_TIMEOUT);
        is_cut_off(stranger, FRONT_END, CLIENT_PORT, WS_PATH, handshake);
    }
}

#[test]
fn whoever_says_nothing_after_its_handshake_is_cut_off() {
    is_cut_off(
        Stranger::Handshake,
        FRONT_END,
        CHAIN_PORT,
        NODE_PATH,
        HANDSHAKE_TIMEOUT,
    );
    is_cut_off(
        Stranger::Handshake,
        "node1",
        NODE_PORT,
        PEER_PATH,
        HANDSHAKE_TIMEOUT,
    );
}

/// The node's handshake reaches the front-end, and the answer to it is lost.
#[test]
fn a_node_whose_handshake_is_lost_half_way_dials_again() {
    for seed in SEEDS {
        let mut rig = Rig::new(seed, 1).with_clients();
        rig.sim.partition_oneway(FRONT_END, "node1");
        rig.run_for(8 * SECOND);
        assert!(rig.members().is_empty());
        rig.sim.repair_oneway(FRONT_END, "node1");
        rig.until("a member", HANDSHAKE_TIMEOUT + SOON, |rig| {
            rig.members().len() == 1
        });
        rig.writes_go_on("writes", BACKOFF + SOON);
    }
}

/// Held for less than the time for it, the handshake goes on; held for longer, another one takes its place, and what
/// is delivered late does no harm.
#[test]
fn a_handshake_that_is_held_is_finished_or_given_up() {
    for (held, most) in [(3 * SECOND, SOON), (23 * SECOND, HANDSHAKE_TIMEOUT + SOON)] {
        for seed in SEEDS {
            let mut rig = Rig::new(seed, 2).with_clients();
            let of_front_end = seed % 2 == 0;
            if !of_front_end {
                // The one between the nodes: they dial each other only once they are in one view.
                rig.sim.hold("node1", "node2");
            } else {
                rig.sim.hold("node1", FRONT_END);
            }
            rig.run_for(held);
            match of_front_end {
                true => rig.sim.release("node1", FRONT_END),
                false => rig.sim.release("node1", "node2"),
            }
            // Retries of the join between nodes have their own rhythm.
            let most = if of_front_end {
                most
            } else {
                most + HANDSHAKE_TIMEOUT
            };
            rig.until("two members", most, |rig| rig.members().len() == 2);
            rig.writes_go_on("writes", BACKOFF + SOON);
        }
    }
}

/// A client whose answers are lost connects again; the writes that it asked for are sent again.
#[test]
fn a_client_that_hears_nothing_connects_again() {
    for seed in SEEDS {
        let mut rig = Rig::new(seed, 2).with_clients();
        rig.until("two members", 5 * SECOND, |rig| rig.members().len() == 2);
        rig.writes_go_on("writes", SOON);
        rig.sim.partition_oneway(FRONT_END, "writer");
        rig.run_for(SECOND);
        rig.sim.repair_oneway(FRONT_END, "writer");
        // Its connection has lost something: it is silent for ever, and given up after 3 s.
        rig.writes_go_on("writes", 3 * SECOND + SOON);
    }
}

/// So does one whose requests time out sooner than its connection is given up. It once never did: seed 62 and others.
#[test]
fn a_client_whose_requests_time_out_sooner_connects_again_too() {
    for (timeout, of_answers) in [(2_000, false), (2_000, true), (400, false), (400, true)] {
        let timeout = Duration::from_millis(timeout);
        let mut rig = Rig::new(0, 2).with_writer(config().request_timeout(timeout));
        rig.until("two members", 5 * SECOND, |rig| rig.members().len() == 2);
        rig.writes_go_on("writes", SOON);
        let (from, to) = match of_answers {
            true => (FRONT_END, "writer"),
            false => ("writer", FRONT_END),
        };
        rig.sim.partition_oneway(from, to);
        rig.run_for(SECOND);
        rig.sim.repair_oneway(from, to);
        rig.writes_go_on("writes", 3 * SECOND + SOON);
    }
}

/// A link that carries nothing one way, for ever: who must notice, does, while it lasts. The bounds: the front-end's
/// failure time-out of 1 s, twice that for a link that is dead downwards, and 7 s for a node that hears nothing from
/// the front-end; then a view is made.
#[test]
fn a_link_dead_one_way_is_noticed_within_its_bound() {
    for seed in SEEDS {
        for (from, to, most) in [
            ("head", FRONT_END, SECOND),
            (FRONT_END, "head", 7 * SECOND),
            ("middle", FRONT_END, SECOND),
            ("tail", FRONT_END, SECOND),
            ("head", "middle", 2 * SECOND),
            ("middle", "head", SECOND),
            ("middle", "tail", 2 * SECOND),
            ("tail", "middle", SECOND),
        ] {
            let mut rig = Rig::new(seed, 3).with_clients();
            rig.until("three members", 5 * SECOND, |rig| rig.members().len() == 3);
            rig.writes_go_on("writes", SOON);
            let members = rig.members();
            let host = |who: &str| match who {
                "head" => members[0].clone(),
                "middle" => members[1].clone(),
                "tail" => members[2].clone(),
                other => other.to_owned(),
            };
            let (a, b) = (host(from), host(to));
            // What was under way may still be answered.
            rig.sim.partition_oneway(a.as_str(), b.as_str());
            rig.run_for(Duration::from_millis(100));
            let took = rig.writes_go_on(&format!("{from} → {to}"), most + SOON);
            println!("seed {seed}: {from} → {to} dead, writes went on after {took:?}");
        }
    }
}

/// The front-end's end of a client that is gone without a word is given up, and its place with it.
#[test]
fn a_client_that_is_gone_without_a_word_is_forgotten() {
    let bound = EdgeConfig::default().silence_timeout;
    for seed in SEEDS {
        let mut rig = Rig::new(seed, 1);
        let socket_gone = Rc::new(Cell::new(false));
        let gone = Rc::clone(&socket_gone);
        rig.sim.client("client", async move {
            let stream = TcpStream::connect((FRONT_END, CLIENT_PORT)).await?;
            let url = format!("ws://{FRONT_END}:{CLIENT_PORT}{WS_PATH}");
            let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await?;
            // What the front-end says reaches it; its pongs reach nobody.
            while let Some(Ok(_)) = socket.next().await {}
            gone.set(true);
            Ok(())
        });
        rig.run_for(2 * SECOND);
        rig.sim.partition_oneway("client", FRONT_END);
        let took = rig.until("the end", bound + SOON, |_| socket_gone.get());
        assert!(took + 3 * SECOND > bound, "after {took:?} already");
    }
}
