//! The front-end killed, stopped, restarted, and without its directory; and everything at once.

use kvservice_client::Client;
use kvservice_shared::api::EventKind;
use kvservice_tests::chain::{Chain, Setup, has_event, show_status};
use kvservice_tests::load::{Allow, Load, assert_filled, fill, patient};
use kvservice_tests::raw::{Heard, Raw};
use kvservice_tests::rounds::rounds;
use kvservice_tests::single::{Single, status_of};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;

const CLIENTS: usize = 6;
const WRITES: u64 = 300;

/// It takes up its stored view, the nodes connect again, and clients go on under their sessions.
#[test]
fn front_end_killed_and_restarted_under_load() {
    rounds(async |round| {
        let mut chain = Chain::start(round, Setup::default()).await;
        let before = chain.until_members(3).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        for _ in 0..3 {
            load.progress(WRITES).await;
            chain.kill_front_end();
            chain.start_front_end(&[]).await;
        }
        load.progress(WRITES).await;
        let figures = load.stop_and_settle(&mut chain, 3).await;
        let after = chain.until_members(3).await;
        assert_eq!(
            chain.order(&after),
            chain.order(&before),
            "nobody had failed"
        );
        assert_eq!(after.cluster, before.cluster);
        round.say(&figures.to_string());
    });
}

/// What died while it was away is found dead when it is back.
#[test]
fn front_end_and_head_killed_at_once() {
    rounds(async |round| {
        let setup = Setup {
            grace_ms: 1500,
            ..Setup::default()
        };
        let mut chain = Chain::start(round, setup).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        load.progress(WRITES).await;
        let head = chain.order_now().await[0];
        chain.front_end().pause();
        chain.kill(&[head]);
        chain.kill_front_end();
        chain.start_front_end(&[]).await;
        chain.until_members(2).await;
        load.progress(WRITES).await;
        let figures = load.stop_and_settle(&mut chain, 2).await;
        round.say(&figures.to_string());
    });
}

/// `--init` founds a cluster where there is none; where there is one it changes nothing.
#[test]
fn init_changes_nothing_where_there_is_a_view() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 2,
                ..Setup::default()
            },
        )
        .await;
        fill(chain.clients(), 100, 64).await;
        let before = chain.settle(2).await;
        chain.kill_front_end();
        chain.start_front_end(&["--init"]).await;
        let after = chain.settle(2).await;
        assert_eq!(after.cluster, before.cluster);
        assert_filled(chain.clients(), 100, 64).await;
    });
}

/// Sends as many writes as a connection may have unanswered, as one frame.
async fn ask_a_lot(address: SocketAddr) -> (Raw, BTreeSet<u64>) {
    let mut raw = Raw::connect(address).await;
    let ids = 1..=1024;
    let set = |id| json!({"id": id, "op": "set", "key": format!("drain:{id}"), "value": "x"});
    let batch: Vec<Json> = ids.clone().map(set).collect();
    raw.say(Json::from(batch).to_string()).await;
    (raw, ids.collect())
}

/// Everything asked is answered, and then comes the end.
async fn hear_all_and_the_end(raw: &mut Raw, mut ids: BTreeSet<u64>) {
    loop {
        match raw.hear().await {
            Heard::Text(text) => {
                let answers: Json = serde_json::from_str(&text).expect("answers are JSON");
                for answer in answers.as_array().unwrap_or(&vec![answers.clone()]) {
                    assert!(answer.get("error").is_none(), "{answer}");
                    let id = answer["id"]
                        .as_u64()
                        .expect("an answer has its request's id");
                    assert!(ids.remove(&id), "{id} is answered twice");
                }
            }
            Heard::Binary(bytes) => panic!("a binary frame: {bytes:?}"),
            Heard::End(code, reason) => {
                assert_eq!(code, Some(1001), "{reason}");
                assert!(ids.is_empty(), "unanswered: {ids:?}");
                return;
            }
        }
    }
}

#[test]
fn sigterm_drains_the_front_end() {
    rounds(async |round| {
        let mut chain = Chain::start(round, Setup::default()).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        load.progress(WRITES).await;
        let mut idle = Raw::connect(chain.clients()).await;
        let (mut busy, mut ids) = ask_a_lot(chain.clients()).await;
        // The first answer shows that the frame was read.
        let first = busy.hear_json().await;
        for answer in first.as_array().expect("an array is answered with arrays") {
            ids.remove(&answer["id"].as_u64().expect("an id"));
        }
        let ended = chain.stop_front_end();
        let (ended, (), (code, _)) =
            tokio::join!(ended, hear_all_and_the_end(&mut busy, ids), idle.hear_end());
        assert!(ended.success(), "{ended}");
        assert_eq!(code, Some(1001));

        chain.start_front_end(&[]).await;
        load.progress(WRITES).await;
        let figures = load.stop_and_settle(&mut chain, 3).await;
        round.say(&figures.to_string());
    });
}

/// Everybody is told to stop: everybody does, with status 0, and the chain is as long as it was.
#[test]
fn sigterm_to_everything() {
    rounds(async |round| {
        let mut chain = Chain::start(round, Setup::default()).await;
        fill(chain.clients(), 100, 64).await;
        let before = chain.settle(3).await;
        let ended = chain.stop_front_end();
        // The front-end has been told first; it is still at it.
        let ended = ended.await;
        assert!(ended.success(), "{ended}");
        for node in 0..3 {
            chain.node(node).process.terminate();
        }
        for node in 0..3 {
            let process = &mut chain.node(node).process;
            let ended = process.ends().await;
            assert!(ended.success(), "{ended}: {}", process.last_words());
        }
        chain.start_front_end(&[]).await;
        let after = chain
            .until("the awaited members", |status| status.waiting.is_some())
            .await;
        assert_eq!(after.epoch, before.epoch, "{}", show_status(&after));
        let waiting = after.waiting.expect("it was waited for");
        for member in &before.members {
            assert!(
                waiting.contains(&member.address),
                "{} in {waiting:?}",
                member.address
            );
        }
    });
}

/// SIGTERM to all processes at the same moment, as a terminal's ctrl-c has it.
#[test]
fn sigterm_to_everything_in_no_order() {
    rounds(async |round| {
        let mut chain = Chain::start(round, Setup::default()).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        load.progress(WRITES).await;
        for node in 0..3 {
            chain.node(node).process.terminate();
        }
        let ended = chain.stop_front_end().await;
        assert!(ended.success(), "{ended}");
        for node in 0..3 {
            let process = &mut chain.node(node).process;
            let ended = process.ends().await;
            assert!(ended.success(), "{ended}: {}", process.last_words());
        }
    });
}

/// Nobody has the data any more. New nodes take the places of the old: that is a new cluster, and it is said.
#[test]
fn all_memory_nodes_restarted_found_a_new_cluster() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 2,
                ..Setup::default()
            },
        )
        .await;
        fill(chain.clients(), 100, 64).await;
        let before = chain.settle(2).await;
        chain.kill(&[0, 1]);
        let status = chain
            .until("the outage to be known", |status| status.waiting.is_some())
            .await;
        let waiting = status.waiting.expect("it was waited for");
        for member in &before.members {
            assert!(
                waiting.contains(&member.address),
                "{} in {waiting:?}",
                member.address
            );
        }
        let addresses = [chain.node(0).address.clone(), chain.node(1).address.clone()];
        for address in &addresses {
            chain.add_node_at(address, &[]).await;
        }
        let after = chain.settle(2).await;
        assert_ne!(after.cluster, before.cluster);
        assert!(
            has_event(&after, EventKind::Founded),
            "{}",
            show_status(&after)
        );
        chain.front_end().says(&["a new cluster is founded"]).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        load.progress(WRITES).await;
        load.stop_and_settle(&mut chain, 2).await;
        assert_filled(chain.clients(), 0, 64).await;
    });
}

/// One node of several is enough: it has everything that was acknowledged.
#[test]
fn everything_killed_but_one_node() {
    rounds(async |round| {
        let setup = Setup {
            grace_ms: 1500,
            ..Setup::default()
        };
        let mut chain = Chain::start(round, setup).await;
        fill(chain.clients(), 500, 64).await;
        let before = chain.settle(3).await;
        chain.front_end().pause();
        let order = chain.order(&before);
        chain.kill(&[order[0], order[2]]);
        chain.kill_front_end();
        chain.start_front_end(&[]).await;
        let after = chain.settle(1).await;
        assert_eq!(after.cluster, before.cluster);
        assert_filled(chain.clients(), 500, 64).await;
    });
}

/// It adopts the nodes that report to it, with their data and their clients' sessions; nobody says `--init`.
#[test]
fn front_end_loses_its_directory_while_the_nodes_live() {
    rounds(async |round| {
        let mut chain = Chain::start(round, Setup::default()).await;
        fill(chain.clients(), 500, 64).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        load.progress(WRITES).await;
        let before = chain.until_members(3).await;
        chain.kill_front_end();
        chain.move_data_dir("another-directory");
        chain.start_front_end(&[]).await;
        let after = chain.until_members(3).await;
        assert_eq!(after.cluster, before.cluster);
        assert_eq!(chain.order(&after), chain.order(&before));
        assert!(
            after.epoch > before.epoch,
            "{} then {}",
            before.epoch,
            after.epoch
        );
        chain.front_end().says(&["adopted cluster"]).await;
        load.progress(WRITES).await;
        let figures = load.stop_and_settle(&mut chain, 3).await;
        assert_filled(chain.clients(), 500, 64).await;
        round.say(&figures.to_string());
    });
}

/// A directory belongs to one front-end at a time.
#[test]
fn two_front_ends_on_one_directory() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 1,
                ..Setup::default()
            },
        )
        .await;
        let mut second = Chain::new(round, Setup::default());
        second.move_data_dir("front-end-data");
        assert_eq!(second.data_dir(), chain.data_dir());
        let mut process = second.spawn_front_end(&[]);
        let ended = process.ends().await;
        assert!(!ended.success(), "{ended}");
        let log = process.logged();
        assert!(log.contains("in use by another front-end"), "{log}");
        fill(chain.clients(), 10, 64).await;
        chain.settle(1).await;
    });
}

#[test]
fn single_serves_and_drains() {
    rounds(async |round| {
        let mut single = Single::start(round, &[]).await;
        let load = Load::start(single.address, CLIENTS, Allow::Nothing);
        load.progress(4 * WRITES).await;
        let figures = load.stop().await;
        round.say(&figures.to_string());
        let status = status_of(single.address).await.expect("it answers");
        assert_eq!(status.members.len(), 1, "{}", show_status(&status));
        assert_eq!(status.waiting, None);

        let client = Client::start(patient(single.address));
        client.set("color", "red").await.expect("it serves");
        let (mut busy, mut ids) = ask_a_lot(single.address).await;
        let first = busy.hear_json().await;
        for answer in first.as_array().expect("an array is answered with arrays") {
            ids.remove(&answer["id"].as_u64().expect("an id"));
        }
        single.process.terminate();
        let (ended, ()) = tokio::join!(single.process.ends(), hear_all_and_the_end(&mut busy, ids));
        assert!(ended.success(), "{ended}");
        client.close().await;
    });
}
