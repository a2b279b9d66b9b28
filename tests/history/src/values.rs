//! Key by key, by values alone: is there an order of the calls in which each does what it says?
//!
//! Just-in-time linearization (Lowe, "Testing for linearizability", 2017): calls are looked at in the order of
//! time, and every state that the key may be in is kept, with the open calls that took effect on the way there. A
//! call takes effect no earlier than some call's return asks for it. Reads take effect as soon as they can.
//!
//! A call whose outcome is unknown stays open for ever, so it is let take effect only right before one that sees
//! what it did: any order in which it does so earlier, or for nobody to see, is as good without.

use crate::call::{Answer, Call, Op};
use crate::{Refused, unique_values};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;

/// Open calls of one key at once.
const OPEN_MAX: u32 = u128::BITS;

/// What a key holds: 0 is nothing.
type Value = u32;

#[derive(Clone, Copy, Debug)]
enum Effect {
    Read(Value),
    Write(Value),
    Swap { test: Value, new: Value },
    Delete,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    effect: Effect,
    invoked: u64,
    /// `None`: it may never happen.
    returned: Option<u64>,
    call: usize,
}

/// Checks every key of a history. Gives the number of keys.
///
/// # Errors
/// If it is refused.
pub fn check(history: &[Call]) -> Result<usize, Refused> {
    unique_values(history)?;
    let mut keys: BTreeSet<&str> = BTreeSet::new();
    for call in history {
        match &call.op {
            Op::Get { key }
            | Op::Set { key, .. }
            | Op::TestSet { key, .. }
            | Op::Delete { key } => {
                keys.insert(key);
            }
            Op::List { .. } => {
                if let Answer::Page { entries, .. } = &call.answer {
                    keys.extend(entries.iter().map(|entry| entry.key.as_str()));
                }
            }
        }
    }
    let mut steps: BTreeMap<&str, Key<'_>> =
        keys.iter().map(|key| (*key, Key::default())).collect();
    for (number, call) in history.iter().enumerate() {
        split(number, call, &mut steps)?;
    }
    for (key, mut of_key) in steps {
        of_key.drop_unseen();
        linearize(&of_key.steps).map_err(|stuck| match stuck {
            Stuck::At(call) => Refused::Wrong(format!(
                "no order of the calls on {key:?} has {}",
                history[call]
            )),
            Stuck::Crowded => Refused::Unfit(format!(
                "more than {OPEN_MAX} calls on {key:?} are open at once"
            )),
        })?;
    }
    Ok(keys.len())
}

#[derive(Default)]
struct Key<'a> {
    values: HashMap<&'a str, Value>,
    steps: Vec<Step>,
}

impl<'a> Key<'a> {
    fn value(&mut self, value: Option<&'a str>) -> Value {
        let next = self.values.len() as Value + 1;
        value.map_or(0, |value| *self.values.entry(value).or_insert(next))
    }

    fn push(&mut self, call: usize, of: &Call, effect: Effect) {
        self.steps.push(Step {
            effect,
            invoked: of.invoked,
            returned: match of.answer {
                Answer::Unknown => None,
                _ => Some(of.returned.unwrap_or(u64::MAX)),
            },
            call,
        });
    }

    /// Calls that perhaps took effect, and if so for nobody to see.
    fn drop_unseen(&mut self) {
        let mut seen: HashSet<Value> = HashSet::new();
        let mut deletes = false;
        for step in self.steps.iter().filter(|step| step.returned.is_some()) {
            match step.effect {
                Effect::Read(value) => _ = seen.insert(value),
                Effect::Swap { test, .. } => _ = seen.insert(test),
                Effect::Delete => deletes = true,
                Effect::Write(_) => {}
            }
        }
        loop {
            let before = seen.len();
            for step in self.steps.iter().filter(|step| step.returned.is_none()) {
                if let Effect::Swap { test, new } = step.effect
                    && (deletes || seen.contains(&new))
                {
                    seen.insert(test);
                }
            }
            if seen.len() == before {
                break;
            }
        }
        self.steps.retain(|step| {
            step.returned.is_some()
                || match step.effect {
                    Effect::Read(_) => false,
                    Effect::Write(new) | Effect::Swap { new, .. } => deletes || seen.contains(&new),
                    Effect::Delete => seen.contains(&0),
                }
        });
    }
}

/// What a call does to each key that it is about.
fn split<'a>(
    number: usize,
    call: &'a Call,
    keys: &mut BTreeMap<&'a str, Key<'a>>,
) -> Result<(), Refused> {
    let wrong = |what: &str| Err(Refused::Wrong(format!("{what}: {call}")));
    let unfit = || Err(Refused::Unfit(format!("an answer of another kind: {call}")));
    if matches!(call.answer, Answer::NotApplied) {
        return Ok(());
    }
    let (key, effect) = match (&call.op, &call.answer) {
        (Op::Get { .. } | Op::List { .. }, Answer::Unknown) => return Ok(()),
        (
            Op::List {
                prefix,
                after,
                limit,
            },
            Answer::Page { entries, more },
        ) => {
            let sorted = entries.windows(2).all(|pair| pair[0].key < pair[1].key);
            let asked = |key: &str| Op::covers(prefix, after, key);
            if !sorted || entries.len() > *limit || !entries.iter().all(|e| asked(&e.key)) {
                return wrong("this page is not what was asked for");
            }
            let last = entries.last().map(|entry| entry.key.as_str());
            let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
            let of_prefix = keys
                .range_mut::<str, _>(from)
                .take_while(|(key, _)| key.starts_with(prefix.as_str()));
            for (key, of_key) in of_prefix.filter(|(key, _)| asked(key)) {
                let shown = entries.binary_search_by(|entry| entry.key.as_str().cmp(key));
                let shown = shown.ok().map(|at| &entries[at]);
                if shown.is_none() && *more && last.is_none_or(|last| *key > last) {
                    continue;
                }
                let value = of_key.value(shown.map(|entry| entry.value.as_str()));
                of_key.push(number, call, Effect::Read(value));
            }
            return Ok(());
        }
        (Op::Get { key }, Answer::Value { value, .. }) => {
            let of_key = keys.entry(key).or_default();
            (key, Effect::Read(of_key.value(value.as_deref())))
        }
        (Op::Set { key, value }, Answer::Set { .. } | Answer::Unknown) => {
            let of_key = keys.entry(key).or_default();
            (key, Effect::Write(of_key.value(Some(value))))
        }
        (Op::TestSet { key, test, value }, Answer::Swapped { .. } | Answer::Unknown) => {
            let of_key = keys.entry(key).or_default();
            let test = of_key.value(test.as_deref());
            let new = of_key.value(Some(value));
            (key, Effect::Swap { test, new })
        }
        (Op::TestSet { key, test, .. }, Answer::NotSwapped { value, .. }) => {
            if value == test {
                return wrong("the test held");
            }
            let of_key = keys.entry(key).or_default();
            (key, Effect::Read(of_key.value(value.as_deref())))
        }
        (Op::Delete { key }, Answer::Deleted { .. } | Answer::Unknown) => (key, Effect::Delete),
        (Op::Delete { key }, Answer::Absent) => (key, Effect::Read(0)),
        _ => return unfit(),
    };
    keys.entry(key).or_default().push(number, call, effect);
    Ok(())
}

enum Stuck {
    /// This call cannot have been answered so.
    At(usize),
    /// More calls are open than can be followed.
    Crowded,
}

/// What the key may hold, and which of the open calls took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Config {
    value: Value,
    done: u128,
    /// An unknown call took effect last, and nobody saw it yet.
    unseen: bool,
}

struct Open {
    slots: Vec<Option<Step>>,
}

fn linearize(steps: &[Step]) -> Result<(), Stuck> {
    // At one time, invocations come first: calls that only touch may have taken effect in either order.
    let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * steps.len());
    for (index, step) in steps.iter().enumerate() {
        events.push((step.invoked, false, index));
        if let Some(returned) = step.returned {
            events.push((returned, true, index));
        }
    }
    events.sort_unstable();
    let mut open = Open { slots: Vec::new() };
    let mut slot_of = vec![0; steps.len()];
    let mut configs = HashSet::from([Config {
        value: 0,
        done: 0,
        unseen: false,
    }]);
    for (_, returns, index) in events {
        if !returns {
            let slot = open.take_slot(steps[index], &mut configs);
            slot_of[index] = slot.ok_or(Stuck::Crowded)?;
            continue;
        }
        let slot = slot_of[index];
        configs = open.until_done(slot, &configs);
        if configs.is_empty() {
            return Err(Stuck::At(steps[index].call));
        }
        open.slots[slot as usize] = None;
    }
    Ok(())
}

impl Open {
    fn take_slot(&mut self, step: Step, configs: &mut HashSet<Config>) -> Option<u32> {
        if !self.slots.iter().any(Option::is_none) && self.slots.len() == OPEN_MAX as usize {
            self.forget_done(configs);
        }
        let slot = match self.slots.iter().position(Option::is_none) {
            Some(slot) => slot,
            None if self.slots.len() < OPEN_MAX as usize => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return None,
        };
        self.slots[slot] = Some(step);
        Some(slot as u32)
    }

    /// Unknown calls that took effect however it went need no slot any more.
    fn forget_done(&mut self, configs: &mut HashSet<Config>) {
        let everywhere = configs.iter().fold(u128::MAX, |all, c| all & c.done);
        let mut gone = 0;
        for (slot, open) in self.slots.iter_mut().enumerate() {
            if everywhere >> slot & 1 == 1 && open.is_some_and(|step| step.returned.is_none()) {
                *open = None;
                gone |= 1 << slot;
            }
        }
        *configs = configs
            .iter()
            .map(|c| Config {
                done: c.done & !gone,
                ..*c
            })
            .collect();
    }

    /// All that the key may hold once the call in this slot took effect.
    fn until_done(&self, slot: u32, configs: &HashSet<Config>) -> HashSet<Config> {
        let bit = 1_u128 << slot;
        let mut reached = HashSet::new();
        let mut seen: HashSet<Config> = HashSet::new();
        let mut stack: Vec<Config> = configs.iter().map(|config| self.read(*config)).collect();
        while let Some(config) = stack.pop() {
            if !seen.insert(config) {
                continue;
            }
            if config.done & bit != 0 {
                if !config.unseen {
                    reached.insert(Config {
                        done: config.done & !bit,
                        ..config
                    });
                }
                continue;
            }
            for (slot, step) in self.slots.iter().enumerate() {
                if let Some(step) = step
                    && config.done >> slot & 1 == 0
                    && let Some(next) = config.after(step, slot)
                {
                    stack.push(self.read(next));
                }
            }
        }
        reached
    }

    /// Every open read of what the key holds takes effect.
    fn read(&self, mut config: Config) -> Config {
        for (slot, step) in self.slots.iter().enumerate() {
            if let Some(Step {
                effect: Effect::Read(value),
                ..
            }) = step
                && *value == config.value
                && config.done >> slot & 1 == 0
            {
                config.done |= 1 << slot;
                config.unseen = false;
            }
        }
        config
    }
}

impl Config {
    /// A call that is no read takes effect.
    fn after(self, step: &Step, slot: usize) -> Option<Config> {
        let unknown = step.returned.is_none();
        let value = match step.effect {
            Effect::Read(_) => return None,
            // An unknown one that nobody saw is not written over.
            Effect::Write(_) if self.unseen => return None,
            Effect::Write(new) => new,
            Effect::Swap { test, .. } if test != self.value => return None,
            Effect::Swap { new, .. } => new,
            Effect::Delete if self.value == 0 || (unknown && self.unseen) => return None,
            Effect::Delete => 0,
        };
        Some(Config {
            value,
            done: self.done | 1 << slot,
            unseen: unknown,
        })
    }
}
