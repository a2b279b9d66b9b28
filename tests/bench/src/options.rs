//! What is measured, and where it is written: the command line.
//!
//! `cargo xtask` compiles this file too, so that it tells of the options, and of wrong ones, before anything is built. It
//! needs nothing but clap.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What is measured, and where it is written.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
It starts each system itself, on free ports of loopback and in a directory of its own that is removed at the end:
  kvservice         a front-end and N back-ends on disk; a write is synced on all of them before it is answered
  kvservice-memory  the same with --memory
  redis-always      a master and N-1 replicas, appendfsync always, WAIT N-1 after the writes of each pipeline
  redis-memory      the same without persistence
  etcd              N members, puts and linearizable gets
  hop               a WebSocket echo server: what one hop can do at best
redis-server and etcd are taken from PATH (Debian: redis-server, etcd-server); whichever is missing is left out, with a word.

One axis at a time varies from one base point: 50 connections, 16 requests in flight on each, 64-byte values, 100,000 keys,
uniformly chosen, three nodes. Systems take turns; a table says the medians of the rounds, and how ours compares in
each round. A turn in which the machine's host took more than --steal-max of the CPU is taken again, and a quiet machine
is waited for, until --patience ends; from then on such rounds are marked. Nothing else should run meanwhile. A system
that breaks under load is left out of that measurement, and started anew for the next.

Sections for --only: throughput, distribution, ycsb, values, nodes, latency, failover.
docs/benchmarks.md says what each figure means, and describes the JSON.")]
pub struct Run {
    /// A glance at everything, in less than three minutes
    #[arg(long, conflicts_with = "full")]
    pub quick: bool,
    /// The whole cross of workloads, requests in flight, value sizes, distributions and nodes, which takes hours
    #[arg(long, conflicts_with = "only")]
    pub full: bool,
    /// Measure this section alone; may be given again
    #[arg(long, value_name = "SECTION", value_enum)]
    pub only: Vec<Section>,
    /// Measure this system alone; may be given again
    #[arg(long, value_name = "SYSTEM", value_enum)]
    pub system: Vec<SystemName>,
    /// Rounds, in each of which every system has a turn [default: 3; with --quick 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: Option<u32>,
    /// Seconds of each turn [default: 2; with --quick 0.8]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub seconds: Option<f64>,
    /// Connections
    #[arg(short, long, value_name = "C", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: u32,
    /// Keys that there are; fewer where they would take more than 256 MiB
    #[arg(short = 'r', long, value_name = "R", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub keys: u64,
    /// Threads of the load generator
    #[arg(long, value_name = "T", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// A turn in which the host took more than this share of the CPU, in percent, is disturbed
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0, value_parser = percent)]
    pub steal_max: f64,
    /// Seconds for waiting until the host is quiet and for repeating disturbed turns, in all [default: 300; with
    /// --quick 10]
    #[arg(long, value_name = "S", value_parser = patience)]
    pub patience: Option<f64>,
    /// Write every figure to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the tables to this file as Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Draw the section `throughput` into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Where kvservice-server, kvservice-backend and kvservice are
    #[arg(long, value_name = "DIR", env = "KVSERVICE_BIN_DIR", hide = true)]
    pub bin_dir: Option<PathBuf>,
    /// Where data and logs go; a directory is made in it, and removed at the end [default: target/bench]
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// The commit that the binaries were built from, for the report
    #[arg(long, value_name = "HASH", default_value = "unknown", hide = true)]
    pub commit: String,
}

/// A system under load.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SystemName {
    /// Ours on disk, synced on all nodes
    Kvservice,
    /// Ours in memory
    KvserviceMemory,
    /// Redis with appendfsync always and WAIT
    RedisAlways,
    /// Redis without persistence, with WAIT
    RedisMemory,
    /// etcd
    Etcd,
    /// A bare WebSocket echo, for get alone
    Hop,
}

/// A part of the plan.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// set, get and testset with 1, 16 and 64 requests in flight
    Throughput,
    /// set and get on keys chosen by Zipf's law
    Distribution,
    /// YCSB's mixes A, B, C, D and F
    Ycsb,
    /// Values of 16 B, 1 KiB and 64 KiB
    Values,
    /// 1, 5 and 7 nodes
    Nodes,
    /// Open loop at half of each system's peak
    Latency,
    /// The longest gap when a process is killed, or hangs
    Failover,
    /// All axes at once, for --full
    #[value(skip)]
    Cross,
}

fn seconds(text: &str) -> Result<f64, String> {
    between(text, 0.1, 3600.0)
}

fn patience(text: &str) -> Result<f64, String> {
    between(text, 0.0, 86_400.0)
}

fn percent(text: &str) -> Result<f64, String> {
    between(text, 0.0, 100.0)
}

fn between(text: &str, min: f64, max: f64) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "a number, please".to_owned())?;
    if (min..=max).contains(&number) {
        Ok(number)
    } else {
        Err(format!("between {min} and {max}, please"))
    }
}
