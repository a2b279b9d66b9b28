use super::*;
use crate::state::fixture::{chain, failed, learner};
use kvservice_shared::ids::Seq;

fn names(picture: &Picture) -> Vec<(&str, bool)> {
    let slot = |s: &'_ Slot| s.phase == Phase::Present;
    picture
        .slots
        .iter()
        .map(|s| (s.member.node.as_str(), slot(s)))
        .collect()
}

fn shown(first: &[&str]) -> Picture {
    let mut picture = Picture::default();
    picture.update(chain(1, first, 100), 1_000);
    picture
}

#[test]
fn the_first_status_moves_nothing_and_tells_no_news() {
    let mut picture = Picture::default();
    let mut status = chain(3, &["n1", "n2"], 100);
    status.events = vec![failed(5, "n3")];
    let change = picture.update(status, 0);
    assert_eq!(names(&picture), [("n1", true), ("n2", true)]);
    assert_eq!(
        change,
        Change {
            lively: false,
            written: true,
            events: vec![]
        }
    );
    assert_eq!(picture.next_wake_ms(), None);
}

#[test]
fn a_dead_node_greys_where_it_stood_then_fades_then_is_gone() {
    for (dead, rest, then) in [
        (
            "n1",
            ["n2", "n3"],
            [("n1", false), ("n2", true), ("n3", true)],
        ),
        (
            "n2",
            ["n1", "n3"],
            [("n1", true), ("n2", false), ("n3", true)],
        ),
        (
            "n3",
            ["n1", "n2"],
            [("n1", true), ("n2", true), ("n3", false)],
        ),
    ] {
        let mut picture = shown(&["n1", "n2", "n3"]);
        assert!(picture.update(chain(2, &rest, 100), 2_000).lively, "{dead}");
        assert_eq!(names(&picture), then, "{dead}");
        assert_eq!(picture.next_wake_ms(), Some(2_000 + GONE_MS));
        picture.age(2_000 + GONE_MS);
        assert_eq!(names(&picture), then, "{dead} fades, and is still drawn");
        picture.age(2_000 + GONE_MS + LEAVING_MS);
        assert_eq!(names(&picture), [(rest[0], true), (rest[1], true)]);
        assert_eq!(picture.next_wake_ms(), None);
    }
    const {
        assert!(
            GONE_MS + LEAVING_MS < 1_000,
            "under a second of motion in all"
        )
    };
}

#[test]
fn several_that_die_at_once_keep_their_order() {
    let mut picture = shown(&["n1", "n2", "n3", "n4", "n5"]);
    picture.update(chain(2, &["n1", "n5"], 100), 2_000);
    let expected = [
        ("n1", true),
        ("n2", false),
        ("n3", false),
        ("n4", false),
        ("n5", true),
    ];
    assert_eq!(names(&picture), expected);
    // One more, while they are still fading.
    picture.update(chain(3, &["n5"], 100), 2_100);
    let expected = [
        ("n1", false),
        ("n2", false),
        ("n3", false),
        ("n4", false),
        ("n5", true),
    ];
    assert_eq!(names(&picture), expected);
}

#[test]
fn a_time_that_jumps_still_clears_the_picture() {
    let mut picture = shown(&["n1", "n2"]);
    picture.update(chain(2, &["n1"], 100), 2_000);
    picture.age(60_000);
    assert_eq!(names(&picture), [("n1", true)]);
}

#[test]
fn who_comes_back_as_a_learner_is_no_ghost() {
    let mut picture = shown(&["n1", "n2"]);
    let mut status = chain(2, &["n1"], 100);
    status.learners = vec![learner("n2")];
    picture.update(status, 2_000);
    assert_eq!(names(&picture), [("n1", true)]);
}

#[test]
fn another_cluster_is_another_picture() {
    let mut picture = shown(&["n1", "n2"]);
    let mut status = chain(1, &["n7"], 3);
    status.cluster = Some("c2".to_owned());
    let change = picture.update(status, 2_000);
    assert_eq!(names(&picture), [("n7", true)]);
    assert!(
        change.written,
        "its keys are others, whatever the numbers say"
    );
}

#[test]
fn news_are_told_once() {
    let mut picture = shown(&["n1", "n2", "n3"]);
    let mut status = chain(2, &["n1", "n3"], 100);
    status.events = vec![failed(5, "n2")];
    status.events[0].took_ms = None;
    assert_eq!(picture.update(status.clone(), 2_000).events.len(), 1);
    // The same event, now that it is over, is no news.
    status.events[0].took_ms = Some(38);
    let change = picture.update(status.clone(), 2_100);
    assert_eq!(change.events, []);
    assert!(change.lively);
    status.events.push(failed(9, "n1"));
    assert_eq!(picture.update(status, 2_200).events, [failed(9, "n1")]);
}

#[test]
fn the_rate_follows_the_load_and_settles() {
    let mut picture = shown(&["n1"]);
    let mut committed = 100;
    for tick in 1..=20 {
        committed += 1_000;
        picture.update(chain(1, &["n1"], committed), 1_000 + tick * 500);
    }
    assert!(
        (picture.writes_per_s - 2_000.0).abs() < 20.0,
        "{}",
        picture.writes_per_s
    );
    assert_eq!(picture.load(), 3);
    for tick in 21..=40 {
        picture.update(chain(1, &["n1"], committed), 1_000 + tick * 500);
    }
    assert_eq!(picture.writes_per_s, 0.0);
    assert_eq!(picture.load(), 0);
}

#[test]
fn a_frequent_status_does_not_blur_the_rate() {
    let mut picture = shown(&["n1"]);
    for tick in 1..=100 {
        picture.update(chain(1, &["n1"], 100 + tick * 10), 1_000 + tick * 100);
    }
    assert!(
        (picture.writes_per_s - 100.0).abs() < 1.0,
        "{}",
        picture.writes_per_s
    );
}

#[test]
fn bars_are_full_when_level_and_shrink_with_the_lag() {
    assert_eq!(fill(100, 100), 1.0);
    assert_eq!(fill(100, 90), 1.0);
    let mut last = 1.0;
    for lag in [1, 10, 100, 10_000, 1_000_000] {
        let length = fill(2_000_000 - lag, 2_000_000);
        assert!(length < last, "{lag} behind: {length}");
        last = length;
    }
    assert!(fill(0, u64::MAX) > 0.0);
}

#[test]
fn states_that_differ_are_found_and_only_where_they_may_be_compared() {
    let mut status = chain(1, &["n1", "n2", "n3"], 100);
    assert_eq!(divergence(&status), None);
    status.members[2].hash = "other".to_owned();
    status.members[2].applied = Seq(99);
    assert_eq!(divergence(&status), None, "another point has another hash");
    status.members[2].applied = Seq(100);
    let (a, b) = divergence(&status).unwrap();
    assert_eq!((a.node.as_str(), b.node.as_str()), ("n1", "n3"));
}

#[test]
fn memory_is_said_plainly() {
    let mut status = chain(1, &["n1", "n2"], 1);
    assert_eq!(storage_warning(&status), None);
    status.members[1].storage = StorageKind::Memory;
    assert_eq!(
        storage_warning(&status).unwrap(),
        "In memory only, gone with its process: n2."
    );
    status.members[0].storage = StorageKind::Memory;
    assert!(
        storage_warning(&status)
            .unwrap()
            .starts_with("All data are in memory")
    );
}

#[test]
fn an_outage_is_no_burst_of_writes_when_it_ends() {
    let mut picture = shown(&["n1", "n2"]);
    let mut silent = chain(1, &["n1", "n2"], 0);
    for member in &mut silent.members {
        member.hash = "0000000000000000".to_owned();
    }
    assert!(
        !is_awaited(&silent, &silent.members[0]),
        "a new chain is not away"
    );
    silent.waiting = Some("n1 and n2 awaited".to_owned());
    assert!(is_awaited(&silent, &silent.members[0]));
    assert_eq!(divergence(&silent), None);
    picture.update(silent, 2_000);
    picture.update(chain(2, &["n1", "n2"], 100), 3_000);
    assert_eq!(picture.writes_per_s, 0.0);
}
