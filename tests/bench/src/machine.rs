//! Where and when it was measured, and what.

use crate::process::on_path;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

/// What every figure needs beside it.
#[derive(Clone, Debug, Serialize)]
pub struct Place {
    /// When the run began, in UTC: `2026-11-22T23:39:13Z`.
    pub date: String,
    /// The processor, its CPUs, the memory, the kernel.
    pub machine: String,
    /// The commit of kvservice, `-dirty` if the checkout had changes.
    pub commit: String,
}

impl Place {
    /// Here and now.
    pub fn here(commit: &str) -> Place {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Place {
            date: said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]).unwrap_or_default(),
            machine: describe(&cpuinfo, &meminfo, &kernel),
            commit: commit.to_owned(),
        }
    }
}

fn describe(cpuinfo: &str, meminfo: &str, kernel: &str) -> String {
    let model = field(cpuinfo, "model name").unwrap_or("an unknown processor");
    let cpus = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory = field(meminfo, "MemTotal").unwrap_or_default();
    let kilobytes: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    let gibibytes = (kilobytes as f64 / f64::from(1 << 20)).round();
    format!(
        "{model}, {cpus} CPUs, {gibibytes} GiB, Linux {}",
        kernel.trim()
    )
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The versions of the rivals that are installed, each with its name.
pub fn rivals() -> BTreeMap<&'static str, String> {
    let redis = said("redis-server", &["--version"]);
    let redis = redis.as_deref().and_then(|text| text.split(" v=").nth(1));
    let redis = redis.and_then(|text| text.split(' ').next());
    let etcd = said("etcd", &["--version"]);
    let etcd = etcd
        .as_deref()
        .and_then(|text| text.strip_prefix("etcd Version: "));
    let etcd = etcd.and_then(|text| text.lines().next());
    [("redis", redis), ("etcd", etcd)]
        .into_iter()
        .filter_map(|(name, version)| Some((name, version?.to_owned())))
        .collect()
}

fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(on_path(program)?)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_told_in_a_line() {
        let cpuinfo = "processor\t: 0\nmodel name\t: X 1\n\nprocessor\t: 1\nmodel name\t: X 1\n";
        let meminfo = "MemTotal:       25165824 kB\nMemFree: 1 kB\n";
        assert_eq!(
            describe(cpuinfo, meminfo, "6.1.0\n"),
            "X 1, 2 CPUs, 24 GiB, Linux 6.1.0"
        );
    }
}
