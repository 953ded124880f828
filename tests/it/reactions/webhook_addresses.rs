//! Webhooks: which addresses they connect to.

use super::receiver::Receiver;
use super::webhook::{SOON, failure, run, settings};
use crate::harness::eventually;
use actix_web::HttpResponse;
use async_trait::async_trait;
use eclusa::config::reactions::webhook::WebhookSettings;
use eclusa::reactions::Handler as _;
use eclusa::reactions::webhook::{Lookup, Webhook};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Gives the answers in turn, the last one again and again.
struct Turning {
    answers: Vec<Vec<IpAddr>>,
    looks: AtomicUsize,
}

#[async_trait]
impl Lookup for Turning {
    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        assert_eq!(name, "hooks.example");
        let look = self.looks.fetch_add(1, Ordering::SeqCst);
        Ok(self.answers[look.min(self.answers.len() - 1)].clone())
    }
}

/// Public by its form, in a block that is assigned to nobody: a connection to it fails.
const NOBODY: &str = "2d00::1";

fn turning(port: u16, allow_private: bool, answers: &[&[&str]]) -> (Webhook, Arc<Turning>) {
    let parsed = |list: &&[&str]| list.iter().map(|a| a.parse().unwrap()).collect();
    let lookup = Arc::new(Turning {
        answers: answers.iter().map(parsed).collect(),
        looks: AtomicUsize::new(0),
    });
    let settings = WebhookSettings {
        url: format!("http://hooks.example:{port}/"),
        allow_private,
        timeout: Some(Duration::from_secs(2)),
        ..settings(port, "/")
    };
    let shared: Arc<dyn Lookup> = lookup.clone();
    (Webhook::with_lookup(&settings, shared).unwrap(), lookup)
}

/// A name with a public address at the first look and a private one at the second.
#[tokio::test]
async fn a_name_that_turns_private_is_refused() {
    let receiver = Receiver::start(|_| HttpResponse::NoContent().finish()).await;
    let answers: [&[&str]; 2] = [&[NOBODY], &["127.0.0.1"]];
    let (webhook, lookup) = turning(receiver.port, false, &answers);
    // One look for one connection: what is checked is what is connected to.
    let text = failure(&webhook).await;
    assert!(!text.contains("allow_private"), "{text}");
    assert_eq!(lookup.looks.load(Ordering::SeqCst), 1);
    let text = failure(&webhook).await;
    assert!(text.contains("127.0.0.1 is loopback"), "{text}");
    assert!(text.contains("allow_private = true"), "{text}");
    assert_eq!(lookup.looks.load(Ordering::SeqCst), 2);
    assert_eq!(receiver.connections(), 0);
    // The same name reaches the receiver where it may.
    let (webhook, _) = turning(receiver.port, true, &answers[1..]);
    assert_eq!(webhook.handle(&run()).await, Ok(()));
    assert_eq!(receiver.connections(), 1);
    receiver.stop().await;
}

#[tokio::test]
async fn of_mixed_addresses_the_private_ones_are_not_used() {
    let receiver = Receiver::start(|_| HttpResponse::NoContent().finish()).await;
    let mixed: [&[&str]; 1] = [&["127.0.0.1", NOBODY, "::ffff:127.0.0.1"]];
    let text = failure(&turning(receiver.port, false, &mixed).0).await;
    assert!(!text.contains("allow_private"), "{text}");
    assert_eq!(receiver.connections(), 0);
    let (webhook, _) = turning(receiver.port, true, &mixed);
    eventually(SOON, "one of the addresses answers", async || {
        webhook.handle(&run()).await.ok()
    })
    .await;
    receiver.stop().await;
}

#[tokio::test]
async fn localhost_is_private() {
    let receiver = Receiver::start(|_| HttpResponse::NoContent().finish()).await;
    let webhook = Webhook::new(&WebhookSettings {
        url: format!("http://localhost:{}/", receiver.port),
        allow_private: false,
        ..settings(receiver.port, "/")
    });
    let text = failure(&webhook.unwrap()).await;
    assert!(text.contains("is loopback"), "{text}");
    assert_eq!(receiver.connections(), 0);
    receiver.stop().await;
}
