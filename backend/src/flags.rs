//! What both servers' command lines have in common: durations, addresses, logging, and failing to bind.

use crate::net::TcpListener;
use crate::start::Storage;
use crate::storage::disk::{Fsync, Options};
use clap::{Args, ValueEnum};
use kvservice_shared::limits;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tracing::level_filters::LevelFilter;

/// Logging: `tracing` on standard error.
#[derive(Args, Clone, Debug)]
pub struct LogFlags {
    /// Least serious messages to log: error, warn, info, debug, trace or off
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        global = true,
        env = "KVSERVICE_LOG"
    )]
    pub log: LevelFilter,
    /// How each message is written
    #[arg(long, value_name = "FORMAT", default_value = "text", global = true)]
    pub log_format: LogFormat,
}

/// Where data are kept, and how.
#[derive(Args, Clone, Debug)]
pub struct StorageFlags {
    /// Where data are kept; made if it is not there [default: ./kvservice-data/ROLE-PORT]
    #[arg(long, value_name = "DIR", conflicts_with = "memory")]
    pub data_dir: Option<PathBuf>,
    /// Keep data in memory only: they are gone with this process
    #[arg(long)]
    pub memory: bool,
    /// When data are made durable: `always` before anything is acknowledged, or `interval=DURATION`: then a power
    /// cut loses up to that much of what was acknowledged (a crash of the process loses nothing)
    #[arg(long, value_name = "WHEN", default_value = "always", value_parser = parse_fsync)]
    pub fsync: Fsync,
    /// Stop when a call to the disk takes longer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub disk_timeout: Duration,
    /// Stop taking part while the disk has less room than this, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256 * 1024 * 1024)]
    pub disk_reserve: u64,
}

impl StorageFlags {
    /// As a node takes it. `role` and `port` name the directory where none was given.
    #[must_use]
    pub fn storage(&self, role: &str, port: u16) -> Storage {
        if self.memory {
            return Storage::Memory;
        }
        Storage::Disk {
            dir: self
                .data_dir
                .clone()
                .unwrap_or_else(|| data_dir(role, port)),
            options: Options {
                fsync: self.fsync,
                disk_timeout: self.disk_timeout,
                ..Options::default()
            },
            reserve_bytes: self.disk_reserve,
        }
    }
}

/// Where data are kept unless told otherwise.
#[must_use]
pub fn data_dir(role: &str, port: u16) -> PathBuf {
    PathBuf::from(format!("kvservice-data/{role}-{port}"))
}

/// `always` or `interval=DURATION`.
///
/// # Errors
/// What is wrong, with an example of what is right.
pub fn parse_fsync(text: &str) -> Result<Fsync, String> {
    match text.split_once('=') {
        None if text == "always" => Ok(Fsync::Always),
        Some(("interval", duration)) => Ok(Fsync::Interval(parse_duration(duration)?)),
        _ => Err("write always, or interval=100ms".to_owned()),
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFlags {
    /// Starts logging; later calls in the same process change nothing.
    pub fn start(&self) {
        use std::io::IsTerminal;
        let builder = tracing_subscriber::fmt()
            .with_max_level(self.log)
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal());
        // An error means that a subscriber is there already, which is what was asked for.
        let _ = match self.log_format {
            LogFormat::Text => builder.try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        };
    }
}

/// A duration on a command line: a number and its unit, `500ms`, `1.5s`, `2m`; more than zero, at most a day.
///
/// # Errors
/// What is wrong, with an example of what is right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXAMPLE: &str = "write a number and its unit, such as 500ms, 1s or 2m";
    let split = text
        .find(|c: char| c != '.' && !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" => return Err(format!("the unit is missing: {EXAMPLE}")),
        _ => return Err(format!("\"{unit}\" is no unit: {EXAMPLE}")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| format!("no number: {EXAMPLE}"))?;
    let duration = Duration::try_from_secs_f64(number * seconds).map_err(|e| e.to_string())?;
    if duration < Duration::from_millis(1) || duration > Duration::from_secs(24 * 3600) {
        return Err("between 1ms and 24h, please".to_string());
    }
    Ok(duration)
}

/// A `HOST:PORT` on a command line: a name or an address (IPv6 in brackets) and a port.
///
/// # Errors
/// What is wrong, with an example of what is right.
pub fn parse_host_port(text: &str) -> Result<String, String> {
    let wrong = || format!("\"{text}\" is no HOST:PORT, such as 127.0.0.1:7400 or [::1]:7400");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) || port.parse::<u16>().is_err() {
        return Err(wrong());
    }
    if text.len() > limits::ADDRESS_BYTES_MAX {
        return Err(format!("longer than {} bytes", limits::ADDRESS_BYTES_MAX));
    }
    Ok(text.to_string())
}

/// Listens on `HOST:PORT`, as given with `flag`. Port 0 takes any that is free.
///
/// # Errors
/// For people: which address, why not, and what to do about it.
pub async fn bind(flag: &str, address: &str) -> Result<(TcpListener, SocketAddr), String> {
    let listen = async {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        Ok((listener, local))
    };
    listen.await.map_err(|error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                let port = address.rsplit_once(':').map_or("", |(_, port)| port);
                format!(
                    "something else listens on port {port} already (`ss -ltnp 'sport = :{port}'` shows \
                     what): stop it, or choose another port with {flag}"
                )
            }
            io::ErrorKind::AddrNotAvailable => format!(
                "this machine has no such address: choose one of its own with {flag}, or 0.0.0.0 for all"
            ),
            io::ErrorKind::PermissionDenied => {
                format!("ports under 1024 need privileges: choose a higher one with {flag}")
            }
            _ => format!("{error}: check {flag}"),
        };
        format!("cannot listen on {address}: {advice}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1s"), Ok(Duration::from_secs(1)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in [
            "",
            "5",
            "s",
            "-1s",
            "1 s",
            "0s",
            "1.2.3s",
            "5fortnights",
            "99999h",
            "NaNs",
            "1e9s",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?} is no duration");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for right in [
            "127.0.0.1:7400",
            "localhost:0",
            "[::1]:65535",
            "kv.example.com:80",
        ] {
            assert_eq!(parse_host_port(right), Ok(right.to_string()));
        }
        for wrong in [
            "",
            ":7400",
            "7400",
            "localhost",
            "localhost:",
            "localhost:65536",
            "::1:7400",
            "h:-1",
        ] {
            assert!(parse_host_port(wrong).is_err(), "{wrong:?} is no address");
        }
        assert!(parse_host_port(&format!("{}:1", "h".repeat(300))).is_err());
    }

    #[test]
    fn fsync_is_always_or_at_an_interval() {
        assert_eq!(parse_fsync("always"), Ok(Fsync::Always));
        let interval = Fsync::Interval(Duration::from_millis(100));
        assert_eq!(parse_fsync("interval=100ms"), Ok(interval));
        for wrong in [
            "",
            "never",
            "interval",
            "interval=",
            "interval=5",
            "always=1s",
        ] {
            assert!(parse_fsync(wrong).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let (_held, local) = bind("--listen", "127.0.0.1:0").await.unwrap();
        let error = bind("--listen", &local.to_string()).await.unwrap_err();
        assert!(error.contains(&local.to_string()), "{error}");
        assert!(error.contains("--listen"), "{error}");
    }
}
