//! Nodes killed with `kill -9`, under load: in each place of the chain, one after another, several at once.

use kvservice_shared::api::EventKind;
use kvservice_tests::chain::{Chain, NodeIndex, Setup, has_event};
use kvservice_tests::load::{Allow, Load};
use kvservice_tests::rounds::{Round, rounds};

const CLIENTS: usize = 6;
/// Writes between two blows, so that each falls on a chain at work.
const WRITES: u64 = 300;

/// A chain of three, under load, loses the node in this place; and, idle, the new node in that place.
async fn lose(round: &Round, place: usize) {
    let mut chain = Chain::start(round, Setup::default()).await;
    let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
    load.progress(WRITES).await;
    let victim = chain.order_now().await[place];
    chain.kill(&[victim]);
    let status = chain.until_members(2).await;
    assert!(!chain.order(&status).contains(&victim));
    load.progress(WRITES).await;
    let figures = load.stop_and_settle(&mut chain, 2).await;
    let status = chain.until("the failure among the events", |status| {
        has_event(status, EventKind::Failed)
    });
    status.await;
    round.say(&figures.to_string());

    let survivors = chain.order_now().await;
    let victim = survivors[place.min(survivors.len() - 1)];
    chain.kill(&[victim]);
    // Nobody has written meanwhile: the next write finds the chain mended.
    let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
    load.progress(WRITES).await;
    load.stop_and_settle(&mut chain, 1).await;
}

#[test]
fn head_killed_under_load_and_idle() {
    rounds(async |round| lose(round, 0).await);
}

#[test]
fn middle_killed_under_load_and_idle() {
    rounds(async |round| lose(round, 1).await);
}

#[test]
fn tail_killed_under_load_and_idle() {
    rounds(async |round| lose(round, 2).await);
}

#[test]
fn one_after_another_down_to_the_last_and_back_up_to_five() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 5,
                ..Setup::default()
            },
        )
        .await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        // Head, tail, middle, and the head of what is left.
        for (place, left) in [(0, 4), (3, 3), (1, 2), (0, 1)] {
            load.progress(WRITES).await;
            let victim = chain.order_now().await[place];
            chain.kill(&[victim]);
            chain.until_members(left).await;
        }
        for count in 2..=5 {
            load.progress(WRITES).await;
            chain.add_node().await;
            chain.until_members(count).await;
        }
        load.progress(WRITES).await;
        let figures = load.stop_and_settle(&mut chain, 5).await;
        round.say(&figures.to_string());
    });
}

/// Under load, a chain of five loses the nodes in these places at the same moment.
async fn lose_at_once(round: &Round, places: &[usize]) {
    let mut chain = Chain::start(
        round,
        Setup {
            nodes: 5,
            ..Setup::default()
        },
    )
    .await;
    let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
    load.progress(WRITES).await;
    let order = chain.order_now().await;
    let victims: Vec<NodeIndex> = places.iter().map(|&place| order[place]).collect();
    let survivors: Vec<NodeIndex> = order
        .iter()
        .copied()
        .filter(|node| !victims.contains(node))
        .collect();
    chain.kill(&victims);
    let status = chain.until_members(survivors.len()).await;
    assert_eq!(
        chain.order(&status),
        survivors,
        "nobody is stranded, and the order is kept"
    );
    load.progress(WRITES).await;
    let figures = load.stop_and_settle(&mut chain, survivors.len()).await;
    round.say(&figures.to_string());
}

#[test]
fn two_adjacent_killed_at_once_in_the_middle() {
    rounds(async |round| lose_at_once(round, &[1, 2]).await);
}

#[test]
fn two_adjacent_killed_at_once_at_the_head() {
    rounds(async |round| lose_at_once(round, &[0, 1]).await);
}

#[test]
fn two_adjacent_killed_at_once_at_the_tail() {
    rounds(async |round| lose_at_once(round, &[3, 4]).await);
}

#[test]
fn all_but_the_head_killed_at_once() {
    rounds(async |round| lose_at_once(round, &[1, 2, 3, 4]).await);
}

#[test]
fn all_but_a_middle_node_killed_at_once() {
    rounds(async |round| lose_at_once(round, &[0, 1, 3, 4]).await);
}

#[test]
fn all_but_the_tail_killed_at_once() {
    rounds(async |round| lose_at_once(round, &[0, 1, 2, 3]).await);
}
