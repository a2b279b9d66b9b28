//! Nodes with disks: killed, killed together with everything, damaged, wiped, and without room.

use kvservice_shared::api::EventKind;
use kvservice_tests::chain::{Chain, Setup, has_event};
use kvservice_tests::load::{Allow, Load, assert_filled, fill};
use kvservice_tests::rounds::rounds;
use kvservice_tests::single::Single;
use kvservice_tests::small_disk::SmallDisk;
use std::fs;
use std::path::{Path, PathBuf};

const CLIENTS: usize = 6;
const WRITES: u64 = 300;
const MIB: u64 = 1024 * 1024;

fn on_disk() -> Setup {
    Setup {
        disk: true,
        ..Setup::default()
    }
}

/// `kill -9` of every process at the same instant, the front-end's too, while clients write. Started again in
/// whatever order, the chain has every acknowledged write, each once; nobody decides anything.
#[test]
fn everything_killed_at_once_under_load() {
    rounds(async |round| {
        let mut chain = Chain::start(round, on_disk()).await;
        fill(chain.clients(), 500, 64).await;
        let before = chain.settle(3).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        for order in [[2, 0, 1], [1, 2, 0], [0, 1, 2]] {
            load.progress(WRITES).await;
            chain.front_end().pause();
            chain.kill(&[0, 1, 2]);
            chain.kill_front_end();
            chain.restart_node(order[0]).await;
            chain.start_front_end(&[]).await;
            chain.restart_node(order[1]).await;
            chain.restart_node(order[2]).await;
            chain.until_members(3).await;
        }
        load.progress(WRITES).await;
        let figures = load.stop_and_settle(&mut chain, 3).await;
        let after = chain.settle(3).await;
        assert_eq!(after.cluster, before.cluster);
        assert_filled(chain.clients(), 500, 64).await;
        round.say(&figures.to_string());
    });
}

/// One node at a time is killed and started again: it is sent what it lacks of the log, and no snapshot.
#[test]
fn a_node_is_back_with_its_disk() {
    rounds(async |round| {
        let mut chain = Chain::start(round, on_disk()).await;
        fill(chain.clients(), 500, 64).await;
        let load = Load::start(chain.clients(), CLIENTS, Allow::Nothing);
        for node in 0..3 {
            load.progress(WRITES).await;
            chain.kill(&[node]);
            chain.until_members(2).await;
            load.progress(WRITES).await;
            chain.restart_node(node).await;
            chain
                .until("the node to be back", |status| {
                    let learner = status.learners.first();
                    let teaching = learner.is_some_and(|learner| learner.received_bytes > 0);
                    assert!(!teaching, "it was sent a snapshot: {learner:?}");
                    status.members.len() == 3
                })
                .await;
        }
        load.stop_and_settle(&mut chain, 3).await;
        assert_filled(chain.clients(), 500, 64).await;
    });
}

/// A single server has after `kill -9` what it acknowledged.
#[test]
fn a_single_server_is_back_with_its_disk() {
    rounds(async |round| {
        let mut single = Single::on_disk(round).await;
        fill(single.address, 500, 64).await;
        let load = Load::start(single.address, CLIENTS, Allow::Nothing);
        for _ in 0..3 {
            load.progress(WRITES).await;
            single.restart(round).await;
        }
        load.progress(WRITES).await;
        let figures = load.stop().await;
        assert_filled(single.address, 500, 64).await;
        round.say(&figures.to_string());
    });
}

fn newest(dir: &Path, prefix: &str) -> PathBuf {
    let entries = fs::read_dir(dir).expect("a node made its directory");
    let named = entries
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(prefix))
        });
    named.max().expect("there is such a file")
}

/// A node whose data are damaged says which file and where, and does not come up; the chain goes on. Wiped,
/// it joins anew.
#[test]
fn a_damaged_disk_is_refused_and_a_wiped_one_joins() {
    rounds(async |round| {
        let mut chain = Chain::start(round, on_disk()).await;
        fill(chain.clients(), 500, 64).await;
        fill(chain.clients(), 500, 64).await;
        chain.settle(3).await;
        chain.kill(&[1]);
        chain.until_members(2).await;
        let address = chain.node(1).address.clone();
        let dir = chain.node_dir(&address);
        let segment = newest(&dir, "log-");
        let mut bytes = fs::read(&segment).expect("a node wrote it");
        // Early in the log: what comes after says that it had been synced.
        bytes[512] ^= 0x40;
        fs::write(&segment, bytes).expect("it can be written");
        let mut refused = chain.spawn_node(&address, &[]);
        let ended = refused.ends().await;
        assert!(!ended.success());
        let words = refused.last_words();
        let name = segment.file_name().and_then(|name| name.to_str());
        assert!(
            words.contains(name.expect("it was listed by name")) && words.contains("wipe"),
            "{words}"
        );
        fs::remove_dir_all(&dir).expect("it can be removed");
        chain.restart_node(1).await;
        chain.settle(3).await;
        assert_filled(chain.clients(), 500, 64).await;
    });
}

/// A directory belongs to one node at a time.
#[test]
fn two_nodes_on_one_directory() {
    rounds(async |round| {
        let mut chain = Chain::start(round, on_disk()).await;
        let address = chain.node(0).address.clone();
        let dir = chain.node_dir(&address);
        let data_dir = format!("--data-dir={}", dir.display());
        let mut second = chain.spawn_back_end("127.0.0.1:0", &[&data_dir]);
        let ended = second.ends().await;
        assert!(!ended.success());
        let words = second.last_words();
        assert!(words.contains("in use"), "{words}");
        chain.settle(3).await;
    });
}

/// One node's disk fills up: it leaves before that, the chain goes on; with room again it is back by itself.
#[test]
fn a_disk_that_fills_up() {
    rounds(async |round| {
        let Some(small) = SmallDisk::mount(round.dir().join("small"), 64 * MIB) else {
            round.say("skipped: mounting a small disk is not allowed here");
            return;
        };
        small.fill_up_to(34 * MIB);
        let setup = Setup {
            nodes: 2,
            ..on_disk()
        };
        let mut chain = Chain::start(round, setup).await;
        let dir = format!("--data-dir={}", small.path().join("data").display());
        chain
            .add_back_end(&[&dir, "--disk-reserve=16777216", "--log-retention=1048576"])
            .await;
        chain.until_members(3).await;
        let mut written = 0;
        while chain.status().await.is_ok_and(|s| s.members.len() == 3) {
            assert!(
                written < 60,
                "{written} MiB are on a disk that had room for 18"
            );
            fill(chain.clients(), 64, 16 * 1024).await;
            written += 1;
        }
        chain.until_members(2).await;
        fill(chain.clients(), 500, 64).await;
        small.empty();
        chain.settle(3).await;
        assert_filled(chain.clients(), 500, 64).await;
    });
}

/// A disk with less room than the reserve: the node says so, stays out, and stops when told.
#[test]
fn a_node_without_room_stays_out() {
    rounds(async |round| {
        let mut chain = Chain::start(
            round,
            Setup {
                nodes: 1,
                ..on_disk()
            },
        )
        .await;
        let mut full = chain.spawn_node("127.0.0.1:0", &["--disk-reserve=4611686018427387904"]);
        full.says(&["waiting for room"]).await;
        full.terminate();
        let ended = full.ends().await;
        assert!(ended.success(), "{ended}");
        let status = chain.settle(1).await;
        assert!(!has_event(&status, EventKind::Failed), "{status:?}");
    });
}
