//! Settings of the HTTP server.

use super::{Invalid, in_range, units};
use bytesize::ByteSize;
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// `[http]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// Address to listen on.
    pub bind: IpAddr,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// Worker threads; 0 is one per core.
    pub workers: usize,
    /// Host names, besides those of loopback, that a request may carry in `Host` when there are no
    /// API keys.
    pub allowed_hosts: Vec<String>,
    pub max_body: ByteSize,
    /// Most events in one request.
    pub max_items: usize,
    /// How long a client may take to send its request.
    #[serde(with = "units::duration")]
    pub request_timeout: Duration,
    /// How long an idle connection stays open.
    #[serde(with = "units::duration")]
    pub keep_alive: Duration,
    /// Connections taken at once.
    pub max_connections: usize,
}

impl HttpSettings {
    /// The URL under which a process on this machine reaches the server.
    pub fn local_url(&self, port: u16) -> String {
        let address = match self.bind {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            address => address,
        };
        format!("http://{}", SocketAddr::new(address, port))
    }

    /// Whether `host`, without its port, is loopback, the address that the server listens on, or one of
    /// the allowed hosts. DNS rebinding needs a name, so the own address is no risk.
    pub fn allows_host(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        bare.eq_ignore_ascii_case("localhost")
            || bare
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback() || address == self.bind)
            || self
                .allowed_hosts
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(bare))
    }

    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        in_range(found, "http.workers", self.workers, 0..=256);
        in_range(found, "http.max_items", self.max_items, 1..=100_000);
        in_range(
            found,
            "http.max_connections",
            self.max_connections,
            1..=1_000_000,
        );
        in_range(
            found,
            "http.max_body",
            self.max_body,
            ByteSize::kib(1)..=ByteSize::mib(256),
        );
        for host in &self.allowed_hosts {
            let is_name = !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
            if !is_name && host.parse::<IpAddr>().is_err() {
                found.push(Invalid::new(
                    "http.allowed_hosts",
                    format!(
                        "has {host:?}; write a host name or an address, without scheme and port"
                    ),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Sources;

    #[test]
    fn loopback_and_the_hosts_named_are_allowed() {
        let text = "http.allowed_hosts = [\"app\", \"10.1.2.3\", \"fd00::1\"]";
        let http = Sources::from_text(text).load().unwrap().http;
        for host in [
            "localhost",
            "LocalHost",
            "127.0.0.1",
            "127.8.8.8",
            "[::1]",
            "App",
            "10.1.2.3",
        ] {
            assert!(http.allows_host(host), "{host}");
        }
        assert!(http.allows_host("[fd00::1]"));
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "0.0.0.0",
            "10.1.2.4",
            "[::]",
        ] {
            assert!(!http.allows_host(host), "{host}");
        }
    }

    #[test]
    fn an_allowed_host_has_no_scheme_port_or_wildcard() {
        for host in ["http://app", "app:3000", "*", "*.example", ""] {
            let text = format!("http.allowed_hosts = [\"{host}\"]");
            let error = Sources::from_text(&text).load().unwrap_err().to_string();
            assert!(error.contains("http.allowed_hosts"), "{host}: {error}");
        }
    }

    #[test]
    fn the_local_url_of_every_address_is_loopback() {
        for (bind, url) in [
            ("0.0.0.0", "http://127.0.0.1:7"),
            ("::", "http://[::1]:7"),
            ("127.0.0.2", "http://127.0.0.2:7"),
        ] {
            let mut http = Sources::from_text("").load().unwrap().http;
            http.bind = bind.parse().unwrap();
            assert_eq!(http.local_url(7), url);
        }
    }
}
