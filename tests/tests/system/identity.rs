//! Back-ends that do not belong: of another cluster, at another's address, of another version.

use kvservice_shared::api::StorageKind;
use kvservice_shared::chain::{Boundaries, FromNode, Incarnation, LinkHello, LinkReply, Register};
use kvservice_shared::codec::ChainMessage;
use kvservice_shared::ids::{Boot, ClusterId, NodeId};
use kvservice_tests::chain::{Chain, Setup};
use kvservice_tests::load::{Allow, Load, fill};
use kvservice_tests::raw::{Heard, Raw};
use kvservice_tests::rounds::rounds;
use tokio_tungstenite::tungstenite::Message;

const CLIENTS: usize = 2;
const WRITES: u64 = 200;
/// The front-end's path for nodes, and a node's for its neighbours.
const NODE_PATH: &str = "/v1/chain/node";
const PEER_PATH: &str = "/v1/chain/peer";

/// A node with another cluster's data comes to this front-end: it is refused, keeps what it has, and says why
/// it ends; the chain does not notice.
#[test]
fn back_end_of_another_cluster_is_refused() {
    rounds(async |round| {
        let mut ours = Chain::start(
            round,
            Setup {
                nodes: 2,
                ..Setup::default()
            },
        )
        .await;
        let load = Load::start(ours.clients(), CLIENTS, Allow::Nothing);
        load.progress(WRITES).await;
        // One front-end dies, and another takes its ports: its node has nowhere else to go.
        let mut theirs = Chain::in_dir(
            round,
            "theirs",
            Setup {
                nodes: 1,
                ..Setup::default()
            },
        );
        theirs.found().await;
        fill(theirs.clients(), 100, 64).await;
        let their_cluster = theirs.settle(1).await.cluster.expect("it was founded");
        theirs.kill_front_end();
        theirs.move_data_dir("fresh");
        theirs.start_front_end(&["--init"]).await;
        let mut stranger = theirs.give_away(0);
        let ended = stranger.ends().await;
        assert!(!ended.success(), "{ended}");
        let log = stranger.logged();
        assert!(
            log.contains("refuses this node") && log.contains(&their_cluster),
            "{log}"
        );
        // Whoever has no data is welcome there.
        theirs.add_node().await;
        theirs.settle(1).await;

        load.progress(WRITES).await;
        load.stop_and_settle(&mut ours, 2).await;
    });
}

/// The second back-end on an address cannot listen, and says what to do.
#[test]
fn two_back_ends_listen_on_one_address() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 1,
                ..Setup::default()
            },
        )
        .await;
        let address = chain.node(0).address.clone();
        let mut second = chain.spawn_node(&address, &[]);
        let ended = second.ends().await;
        assert!(!ended.success(), "{ended}");
        let log = second.logged();
        assert!(log.contains(&address) && log.contains("--listen"), "{log}");
        fill(chain.clients(), 10, 64).await;
        chain.settle(1).await;
    });
}

/// The second back-end that gives out an address is refused by the front-end, while the first lives.
#[test]
fn two_back_ends_advertise_one_address() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 1,
                ..Setup::default()
            },
        )
        .await;
        let address = chain.node(0).address.clone();
        let mut second = chain.spawn_node("127.0.0.1:0", &["--advertise", &address]);
        let ended = second.ends().await;
        assert!(!ended.success(), "{ended}");
        let log = second.logged();
        assert!(
            log.contains("refuses this node") && log.contains(&address),
            "{log}"
        );
        fill(chain.clients(), 10, 64).await;
        let status = chain.settle(1).await;
        assert_eq!(status.members[0].node, "n1");
    });
}

fn somebody() -> Incarnation {
    Incarnation {
        node: NodeId(uuid(1)),
        boot: Boot(2),
    }
}

fn uuid(n: u128) -> kvservice_tests::Uuid {
    kvservice_tests::Uuid::from_u128(n)
}

/// A frame as the next version of the protocol might send it.
fn of_version_2(message: &impl ChainMessage) -> Message {
    let mut frame = message.encode().to_vec();
    frame[0] = 2;
    Message::binary(frame)
}

/// A back-end of another version is told so by the front-end, whose log says so too.
#[test]
fn back_end_of_another_version_is_refused_by_the_front_end() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 1,
                ..Setup::default()
            },
        )
        .await;
        let register = FromNode::Register(Box::new(Register {
            cluster: None,
            id: somebody(),
            address: "127.0.0.1:1".to_owned(),
            storage: StorageKind::Memory,
            term: 0,
            view: None,
            offer: None,
            log: Boundaries::default(),
        }));
        let raw = Raw::try_connect(chain.chain(), NODE_PATH).await;
        let mut raw = raw.expect("the port is open");
        raw.send(of_version_2(&register)).await;
        let (_, reason) = raw.hear_end().await;
        assert!(reason.contains("chain protocol 2"), "{reason:?}");
        chain.front_end().says(&["chain protocol 2"]).await;
        // In this version the same is welcome, or waited for: it is the version that was refused.
        let raw = Raw::try_connect(chain.chain(), NODE_PATH).await;
        let mut raw = raw.expect("the port is open");
        raw.send(Message::binary(register.encode())).await;
        assert!(
            matches!(raw.hear().await, Heard::Binary(_)),
            "there is no welcome"
        );
        drop(raw);
        fill(chain.clients(), 10, 64).await;
        chain.settle(1).await;
    });
}

/// A back-end refuses a neighbour of another version.
#[test]
fn back_end_of_another_version_is_refused_by_a_back_end() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 1,
                ..Setup::default()
            },
        )
        .await;
        let address = chain.node(0).address.parse().expect("an address");
        let hello = LinkHello {
            cluster: ClusterId(uuid(1)),
            from: somebody(),
            to: somebody(),
        };
        let raw = Raw::try_connect(address, PEER_PATH).await;
        let mut raw = raw.expect("the port is open");
        raw.send(of_version_2(&hello)).await;
        match raw.hear().await {
            Heard::Binary(frame) => match LinkReply::decode(frame.into()) {
                Ok(LinkReply::Refused { reason }) => {
                    assert!(reason.contains("chain protocol 2"), "{reason:?}");
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
        raw.hear_end().await;
        fill(chain.clients(), 10, 64).await;
        chain.settle(1).await;
    });
}
