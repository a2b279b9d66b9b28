//! Nodes that come and go: joins under load, joins that fail, graceful leaves.

use kvservice_client::{Client, Error, ErrorCode, Outcome};
use kvservice_shared::api::EventKind;
use kvservice_tests::chain::{Chain, Setup, has_event, show_status};
use kvservice_tests::load::{Allow, Load, assert_filled, fill, patient};
use kvservice_tests::rounds::{Round, rounds};
use kvservice_tests::search;
use std::time::Duration;

const CLIENTS: usize = 4;
const WRITES: u64 = 200;
/// Enough that a snapshot takes a while, and many frames.
const FILL_KEYS: u32 = 3000;
const FILL_VALUE_BYTES: usize = 8 * 1024;

async fn filled_chain(round: &Round, nodes: usize) -> Chain {
    let chain = Chain::start(
        round,
        Setup {
            nodes,
            ..Setup::default()
        },
    )
    .await;
    fill(chain.clients(), FILL_KEYS, FILL_VALUE_BYTES).await;
    chain
}

#[test]
fn join_under_load() {
    rounds(async |round| {
        let mut chain = filled_chain(round, 1).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        load.progress(WRITES).await;
        // Both at once: one learns after the other.
        chain.add_nodes(2).await;
        let status = chain.until_members(3).await;
        assert!(
            has_event(&status, EventKind::Joined),
            "{}",
            show_status(&status)
        );
        load.progress(WRITES).await;
        let figures = load.stop_and_settle(&mut chain, 3).await;
        assert_filled(chain.clients(), FILL_KEYS, FILL_VALUE_BYTES).await;
        round.say(&figures.to_string());

        // What was learnt is as good as what was written: the newest node alone has it all.
        let order = chain.order_now().await;
        chain.kill(&order[..2]);
        chain.settle(1).await;
        assert_filled(chain.clients(), FILL_KEYS, FILL_VALUE_BYTES).await;
    });
}

/// A node is killed at many moments of its join, until one joins before its moment comes.
#[test]
fn joining_node_killed() {
    rounds(async |round| {
        let mut chain = filled_chain(round, 2).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        let mut seen_learning = 0;
        for attempt in 0.. {
            load.progress(WRITES / 4).await;
            let joining = chain.add_node().await;
            // Not a wait for anything: the moment is what varies, finely at first.
            tokio::time::sleep(Duration::from_millis(3 * attempt * attempt)).await;
            let status = chain.until("an answer", |_| true).await;
            seen_learning += u32::from(!status.learners.is_empty());
            if status.members.len() == 3 {
                break;
            }
            chain.kill(&[joining]);
            chain
                .until("the chain without the joining node", |status| {
                    status.learners.is_empty() && status.members.len() <= 3
                })
                .await;
            // It may have become a member in its last moment; then it is removed as one.
            chain.until_members(2).await;
        }
        assert!(seen_learning > 0, "no join was interrupted");
        load.progress(WRITES).await;
        let figures = load.stop_and_settle(&mut chain, 3).await;
        assert_filled(chain.clients(), FILL_KEYS, FILL_VALUE_BYTES).await;
        round.say(&format!("{figures}; {seen_learning} learners seen"));
    });
}

/// The learner's teacher dies: it starts over, with the new tail.
#[test]
fn tail_killed_while_a_node_joins() {
    rounds(async |round| {
        let mut chain = filled_chain(round, 3).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        let mut interrupted = false;
        for attempt in 0..4 {
            load.progress(WRITES).await;
            let tail = *chain.order_now().await.last().expect("there are members");
            chain.add_node().await;
            let what = "the node to learn";
            let status = chain.until(what, |status| {
                !status.learners.is_empty() || status.members.len() == 4
            });
            interrupted |= status.await.members.len() == 3;
            tokio::time::sleep(Duration::from_millis(8 * attempt)).await;
            chain.kill(&[tail]);
            chain
                .until(
                    "the new node in the chain, and not the old tail",
                    |status| status.members.len() == 3 && status.learners.is_empty(),
                )
                .await;
        }
        assert!(
            interrupted,
            "every node had joined before the tail was killed"
        );
        load.progress(WRITES).await;
        let figures = load.stop_and_settle(&mut chain, 3).await;
        assert_filled(chain.clients(), FILL_KEYS, FILL_VALUE_BYTES).await;
        round.say(&figures.to_string());
    });
}

/// The head dies while the tail teaches.
#[test]
fn head_killed_while_a_node_joins() {
    rounds(async |round| {
        let mut chain = filled_chain(round, 3).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        load.progress(WRITES).await;
        let head = chain.order_now().await[0];
        chain.add_node().await;
        chain.kill(&[head]);
        chain.until_members(3).await;
        load.progress(WRITES).await;
        let figures = load.stop_and_settle(&mut chain, 3).await;
        assert_filled(chain.clients(), FILL_KEYS, FILL_VALUE_BYTES).await;
        round.say(&figures.to_string());
    });
}

/// SIGTERM to the node in each place of the chain: no client sees an error, and nobody takes it for a failure.
#[test]
fn graceful_leave_from_each_place() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 4,
                ..Setup::default()
            },
        )
        .await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        for (place, left) in [(0, 3), (1, 2), (1, 1)] {
            load.progress(WRITES).await;
            let leaver = chain.order_now().await[place];
            chain.node(leaver).process.terminate();
            let ended = chain.node(leaver).process.ends().await;
            assert!(
                ended.success(),
                "{ended}: {}",
                chain.node(leaver).process.last_words()
            );
            let status = chain.until_members(left).await;
            assert!(!chain.order(&status).contains(&leaver));
            assert!(
                has_event(&status, EventKind::Left),
                "{}",
                show_status(&status)
            );
            assert!(
                !has_event(&status, EventKind::Failed),
                "{}",
                show_status(&status)
            );
        }
        load.progress(WRITES).await;
        let figures = load.stop_and_settle(&mut chain, 1).await;
        round.say(&figures.to_string());
    });
}

/// There is nobody to leave the data to: the last member stops in its place, and says so.
#[test]
fn the_last_member_stops_in_its_place() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 1,
                ..Setup::default()
            },
        )
        .await;
        chain.node(0).process.terminate();
        let ended = chain.node(0).process.ends().await;
        assert!(ended.success(), "{ended}");
        let log = chain.node(0).process.logged();
        assert!(log.contains("stopping in place"), "{log}");
        let status = chain
            .until("the outage to be known", |status| status.waiting.is_some())
            .await;
        assert!(
            !has_event(&status, EventKind::Left),
            "{}",
            show_status(&status)
        );
    });
}

/// Below `--min-replicas` writes are refused, and not applied; reads go on; a node more, and all is well.
#[test]
fn fewer_than_min_replicas() {
    rounds(async |round| {
        let setup = Setup {
            nodes: 2,
            min_replicas: 2,
            ..Setup::default()
        };
        let mut chain = Chain::start(round, setup).await;
        let client = Client::start(patient(chain.clients()));
        client.set("color", "red").await.expect("two are enough");
        let load = Load::start(chain.clients(), CLIENTS, Allow::Refusals);
        load.progress(WRITES).await;

        let tail = chain.order_now().await[1];
        chain.kill(&[tail]);
        chain
            .until("a chain of one", |status| status.members.len() == 1)
            .await;
        // The head hears of it with the view, shortly before or after we do.
        let refused = search(async || client.set("color", "blue").await.err()).await;
        match refused.expect("one is too few") {
            Error::Api(error) => {
                assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
                assert_eq!(error.outcome, Outcome::NotApplied, "{error}");
            }
            other => panic!("{other}"),
        }
        let found = client.get("color").await.expect("reads go on");
        let color = found.expect("it was set").value;
        let again = client
            .get("color")
            .await
            .expect("reads go on")
            .expect("it was set")
            .value;
        assert_eq!(color, again);
        // A graceful leave would fall below the limit as well.
        chain.add_node().await;
        chain.until_members(2).await;
        search(async || client.set("color", "green").await.ok())
            .await
            .expect("two are enough");
        load.progress(WRITES).await;
        let figures = load.stop_and_settle(&mut chain, 2).await;
        assert!(figures.refused > 0, "the load was not refused: {figures}");

        let leaver = chain.order_now().await[0];
        chain.node(leaver).process.terminate();
        let ended = chain.node(leaver).process.ends().await;
        assert!(ended.success(), "{ended}");
        let log = chain.node(leaver).process.logged();
        assert!(log.contains("stopping in place"), "{log}");
        client.close().await;
    });
}
