//! The checkers against the definition, on small random histories: what a store did, and that with one answer
//! changed.

use crate::naive::By;
use crate::{Answer, Call, Entry, Op, check, naive, revisions, values};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What one call asks, when, and what becomes of it.
#[derive(Clone, Debug)]
struct Plan {
    process: u64,
    kind: u8,
    key: usize,
    /// Which of the values written before it tests for.
    test: usize,
    invoked: u64,
    /// From invocation to effect, and from effect to return.
    takes: (u64, u64),
    /// How many in ten outcomes are unknown.
    known: u8,
}

fn plan() -> impl Strategy<Value = Plan> {
    (
        0..3_u64,
        0..9_u8,
        0..2_usize,
        0..4_usize,
        0..12_u64,
        (0..8_u64, 0..8_u64),
        0..10_u8,
    )
        .prop_map(|(process, kind, key, test, invoked, takes, known)| Plan {
            process,
            kind,
            key,
            test,
            invoked,
            takes,
            known,
        })
}

/// What a store that takes each call's effect at one point answers.
fn answered(plans: &[Plan], lists: bool) -> Vec<Call> {
    let mut order: Vec<usize> = (0..plans.len()).collect();
    order.sort_by_key(|index| plans[*index].invoked + plans[*index].takes.0);
    let mut store: BTreeMap<String, (String, u64)> = BTreeMap::new();
    let mut revision = 0;
    let mut history = Vec::new();
    for index in order {
        let plan = &plans[index];
        let key = ["a", "b"][plan.key].to_owned();
        let value = format!("v{index}");
        let held = store.get(&key).cloned();
        let (held_value, held_revision) = match &held {
            Some((value, revision)) => (Some(value.clone()), *revision),
            None => (None, 0),
        };
        let mut write = |store: &mut BTreeMap<_, _>| {
            revision += 1;
            store.insert(key.clone(), (value.clone(), revision));
            revision
        };
        let test = match plan.test {
            0 => None,
            1 => Some(format!("v{}", (index + 3) % plans.len())),
            _ => held_value.clone(),
        };
        let (op, mut answer) = match plan.kind {
            0..3 => (
                Op::Get { key },
                Answer::Value {
                    value: held_value,
                    revision: held_revision,
                },
            ),
            3 | 4 => {
                let revision = write(&mut store);
                (Op::Set { key, value }, Answer::Set { revision })
            }
            5 | 6 => {
                let answer = match test == held_value {
                    true => Answer::Swapped {
                        revision: write(&mut store),
                    },
                    false => Answer::NotSwapped {
                        value: held_value,
                        revision: held_revision,
                    },
                };
                (Op::TestSet { key, test, value }, answer)
            }
            7 => {
                let answer = match store.remove(&key) {
                    Some(_) => {
                        revision += 1;
                        Answer::Deleted { revision }
                    }
                    None => Answer::Absent,
                };
                (Op::Delete { key }, answer)
            }
            _ if !lists => (
                Op::Get { key },
                Answer::Value {
                    value: held_value,
                    revision: held_revision,
                },
            ),
            _ => {
                let limit = 1 + plan.test % 2;
                let entry = |(key, (value, revision)): (&String, &(String, u64))| Entry {
                    key: key.clone(),
                    value: value.clone(),
                    revision: *revision,
                };
                let entries: Vec<Entry> = store.iter().take(limit).map(entry).collect();
                let more = store.len() > entries.len();
                let op = Op::List {
                    prefix: String::new(),
                    after: String::new(),
                    limit,
                };
                (op, Answer::Page { entries, more })
            }
        };
        let is_read = matches!(op, Op::Get { .. } | Op::List { .. });
        let mut returned = Some(plan.invoked + plan.takes.0 + plan.takes.1);
        if plan.known == 0 && !is_read {
            answer = Answer::Unknown;
            returned = None;
        }
        history.push(Call {
            process: plan.process,
            op,
            invoked: plan.invoked,
            returned,
            answer,
        });
    }
    history
}

/// Changes one answer to what another call, or nobody, was told.
fn spoil(history: &mut [Call], at: usize, how: u8) {
    let len = history.len();
    let other = history[(at + 1 + how as usize) % len].answer.clone();
    let call = &mut history[at % len];
    match (&mut call.answer, how % 5) {
        (Answer::Value { value, revision } | Answer::NotSwapped { value, revision }, 0) => {
            *value = None;
            *revision = 0;
        }
        (Answer::Value { value, revision } | Answer::NotSwapped { value, revision }, _) => {
            if let Answer::Value {
                value: v,
                revision: r,
            } = other
            {
                (*value, *revision) = (v, r);
            } else {
                *value = Some(format!("v{}", how as usize % len));
            }
        }
        (
            Answer::Set { revision } | Answer::Swapped { revision } | Answer::Deleted { revision },
            0..3,
        ) => {
            *revision = u64::from(how) % 7;
        }
        (answer @ (Answer::Set { .. } | Answer::Swapped { .. }), _) => *answer = Answer::NotApplied,
        (answer @ Answer::Deleted { .. }, _) => *answer = Answer::Absent,
        (answer @ Answer::Absent, _) => {
            *answer = Answer::Deleted {
                revision: u64::from(how) % 7,
            }
        }
        (Answer::Page { entries, more }, 0..3) => {
            *more &= entries.pop().is_none();
        }
        (Answer::Page { entries, .. }, _) => {
            if let Some(entry) = entries.first_mut() {
                entry.value = format!("v{}", how as usize % len);
            }
        }
        (Answer::Unknown, _) => call.invoked = 20,
        (Answer::NotApplied, _) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn what_a_store_did_passes(plans in vec(plan(), 1..40)) {
        prop_assert_eq!(check(&answered(&plans, true)).map(|_| ()), Ok(()));
    }

    /// Values alone are decided exactly.
    #[test]
    fn values_are_as_the_definition_says(
        plans in vec(plan(), 1..8), spoiled in vec((0..8_usize, any::<u8>()), 0..3),
    ) {
        let mut history = answered(&plans, false);
        for (at, how) in spoiled {
            spoil(&mut history, at, how);
        }
        let right = naive::check(&history, By::Values);
        prop_assert_eq!(values::check(&history).is_ok(), right, "{:?}", values::check(&history));
    }

    /// Of revisions and pages, nothing right is refused; and what is wrong is, where each key always holds
    /// something that is told.
    #[test]
    fn revisions_are_as_the_definition_says(
        plans in vec(plan(), 1..8), lists in any::<bool>(), spoiled in vec((0..8_usize, any::<u8>()), 0..3),
    ) {
        let mut history = answered(&plans, lists);
        for (at, how) in spoiled {
            spoil(&mut history, at, how);
        }
        let right = naive::check(&history, By::Revisions);
        let found = check(&history);
        if right {
            prop_assert_eq!(found.map(|_| ()), Ok(()));
        } else if told(&history) {
            prop_assert!(found.is_err(), "{:#?}", history);
        }
    }

    #[test]
    fn a_line_is_read_as_it_was_written(plans in vec(plan(), 1..8)) {
        for call in answered(&plans, true) {
            let line = call.to_line();
            prop_assert_eq!(Call::from_line(&line).map_err(|error| error.to_string()), Ok(call));
        }
    }
}

/// No call's outcome is unknown, and nothing was deleted or found absent.
fn told(history: &[Call]) -> bool {
    history.iter().all(|call| match &call.answer {
        Answer::Unknown | Answer::Deleted { .. } | Answer::Absent => false,
        Answer::Value { value, .. } | Answer::NotSwapped { value, .. } => value.is_some(),
        _ => !matches!(&call.op, Op::TestSet { .. }),
    })
}

fn call(op: Op, invoked: u64, returned: u64, answer: Answer) -> Call {
    Call {
        process: 1,
        op,
        invoked,
        returned: Some(returned),
        answer,
    }
}

fn set(key: &str, value: &str, invoked: u64, returned: u64, revision: u64) -> Call {
    let op = Op::Set {
        key: key.into(),
        value: value.into(),
    };
    call(op, invoked, returned, Answer::Set { revision })
}

/// Each key alone is right, and yet there was no point in time at which the page was so.
#[test]
fn a_page_of_two_times_is_found() {
    let entry = |key: &str, value: &str, revision| Entry {
        key: key.into(),
        value: value.into(),
        revision,
    };
    let page = |entries| {
        let op = Op::List {
            prefix: String::new(),
            after: String::new(),
            limit: 9,
        };
        call(
            op,
            0,
            100,
            Answer::Page {
                entries,
                more: false,
            },
        )
    };
    let writes = [
        set("a", "1", 1, 2, 1),
        set("b", "1", 3, 4, 2),
        set("a", "2", 5, 6, 3),
        set("b", "2", 7, 8, 4),
    ];
    let mut history = writes.to_vec();
    history.push(page(vec![entry("a", "1", 1), entry("b", "2", 4)]));
    assert_eq!(values::check(&history), Ok(2));
    assert!(revisions::check(&history).is_err());
    assert!(!naive::check(&history, By::Revisions));
    history.pop();
    history.push(page(vec![entry("a", "2", 3), entry("b", "1", 2)]));
    assert!(check(&history).is_ok());
}

#[test]
fn many_unknown_writes_are_no_trouble() {
    let mut history = Vec::new();
    for number in 0..2000_u64 {
        let mut write = set(
            "a",
            &number.to_string(),
            number * 10,
            number * 10 + 5,
            number + 1,
        );
        if number % 3 == 0 {
            write.returned = None;
            write.answer = Answer::Unknown;
        }
        history.push(write);
        let read = Op::Get { key: "a".into() };
        let answer = Answer::Value {
            value: Some(number.to_string()),
            revision: number + 1,
        };
        history.push(call(read, number * 10 + 6, number * 10 + 9, answer));
    }
    assert_eq!(check(&history).map(|checked| checked.unknown), Ok(667));
}

/// Keys that hold nothing tell no revision: what is known of them is looked up by time, not by trying all writes.
#[test]
fn many_absences_among_many_writes_are_no_trouble() {
    let mut history = Vec::new();
    for number in 0..40_000_u64 {
        let (at, key) = (number * 20, format!("k{number}"));
        let get = |at, answer| call(Op::Get { key: key.clone() }, at, at + 2, answer);
        let value = |value, revision| Answer::Value { value, revision };
        history.push(get(at, value(None, 0)));
        history.push(set(&key, "1", at + 3, at + 5, number + 1));
        history.push(get(at + 6, value(Some("1".into()), number + 1)));
    }
    assert_eq!(check(&history).map(|checked| checked.keys), Ok(40_000));
    // Its write had returned long before.
    let late = Op::Get { key: "k7".into() };
    let nothing = Answer::Value {
        value: None,
        revision: 0,
    };
    history.push(call(late, 799_990, 799_999, nothing));
    assert!(revisions::check(&history).is_err());
}

/// A delete of unknown outcome left nothing; another, whose answer came, and forty sets are open meanwhile, and come later:
/// by their revisions after a write that was not even asked for yet. (Simulator, seed 203747: too many orders were tried.)
#[test]
fn what_comes_later_by_its_revision_is_not_tried_first() {
    let delete = || Op::Delete { key: "a".into() };
    let get = |invoked, returned, value: Option<String>, revision| {
        let read = Op::Get { key: "a".into() };
        call(read, invoked, returned, Answer::Value { value, revision })
    };
    let mut history = vec![set("a", "first", 0, 1, 1)];
    let mut lost = call(delete(), 2, 3, Answer::Unknown);
    lost.returned = None;
    history.push(lost);
    for number in 0..40 {
        let value = number.to_string();
        history.push(set("a", &value, 4, 200 + number, 100 + number));
        history.push(get(199, 201 + number, Some(value), 100 + number));
    }
    history.push(call(delete(), 4, 300, Answer::Deleted { revision: 150 }));
    history.push(get(5, 10, None, 0));
    history.push(set("a", "second", 20, 30, 50));
    history.push(get(31, 35, Some("second".to_owned()), 50));
    assert_eq!(check(&history).map(|checked| checked.keys), Ok(1));
}
