//! Anything that can reach the ports between nodes, the front-end's and a back-end's: garbage, frames of others, and
//! silence. The connection ends, memory is bounded, no view is made for it.

use crate::bad_input::{CLIENTS, MEBIBYTE, WRITES, assert_bounded};
use kvservice_shared::api::StorageKind;
use kvservice_shared::chain::{
    Boundaries, Downstream, FromNode, Incarnation, LinkHello, Register, ToNode,
};
use kvservice_shared::codec::ChainMessage;
use kvservice_shared::ids::{Boot, ClusterId, Epoch, NodeId, Seq};
use kvservice_shared::limits::CHAIN_FRAME_BYTES_MAX;
use kvservice_tests::chain::{Chain, Setup};
use kvservice_tests::load::{Allow, Load};
use kvservice_tests::raw::Raw;
use kvservice_tests::rounds::rounds;
use kvservice_tests::{Uuid, soon};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

fn incarnation() -> Incarnation {
    Incarnation {
        node: NodeId(Uuid::from_u128(1)),
        boot: Boot(2),
    }
}

/// Every way to spoil a frame: cut at each length, and one byte changed at each place.
fn spoilt(frame: &[u8]) -> Vec<Vec<u8>> {
    let cut = (0..frame.len()).map(|end| frame[..end].to_vec());
    let changed = (0..frame.len()).map(|at| {
        let mut frame = frame.to_vec();
        frame[at] ^= 0x41;
        frame
    });
    let overlong = [frame, &[0]].concat();
    cut.chain(changed).chain([overlong]).collect()
}

/// Sends each frame as the first on a connection of its own; each ends it.
async fn assert_all_refused(address: SocketAddr, path: &str, frames: Vec<Message>) {
    for (n, frame) in frames.into_iter().enumerate() {
        let raw = Raw::try_connect(address, path).await;
        let mut raw = raw.unwrap_or_else(|error| panic!("{address} is closed: {error}"));
        raw.send(frame).await;
        let end = tokio::time::timeout(kvservice_tests::PATIENCE, raw.hear_end()).await;
        assert!(end.is_ok(), "frame {n} does not end the connection");
    }
}

/// Garbage on the ports between nodes: the front-end's, and a back-end's.
#[test]
fn garbage_on_the_chain_ports() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 2,
                ..Setup::default()
            },
        )
        .await;
        let epoch = chain.until_members(2).await.epoch;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        load.progress(WRITES).await;

        let register = FromNode::Register(Box::new(Register {
            cluster: Some(ClusterId(Uuid::from_u128(3))),
            id: incarnation(),
            address: "127.0.0.1:1".to_owned(),
            storage: StorageKind::Memory,
            term: 0,
            view: None,
            offer: None,
            log: Boundaries::default(),
        }));
        let hello = LinkHello {
            cluster: ClusterId(Uuid::from_u128(3)),
            from: incarnation(),
            to: incarnation(),
        };
        let beat = Downstream::Beat {
            epoch: Epoch::NONE,
            committed: Seq::ZERO,
        };
        let common = || {
            vec![
                Message::text("hello"),
                Message::binary(vec![]),
                Message::binary(vec![0; 1000]),
                Message::binary(vec![0xff; 1000]),
                Message::binary(vec![1; CHAIN_FRAME_BYTES_MAX + 1]),
                Message::binary(ToNode::Beat.encode()),
                Message::binary(beat.encode()),
            ]
        };
        let binary = |frames: Vec<Vec<u8>>| frames.into_iter().map(Message::binary);
        let mut to_front_end = common();
        to_front_end.extend(binary(spoilt(&register.encode())));
        // Whole, but not what comes first; and of a cluster that is another.
        to_front_end.push(Message::binary(FromNode::AskView.encode()));
        to_front_end.push(Message::binary(FromNode::Leave.encode()));
        to_front_end.push(Message::binary(register.encode()));
        to_front_end.push(Message::binary(hello.encode()));
        assert_all_refused(chain.chain(), "/v1/chain/node", to_front_end).await;

        let node: SocketAddr = chain.node(0).address.parse().expect("an address");
        let mut to_node = common();
        to_node.extend(binary(spoilt(&hello.encode())));
        to_node.push(Message::binary(hello.encode()));
        to_node.push(Message::binary(register.encode()));
        assert_all_refused(node, "/v1/chain/peer", to_node).await;

        for address in [chain.chain(), node] {
            for path in ["/", "/v1/ws", "/v1/chain/elsewhere"] {
                let refused = Raw::try_connect(address, path).await;
                assert!(matches!(refused, Err(WsError::Http(_))), "{refused:?}");
            }
            let mut stream = TcpStream::connect(address).await.expect("the port is open");
            let _ = stream.write_all(&[0xee; 100_000]).await;
            let mut rest = Vec::new();
            let _ = soon("an end of the garbage", stream.read_to_end(&mut rest)).await;
        }

        load.progress(WRITES).await;
        load.stop_and_settle(&mut chain, 2).await;
        assert_eq!(
            chain.until_members(2).await.epoch,
            epoch,
            "no view was made for it"
        );
        assert_bounded(round, chain.front_end(), 150 * MEBIBYTE);
        assert_bounded(round, &chain.node(0).process, 150 * MEBIBYTE);
    });
}

/// Connections to the ports between nodes that say nothing: they are let go, and nobody is kept out.
#[test]
fn silence_on_the_chain_ports() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 2,
                ..Setup::default()
            },
        )
        .await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        load.progress(WRITES).await;
        let node: SocketAddr = chain.node(1).address.parse().expect("an address");
        let mut silent = Vec::new();
        let mut mute = Vec::new();
        for (address, path) in [(chain.chain(), "/v1/chain/node"), (node, "/v1/chain/peer")] {
            for _ in 0..40 {
                silent.push(TcpStream::connect(address).await.expect("the port is open"));
            }
            mute.push(
                Raw::try_connect(address, path)
                    .await
                    .expect("the port is open"),
            );
        }
        // Meanwhile a node joins.
        chain.add_node().await;
        chain.until_members(3).await;
        for mut stream in silent {
            let mut rest = Vec::new();
            let _ = soon("an end of the silence", stream.read_to_end(&mut rest)).await;
        }
        for mut raw in mute {
            raw.hear_end().await;
        }
        load.progress(WRITES).await;
        load.stop_and_settle(&mut chain, 3).await;
    });
}
