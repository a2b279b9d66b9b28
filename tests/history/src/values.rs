//! Key by key, by values alone: is there an order of the calls in which each does what it says?
//!
//! Just-in-time linearization (Lowe, "Testing for linearizability", 2017): calls are looked at in the order of
//! time, and take effect no earlier than some call's return asks for it; reads as soon as they can. Where several
//! could, all are tried, one after the other, and no state twice. Revisions say which to try first, and nothing
//! else: a right history is found right at once, however many calls were open together.
//!
//! A call whose outcome is unknown stays open for ever, so it is let take effect only right before one that sees
//! what it did: any order in which it does so earlier, or for nobody to see, is as good without.

use crate::call::{Answer, Call, Op};
use crate::{Refused, unique_values};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::rc::Rc;

/// Open calls of one key at once whose answers came.
const OPEN_MAX: usize = u128::BITS as usize;
/// States that are looked at before a key is given up: wrong histories may have more than anybody can wait for.
const STATES_MAX: usize = 3_000_000;

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
    /// The revision that it is said or seen to have written, or shows; the highest where nobody knows.
    hint: u64,
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
        of_key.add_hints();
        linearize(&of_key.steps).map_err(|stuck| match stuck {
            Stuck::At(call) => Refused::Wrong(format!(
                "no order of the calls on {key:?} has {}",
                history[call]
            )),
            Stuck::Crowded => Refused::Unfit(format!(
                "more than {OPEN_MAX} calls on {key:?} are open at once"
            )),
            Stuck::Lost(call) => Refused::Unfit(format!(
                "no order of the calls on {key:?} was found in {STATES_MAX} tries that has {}",
                history[call]
            )),
        })?;
    }
    Ok(keys.len())
}

#[derive(Default)]
struct Key<'a> {
    values: HashMap<&'a str, Value>,
    /// The revisions that values were seen with.
    seen: HashMap<Value, u64>,
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
            hint: match &of.answer {
                Answer::Set { revision }
                | Answer::Swapped { revision }
                | Answer::Deleted { revision } => *revision,
                _ => u64::MAX,
            },
            call,
        });
    }

    /// A call shows that the key holds this; `None`: nothing.
    fn shows(&mut self, call: usize, of: &Call, held: Option<(&'a str, u64)>) {
        let value = self.value(held.map(|(value, _)| value));
        self.push(call, of, Effect::Read(value));
        if let (Some(read), Some((_, revision))) = (self.steps.last_mut(), held) {
            read.hint = revision;
            self.seen.insert(value, revision);
        }
    }

    /// When somebody saw them, writes of which nobody was told what came of them come in their place.
    fn add_hints(&mut self) {
        for step in self.steps.iter_mut().filter(|step| step.hint == u64::MAX) {
            if let Effect::Write(new) | Effect::Swap { new, .. } = step.effect
                && let Some(revision) = self.seen.get(&new)
            {
                step.hint = *revision;
            }
        }
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
                of_key.shows(
                    number,
                    call,
                    shown.map(|entry| (entry.value.as_str(), entry.revision)),
                );
            }
            return Ok(());
        }
        (Op::Get { key }, Answer::Value { value, revision }) => {
            let held = value.as_deref().map(|value| (value, *revision));
            keys.entry(key).or_default().shows(number, call, held);
            return Ok(());
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
        (Op::TestSet { key, test, .. }, Answer::NotSwapped { value, revision }) => {
            if value == test {
                return wrong("the test held");
            }
            let held = value.as_deref().map(|value| (value, *revision));
            keys.entry(key).or_default().shows(number, call, held);
            return Ok(());
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
    /// Too many orders, and none was right so far; this call is the farthest that one came.
    Lost(usize),
}

/// Where a search stands: what the key holds, and which of the open calls took effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Config {
    /// Events that are done with.
    event: usize,
    value: Value,
    /// Calls whose answers came, by their slots.
    done: u128,
    /// Calls of unknown outcome that took effect.
    unknown: Rc<Vec<usize>>,
    /// An unknown call took effect last, and nobody saw it yet.
    unseen: bool,
}

/// What happens at one time.
#[derive(Clone, Copy)]
enum Event {
    Invoked(usize),
    Returned(usize),
}

/// The events of one key in order, and the slots of its calls.
struct Timeline<'a> {
    steps: &'a [Step],
    events: Vec<Event>,
    slots: Vec<usize>,
    /// After each event, the calls that are open: whose answers come yet, and of unknown outcome.
    open: Vec<Rc<Vec<usize>>>,
    /// At each event, the lowest revision that a call writes which is made after it: that one and all above it were
    /// not written yet. The highest number where there is none.
    ceiling: Vec<u64>,
}

impl<'a> Timeline<'a> {
    fn new(steps: &'a [Step]) -> Result<Timeline<'a>, Stuck> {
        // At one time, invocations come first: calls that only touch may have taken effect in either order.
        let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * steps.len());
        for (index, step) in steps.iter().enumerate() {
            order.push((step.invoked, false, index));
            order.extend(step.returned.map(|returned| (returned, true, index)));
        }
        order.sort_unstable();
        let mut timeline = Timeline {
            steps,
            events: Vec::with_capacity(order.len()),
            slots: vec![0; steps.len()],
            open: Vec::with_capacity(order.len()),
            ceiling: vec![u64::MAX; order.len() + 1],
        };
        let mut taken: u128 = 0;
        let mut open: Vec<usize> = Vec::new();
        for (_, returns, index) in order {
            if returns {
                taken &= !(1 << timeline.slots[index]);
                open.retain(|other| *other != index);
                timeline.events.push(Event::Returned(index));
            } else {
                if steps[index].returned.is_some() {
                    let slot = taken.trailing_ones() as usize;
                    if slot >= OPEN_MAX {
                        return Err(Stuck::Crowded);
                    }
                    taken |= 1 << slot;
                    timeline.slots[index] = slot;
                }
                open.push(index);
                timeline.events.push(Event::Invoked(index));
            }
            timeline.open.push(Rc::new(open.clone()));
        }
        for (at, event) in timeline.events.iter().enumerate().rev() {
            let written = match *event {
                Event::Invoked(index) if !matches!(steps[index].effect, Effect::Read(_)) => {
                    steps[index].hint
                }
                _ => u64::MAX,
            };
            timeline.ceiling[at] = written.min(timeline.ceiling[at + 1]);
        }
        Ok(timeline)
    }

    /// Goes on with the events until one needs a call that did not take effect yet. `None`: that is all.
    fn advance(&self, config: &mut Config) -> Option<usize> {
        while let Some(event) = self.events.get(config.event) {
            match *event {
                Event::Invoked(index) => self.read(config, index),
                Event::Returned(index) => {
                    let bit = 1_u128 << self.slots[index];
                    if config.done & bit == 0 || config.unseen {
                        return Some(index);
                    }
                    config.done &= !bit;
                }
            }
            config.event += 1;
        }
        None
    }

    /// A read of what the key holds takes effect.
    fn read(&self, config: &mut Config, index: usize) {
        let step = &self.steps[index];
        if let (Effect::Read(value), Some(_)) = (step.effect, step.returned)
            && value == config.value
        {
            let bit = 1 << self.slots[index];
            config.unseen &= config.done & bit != 0;
            config.done |= bit;
        }
    }

    fn is_done(&self, config: &Config, index: usize) -> bool {
        match self.steps[index].returned {
            Some(_) => config.done >> self.slots[index] & 1 == 1,
            None => config.unknown.contains(&index),
        }
    }

    /// Where it may go from here, by one call that takes effect and is no read, so that in the end the needed one
    /// does. The likeliest last.
    fn next(&self, config: &Config, needed: usize) -> Vec<Config> {
        let open = match config.event.checked_sub(1) {
            Some(before) => Rc::clone(&self.open[before]),
            None => return Vec::new(),
        };
        let mut left: Vec<usize> = open
            .iter()
            .copied()
            .filter(|index| !self.is_done(config, *index))
            .collect();
        let ceiling = self.ceiling[config.event];
        let target = self.target(needed, &left, ceiling);
        // First what comes before the needed one by its revision; then what nobody knows a revision of; last what
        // by its revision comes later than calls that were not even made yet.
        let rank = |index: usize| match self.steps[index].hint {
            u64::MAX => (1, u64::from(!self.makes(index, needed))),
            hint if hint >= ceiling => (3, hint),
            hint if hint <= target => (0, hint),
            hint => (2, hint),
        };
        left.sort_by_key(|index| std::cmp::Reverse((rank(*index), *index)));
        let mut next = Vec::new();
        for index in left {
            if let Some(mut after) = self.after(config, index) {
                for open in open.iter() {
                    self.read(&mut after, *open);
                }
                next.push(after);
            }
        }
        next
    }

    /// The revision at which the needed call is likely to take effect.
    fn target(&self, needed: usize, left: &[usize], ceiling: u64) -> u64 {
        match self.steps[needed].effect {
            Effect::Read(0) => {
                let deletes = |index: &&usize| matches!(self.steps[**index].effect, Effect::Delete);
                let known = left
                    .iter()
                    .filter(deletes)
                    .map(|index| self.steps[*index].hint);
                known.filter(|hint| *hint < ceiling).min().unwrap_or(0)
            }
            _ => self.steps[needed].hint,
        }
    }

    /// Whether the key holds what the needed call reads once this one took effect.
    fn makes(&self, index: usize, needed: usize) -> bool {
        let made = match self.steps[index].effect {
            Effect::Read(_) => return false,
            Effect::Write(new) | Effect::Swap { new, .. } => new,
            Effect::Delete => 0,
        };
        matches!(self.steps[needed].effect, Effect::Read(value) if value == made)
    }

    /// A call that is no read takes effect.
    fn after(&self, config: &Config, index: usize) -> Option<Config> {
        let step = &self.steps[index];
        let unknown = step.returned.is_none();
        let value = match step.effect {
            Effect::Read(_) => return None,
            // An unknown one that nobody saw is not written over.
            Effect::Write(_) if config.unseen => return None,
            Effect::Write(new) => new,
            Effect::Swap { test, .. } if test != config.value => return None,
            Effect::Swap { new, .. } => new,
            Effect::Delete if config.value == 0 || (unknown && config.unseen) => return None,
            Effect::Delete => 0,
        };
        let mut after = config.clone();
        after.value = value;
        after.unseen = unknown;
        match unknown {
            true => Rc::make_mut(&mut after.unknown).push(index),
            false => after.done |= 1 << self.slots[index],
        }
        Some(after)
    }
}

fn linearize(steps: &[Step]) -> Result<(), Stuck> {
    let timeline = Timeline::new(steps)?;
    let mut seen: HashSet<Config> = HashSet::new();
    let mut farthest = (0, 0);
    let mut stack = vec![Config {
        event: 0,
        value: 0,
        done: 0,
        unknown: Rc::default(),
        unseen: false,
    }];
    while let Some(mut config) = stack.pop() {
        let Some(needed) = timeline.advance(&mut config) else {
            return Ok(());
        };
        if config.event >= farthest.0 {
            farthest = (config.event, steps[needed].call);
        }
        if seen.len() > STATES_MAX {
            return Err(Stuck::Lost(farthest.1));
        }
        if !seen.contains(&config) {
            stack.extend(timeline.next(&config, needed));
            seen.insert(config);
        }
    }
    Err(Stuck::At(farthest.1))
}
