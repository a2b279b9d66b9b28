use super::*;
use crate::state::fixture::{chain, learner};

fn slots(status: &Status) -> Vec<Slot> {
    status
        .members
        .iter()
        .map(|m| Slot {
            member: m.clone(),
            phase: Phase::Present,
        })
        .collect()
}

fn nodes(n: usize) -> Vec<String> {
    (1..=n).map(|i| format!("n{i}")).collect()
}

fn status_of(n: usize) -> Status {
    let names = nodes(n);
    chain(1, &names.iter().map(String::as_str).collect::<Vec<_>>(), 10)
}

fn lay(status: &Status, width: f64) -> Scene {
    scene(Cast::new(status, &slots(status)), width)
}

fn link<'a>(scene: &'a Scene, from: &str, to: &str) -> Option<&'a Link> {
    scene.links.iter().find(|l| l.from == from && l.to == to)
}

fn numbers(path: &str) -> Vec<f64> {
    path.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[test]
fn nothing_overlaps_and_nothing_sticks_out_at_any_width() {
    for width in [320.0, 343.0, 720.0, 1_000.0, 1_400.0, 2_400.0] {
        for n in [0, 1, 2, 3, 5, 8, 13, 64] {
            for learners in [0, 1, 3] {
                let mut status = status_of(n);
                status.learners = (0..learners)
                    .map(|i| learner(&format!("n{}", 70 + i)))
                    .collect();
                let scene = lay(&status, width);
                let mut frames = vec![scene.front_end];
                frames.extend(&scene.members);
                frames.extend(&scene.learners);
                frames.extend(scene.empty);
                assert_eq!(frames.len(), 1 + n.max(1) + learners);
                for (i, a) in frames.iter().enumerate() {
                    let inside =
                        a.x >= 0.0 && a.x + a.w <= width && a.y >= 0.0 && a.y + a.h <= scene.height;
                    assert!(inside, "{a:?} sticks out of {width} × {}", scene.height);
                    assert!(a.w >= CARD_WIDTH.0, "{a:?} is too narrow to read");
                    for b in &frames[i + 1..] {
                        let apart = a.x + a.w <= b.x
                            || b.x + b.w <= a.x
                            || a.y + a.h <= b.y
                            || b.y + b.h <= a.y;
                        assert!(apart, "{a:?} and {b:?} overlap at {width}, {n} nodes");
                    }
                }
                for link in &scene.links {
                    for point in numbers(&link.path).chunks(2) {
                        assert!((0.0..=width + ROW_ARC_ROOM).contains(&point[0]), "{link:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn it_runs_across_where_there_is_room_and_down_on_a_phone() {
    assert_eq!(lay(&status_of(3), 1_360.0).flow, Flow::Across);
    assert_eq!(
        lay(&status_of(3), 704.0).flow,
        Flow::Across,
        "three nodes fit a tablet"
    );
    assert_eq!(lay(&status_of(3), 330.0).flow, Flow::Down);
    assert_eq!(lay(&status_of(0), 330.0).flow, Flow::Down);
    assert_eq!(lay(&status_of(12), 1_360.0).flow, Flow::DownWide);
}

#[test]
fn arrows_and_arcs_are_the_pointer_tables() {
    let scene = lay(&status_of(4), 1_360.0);
    let mut pairs: Vec<(&str, &str, LinkKind)> = scene
        .links
        .iter()
        .map(|l| (l.from.as_str(), l.to.as_str(), l.kind))
        .collect();
    pairs.sort();
    let mut expected = [
        (FRONT_END, "n1", LinkKind::Next),
        ("n1", "n2", LinkKind::Next),
        ("n2", "n3", LinkKind::Next),
        ("n3", "n4", LinkKind::Next),
        (FRONT_END, "n2", LinkKind::Second),
        ("n1", "n3", LinkKind::Second),
        ("n2", "n4", LinkKind::Second),
    ];
    expected.sort();
    assert_eq!(pairs, expected);
}

#[test]
fn where_a_node_died_the_arc_over_it_becomes_the_arrow() {
    let before = status_of(4);
    let arc = lay(&before, 1_360.0);
    let arc = link(&arc, "n1", "n3").unwrap().clone();

    // The next view, with n2 still grey where it stood.
    let after = chain(2, &["n1", "n3", "n4"], 10);
    let mut shown = slots(&after);
    let dead = before.members[1].clone();
    shown.insert(
        1,
        Slot {
            member: dead,
            phase: Phase::Gone { since_ms: 0 },
        },
    );
    let scene_gone = scene(Cast::new(&after, &shown), 1_360.0);
    let bent = link(&scene_gone, "n1", "n3").unwrap();
    assert_eq!(bent.kind, LinkKind::Next);
    assert_eq!(bent.path, arc.path, "it starts where the arc was");
    assert!(
        link(&scene_gone, "n1", "n2").is_none(),
        "the dead node's arrows go"
    );
    assert!(link(&scene_gone, "n2", "n3").is_none());

    // The gap has closed.
    let scene_closed = lay(&after, 1_360.0);
    let arrow = link(&scene_closed, "n1", "n3").unwrap();
    let p = numbers(&arrow.path);
    assert_eq!(p[1], p[7], "straight");
    let shape = |path: &str| {
        path.split(' ')
            .map(|w| w.parse::<f64>().is_ok())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        shape(&arrow.path),
        shape(&bent.path),
        "one shape, so that it can be animated"
    );
}

#[test]
fn who_fades_takes_no_place() {
    let after = chain(2, &["n1", "n3"], 10);
    let mut shown = slots(&after);
    let dead = status_of(3).members[1].clone();
    shown.insert(
        1,
        Slot {
            member: dead,
            phase: Phase::Leaving { since_ms: 0 },
        },
    );
    let fading = scene(Cast::new(&after, &shown), 1_360.0);
    let closed = lay(&after, 1_360.0);
    assert_eq!([fading.members[0], fading.members[2]], closed.members[..]);
}

#[test]
fn a_learner_stands_below_the_tail_and_is_fed_by_it() {
    let mut status = status_of(3);
    status.learners = vec![learner("n4"), learner("n5")];
    for width in [1_360.0, 340.0] {
        let scene = lay(&status, width);
        let tail = scene.members[2];
        assert!(scene.learners[0].y >= tail.y + tail.h);
        let fed: Vec<_> = scene
            .links
            .iter()
            .filter(|l| l.kind == LinkKind::Learner)
            .collect();
        assert_eq!(fed.len(), 1, "one learner at a time");
        assert_eq!((fed[0].from.as_str(), fed[0].to.as_str()), ("n3", "n4"));
    }
}

#[test]
fn an_empty_chain_keeps_a_place_for_its_first_node() {
    let mut status = status_of(0);
    status.front_end = FrontEndStatus::default();
    let scene = lay(&status, 1_360.0);
    assert!(scene.empty.is_some());
    assert_eq!(scene.links, []);
}

#[test]
fn a_single_server_needs_no_pointer_to_its_node() {
    let mut status = status_of(1);
    status.mode = Mode::Single;
    status.front_end = FrontEndStatus::default();
    assert!(link(&lay(&status, 900.0), FRONT_END, "n1").is_some());
}

#[test]
fn a_pointer_to_somebody_unknown_draws_nothing() {
    let mut status = status_of(2);
    status.members[0].second = Some("10.0.0.9:1".to_owned());
    status.members[1].next = Some(status.members[1].address.clone());
    let scene = lay(&status, 1_360.0);
    assert!(scene.links.iter().all(|l| l.from != l.to));
    assert_eq!(scene.links.len(), 3);
}
