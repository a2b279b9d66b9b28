//! What a seed promises: the same run each time, and another one for another seed.

use kvservice_sim::run::{Plan, Traced, run};

/// Runs a seed in a thread of its own, as a hunt does, and in another one the next time.
fn traced(seed: u64) -> Traced {
    let plan = Plan {
        seed,
        steps: 300,
        nodes: 5,
        clients: 10,
    };
    std::thread::spawn(move || {
        let mut traced = Traced::default();
        run(plan, Some(&mut traced)).expect("nothing breaks");
        traced
    })
    .join()
    .expect("the run ends")
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 4, 5, 6] {
        let (first, second) = (traced(seed), traced(seed));
        assert!(
            first.trace.len() > 500,
            "seed {seed}: {} lines",
            first.trace.len()
        );
        for (line, (one, other)) in first.trace.iter().zip(&second.trace).enumerate() {
            assert_eq!(one, other, "seed {seed}, line {line}");
        }
        assert_eq!(first.trace.len(), second.trace.len(), "seed {seed}");
        assert_eq!(first.history, second.history, "seed {seed}");
    }
}

#[test]
fn another_seed_is_another_run() {
    assert_ne!(traced(3).trace, traced(4).trace);
}

/// Keeping a trace changes nothing.
#[test]
fn a_trace_changes_nothing() {
    let plan = Plan {
        seed: 7,
        steps: 300,
        nodes: 5,
        clients: 10,
    };
    let bare = run(plan, None).expect("nothing breaks");
    let kept = run(plan, Some(&mut Traced::default())).expect("nothing breaks");
    assert_eq!(format!("{bare:?}"), format!("{kept:?}"));
}
