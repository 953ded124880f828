//! Looking up the addresses that a webhook may connect to.

use super::address::not_public;
use async_trait::async_trait;
use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_service::Service;

/// Looks up the addresses of a host name.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// The addresses, the preferred ones first.
    ///
    /// # Errors
    /// The name does not exist, or cannot be looked up now.
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// Looks names up as the operating system does: `/etc/hosts`, DNS.
#[derive(Debug, Clone, Copy)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = tokio::net::lookup_host((name, 0)).await?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

/// Why a name gives no address to connect to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unresolved {
    #[error("{0}")]
    Lookup(#[from] io::Error),
    #[error("the name has no address")]
    NoAddress,
    #[error(
        "the name has no public address ({address} is {why}); set allow_private = true if events are \
         to be sent there"
    )]
    NotPublic { address: IpAddr, why: &'static str },
}

/// Resolves names for the connector, which connects to what it gets and looks up nothing itself: so
/// the address that is checked is the one that is connected to.
#[derive(Clone)]
pub(super) struct Resolver {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) allow_private: bool,
}

impl Resolver {
    async fn resolve(self, name: Name) -> Result<Vec<SocketAddr>, Unresolved> {
        let found = self.lookup.addresses(name.as_str()).await?;
        let mut refused = None;
        let mut usable = Vec::new();
        for address in found {
            match not_public(address) {
                Some(why) if !self.allow_private => {
                    refused.get_or_insert((address, why));
                }
                // The connector sets the port.
                _ => usable.push(SocketAddr::new(address, 0)),
            }
        }
        match (usable.is_empty(), refused) {
            (false, _) => Ok(usable),
            (true, Some((address, why))) => Err(Unresolved::NotPublic { address, why }),
            (true, None) => Err(Unresolved::NoAddress),
        }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Unresolved;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move { resolver.resolve(name).await.map(Vec::into_iter) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<IpAddr>);

    #[async_trait]
    impl Lookup for Fixed {
        async fn addresses(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            Ok(self.0.clone())
        }
    }

    async fn resolved(addresses: &[&str], allow_private: bool) -> Result<Vec<String>, String> {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let resolver = Resolver {
            lookup: Arc::new(Fixed(addresses)),
            allow_private,
        };
        let found = resolver.resolve("a.example".parse().unwrap()).await;
        found
            .map(|found| found.iter().map(|a| a.ip().to_string()).collect())
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn only_public_addresses_are_used() {
        let mixed = ["10.0.0.1", "8.8.8.8", "::1", "2606:4700::1"];
        let public = Ok(vec!["8.8.8.8".to_owned(), "2606:4700::1".to_owned()]);
        assert_eq!(resolved(&mixed, false).await, public);
        assert_eq!(resolved(&mixed, true).await.unwrap(), mixed);
    }

    #[tokio::test]
    async fn a_name_without_a_public_address_says_what_to_set() {
        let error = resolved(&["10.0.0.1", "::1"], false).await.unwrap_err();
        assert!(error.contains("10.0.0.1 is private"), "{error}");
        assert!(error.contains("allow_private = true"), "{error}");
        let error = resolved(&[], true).await.unwrap_err();
        assert!(error.contains("no address"), "{error}");
    }
}
