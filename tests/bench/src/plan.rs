//! What is measured: one axis at a time from one base point, or all axes at once.

use crate::options::{Run, Section, SystemName};
use crate::work::{Distribution, Workload};

/// Requests in flight on each connection at the base point.
const PIPELINE: usize = 16;
/// Bytes of a value at the base point.
const VALUE_BYTES: usize = 64;
/// Copies of the data at the base point.
pub const NODES: u16 = 3;
/// Requests in flight.
pub const PIPELINES: [usize; 3] = [1, 16, 64];
/// All keys with their values take no more than this, in bytes: there are fewer where values are large.
const DATA_BYTES_MAX: u64 = 256 * 1024 * 1024;

impl Section {
    /// For people, and the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Section::Throughput => "throughput",
            Section::Distribution => "distribution",
            Section::Ycsb => "ycsb",
            Section::Values => "values",
            Section::Nodes => "nodes",
            Section::Latency => "latency",
            Section::Failover => "failover",
            Section::Cross => "cross",
        }
    }

    /// A heading.
    pub fn title(self) -> &'static str {
        match self {
            Section::Throughput => "Operations a second, by requests in flight",
            Section::Distribution => "Keys chosen by Zipf's law",
            Section::Ycsb => "YCSB",
            Section::Values => "Sizes of values",
            Section::Nodes => "Numbers of nodes",
            Section::Latency => "Latency at half of the peak (open loop)",
            Section::Failover => "The longest gap between acknowledgements around a failure",
            Section::Cross => "All axes",
        }
    }
}

/// One measurement on several systems.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Where it belongs.
    pub section: Section,
    /// What is asked.
    pub workload: Workload,
    /// On which keys.
    pub distribution: Distribution,
    /// Requests in flight on each connection; at a rate, those at which the peak was measured.
    pub pipeline: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Keys.
    pub keys: u64,
    /// Copies of the data.
    pub nodes: u16,
    /// At half of the peak, instead of as fast as it goes.
    pub at_half: bool,
    /// On which systems, in the order of their turns.
    pub systems: Vec<SystemName>,
}

impl Cell {
    fn base(section: Section, workload: Workload, run: &Run) -> Cell {
        let cell = Cell {
            section,
            workload,
            distribution: Distribution::Uniform,
            pipeline: PIPELINE,
            value_bytes: VALUE_BYTES,
            keys: run.keys,
            nodes: NODES,
            at_half: false,
            systems: systems_of(workload),
        };
        cell.value(VALUE_BYTES, run)
    }

    fn value(mut self, bytes: usize, run: &Run) -> Cell {
        self.value_bytes = bytes;
        // Of larger values fewer; what is asked for at the base point is what is measured there.
        let most = match bytes > VALUE_BYTES {
            true => DATA_BYTES_MAX / (bytes as u64 + 16),
            false => u64::MAX,
        };
        self.keys = run.keys.min(most);
        self
    }

    fn pipeline(mut self, pipeline: usize) -> Cell {
        self.pipeline = pipeline;
        self
    }

    fn nodes(mut self, nodes: u16) -> Cell {
        self.nodes = nodes;
        self
    }

    fn distribution(mut self, distribution: Distribution) -> Cell {
        self.distribution = distribution;
        self
    }
}

/// Reads promise the same on disk and in memory, so each is measured on one of the two; and the hop has nothing to
/// write.
fn systems_of(workload: Workload) -> Vec<SystemName> {
    SystemName::ALL
        .into_iter()
        .filter(|system| match system {
            SystemName::KvserviceMemory | SystemName::RedisAlways => !workload.only_reads(),
            SystemName::Hop => workload == Workload::Get,
            SystemName::Kvservice | SystemName::RedisMemory | SystemName::Etcd => true,
        })
        .collect()
}

/// With which of ours a rival is compared, of those that are measured beside it: the one that promises the same.
pub fn ours_for(rival: SystemName, measured: &[SystemName]) -> Option<SystemName> {
    let preferred = match rival {
        _ if rival.is_ours() => return None,
        SystemName::RedisMemory => [SystemName::KvserviceMemory, SystemName::Kvservice],
        _ => [SystemName::Kvservice, SystemName::KvserviceMemory],
    };
    preferred.into_iter().find(|ours| measured.contains(ours))
}

/// All that is measured by load, in its order: what needs the same systems follows each other.
pub fn cells(run: &Run) -> Vec<Cell> {
    let mut cells = match run.full {
        true => cross(run),
        false => axes(run),
    };
    for cell in &mut cells {
        cell.systems
            .retain(|system| run.system.is_empty() || run.system.contains(system));
    }
    cells.retain(|cell| {
        !cell.systems.is_empty() && (run.only.is_empty() || run.only.contains(&cell.section))
    });
    cells
}

/// Whether failures are measured.
pub fn wants_failover(run: &Run) -> bool {
    run.only.is_empty() || run.only.contains(&Section::Failover)
}

fn axes(run: &Run) -> Vec<Cell> {
    use Workload::{Get, Set, Testset, YcsbA, YcsbB, YcsbC, YcsbD, YcsbF};
    let quick = run.quick;
    let base = |section, workload| Cell::base(section, workload, run);
    let mut cells = Vec::new();
    for workload in [Set, Get, Testset] {
        for pipeline in PIPELINES {
            if !quick || workload != Testset || pipeline == PIPELINE {
                cells.push(base(Section::Throughput, workload).pipeline(pipeline));
            }
        }
    }
    for workload in [Set, Get] {
        for pipeline in PIPELINES {
            if !quick || pipeline == PIPELINE {
                let cell = base(Section::Latency, workload).pipeline(pipeline);
                cells.push(Cell {
                    at_half: true,
                    ..cell
                });
            }
        }
    }
    for workload in [Set, Get] {
        cells.push(base(Section::Distribution, workload).distribution(Distribution::Zipf));
    }
    let mixes: &[Workload] = match quick {
        true => &[YcsbA],
        false => &[YcsbA, YcsbB, YcsbC, YcsbD, YcsbF],
    };
    for &workload in mixes {
        let distribution = match workload {
            YcsbD => Distribution::Latest,
            _ => Distribution::Zipf,
        };
        cells.push(base(Section::Ycsb, workload).distribution(distribution));
    }
    let sizes: &[usize] = match quick {
        true => &[1024],
        false => &[16, 1024, 64 * 1024],
    };
    for &bytes in sizes {
        for workload in [Set, Get] {
            cells.push(base(Section::Values, workload).value(bytes, run));
        }
    }
    let numbers: &[u16] = match quick {
        true => &[5],
        false => &[1, 5, 7],
    };
    for &nodes in numbers {
        for workload in [Set, Get] {
            let mut cell = base(Section::Nodes, workload).nodes(nodes);
            // A hop has no nodes.
            cell.systems.retain(|&system| system != SystemName::Hop);
            cells.push(cell);
        }
    }
    cells
}

fn cross(run: &Run) -> Vec<Cell> {
    use Workload::{Get, Set, Testset, YcsbA, YcsbB, YcsbC, YcsbD, YcsbF};
    let mut cells = Vec::new();
    for nodes in [3, 1, 5, 7] {
        for bytes in [64, 16, 1024, 64 * 1024] {
            for workload in [Set, Get, Testset, YcsbA, YcsbB, YcsbC, YcsbF, YcsbD] {
                let distributions: &[Distribution] = match workload {
                    YcsbD => &[Distribution::Latest],
                    _ => &[Distribution::Uniform, Distribution::Zipf],
                };
                for &distribution in distributions {
                    for pipeline in PIPELINES {
                        let cell = Cell::base(Section::Cross, workload, run);
                        let cell = cell.value(bytes, run).nodes(nodes);
                        cells.push(cell.pipeline(pipeline).distribution(distribution));
                    }
                }
            }
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Options;
    use clap::Parser;

    fn run(words: &str) -> Run {
        Options::parse_from(words.split(' ')).run
    }

    #[test]
    fn the_default_run_fits_into_half_an_hour_and_the_quick_one_into_three_minutes() {
        for (words, most) in [("bench", 20.0 * 60.0), ("bench --quick", 110.0)] {
            let run = run(words);
            let turns: usize = cells(&run).iter().map(|cell| cell.systems.len()).sum();
            let seconds = turns as f64 * f64::from(run.rounds()) * (run.seconds() + 0.5);
            assert!(seconds < most, "{words}: {seconds} s");
        }
    }

    #[test]
    fn each_axis_starts_at_the_base_point() {
        let cells = cells(&run("bench"));
        for cell in cells
            .iter()
            .filter(|cell| cell.section != Section::Throughput)
        {
            let varied = [
                cell.pipeline != PIPELINE,
                cell.value_bytes != VALUE_BYTES,
                cell.nodes != NODES,
                cell.distribution != Distribution::Uniform,
            ];
            assert!(
                varied.into_iter().filter(|varied| *varied).count() <= 1,
                "{cell:?}"
            );
        }
        let large = cells
            .iter()
            .find(|cell| cell.value_bytes == 65_536)
            .unwrap();
        assert!(large.keys < 5000, "{large:?}");
    }

    #[test]
    fn sections_and_systems_are_chosen() {
        let chosen = cells(&run("bench --only ycsb --system kvservice --system hop"));
        assert_eq!(chosen.len(), 5);
        assert!(
            chosen
                .iter()
                .all(|cell| cell.systems == [SystemName::Kvservice])
        );
        assert_eq!(cells(&run("bench --full")).len(), 4 * 4 * (7 * 2 + 1) * 3);
        assert!(wants_failover(&run("bench")) && !wants_failover(&run("bench --only ycsb")));
    }

    #[test]
    fn like_is_compared_with_like() {
        use SystemName::{Etcd, Kvservice, KvserviceMemory, RedisAlways, RedisMemory};
        let both = [Kvservice, KvserviceMemory];
        assert_eq!(ours_for(RedisAlways, &both), Some(Kvservice));
        assert_eq!(ours_for(RedisMemory, &both), Some(KvserviceMemory));
        assert_eq!(ours_for(RedisMemory, &[Kvservice, Etcd]), Some(Kvservice));
        assert_eq!(ours_for(Kvservice, &both), None);
        assert_eq!(ours_for(Etcd, &[Etcd]), None);
    }
}
