//! What clients ask: few keys at a time, all of them contended, and no value twice.

use super::record::{Record, is_counter};
use crate::random::Random;
use kvservice_client::{Op, Reply, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Keys that are written all the while, and never deleted: who deletes may have seen any write of unknown outcome,
/// and a checker would have to follow all of them for ever.
const LONG_KEYS: u64 = 3;
/// Keys that count.
const COUNTERS: u64 = 3;
/// Keys that are used for a short while, and never again: what is known of them is checked key by key.
const SHORT_KEYS: u64 = 8;
const SHORT: Duration = Duration::from_secs(3);
/// Entries on a page.
const PAGE: u32 = 20;

/// What all clients share.
#[derive(Clone, Debug)]
pub struct Common {
    /// Every call.
    pub record: Arc<Record>,
    /// Told to stop.
    pub stop: Arc<AtomicBool>,
    /// A client waits for twice as long at most between two calls.
    pub pause: Duration,
}

impl Common {
    /// Whether clients are to stop.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits for as long as the dice say, so that the machine is not all that is tested.
    pub async fn pause(&self, random: &mut Random) {
        let most = 2 * self.pause.as_micros() as u64;
        tokio::time::sleep(Duration::from_micros(random.below(most.max(1)))).await;
    }
}

/// One client's wishes. Clones draw from the same values.
#[derive(Clone, Debug)]
pub struct Wishes {
    process: u64,
    random: Random,
    values: Arc<AtomicU64>,
}

/// A call, or two of which the second depends on the first.
#[derive(Clone, Debug)]
pub enum Wish {
    /// Ask this.
    One(Op),
    /// Read this key, then write it if it is still so: [`Wishes::after`].
    ReadThenSwap(String),
}

impl Wishes {
    /// Of a client, by its number.
    #[must_use]
    pub fn new(process: u64, seed: u64) -> Wishes {
        Wishes {
            process,
            random: Random::new(seed),
            values: Arc::default(),
        }
    }

    /// The same client's, with other dice.
    #[must_use]
    pub fn lane(&self, seed: u64) -> Wishes {
        Wishes {
            random: Random::new(seed),
            ..self.clone()
        }
    }

    /// The client's number.
    #[must_use]
    pub fn process(&self) -> u64 {
        self.process
    }

    /// The dice.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    fn value(&mut self) -> String {
        let number = self.values.fetch_add(1, Ordering::Relaxed);
        format!("c{}.{number}", self.process)
    }

    /// What to ask now, so long after the start.
    pub fn next(&mut self, elapsed: Duration) -> Wish {
        let short = format!("s{:05}.", elapsed.as_secs() / SHORT.as_secs());
        let of_short = |random: &mut Random| format!("{short}{}", random.below(SHORT_KEYS));
        let key = match self.random.below(3) {
            0 => format!("long.{}", self.random.below(LONG_KEYS)),
            _ => of_short(&mut self.random),
        };
        Wish::One(match self.random.below(100) {
            0..=34 => Op::Get { key },
            35..=59 => Op::Set {
                key,
                value: self.value().into(),
            },
            60..=69 => return Wish::ReadThenSwap(key),
            70..=89 => return Wish::ReadThenSwap(format!("count.{}", self.random.below(COUNTERS))),
            90..=93 => Op::TestSet {
                key: of_short(&mut self.random),
                test: None,
                value: self.value().into(),
            },
            94..=98 => Op::Delete {
                key: of_short(&mut self.random),
            },
            _ => Op::List {
                prefix: match self.random.below(3) {
                    0 => "count.".to_owned(),
                    1 => "long.".to_owned(),
                    _ => short,
                },
                after: String::new(),
                limit: PAGE,
            },
        })
    }

    /// The second call, by what the first one found.
    pub fn after(&mut self, key: String, found: &Reply) -> Option<Op> {
        let Reply::Get { value, .. } = found else {
            return None;
        };
        let mut new = self.value();
        if is_counter(&key) {
            new = format!("{} {new}", count_of(value.as_ref()) + 1);
        }
        Some(Op::TestSet {
            key,
            test: value.clone(),
            value: new.into(),
        })
    }
}

/// What a counter counts to: the digits before the space.
#[must_use]
pub fn count_of(value: Option<&Value>) -> u64 {
    let text = value.map_or("", |value| value.as_str().unwrap_or_default());
    let digits = text.split(' ').next().unwrap_or_default();
    digits.parse().unwrap_or_default()
}
