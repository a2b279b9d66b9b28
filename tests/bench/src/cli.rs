//! This program's command line around the [options](crate::options).

use crate::options::{Run, SystemName};
use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Compare kvservice with Redis, etcd and a bare WebSocket hop on this machine
#[derive(Parser, Clone, Debug)]
#[command(name = "cargo xtask bench", disable_help_subcommand = true)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    /// What else it may be asked to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What is measured.
    #[command(flatten)]
    pub run: Run,
}

/// What else this program does.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Serve as the echo of the bare hop
    #[command(hide = true)]
    Hop {
        /// Where
        #[arg(long)]
        listen: SocketAddr,
    },
}

impl SystemName {
    /// All of them, in the order in which they take turns.
    pub const ALL: [SystemName; 6] = [
        SystemName::Kvservice,
        SystemName::RedisAlways,
        SystemName::Etcd,
        SystemName::KvserviceMemory,
        SystemName::RedisMemory,
        SystemName::Hop,
    ];

    /// As `--system` has it, and the JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            SystemName::Kvservice => "kvservice",
            SystemName::KvserviceMemory => "kvservice-memory",
            SystemName::RedisAlways => "redis-always",
            SystemName::RedisMemory => "redis-memory",
            SystemName::Etcd => "etcd",
            SystemName::Hop => "hop",
        }
    }

    /// Whether it is this project's.
    pub fn is_ours(self) -> bool {
        matches!(self, SystemName::Kvservice | SystemName::KvserviceMemory)
    }
}

impl Options {
    /// What clap alone cannot see.
    ///
    /// # Errors
    /// Flags that contradict each other, or binaries that are not there.
    pub fn check(&self) -> Result<()> {
        let run = &self.run;
        let dir = run.bin_dir();
        for name in ["kvservice-server", "kvservice-backend", "kvservice"] {
            if self.wants_ours() && !dir.join(name).exists() {
                bail!(
                    "{} is not there: run this by `cargo xtask bench`, which builds it",
                    dir.join(name).display()
                );
            }
        }
        Ok(())
    }

    fn wants_ours(&self) -> bool {
        self.run.system.is_empty() || self.run.system.iter().any(|system| system.is_ours())
    }
}

impl Run {
    /// Rounds of each measurement.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    /// Seconds of each turn.
    pub fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 0.8 } else { 2.0 })
    }

    /// Seconds for disturbed turns, in all.
    pub fn patience(&self) -> f64 {
        self.patience
            .unwrap_or(if self.quick { 10.0 } else { 300.0 })
    }

    /// Where our binaries are.
    pub fn bin_dir(&self) -> PathBuf {
        self.bin_dir.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let parsed = |words: &str| Options::try_parse_from(words.split(' '));
        assert!(parsed("bench --quick --only latency --only ycsb --seconds 0.5").is_ok());
        assert!(parsed("bench --quick --full").is_err());
        assert!(parsed("bench --full --only ycsb").is_err());
        assert!(parsed("bench --seconds 0").is_err());
        assert!(parsed("bench --only nonsense").is_err());
    }
}
