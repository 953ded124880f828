//! The HTTP client of a webhook: HTTP/1.1, with TLS by rustls and ring.
//!
//! It follows no redirect, knows no proxy, and keeps connections for the next request.

use super::resolver::Resolver;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;

pub(super) type HttpClient = Client<HttpsConnector<HttpConnector<Resolver>>, String>;

/// How long an idle connection is kept. Servers close theirs after 5 to 75 seconds; a request that
/// meets the close fails, and takes another attempt.
const IDLE: Duration = Duration::from_secs(15);

/// A client that connects to what `resolver` gives, and trusts `roots`. A connection attempt may take
/// `timeout`, over all addresses of the host.
///
/// # Errors
/// None that is known: ring has the default versions of TLS.
pub(super) fn client(
    resolver: Resolver,
    roots: RootCertStore,
    timeout: Duration,
) -> Result<HttpClient, rustls::Error> {
    // Named, since the process has no default provider when two are compiled in.
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(timeout));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connector))
}

/// The root certificates of the system, or of `SSL_CERT_FILE`.
///
/// # Errors
/// There are none.
pub(super) fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems carry the odd certificate that rustls cannot read; the others still count.
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let cause = found.errors.into_iter().next();
    let cause = cause.map_or_else(String::new, |error| format!(": {error}"));
    Err(format!(
        "is https, which needs root certificates, and the system has none (install \
         ca-certificates, or name a file in SSL_CERT_FILE){cause}"
    ))
}
