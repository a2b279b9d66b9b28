//! What a run came to, once everything healed.

use super::Run;
use super::client::{COUNTER, counted};
use kvservice_backend::storage::Record;
use kvservice_history::{Answer, Call, Op, check};
use kvservice_shared::ids::Seq;
use std::collections::HashMap;

impl Run {
    /// The history is linearizable, down to the last read of each key; each write is in the log as often as its
    /// client was told; the counter counts each success once.
    pub(super) fn verdict(&mut self) -> Result<(), String> {
        self.last_reads();
        let calls = &self.history.calls;
        let checked = check(calls).map_err(|refused| refused.to_string())?;
        self.done.unknown = checked.unknown as u64;
        self.check_writes()?;
        self.check_own_writes()?;
        self.check_counter()
    }

    /// What everybody holds in the end, as if a last client had read it.
    fn last_reads(&mut self) {
        let oracle = &self.cluster.oracle;
        let now = self.history.calls.len() as u64 * 2 + 10;
        let reads: Vec<Call> = oracle
            .keys()
            .map(|key| {
                let node = self
                    .cluster
                    .slots
                    .iter()
                    .find_map(|slot| slot.node.as_ref());
                let held = node.and_then(|node| node.replica.held(key));
                let (value, revision) = match held {
                    Some(Record { value, revision }) => (
                        Some(String::from_utf8_lossy(&value).into_owned()),
                        revision.0,
                    ),
                    None => (None, 0),
                };
                Call {
                    process: 0,
                    op: Op::Get { key: key.clone() },
                    invoked: now,
                    returned: Some(now + 1),
                    answer: Answer::Value { value, revision },
                }
            })
            .collect();
        self.history.calls.extend(reads);
    }

    /// Exactly once: what was acknowledged is in the log, once and as the revision that was told; what was called
    /// not applied is not.
    fn check_writes(&self) -> Result<(), String> {
        let oracle = &self.cluster.oracle;
        let mut committed: HashMap<(&str, &[u8]), (Seq, u32)> = HashMap::new();
        for (key, revision, value) in oracle.writes() {
            let places = committed.entry((key, value)).or_insert((revision, 0));
            places.1 += 1;
        }
        for call in &self.history.calls {
            let (Op::Set { key, value } | Op::TestSet { key, value, .. }) = &call.op else {
                continue;
            };
            let found = committed.get(&(key.as_str(), value.as_bytes()));
            let right = match (&call.answer, found) {
                (_, Some((_, times))) if *times > 1 => false,
                (Answer::Set { revision } | Answer::Swapped { revision }, found) => {
                    found.is_some_and(|(seq, _)| seq.0 == *revision)
                }
                (Answer::NotApplied | Answer::NotSwapped { .. }, found) => found.is_none(),
                _ => true,
            };
            if !right {
                return Err(format!("exactly once: the log has {found:?} of {call}"));
            }
        }
        Ok(())
    }

    /// On one connection a read sees what was written before it.
    fn check_own_writes(&self) -> Result<(), String> {
        let mut written: HashMap<(u64, u64, &str), u64> = HashMap::new();
        for (call, connections) in self.history.calls.iter().zip(&self.history.connections) {
            let (first, Some(last)) = *connections else {
                continue;
            };
            if first != last {
                continue;
            }
            let (Op::Set { key, .. } | Op::TestSet { key, .. } | Op::Get { key }) = &call.op else {
                let Answer::Page { entries, .. } = &call.answer else {
                    continue;
                };
                let of = |key| written.get(&(call.process, first, key)).copied();
                let stale = entries
                    .iter()
                    .find(|e| of(e.key.as_str()) > Some(e.revision));
                match stale {
                    Some(entry) => {
                        return Err(format!("its own write of {:?} is not in {call}", entry.key));
                    }
                    None => continue,
                }
            };
            let own = written.entry((call.process, first, key)).or_default();
            match call.answer {
                Answer::Set { revision } | Answer::Swapped { revision } => {
                    *own = revision.max(*own)
                }
                Answer::Value {
                    value: Some(_),
                    revision,
                } if revision < *own => {
                    return Err(format!("its own write, {own}, is not in {call}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_counter(&self) -> Result<(), String> {
        let counts = self
            .cluster
            .oracle
            .writes()
            .filter(|(key, ..)| *key == COUNTER);
        for ((_, revision, value), count) in counts.zip(1..) {
            let value = String::from_utf8_lossy(value);
            if counted(&value) != count {
                return Err(format!(
                    "the counter goes to {value:?}, not to {count}, at {revision}"
                ));
            }
        }
        Ok(())
    }
}
