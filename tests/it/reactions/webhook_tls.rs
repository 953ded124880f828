//! Webhooks over TLS: only a certificate that the system's roots vouch for is taken.

use super::webhook::{failure, run, settings};
use crate::harness::{precondition, program, temp_dir};
use eclusa::config::reactions::webhook::WebhookSettings;
use eclusa::reactions::Handler as _;
use eclusa::reactions::webhook::Webhook;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The URL that the test in the other process sends to.
const URL: &str = "ECLUSA_TEST_WEBHOOK_URL";

/// A certificate for `localhost`, signed by itself, and its key.
fn make_certificate(folder: &Path) {
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-out", "certificate.pem", "-keyout", "key.pem"])
        .current_dir(folder)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "openssl: {told}");
}

/// An HTTPS server with that certificate, which answers 204; its port.
async fn serve(folder: &Path) -> u16 {
    let certificate = CertificateDer::from_pem_file(folder.join("certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust the certificate ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = Vec::new();
            // The body ends with the event's data and the envelope.
            while !request.ends_with(b"}}") && stream.read_buf(&mut request).await.unwrap() > 0 {}
            let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    port
}

fn webhook(url: &str) -> Webhook {
    Webhook::new(&WebhookSettings {
        url: url.to_owned(),
        ..settings(0, "/")
    })
    .unwrap()
}

#[tokio::test]
#[ignore = "run by the test below"]
async fn sends_to_the_url_of_the_environment() {
    let url = std::env::var(URL).unwrap();
    webhook(&url).handle(&run()).await.unwrap();
    // The certificate is for the name, and not for the address.
    let text = failure(&webhook(&url.replace("localhost", "127.0.0.1"))).await;
    assert!(text.contains("not valid for name"), "{text}");
}

#[tokio::test]
async fn a_certificate_needs_a_root() {
    if precondition("openssl", program("openssl", &["version"])).is_none() {
        return;
    }
    let folder = temp_dir("webhook-");
    make_certificate(folder.path());
    let port = serve(folder.path()).await;
    let url = format!("https://localhost:{port}/");
    let text = failure(&webhook(&url)).await;
    assert!(text.contains("certificate"), "{text}");

    // Another process, since roots are those of an environment. Nobody is at the proxy's port.
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child
        .args(["--ignored", "--exact"])
        .arg("reactions::webhook_tls::sends_to_the_url_of_the_environment")
        .env(URL, &url)
        .env("SSL_CERT_FILE", folder.path().join("certificate.pem"))
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .env("ALL_PROXY", "http://127.0.0.1:1");
    let output = child.output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("1 passed"), "{told}");
}
