//! What is asked of a system: which operations, on which keys, with which values.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution as _, Zipf};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The exponent of the skewed choice of keys, YCSB's.
const ZIPF_EXPONENT: f64 = 0.99;

/// One request to a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read a key.
    Get,
    /// Write a key.
    Set,
    /// Write a key if it holds what it was filled with.
    TestSet,
    /// Write so many keys from this one on, at once where the system can.
    Fill(u16),
}

impl Op {
    /// Whether its answer promises durability.
    pub fn is_write(self) -> bool {
        self != Op::Get
    }
}

/// One request with its key's number, and what to do once it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What.
    pub op: Op,
    /// On which key.
    pub key: u64,
    /// The operation is done when the same key has been written after this.
    pub then_set: bool,
}

/// A mix of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Writes.
    Set,
    /// Reads.
    Get,
    /// Conditional writes whose condition holds.
    Testset,
    /// Half reads, half writes.
    YcsbA,
    /// 95 % reads, 5 % writes.
    YcsbB,
    /// Reads.
    YcsbC,
    /// 95 % reads of what was inserted lately, 5 % inserts.
    YcsbD,
    /// Half reads, half a read and then a write of the same key.
    YcsbF,
}

impl Workload {
    /// For people, and the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Workload::Set => "set",
            Workload::Get => "get",
            Workload::Testset => "testset",
            Workload::YcsbA => "ycsb-a",
            Workload::YcsbB => "ycsb-b",
            Workload::YcsbC => "ycsb-c",
            Workload::YcsbD => "ycsb-d",
            Workload::YcsbF => "ycsb-f",
        }
    }

    /// Whether it writes nothing.
    pub fn only_reads(self) -> bool {
        matches!(self, Workload::Get | Workload::YcsbC)
    }
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distribution {
    /// Each as often as any other.
    Uniform,
    /// By Zipf's law with the exponent 0.99, the frequent ones spread over all keys.
    Zipf,
    /// By Zipf's law, the latest inserted most often.
    Latest,
}

impl Distribution {
    /// For people, and the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Distribution::Uniform => "uniform",
            Distribution::Zipf => "zipf",
            Distribution::Latest => "latest",
        }
    }
}

/// How many keys a system holds; more as they are inserted. All connections count together.
pub type KeyCount = Arc<AtomicU64>;

/// Decides what comes next on one connection.
#[derive(Debug)]
pub struct Generator {
    workload: Workload,
    chooser: Chooser,
    random: SmallRng,
    count: KeyCount,
}

impl Generator {
    /// On `keys` keys of the system that has `count` of them.
    pub fn new(
        workload: Workload,
        distribution: Distribution,
        keys: u64,
        count: KeyCount,
        seed: u64,
    ) -> Generator {
        Generator {
            workload,
            chooser: Chooser::new(distribution, keys),
            random: SmallRng::seed_from_u64(seed),
            count,
        }
    }

    /// What comes next.
    pub fn next(&mut self) -> Planned {
        let (op, then_set) = match self.workload {
            Workload::Set => (Op::Set, false),
            Workload::Get | Workload::YcsbC => (Op::Get, false),
            Workload::Testset => (Op::TestSet, false),
            Workload::YcsbA => (self.set_in(0.5), false),
            Workload::YcsbB | Workload::YcsbD => (self.set_in(0.05), false),
            Workload::YcsbF => (Op::Get, self.random.random_bool(0.5)),
        };
        let key = if self.workload == Workload::YcsbD && op == Op::Set {
            self.count.fetch_add(1, Ordering::Relaxed)
        } else {
            let inserted = self.count.load(Ordering::Relaxed);
            self.chooser.choose(inserted, &mut self.random)
        };
        Planned { op, key, then_set }
    }

    fn set_in(&mut self, share: f64) -> Op {
        if self.random.random_bool(share) {
            Op::Set
        } else {
            Op::Get
        }
    }
}

/// Chooses keys.
#[derive(Debug)]
struct Chooser {
    distribution: Distribution,
    keys: u64,
    zipf: Zipf<f64>,
}

impl Chooser {
    fn new(distribution: Distribution, keys: u64) -> Chooser {
        let zipf = Zipf::new(keys as f64, ZIPF_EXPONENT);
        Chooser {
            distribution,
            keys,
            zipf: zipf.expect("there is a key, and the exponent is positive"),
        }
    }

    fn choose(&self, inserted: u64, random: &mut SmallRng) -> u64 {
        match self.distribution {
            Distribution::Uniform => random.random_range(0..self.keys),
            Distribution::Zipf => scatter(self.rank(random), self.keys),
            Distribution::Latest => inserted.saturating_sub(1 + self.rank(random)),
        }
    }

    /// From 0, the most frequent, up.
    fn rank(&self, random: &mut SmallRng) -> u64 {
        let rank = self.zipf.sample(random) as u64;
        rank.clamp(1, self.keys) - 1
    }
}

/// Another number below `keys` for each number below `keys`, so that what is chosen often is not side by side.
fn scatter(rank: u64, keys: u64) -> u64 {
    /// A prime above every number of keys that can be asked for, so it divides none of them.
    const PRIME: u64 = 2_654_435_761;
    (u128::from(rank) * u128::from(PRIME) % u128::from(keys)) as u64
}

/// `key:000000001234`, as redis-benchmark has it.
pub const KEY_BYTES: usize = 16;

/// Appends a key's name.
pub fn push_key(out: &mut Vec<u8>, mut key: u64) {
    let mut name = *b"key:000000000000";
    for digit in name[4..].iter_mut().rev() {
        *digit = b'0' + (key % 10) as u8;
        key /= 10;
    }
    out.extend_from_slice(&name);
}

/// The value of every key: letters, so that no protocol has anything to escape.
pub fn value(bytes: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn generator(workload: Workload, distribution: Distribution, keys: u64) -> Generator {
        let count = Arc::new(AtomicU64::new(keys));
        Generator::new(workload, distribution, keys, count, 7)
    }

    fn counts(distribution: Distribution, keys: u64, draws: u64) -> Vec<u64> {
        let mut generator = generator(Workload::Get, distribution, keys);
        let mut counts = vec![0; keys as usize];
        for _ in 0..draws {
            counts[generator.next().key as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_keys_are_all_alike() {
        let counts = counts(Distribution::Uniform, 100, 100_000);
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn zipf_keys_follow_the_law() {
        let (keys, draws) = (1000, 200_000);
        let mut counts = counts(Distribution::Zipf, keys, draws);
        assert!(counts[0] > counts[1] * 5, "the most frequent are spread");
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let norm: f64 = (1..=keys)
            .map(|rank| (rank as f64).powf(-ZIPF_EXPONENT))
            .sum();
        for rank in [1, 2, 10, 100] {
            let expected = draws as f64 * (rank as f64).powf(-ZIPF_EXPONENT) / norm;
            let found = counts[rank - 1] as f64;
            assert!(
                (found / expected - 1.0).abs() < 0.15,
                "rank {rank}: {found}, not {expected}"
            );
        }
    }

    #[test]
    fn the_latest_keys_are_the_most_frequent() {
        let counts = counts(Distribution::Latest, 1000, 10_000);
        assert!(counts[999] > 10 * counts[0].max(1) && counts[999] > counts[990]);
    }

    #[test]
    fn scattering_loses_no_key() {
        for keys in [1, 2, 10, 4096, 100_000] {
            let seen: HashSet<u64> = (0..keys).map(|rank| scatter(rank, keys)).collect();
            assert_eq!(seen.len() as u64, keys);
        }
    }

    #[test]
    fn mixes_are_as_ycsb_has_them() {
        let share = |workload, of: fn(&Planned) -> bool| {
            let mut generator = generator(workload, Distribution::Zipf, 1000);
            (0..20_000).filter(|_| of(&generator.next())).count() as f64 / 20_000.0
        };
        let sets: fn(&Planned) -> bool = |planned| planned.op == Op::Set;
        assert!((share(Workload::YcsbA, sets) - 0.5).abs() < 0.02);
        assert!((share(Workload::YcsbB, sets) - 0.05).abs() < 0.01);
        assert_eq!(share(Workload::YcsbC, sets), 0.0);
        assert!((share(Workload::YcsbF, |planned| planned.then_set) - 0.5).abs() < 0.02);
    }

    #[test]
    fn inserts_are_of_new_keys() {
        let mut generator = generator(Workload::YcsbD, Distribution::Latest, 10);
        let inserted: Vec<u64> = (0..1000)
            .map(|_| generator.next())
            .filter(|planned| planned.op == Op::Set)
            .map(|planned| planned.key)
            .collect();
        assert!(inserted.iter().copied().eq((10..).take(inserted.len())) && inserted.len() > 10);
    }

    #[test]
    fn keys_have_names_of_one_length() {
        let mut out = Vec::new();
        push_key(&mut out, 1234);
        assert_eq!(out, b"key:000000001234");
        assert_eq!(out.len(), KEY_BYTES);
    }
}
