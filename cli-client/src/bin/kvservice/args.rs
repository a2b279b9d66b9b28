//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use kvservice_client::{AddressError, ServerAddress};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Where `--help` lists the options of every command.
const GLOBAL: &str = "Options of every command";

#[derive(Parser, Debug)]
#[command(
    name = "kvservice",
    version,
    about = "The terminal client of kvservice, a replicated key-value store",
    long_about = "The terminal client of kvservice, a replicated key-value store.\n\n\
        Without a command it opens a prompt; from a pipe it reads the prompt's\n\
        commands, a line each.",
    after_help = "Exit status: 0 success; 1 the key is not there, the test failed, or a dump\n\
        is incomplete; 2 an error."
)]
pub struct Cli {
    /// Where the server is: ws://HOST:PORT[/PATH], or HOST:PORT
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        env = "KVSERVICE_SERVER",
        default_value = "127.0.0.1:7400",
        value_name = "ADDRESS",
        value_parser = server
    )]
    pub server: ServerAddress,
    /// How long a request may take, over all attempts: 5s, 500ms, 1m
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        default_value = "5s",
        value_name = "TIME",
        value_parser = duration
    )]
    pub timeout: Duration,
    /// Print answers for people, or the server's responses as JSON, one a line
    #[arg(
        long,
        short,
        global = true,
        help_heading = GLOBAL,
        value_enum,
        default_value_t = Output::Text
    )]
    pub output: Output,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Print a key's value: its bytes and a newline
    Get {
        /// The key
        #[arg(allow_hyphen_values = true)]
        key: String,
    },
    /// Write a key
    Set {
        /// The key
        #[arg(allow_hyphen_values = true)]
        key: String,
        /// Its new value; `-` takes standard input, byte for byte
        #[arg(allow_hyphen_values = true)]
        value: OsString,
    },
    /// Write a key if it holds what is expected
    #[command(override_usage = "kvservice testset [OPTIONS] KEY TEST VALUE\n       \
            kvservice testset [OPTIONS] KEY --absent VALUE")]
    Testset(TestSet),
    /// Remove a key
    Delete {
        /// The key
        #[arg(allow_hyphen_values = true)]
        key: String,
    },
    /// Print the keys that start with a prefix, and their values: key, tab, value
    List {
        /// Only keys that start with this
        #[arg(
            default_value = "",
            hide_default_value = true,
            allow_hyphen_values = true
        )]
        prefix: String,
    },
    /// Print the chain, head to tail
    Status,
    /// Write all keys, with their revisions, as JSON lines
    ///
    /// They are consistent: the dump shows everything that was written up to one revision, and nothing
    /// after, while the server goes on serving. A line for each key, in order, and one at the end:
    ///
    ///   {"key":"color","value":"red","revision":7}
    ///   {"end":true,"revision":9,"keys":1}
    ///
    /// Without its last line a dump is incomplete, and the exit status is 1.
    #[command(verbatim_doc_comment)]
    Dump {
        /// The file; it gets its name once the dump in it is whole. Left out, or `-`: standard output
        file: Option<PathBuf>,
    },
    /// Write the keys of a dump, under new revisions
    ///
    /// A cluster that holds any data is left alone, unless told otherwise. A dump in a file is checked before
    /// anything is written; of standard input, whether it was whole shows at its end, and the exit status is 1
    /// where it was not.
    Restore(Restore),
    /// Measure the server
    Bench(Bench),
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Args, Debug)]
pub struct TestSet {
    /// The key
    #[arg(allow_hyphen_values = true)]
    pub key: String,
    /// Only if the key holds nothing
    #[arg(long)]
    pub absent: bool,
    /// What the key must hold; left out with --absent
    #[arg(value_name = "TEST", allow_hyphen_values = true)]
    pub first: OsString,
    /// Its new value; `-` takes standard input, byte for byte
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    pub second: Option<OsString>,
}

#[derive(Args, Debug)]
pub struct Restore {
    /// The file; left out, or `-`: standard input
    pub file: Option<PathBuf>,
    /// Write although the cluster holds data: over the keys that the dump has too; others stay
    #[arg(long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub struct Bench {
    /// Connections
    #[arg(short = 'c', long, default_value_t = 50, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Requests in flight on each connection, sent as one frame
    #[arg(short = 'P', long, default_value_t = 1, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub pipeline: u32,
    /// Requests of each test, over all connections
    #[arg(short = 'n', long, default_value_t = 100_000, value_name = "N",
        conflicts_with = "seconds",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: u64,
    /// Seconds of each test, instead of a number of requests
    #[arg(short = 's', long, value_name = "N", value_parser = seconds)]
    pub seconds: Option<Duration>,
    /// Bytes of a value
    #[arg(short = 'd', long, default_value_t = 64, value_name = "BYTES",
        value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub value_bytes: u32,
    /// Keys: each request takes a random one of key:000000000000 and up
    #[arg(short = 'r', long, default_value_t = 100_000, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub keyspace: u64,
    /// The tests, in this order; `get` and `testset` find what a `set` before them wrote
    #[arg(
        short = 't',
        long,
        value_delimiter = ',',
        default_value = "set,get",
        value_name = "TESTS"
    )]
    pub tests: Vec<BenchTest>,
    /// One JSON object a line for each test, instead of the table
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchTest {
    Set,
    Get,
    Testset,
}

fn server(text: &str) -> Result<ServerAddress, AddressError> {
    text.parse()
}

/// `500ms`, `5s`, `1m`; a number alone is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let number_ends = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(number_ends);
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("the unit is {unit:?}: write 500ms, 5s or 1m")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "write 500ms, 5s or 1m".to_owned())?;
    match Duration::try_from_secs_f64(number * seconds_per_unit) {
        Ok(duration) if duration >= Duration::from_millis(1) => Ok(duration),
        Ok(_) => Err("the shortest is 1ms".to_owned()),
        Err(_) => Err("that is too long".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    duration(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("kvservice").chain(line.iter().copied()))
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        for bad in [
            "",
            "s",
            "5h",
            "-1s",
            "0s",
            "1.2.3s",
            "1e400s",
            "99999999999999999999s",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_may_stand_before_and_after_a_command() {
        let before = parse(&["-o", "json", "--server", "h:1", "get", "k"]).unwrap();
        let after = parse(&["get", "k", "-o", "json", "--server", "h:1"]).unwrap();
        for cli in [before, after] {
            assert_eq!(cli.output, Output::Json);
            assert_eq!(cli.server.to_string(), "ws://h:1/v1/ws");
        }
    }

    #[test]
    fn a_value_may_start_with_a_hyphen() {
        let cli = parse(&["set", "k", "-5"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Set { value, .. }) if value == "-5"));
        let cli = parse(&["set", "k", "-"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Set { value, .. }) if value == "-"));
        let cli = parse(&["set", "k", "--", "--absent"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Set { value, .. }) if value == "--absent"));
    }

    #[test]
    fn testset_takes_a_test_or_absent() {
        let values = |line: &[&str]| match parse(line).unwrap().command {
            Some(Command::Testset(args)) => (args.absent, 1 + args.second.iter().count()),
            other => panic!("{other:?}"),
        };
        assert_eq!(values(&["testset", "k", "old", "new"]), (false, 2));
        assert_eq!(values(&["testset", "k", "--absent", "new"]), (true, 1));
        assert_eq!(values(&["testset", "--absent", "k", "new"]), (true, 1));
        assert_eq!(values(&["testset", "k", "-1", "-2"]), (false, 2));
        assert!(parse(&["testset", "k"]).is_err());
        assert!(parse(&["testset", "k", "a", "b", "c"]).is_err());
    }

    #[test]
    fn bench_has_its_flags() {
        let line = [
            "bench",
            "-c",
            "8",
            "-P",
            "16",
            "-s",
            "2",
            "-d",
            "3",
            "-r",
            "10",
            "-t",
            "get,testset",
        ];
        let Some(Command::Bench(bench)) = parse(&line).unwrap().command else {
            panic!()
        };
        assert_eq!(
            (bench.connections, bench.pipeline, bench.value_bytes),
            (8, 16, 3)
        );
        assert_eq!(bench.seconds, Some(Duration::from_secs(2)));
        assert_eq!(bench.tests, [BenchTest::Get, BenchTest::Testset]);
        assert!(parse(&["bench", "-n", "5", "-s", "2"]).is_err());
        assert!(parse(&["bench", "-c", "0"]).is_err());
    }
}
