//! Processes that stop without ending (SIGSTOP), past the failure timeout, and go on.

use kvservice_client::Status;
use kvservice_shared::api::EventKind;
use kvservice_tests::Uuid;
use kvservice_tests::chain::{Chain, Setup, has_event};
use kvservice_tests::load::{Allow, Load, fill};
use kvservice_tests::raw::Raw;
use kvservice_tests::rounds::{Round, rounds};
use serde_json::json;
use std::time::Duration;

const CLIENTS: usize = 4;
const WRITES: u64 = 200;
const FAILURE_TIMEOUT_MS: u32 = 600;

fn setup() -> Setup {
    Setup {
        failure_timeout_ms: FAILURE_TIMEOUT_MS,
        ..Setup::default()
    }
}

/// Under load, the node in this place stops, is replaced, and goes on: it is nobody until it has joined
/// again, as the tail.
async fn pause(round: &Round, place: usize) {
    let mut chain = Chain::start(round, setup()).await;
    let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
    load.progress(WRITES).await;
    let paused = chain.order_now().await[place];
    chain.node(paused).process.pause();
    let status = chain.until_members(2).await;
    assert!(!chain.order(&status).contains(&paused));
    load.progress(WRITES).await;
    chain.node(paused).process.resume();
    let status = chain.until_members(3).await;
    assert_eq!(
        chain.order(&status).last(),
        Some(&paused),
        "who comes back is the tail"
    );
    load.progress(WRITES).await;
    let figures = load.stop_and_settle(&mut chain, 3).await;
    round.say(&figures.to_string());
}

#[test]
fn old_head_paused_replaced_and_resumed() {
    rounds(async |round| pause(round, 0).await);
}

#[test]
fn middle_paused_past_the_timeout_and_resumed() {
    rounds(async |round| pause(round, 1).await);
}

#[test]
fn tail_paused_past_the_timeout_and_resumed() {
    rounds(async |round| pause(round, 2).await);
}

#[test]
fn two_adjacent_paused_and_resumed() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 4,
                ..setup()
            },
        )
        .await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        load.progress(WRITES).await;
        let order = chain.order_now().await;
        for &node in &order[1..3] {
            chain.node(node).process.pause();
        }
        let status = chain.until_members(2).await;
        assert_eq!(
            chain.order(&status),
            [order[0], order[3]],
            "nobody is stranded"
        );
        load.progress(WRITES).await;
        for &node in &order[1..3] {
            chain.node(node).process.resume();
        }
        let status = chain.until_members(4).await;
        assert_eq!(chain.order(&status)[..2], [order[0], order[3]]);
        load.progress(WRITES).await;
        let figures = load.stop_and_settle(&mut chain, 4).await;
        round.say(&figures.to_string());
    });
}

/// A node that stops in the middle of its join holds nobody up for longer than the timeout; when it goes on
/// it joins.
#[test]
fn joining_node_paused_and_resumed() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 2,
                ..setup()
            },
        )
        .await;
        fill(chain.clients(), 2000, 8 * 1024).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        let mut interrupted = 0;
        for attempt in 0..5 {
            load.progress(WRITES).await;
            let joins = joins(&chain.until_members(2).await);
            let joining = chain.add_node().await;
            // Not a wait for anything: the moment is what varies.
            tokio::time::sleep(Duration::from_millis(25 * attempt)).await;
            chain.node(joining).process.pause();
            // If it had joined already, it is missed.
            load.progress(WRITES).await;
            let status = chain.until_members(2).await;
            interrupted += u32::from(self::joins(&status) == joins);
            chain.node(joining).process.resume();
            let status = chain.until_members(3).await;
            assert_eq!(chain.order(&status).last(), Some(&joining));
            load.progress(WRITES).await;
            chain.kill(&[joining]);
            chain.until_members(2).await;
        }
        let figures = load.stop_and_settle(&mut chain, 2).await;
        round.say(&format!("{figures}; {interrupted} joins interrupted"));
    });
}

/// Nodes that have joined, of those that the events still tell of.
fn joins(status: &Status) -> usize {
    let events = status.events.iter();
    events
        .filter(|event| event.kind == EventKind::Joined)
        .count()
}

/// A laptop that is closed and opened again: everybody has heard nobody for long, and suspects nobody.
#[test]
fn everything_paused_and_resumed_suspects_nobody() {
    rounds(async |round| {
        let mut chain = Chain::start(round, setup()).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        load.progress(WRITES).await;
        let before = chain.until_members(3).await;
        for node in 0..3 {
            chain.node(node).process.pause();
        }
        chain.front_end().pause();
        // The passing of time is what this is about.
        tokio::time::sleep(3 * Duration::from_millis(FAILURE_TIMEOUT_MS.into())).await;
        chain.front_end().resume();
        for node in 0..3 {
            chain.node(node).process.resume();
        }
        load.progress(WRITES).await;
        load.stop_and_settle(&mut chain, 3).await;
        let after = chain.until_members(3).await;
        assert!(!has_event(&after, EventKind::Failed), "{:?}", after.events);
        assert_eq!(after.epoch, before.epoch);
    });
}

/// The front-end alone stops for a while: the nodes have nobody to tell, and change nothing.
#[test]
fn front_end_paused_and_resumed() {
    rounds(async |round| {
        let mut chain = Chain::start(round, setup()).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        load.progress(WRITES).await;
        chain.front_end().pause();
        tokio::time::sleep(3 * Duration::from_millis(FAILURE_TIMEOUT_MS.into())).await;
        chain.front_end().resume();
        load.progress(WRITES).await;
        chain.until_members(3).await;
        let figures = load.stop_and_settle(&mut chain, 3).await;
        round.say(&figures.to_string());
    });
}

/// A write was ordered and could not be committed when its connection was lost; it is sent again on another,
/// and then a read. The read used to be answered at once, from before the write: the head held the write for
/// the lost connection's, and saw nothing for the read to wait for.
#[test]
fn a_read_waits_for_a_write_that_was_sent_again() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 2,
                ..Setup::default()
            },
        )
        .await;
        let server = chain.clients();
        let tail = chain.order_now().await[1];
        let hello = json!({"id": 1, "op": "hello", "session": Uuid::from_u128(7).to_string()});
        let set = |id: u64, value: &str| json!({"id": id, "op": "set", "key": "k", "value": value});

        let mut lost = Raw::connect(server).await;
        assert_eq!(lost.ask(hello.to_string()).await["resumed"], false);
        assert_eq!(lost.ask(set(2, "old").to_string()).await["value"], "old");
        chain.node(tail).process.pause();
        lost.say(set(3, "new").to_string()).await;
        // Answered by the front-end itself: it has read what came before.
        assert_eq!(
            lost.ask(json!({"id": 4, "op": "status"}).to_string()).await["id"],
            4
        );

        let mut next = Raw::connect(server).await;
        assert_eq!(next.ask(hello.to_string()).await["resumed"], true);
        let get = json!({"id": 5, "op": "get", "key": "k"});
        next.say(set(3, "new").to_string()).await;
        next.say(get.to_string()).await;
        let answer = next.ask(json!({"id": 6, "op": "status"}).to_string()).await;
        assert_eq!(answer["id"], 6, "{answer}");
        // Another's read comes after, and waits for nobody: whatever could be answered has been.
        let mut other = Raw::connect(server).await;
        let answer = other
            .ask(json!({"id": 1, "op": "get", "key": "k"}).to_string())
            .await;
        assert_eq!(answer["value"], "old");
        chain.node(tail).process.resume();
        let mut answers = [next.hear_json().await, next.hear_json().await];
        answers.sort_by_key(|answer| answer["id"].as_u64());
        assert_eq!(answers[0]["id"], 3, "{answers:?}");
        assert_eq!(answers[1]["value"], "new", "{answers:?}");
        chain.settle(2).await;
    });
}
