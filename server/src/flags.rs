//! The command line of `kvservice-server`.

use crate::config::{ChainConfig, EdgeConfig, RecoverConfig, SingleConfig};
use crate::http::is_origin;
use clap::{Args, Parser, Subcommand};
use kvservice_backend::flags::{LogFlags, StorageFlags, data_dir, parse_duration, parse_host_port};
use std::path::PathBuf;
use std::time::Duration;

/// The front-end of kvservice: where clients connect
#[derive(Parser, Clone, Debug)]
#[command(name = "kvservice-server", version)]
pub struct Flags {
    /// What to run.
    #[command(subcommand)]
    pub command: Command,
    /// Logging.
    #[command(flatten)]
    pub log: LogFlags,
}

/// What to run.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Serve clients from one replica in this process
    Single(SingleFlags),
    /// Serve clients from a chain of back-ends, which connect here
    Chain(ChainFlags),
    /// Decide by hand, with the front-end stopped, when the chain will not decide alone
    Recover(RecoverFlags),
}

/// `kvservice-server single`
#[derive(Args, Clone, Debug)]
pub struct SingleFlags {
    /// The client port.
    #[command(flatten)]
    pub client: ClientFlags,
    /// Where the data live.
    #[command(flatten)]
    pub storage: StorageFlags,
}

/// `kvservice-server chain`
#[derive(Args, Clone, Debug)]
pub struct ChainFlags {
    /// The client port.
    #[command(flatten)]
    pub client: ClientFlags,
    /// The node port.
    #[command(flatten)]
    pub nodes: NodeFlags,
    /// Found a new cluster at once where the directory is empty; changes nothing where it is not
    #[arg(long)]
    pub init: bool,
    /// A node whose link is silent for this long has failed
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub failure_timeout: Duration,
    /// With fewer back-ends than this, writes are refused
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub min_replicas: u32,
}

/// `kvservice-server recover`
#[derive(Args, Clone, Debug)]
pub struct RecoverFlags {
    /// The node port.
    #[command(flatten)]
    pub nodes: NodeFlags,
    /// Do not ask before making the view
    #[arg(long)]
    pub yes: bool,
}

/// Where nodes connect, and what is known of them.
#[derive(Args, Clone, Debug)]
pub struct NodeFlags {
    /// Where back-ends connect
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7401", value_parser = parse_host_port)]
    pub chain_listen: String,
    /// Where the view of the chain is kept; made if it is not there
    /// [default: ./kvservice-data/front-end-PORT, of --chain-listen]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How long to wait for nodes that hold data before deciding without them
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub grace: Duration,
}

/// Where clients connect, and who may.
#[derive(Args, Clone, Debug)]
pub struct ClientFlags {
    /// Where clients connect: WebSocket, browser and health check
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7400", value_parser = parse_host_port)]
    pub listen: String,
    /// The browser client's files [default: the folder `web` beside this program]
    #[arg(long, value_name = "DIR")]
    pub web_dir: Option<PathBuf>,
    /// Let web pages of this origin connect, besides our own and those of this machine; can be repeated
    #[arg(long = "allow-origin", value_name = "ORIGIN", value_parser = parse_origin)]
    pub allow_origins: Vec<String>,
    /// Most client connections at once
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
    /// When to give up on a request that the chain does not answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub request_timeout: Duration,
}

impl SingleFlags {
    /// As the runtime takes it, listening on this port.
    #[must_use]
    pub fn config(&self, port: u16) -> SingleConfig {
        SingleConfig {
            storage: self.storage.storage("single", port),
            request_timeout: self.client.request_timeout,
            edge: self.client.config(),
        }
    }
}

impl ChainFlags {
    /// As the runtime takes it, listening for nodes on this port.
    #[must_use]
    pub fn config(&self, chain_port: u16) -> ChainConfig {
        ChainConfig {
            data_dir: self.nodes.data_dir(chain_port),
            init: self.init,
            failure_timeout: self.failure_timeout,
            min_replicas: self.min_replicas,
            grace: self.nodes.grace,
            request_timeout: self.client.request_timeout,
            edge: self.client.config(),
        }
    }
}

impl RecoverFlags {
    /// As the recovery takes it, listening for nodes on this port.
    #[must_use]
    pub fn config(&self, chain_port: u16) -> RecoverConfig {
        RecoverConfig {
            data_dir: self.nodes.data_dir(chain_port),
            yes: self.yes,
            grace: self.nodes.grace,
        }
    }
}

impl NodeFlags {
    fn data_dir(&self, chain_port: u16) -> PathBuf {
        let given = self.data_dir.clone();
        given.unwrap_or_else(|| data_dir("front-end", chain_port))
    }
}

impl ClientFlags {
    fn config(&self) -> EdgeConfig {
        EdgeConfig {
            web_dir: self.web_dir.clone(),
            allow_origins: self.allow_origins.clone(),
            max_connections: self.max_connections as usize,
            ..EdgeConfig::default()
        }
    }
}

fn parse_origin(text: &str) -> Result<String, String> {
    let wrong = "write an origin as browsers do: http://host:port or https://host, without a path";
    if is_origin(text) {
        Ok(text.to_string())
    } else {
        Err(wrong.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use kvservice_backend::start::Storage;
    use kvservice_backend::storage::disk::Fsync;

    fn parse(line: &str) -> Result<Command, String> {
        let words = std::iter::once("kvservice-server").chain(line.split_whitespace());
        Flags::try_parse_from(words)
            .map(|flags| flags.command)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn the_documented_lines_parse() {
        let Ok(Command::Single(single)) = parse("single --listen 127.0.0.1:7400 --memory") else {
            panic!("single")
        };
        assert_eq!(single.client.listen, "127.0.0.1:7400");
        let config = single.config(7400);
        assert_eq!(config.request_timeout, Duration::from_secs(5));
        assert!(matches!(config.storage, Storage::Memory));
        let Ok(Command::Single(single)) = parse("single --fsync interval=50ms") else {
            panic!("single")
        };
        let Storage::Disk { dir, options, .. } = single.config(7400).storage else {
            panic!("data are on disk unless told otherwise")
        };
        assert_eq!(dir, PathBuf::from("kvservice-data/single-7400"));
        assert_eq!(options.fsync, Fsync::Interval(Duration::from_millis(50)));

        let line = "chain --listen 127.0.0.1:0 --chain-listen 127.0.0.1:0 --data-dir d --init \
                    --failure-timeout 500ms --min-replicas 2 --grace 1s --request-timeout 2s \
                    --allow-origin https://a.example --allow-origin http://b:1 --web-dir w \
                    --max-connections 7 --log debug --log-format json";
        let Ok(Command::Chain(chain)) = parse(line) else {
            panic!("chain")
        };
        let config = chain.config(7401);
        assert!(config.init);
        assert_eq!(config.data_dir, PathBuf::from("d"));
        assert_eq!(config.failure_timeout, Duration::from_millis(500));
        assert_eq!(config.min_replicas, 2);
        assert_eq!(config.grace, Duration::from_secs(1));
        assert_eq!(config.request_timeout, Duration::from_secs(2));
        assert_eq!(
            config.edge.allow_origins,
            ["https://a.example", "http://b:1"]
        );
        assert_eq!(config.edge.web_dir, Some(PathBuf::from("w")));
        assert_eq!(config.edge.max_connections, 7);

        let Ok(Command::Recover(recover)) = parse("recover --data-dir d --yes") else {
            panic!("recover")
        };
        assert!(recover.config(7401).yes);
        let Ok(Command::Chain(chain)) = parse("chain") else {
            panic!("chain")
        };
        let by_port = PathBuf::from("kvservice-data/front-end-7401");
        assert_eq!(chain.config(7401).data_dir, by_port);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "",
            "single --listen 7400",
            "single --allow-origin kv.example.com",
            "single --allow-origin https://kv.example.com/path",
            "single --max-connections 0",
            "single --request-timeout 5",
            "chain --data-dir d --min-replicas 0",
        ] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
