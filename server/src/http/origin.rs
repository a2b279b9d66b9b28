//! Which web pages may connect. Browsers let any page open a WebSocket to any address, and say in `Origin`
//! which page it is; there is no authentication yet, so this is what keeps a stranger's page out of a store
//! that runs on the visitor's own machine.
//!
//! An `Origin` must be absent (no browser), loopback (a page of this machine), the host that the request
//! itself names, or allowed by flag. "The host that the request names" alone would let in DNS rebinding: a
//! page at `evil.example` whose name suddenly resolves to 127.0.0.1 comes with `Origin: http://evil.example`
//! *and* `Host: evil.example`. So on a loopback socket a name does not count: only addresses and localhost
//! do, which nobody can rebind.

use hyper::Uri;
use hyper::header::{self, HeaderMap};
use std::net::{IpAddr, SocketAddr};

/// Whether a request that arrived at `local` may become a WebSocket; if not, why and what to do.
pub(super) fn check(
    headers: &HeaderMap,
    local: SocketAddr,
    allow: &[String],
) -> Result<(), String> {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return Ok(());
    };
    if origins.next().is_some() {
        return Err("more than one Origin".to_string());
    }
    let origin = origin
        .to_str()
        .map_err(|_| "the Origin is no text".to_string())?;
    if allow
        .iter()
        .any(|allowed| allowed.eq_ignore_ascii_case(origin))
    {
        return Ok(());
    }
    let refusal = || {
        format!(
            "a page of origin {origin:?} may not connect here; if it is to, start the front-end with \
             --allow-origin {origin}"
        )
    };
    let page = Place::of_origin(origin).ok_or_else(refusal)?;
    if page.is_loopback() {
        return Ok(());
    }
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let same = host.and_then(|host| Place::of_host(host, page.port)) == Some(page.clone());
    let rebindable = page.address().is_none() && local.ip().to_canonical().is_loopback();
    if same && !rebindable {
        Ok(())
    } else {
        Err(refusal())
    }
}

/// Whether a request that arrived at `local` may read data with a plain GET; if not, why and what to do.
///
/// Browsers name no `Origin` where a page loads from its own host, nor where it embeds what it cannot read. The
/// first would let in a rebound name, so on a loopback socket the host must be an address, localhost, or that of an
/// allowed origin; the second is told by `Sec-Fetch-Site`.
pub(super) fn check_read(
    headers: &HeaderMap,
    local: SocketAddr,
    allow: &[String],
) -> Result<(), String> {
    check(headers, local, allow)?;
    if headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    let site = headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return Err("a page of another site may not load this".to_string());
    }
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let Some(host) = host else { return Ok(()) };
    let place = Place::of_host(host, 80).ok_or_else(|| format!("{host:?} is not a host"))?;
    let named = place.address().is_none() && !place.is_loopback();
    let allowed = allow
        .iter()
        .filter_map(|origin| Place::of_origin(origin))
        .any(|origin| origin.host == place.host);
    if named && !allowed && local.ip().to_canonical().is_loopback() {
        return Err(format!(
            "this server may not be read as {host:?}: use its address, or start the front-end with \
             --allow-origin http://{host}"
        ));
    }
    Ok(())
}

/// Whether `--allow-origin` can mean anything: `scheme://host[:port]`, as browsers write it, or `null`.
pub(crate) fn is_origin(text: &str) -> bool {
    text == "null" || Place::of_origin(text).is_some()
}

/// A host and a port.
#[derive(Clone, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
}

impl Place {
    fn of_origin(origin: &str) -> Option<Place> {
        let (scheme, rest) = origin.split_once("://")?;
        let port_default = match scheme.to_ascii_lowercase().as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        Place::of_host(rest, port_default)
    }

    fn of_host(host: &str, port_default: u16) -> Option<Place> {
        // As an authority and nothing else: no user, no path.
        let uri: Uri = host.parse().ok()?;
        let authority = uri.authority()?;
        if authority.as_str() != host || host.contains('@') {
            return None;
        }
        let port = match authority.port() {
            Some(port) => port.as_str().parse().ok()?,
            None => port_default,
        };
        Some(Place {
            host: authority.host().to_ascii_lowercase(),
            port,
        })
    }

    fn address(&self) -> Option<IpAddr> {
        let host = self
            .host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        host.unwrap_or(&self.host).parse().ok()
    }

    /// Browsers resolve `localhost`, and all names under it, without DNS.
    fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.ends_with(".localhost")
            || self
                .address()
                .is_some_and(|ip| ip.to_canonical().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn allowed(origin: &str, host: &str, local: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        let allow = ["https://kv.example.com".to_string()];
        check(&headers, local.parse().unwrap(), &allow).is_ok()
    }

    #[test]
    fn loopback_pages_the_same_host_and_allowed_ones_pass() {
        for (origin, host, local) in [
            ("http://localhost:8080", "127.0.0.1:7400", "127.0.0.1:7400"),
            ("http://127.0.0.1:7400", "127.0.0.1:7400", "127.0.0.1:7400"),
            ("http://[::1]:7400", "[::1]:7400", "[::1]:7400"),
            (
                "http://page.localhost:1",
                "localhost:7400",
                "127.0.0.1:7400",
            ),
            (
                "http://192.168.1.5:7400",
                "192.168.1.5:7400",
                "192.168.1.5:7400",
            ),
            ("http://KVBOX:7400", "kvbox:7400", "192.168.1.5:7400"),
            ("https://kvbox", "kvbox", "192.168.1.5:7400"),
            ("https://KV.example.com", "127.0.0.1:7400", "127.0.0.1:7400"),
        ] {
            assert!(
                allowed(origin, host, local),
                "{origin} at {host} on {local}"
            );
        }
    }

    fn readable(headers: &[(&'static str, &str)], local: &str) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let allow = ["https://kv.example.com".to_string()];
        check_read(&map, local.parse().unwrap(), &allow).is_ok()
    }

    #[test]
    fn data_are_read_by_programs_and_by_pages_of_the_same_host() {
        const HERE: &str = "127.0.0.1:7400";
        assert!(readable(&[], HERE));
        for host in [HERE, "localhost:7400", "[::1]:7400", "kv.example.com"] {
            assert!(readable(&[("host", host)], HERE), "{host}");
            for site in ["none", "same-origin"] {
                assert!(readable(&[("host", host), ("sec-fetch-site", site)], HERE));
            }
        }
        assert!(readable(&[("host", "kvbox:7400")], "192.168.1.5:7400"));
        assert!(
            !readable(&[("host", "evil.example:7400")], HERE),
            "a rebound name comes without an Origin"
        );
        for site in ["cross-site", "same-site"] {
            assert!(!readable(&[("host", HERE), ("sec-fetch-site", site)], HERE));
        }
        let stranger = ("origin", "http://evil.example");
        assert!(!readable(&[("host", HERE), stranger], HERE));
    }

    #[test]
    fn strangers_and_rebound_names_do_not() {
        for (origin, host, local) in [
            ("http://evil.example", "127.0.0.1:7400", "127.0.0.1:7400"),
            // Rebinding: evil.example resolves to 127.0.0.1, so the browser takes both for the same host.
            (
                "http://evil.example:7400",
                "evil.example:7400",
                "127.0.0.1:7400",
            ),
            (
                "http://evil.example:7400",
                "evil.example:7400",
                "[::ffff:127.0.0.1]:7400",
            ),
            (
                "http://192.168.1.5:8080",
                "192.168.1.5:7400",
                "192.168.1.5:7400",
            ),
            (
                "http://localhost.evil.example",
                "localhost:7400",
                "127.0.0.1:7400",
            ),
            (
                "http://127.0.0.1.evil.example",
                "127.0.0.1:7400",
                "127.0.0.1:7400",
            ),
            (
                "http://127.0.0.1@evil.example",
                "127.0.0.1:7400",
                "127.0.0.1:7400",
            ),
            ("file://localhost", "localhost:7400", "127.0.0.1:7400"),
            ("http://kv.example.com", "127.0.0.1:7400", "127.0.0.1:7400"),
            ("null", "127.0.0.1:7400", "127.0.0.1:7400"),
            ("", "127.0.0.1:7400", "127.0.0.1:7400"),
            ("http://", "127.0.0.1:7400", "127.0.0.1:7400"),
        ] {
            assert!(
                !allowed(origin, host, local),
                "{origin} at {host} on {local}"
            );
        }
    }

    #[test]
    fn two_origins_are_one_too_many() {
        let mut headers = HeaderMap::new();
        headers.append(header::ORIGIN, HeaderValue::from_static("http://localhost"));
        headers.append(
            header::ORIGIN,
            HeaderValue::from_static("http://evil.example"),
        );
        assert!(check(&headers, "127.0.0.1:1".parse().unwrap(), &[]).is_err());
    }
}
