//! What the kernel says of the machine and of processes.

use anyhow::{Context, Result};
use std::fs;
use std::time::Duration;

/// One tick of the times in `/proc`: `USER_HZ` is 100 on every Linux that there is.
const TICK: Duration = Duration::from_millis(10);

/// The machine's CPU time since it started, in ticks, of all its CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTimes {
    total: u64,
    steal: u64,
}

impl CpuTimes {
    /// Now.
    ///
    /// # Errors
    /// `/proc/stat` is not as Linux writes it.
    pub fn now() -> Result<CpuTimes> {
        let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        CpuTimes::parse(&text).context("/proc/stat has no line of all CPUs")
    }

    fn parse(stat: &str) -> Option<CpuTimes> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line
            .split_ascii_whitespace()
            .map(|word| word.parse().ok())
            .collect::<Option<_>>()?;
        // user, nice, system, idle, iowait, irq, softirq, steal; guests' time, which follows, is in user's and nice's.
        Some(CpuTimes {
            total: ticks.iter().take(8).sum(),
            steal: *ticks.get(7)?,
        })
    }

    /// The share of the time since `before` that the host took away, from 0 to 1.
    pub fn steal_since(self, before: CpuTimes) -> f64 {
        match self.total.saturating_sub(before.total) {
            0 => 0.0,
            total => self.steal.saturating_sub(before.steal) as f64 / total as f64,
        }
    }
}

/// The CPU time, user's and system's, that a process has had; none if it is gone.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    parse_cpu_time(&stat).unwrap_or_default()
}

fn parse_cpu_time(stat: &str) -> Option<Duration> {
    // The second field is the program's name in parentheses, and may hold anything, parentheses and spaces too.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some(TICK * user.checked_add(system)?)
}

/// The memory that a process has resident, in bytes; 0 if it is gone.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    parse_resident(&status).unwrap_or(0)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_number_over_the_first_eight() {
        let before = CpuTimes::parse("cpu  10 0 10 70 0 0 0 10 5 0\ncpu0 1 2 3\n").unwrap();
        let after = CpuTimes::parse("cpu  30 0 20 130 5 0 5 30 9 0\ncpu0 1 2 3\n").unwrap();
        assert_eq!((before.total, before.steal), (100, 10));
        assert_eq!(after.total, 220);
        assert!((after.steal_since(before) - 20.0 / 120.0).abs() < 1e-9);
        assert_eq!(before.steal_since(before), 0.0);
        assert_eq!(CpuTimes::parse("cpu0 1 2 3 4 5 6 7 8"), None);
        assert_eq!(CpuTimes::parse("cpu 1 2 3"), None);
        assert!(CpuTimes::now().unwrap().total > 0);
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 7 8 20 0 1 0 300 1 2";
        assert_eq!(parse_cpu_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(parse_cpu_time("42 (a) S 1"), None);
        assert_eq!(cpu_time(u32::MAX), Duration::ZERO);
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        let status = "Name:\tx\nVmHWM:\t  9 kB\nVmRSS:\t     2048 kB\n";
        assert_eq!(parse_resident(status), Some(2 * 1024 * 1024));
        assert_eq!(parse_resident("Name:\tx\n"), None);
        assert!(resident_bytes(std::process::id()) > 0);
    }
}
