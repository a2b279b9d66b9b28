//! Random operations against the model, with openings at random points.

use crate::crash::long;
use crate::rig::Rig;
use kvservice_backend::storage::disk::testing::SimDisk;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Append(u64, u64, usize),
    Cut(usize),
    Reset(u64),
    Save(u64),
    EndSave,
    Trim,
    Meta,
    Settle,
    Reopen,
    Crash(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (1_u64..5, 1_u64..4, 0_usize..900).prop_map(|(b, e, v)| Step::Append(b, e, v)),
        2 => (0_usize..4).prop_map(Step::Cut),
        1 => prop_oneof![Just(0), 1_u64..100].prop_map(Step::Reset),
        3 => (0_u64..4).prop_map(Step::Save),
        4 => Just(Step::EndSave),
        2 => Just(Step::Trim),
        2 => Just(Step::Meta),
        2 => Just(Step::Settle),
        1 => Just(Step::Reopen),
        2 => (0_u64..1_000_000).prop_map(Step::Crash),
    ]
}

fn run(steps: &[Step]) {
    let disk = SimDisk::default();
    let mut rig = Rig::open(&disk).unwrap();
    for step in steps {
        match *step {
            Step::Append(batches, entries, bytes) => rig.append(batches, entries, bytes).unwrap(),
            Step::Cut(batches) => rig.cut(batches).unwrap(),
            Step::Reset(base) => rig.reset(base).unwrap(),
            Step::Save(parts) => rig.begin_save(parts, 3).unwrap(),
            Step::EndSave => rig.end_save().unwrap(),
            Step::Trim => rig.trim().unwrap(),
            Step::Meta => rig.meta().unwrap(),
            Step::Settle => rig.settle().unwrap(),
            Step::Reopen => {
                rig.close().unwrap();
                rig.reopen().unwrap();
            }
            Step::Crash(seed) => rig.crash(seed).unwrap(),
        }
    }
    rig.close().unwrap();
    rig.reopen().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if long() { 5000 } else { 200 }))]

    #[test]
    fn what_was_promised_is_there(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps);
    }
}
