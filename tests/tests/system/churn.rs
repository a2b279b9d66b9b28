//! Everything together, at random: nodes killed, paused, leaving and joining, several at once, the front-end
//! killed with them, under load. The dice are a function of the round's number; a round that fails says which.

use kvservice_tests::chain::{Chain, NodeIndex, Setup};
use kvservice_tests::load::{Allow, Load};
use kvservice_tests::random::Random;
use kvservice_tests::rounds::{Round, rounds};
use std::collections::BTreeSet;

const CLIENTS: usize = 4;
const WRITES: u64 = 60;
const BLOWS: u32 = 8;
const NODES_MAX: usize = 5;

/// What becomes of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Spared,
    Killed,
    Paused,
    Leaves,
}

#[test]
fn anything_may_happen_to_all_but_one() {
    rounds(async |round| {
        let setup = Setup {
            failure_timeout_ms: 700,
            grace_ms: 1500,
            ..Setup::default()
        };
        let mut chain = Chain::start(round, setup).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        let mut random = Random::new(u64::from(round.number()));
        let mut running: BTreeSet<NodeIndex> = (0..3).collect();
        let mut story = String::new();
        for _ in 0..BLOWS {
            load.progress(WRITES).await;
            // Only who is in the chain can carry the data on alone.
            let status = chain.until_members(running.len()).await;
            let members: BTreeSet<NodeIndex> = chain.order(&status).into_iter().collect();
            if members != running {
                // Somebody was taken for dead, and is on the way back.
                continue;
            }
            story += &blow(&mut chain, &mut running, &mut random).await;
        }
        load.progress(WRITES).await;
        round.say(&story);
        let figures = load.stop_and_settle(&mut chain, running.len()).await;
        say(round, &figures.to_string(), running.len());
    });
}

fn say(round: &Round, figures: &str, left: usize) {
    round.say(&format!("{figures}; {left} nodes left"));
}

/// Strikes once. What was done, in a few words; `running` is who runs afterwards.
async fn blow(chain: &mut Chain, running: &mut BTreeSet<NodeIndex>, random: &mut Random) -> String {
    let survivor = random.pick(running.iter().copied());
    let fates: Vec<(NodeIndex, Fate)> = running
        .iter()
        .map(|&node| {
            let fate = match random.below(6) {
                _ if Some(node) == survivor => Fate::Spared,
                0 | 1 => Fate::Killed,
                2 => Fate::Paused,
                3 => Fate::Leaves,
                _ => Fate::Spared,
            };
            (node, fate)
        })
        .collect();
    let of = |fate: Fate| -> Vec<NodeIndex> {
        fates
            .iter()
            .filter(|(_, f)| *f == fate)
            .map(|(node, _)| *node)
            .collect()
    };
    let (killed, paused, leaving) = (of(Fate::Killed), of(Fate::Paused), of(Fate::Leaves));
    let with_front_end = random.below(4) == 0;
    let room = NODES_MAX - (running.len() - killed.len() - leaving.len());
    let joining = (random.below(3) as usize).min(room);

    for &node in &leaving {
        chain.node(node).process.terminate();
    }
    for &node in &paused {
        chain.node(node).process.pause();
    }
    chain.kill(&killed);
    if with_front_end {
        chain.kill_front_end();
    }
    for _ in 0..joining {
        running.insert(chain.add_node().await);
    }
    if with_front_end {
        chain.start_front_end(&[]).await;
    }
    for &node in &leaving {
        let ended = chain.node(node).process.ends().await;
        assert!(
            ended.success(),
            "{ended}: {}",
            chain.node(node).process.last_words()
        );
    }
    running.retain(|node| !killed.contains(node) && !leaving.contains(node));
    if !paused.is_empty() {
        let awake: BTreeSet<NodeIndex> = running
            .iter()
            .copied()
            .filter(|node| !paused.contains(node))
            .collect();
        // Sometimes they come back before they were missed.
        if random.below(2) == 0 {
            chain.until_members(awake.len()).await;
        }
        for &node in &paused {
            chain.node(node).process.resume();
        }
    }
    let with = if with_front_end {
        " with the front-end"
    } else {
        ""
    };
    format!("[{killed:?} killed{with}, {paused:?} paused, {leaving:?} left, {joining} joined] ")
}
