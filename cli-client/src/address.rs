//! Where a server is: `ws://HOST:PORT[/PATH]`, or `HOST:PORT` alone.

use kvservice_shared::api::WS_PATH;
use std::fmt;
use std::str::FromStr;

/// The address of a front-end's client port.
///
/// Read from text: `ws://HOST:PORT`, `ws://HOST:PORT/PATH` or `HOST:PORT`; the path is `/v1/ws`
/// where none is given. Shown as the whole URL.
///
/// ```
/// use kvservice_client::ServerAddress;
///
/// let address: ServerAddress = "127.0.0.1:7400".parse()?;
/// assert_eq!(address.to_string(), "ws://127.0.0.1:7400/v1/ws");
/// # Ok::<(), kvservice_client::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    host: String,
    port: u16,
    path: String,
}

/// Why a text is no [`ServerAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// TLS is asked for.
    #[error("this client does not speak TLS yet: use ws:// (over a trusted network or a tunnel)")]
    Tls,
    /// Another scheme than `ws`.
    #[error("the scheme is {0:?}: a server is named ws://HOST:PORT, or just HOST:PORT")]
    Scheme(String),
    /// No port.
    #[error("the port is missing: write {0}:PORT (a server listens on 7400 unless told otherwise)")]
    NoPort(String),
    /// A port that is not a number from 1 to 65535.
    #[error("{0:?} is not a port (1 to 65535)")]
    Port(String),
    /// The host is empty, or holds what a host cannot.
    #[error("{0:?} is not a host name or IP address (an IPv6 address goes in brackets)")]
    Host(String),
    /// The path holds what a URL's path cannot.
    #[error("{0:?} is not a path")]
    Path(String),
}

impl ServerAddress {
    /// `HOST:PORT`, as a socket is opened to.
    #[must_use]
    pub fn host_port(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The path of the dump: beside that of the WebSocket, `/v1/dump` as a rule.
    #[must_use]
    pub fn dump_path(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        let (folder, _) = path.rsplit_once('/').unwrap_or_default();
        format!("{folder}/dump")
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}:{}{}", self.host, self.port, self.path)
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<ServerAddress, AddressError> {
        let text = text.trim();
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("ws") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("wss") => {
                return Err(AddressError::Tls);
            }
            Some((scheme, _)) => return Err(AddressError::Scheme(scheme.to_owned())),
        };
        let (authority, path) = match rest.find('/') {
            None => (rest, ""),
            Some(slash) => rest.split_at(slash),
        };
        // A colon inside the brackets of an IPv6 address is no port's.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ if is_host(authority) => return Err(AddressError::NoPort(authority.to_owned())),
            _ => return Err(AddressError::Host(authority.to_owned())),
        };
        if !is_host(host) {
            return Err(AddressError::Host(host.to_owned()));
        }
        let port = match port.parse::<u16>() {
            Ok(number) if number > 0 => number,
            _ => return Err(AddressError::Port(port.to_owned())),
        };
        if path.bytes().any(|b| !b.is_ascii_graphic() || b == b'#') {
            return Err(AddressError::Path(path.to_owned()));
        }
        let path = if matches!(path, "" | "/") {
            WS_PATH
        } else {
            path
        };
        Ok(ServerAddress {
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }
}

/// Whether the text can stand as a URL's host. Whether there is such a host is for the resolver to
/// say.
fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[') {
        return inner
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        text.parse::<ServerAddress>().unwrap().to_string()
    }

    fn refused(text: &str) -> AddressError {
        text.parse::<ServerAddress>().unwrap_err()
    }

    #[test]
    fn takes_a_url_or_just_host_and_port() {
        assert_eq!(parsed("localhost:7400"), "ws://localhost:7400/v1/ws");
        assert_eq!(parsed(" ws://localhost:7400 "), "ws://localhost:7400/v1/ws");
        assert_eq!(parsed("WS://localhost:7400/"), "ws://localhost:7400/v1/ws");
        assert_eq!(
            parsed("ws://h:1/elsewhere/ws?x=1"),
            "ws://h:1/elsewhere/ws?x=1"
        );
        let proxied: ServerAddress = "h:1/kv/v1/ws?x=a/b".parse().unwrap();
        assert_eq!(proxied.dump_path(), "/kv/v1/dump");
        let plain: ServerAddress = "h:1".parse().unwrap();
        assert_eq!(plain.dump_path(), kvservice_shared::api::DUMP_PATH);
        assert_eq!(parsed("[::1]:7400"), "ws://[::1]:7400/v1/ws");
        let address: ServerAddress = "ws://[::1]:7400".parse().unwrap();
        assert_eq!(address.host_port(), "[::1]:7400");
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(refused("wss://localhost:7400"), AddressError::Tls);
        assert_eq!(
            refused("http://localhost:7400"),
            AddressError::Scheme("http".into())
        );
        assert_eq!(
            refused("localhost"),
            AddressError::NoPort("localhost".into())
        );
        assert_eq!(refused("ws://[::1]"), AddressError::NoPort("[::1]".into()));
        assert_eq!(refused("localhost:0"), AddressError::Port("0".into()));
        assert_eq!(
            refused("localhost:65536"),
            AddressError::Port("65536".into())
        );
        assert_eq!(refused("localhost:port"), AddressError::Port("port".into()));
        assert_eq!(refused("::1:7400"), AddressError::Host("::1".into()));
        assert_eq!(refused(":7400"), AddressError::Host(String::new()));
        assert_eq!(refused(""), AddressError::Host(String::new()));
        assert_eq!(
            refused("user@host:7400"),
            AddressError::Host("user@host".into())
        );
        assert_eq!(refused("host:7400/a b"), AddressError::Path("/a b".into()));
        assert_eq!(refused("host:7400/a#b"), AddressError::Path("/a#b".into()));
    }
}
