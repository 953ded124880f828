//! Webhooks: what is sent, and what follows from the answer.

use super::receiver::Receiver;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::Utc;
use eclusa::config::reactions::webhook::WebhookSettings;
use eclusa::reactions::webhook::Webhook;
use eclusa::reactions::{Handler, HandlerError, Run};
use futures::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use std::time::Duration;

pub(super) const SOON: Duration = Duration::from_secs(60);
const FIRST: [u8; 24] = [1; 24];
const SECOND: [u8; 64] = [2; 64];
const DATA: &str = r#"{"plan": "pro",  "amount":12345678901234567890.10}"#;

/// Settings for a path of a server on this machine.
pub(super) fn settings(port: u16, path: &str) -> WebhookSettings {
    let secrets =
        [&FIRST[..], &SECOND[..]].map(|bytes| format!("whsec_{}", STANDARD.encode(bytes)));
    WebhookSettings {
        url: format!("http://127.0.0.1:{port}{path}"),
        secret: Some(secrets.join(" ")),
        secret_file: None,
        allow_private: true,
        timeout: Some(SOON),
    }
}

fn webhook(port: u16, path: &str) -> Webhook {
    Webhook::new(&settings(port, path)).unwrap()
}

pub(super) fn run() -> Run {
    let event = format!(
        r#"{{"sequence":1,"id":"0198c0de-0000-7000-8000-000000000001","producer":"shop",
            "userId":"u1","eventType":"user.signed_up","eventData":{DATA},"sessionId":null,
            "timestamp":"2026-01-02T03:04:05Z","receivedAt":"2026-01-02T03:04:06Z",
            "source":"http","processed":false}}"#
    );
    Run::new("welcome-mail", 1, serde_json::from_str(&event).unwrap())
}

/// The text of a failure that is tried again.
pub(super) async fn failure(webhook: &Webhook) -> String {
    match webhook.handle(&run()).await {
        Err(HandlerError::Failed(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

/// HMAC-SHA256 as RFC 2104 writes it, for keys of at most a block.
pub(super) fn hmac(key: &[u8], message: &[u8]) -> String {
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(message);
    let outer = Sha256::new().chain_update(padded(0x5c));
    STANDARD.encode(outer.chain_update(inner.finalize()).finalize())
}

#[tokio::test]
async fn an_event_is_a_signed_cloud_event() {
    let receiver = Receiver::start(|_| HttpResponse::NoContent().finish()).await;
    let before = Utc::now().timestamp();
    let webhook = webhook(receiver.port, "/hooks/a?token=t");
    webhook.handle(&run()).await.unwrap();
    let after = Utc::now().timestamp();
    let received = receiver.received.lock().pop().unwrap();
    assert_eq!(received.line, "POST /hooks/a?token=t");
    let header = |name: &str| received.headers[name].as_str();
    assert_eq!(header("content-type"), "application/cloudevents+json");
    assert_eq!(header("host"), format!("127.0.0.1:{}", receiver.port));
    let agent = concat!("eclusa/", env!("CARGO_PKG_VERSION"));
    assert_eq!(header("user-agent"), agent);
    let id = "0198c0de-0000-7000-8000-000000000001.welcome-mail";
    assert_eq!(header("webhook-id"), id);
    let timestamp: i64 = header("webhook-timestamp").parse().unwrap();
    assert!((before..=after).contains(&timestamp));
    let signed = format!("{id}.{timestamp}.{}", received.body);
    let signatures = [&FIRST[..], &SECOND[..]].map(|key| hmac(key, signed.as_bytes()));
    let [first, second] = signatures;
    assert_eq!(
        header("webhook-signature"),
        format!("v1,{first} v1,{second}")
    );

    let json: serde_json::Value = serde_json::from_str(&received.body).unwrap();
    for (attribute, value) in [
        ("specversion", "1.0"),
        ("id", "0198c0de-0000-7000-8000-000000000001"),
        ("source", "/producers/shop"),
        ("type", "user.signed_up"),
        ("subject", "u1"),
        ("time", "2026-01-02T03:04:05Z"),
        ("datacontenttype", "application/json"),
    ] {
        assert_eq!(json[attribute], value, "{attribute}");
    }
    assert!(
        received.body.ends_with(&format!("\"data\":{DATA}}}")),
        "{}",
        received.body
    );
    receiver.stop().await;
}

/// The path is the status, and perhaps a `Retry-After`.
fn as_the_path_says(request: &HttpRequest) -> HttpResponse {
    let mut parts = request.path().split('/').skip(1);
    let status = parts.next().unwrap().parse::<u16>().unwrap();
    let mut answer = HttpResponse::build(status.try_into().unwrap());
    if let Some(after) = parts.next() {
        answer.insert_header(("retry-after", after.replace('_', " ")));
    }
    answer.insert_header(("location", "/200"));
    answer.body("because\nof this")
}

#[tokio::test]
async fn the_status_decides_what_follows() {
    let receiver = Receiver::start(as_the_path_says).await;
    let host = format!("127.0.0.1:{}", receiver.port);
    let outcome = async |path: &str| webhook(receiver.port, path).handle(&run()).await;
    for path in ["/200", "/201", "/202", "/299"] {
        assert_eq!(outcome(path).await, Ok(()), "{path}");
    }
    for (path, words) in [
        ("/400", "400 Bad Request"),
        ("/401/5", "401 Unauthorized"),
        ("/404", "404 Not Found"),
        ("/429", "429 Too Many Requests"),
        ("/500/5", "500 Internal Server Error"),
        ("/503", "503 Service Unavailable"),
        ("/503/later", "503 Service Unavailable"),
    ] {
        let text = format!("{host} answered {words}: because of this");
        assert_eq!(
            outcome(path).await,
            Err(HandlerError::Failed(text)),
            "{path}"
        );
    }
    let gone = format!("{host} answered 410 Gone: because of this");
    assert_eq!(outcome("/410/5").await, Err(HandlerError::Discard(gone)));
    let date = (Utc::now() + Duration::from_secs(600)).format("%a,_%d_%b_%Y_%H:%M:%S_GMT");
    for (path, most) in [
        ("/429/7".to_owned(), 7),
        ("/503/0".to_owned(), 0),
        ("/503/100000".to_owned(), 86_400),
        (format!("/429/{date}"), 600),
    ] {
        match outcome(&path).await {
            Err(HandlerError::RetryAfter { reason, after }) => {
                assert!(reason.contains(&path[1..4]), "{reason}");
                let most = Duration::from_secs(most);
                let least = if path.contains("GMT") { most / 2 } else { most };
                assert!((least..=most).contains(&after), "{path}: {after:?}");
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    receiver.stop().await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let receiver = Receiver::start(as_the_path_says).await;
    for (status, count) in [(301, 1), (302, 2), (307, 3), (308, 4)] {
        let text = failure(&webhook(receiver.port, &format!("/{status}"))).await;
        assert!(text.contains(&status.to_string()), "{text}");
        assert!(text.contains("redirects are not followed"), "{text}");
        assert_eq!(receiver.received.lock().len(), count);
    }
    receiver.stop().await;
}

#[tokio::test]
async fn a_body_without_an_end_is_not_read_to_the_end() {
    let receiver = Receiver::start(|request| {
        let part = || Ok::<_, Infallible>(web::Bytes::from_static(&[b'x'; 8192]));
        let status = request.path()[1..].parse::<u16>().unwrap();
        HttpResponse::build(status.try_into().unwrap()).streaming(stream::repeat_with(part))
    })
    .await;
    // Both end long before the webhook's own timeout.
    let (succeeding, run) = (webhook(receiver.port, "/200"), run());
    let outcome = tokio::time::timeout(SOON / 4, succeeding.handle(&run));
    assert_eq!(outcome.await.unwrap(), Ok(()));
    let failing = webhook(receiver.port, "/500");
    let text = tokio::time::timeout(SOON / 4, failure(&failing))
        .await
        .unwrap();
    assert!(text.ends_with(&format!(": {}", "x".repeat(200))), "{text}");
    receiver.stop().await;
}

#[tokio::test]
async fn a_body_that_stops_ends_with_the_timeout() {
    let receiver = Receiver::start(|request| {
        let part = Ok::<_, Infallible>(web::Bytes::from_static(b"to be continued"));
        let status = request.path()[1..].parse::<u16>().unwrap();
        HttpResponse::build(status.try_into().unwrap())
            .streaming(stream::iter([part]).chain(stream::pending()))
    })
    .await;
    let hurried = |path: &str| {
        let timeout = Duration::from_millis(500);
        let settings = settings(receiver.port, path);
        Webhook::new(&WebhookSettings {
            timeout: Some(timeout),
            ..settings
        })
        .unwrap()
    };
    assert_eq!(hurried("/200").handle(&run()).await, Ok(()));
    let text = failure(&hurried("/500")).await;
    assert!(text.ends_with(": to be continued"), "{text}");
    receiver.stop().await;
}

#[tokio::test]
async fn an_answer_that_never_comes_is_a_failure() {
    // The kernel takes the connection, and nobody accepts it.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let timeout = Duration::from_millis(200);
    let webhook = Webhook::new(&WebhookSettings {
        timeout: Some(timeout),
        ..settings(port, "/")
    });
    let text = failure(&webhook.unwrap()).await;
    assert_eq!(
        text,
        format!("127.0.0.1:{port} did not answer within 200ms")
    );
}

#[tokio::test]
async fn a_receiver_that_is_down_is_a_failure() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    let text = failure(&webhook(port, "/t0ken")).await;
    assert!(
        text.starts_with(&format!("cannot send to 127.0.0.1:{port}: ")),
        "{text}"
    );
    assert!(
        text.contains("refused") && !text.contains("t0ken"),
        "{text}"
    );
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let receiver = Receiver::start(|request| match request.path() {
        "/long" => HttpResponse::InternalServerError().body(vec![b'x'; 10_000_000]),
        path => HttpResponse::build(path[1..].parse::<u16>().unwrap().try_into().unwrap())
            .body("x".repeat(10_000)),
    })
    .await;
    for (path, succeeds) in [("/200", true), ("/500", false)] {
        let before = receiver.connections();
        let webhook = webhook(receiver.port, path);
        for _ in 0..20 {
            assert_eq!(webhook.handle(&run()).await.is_ok(), succeeds);
        }
        // A request may begin before the connection of the last one is back in the pool.
        let opened = receiver.connections() - before;
        assert!((1..=3).contains(&opened), "{path}: {opened}");
    }
    // What is not read to its end cannot stay.
    let before = receiver.connections();
    let webhook = webhook(receiver.port, "/long");
    for _ in 0..3 {
        failure(&webhook).await;
    }
    assert_eq!(receiver.connections() - before, 3);
    receiver.stop().await;
}
