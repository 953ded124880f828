//! Streams that the server ends, and those that it does not open.

use super::{Ask, SOON, post, subscribers};
use crate::collectors::on;
use crate::followers::{Place, on_both_stores};
use crate::harness::{App, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

on_both_stores! {
    a_stream_ends_when_its_key_is_revoked,
    as_many_streams_as_may_be_and_no_more,
    a_server_that_stops_says_so_and_ends_its_streams,
}

fn key(name: &str, scope: &str) -> Value {
    let hash = format!("sha256:{:x}", Sha256::digest(name));
    json!({"name": name, "hash": hash, "scopes": [scope]})
}

async fn a_stream_ends_when_its_key_is_revoked(place: &Place) {
    let all = json!([
        key("root", "admin"),
        key("one", "read"),
        key("two", "read"),
        key("w", "ingest")
    ]);
    let mut app = on(place).set("auth.keys", all).start().await;
    let with = |name: &str| Ask {
        key: Some(name.to_owned()),
        ..Ask::from("now")
    };
    let mut one = with("one").open(&app).await;
    let mut two = with("two").open(&app).await;
    subscribers(&app, "newest", 2).await;
    let told = with("w").refused(&app, StatusCode::FORBIDDEN).await;
    assert!(told.contains("\"read\""), "{told}");
    with("none").refused(&app, StatusCode::UNAUTHORIZED).await;
    // One is taken away; the other stays.
    let left = json!([key("root", "admin"), key("two", "read")]);
    app.rewrite_config("auth.keys", left);
    app.sighup();
    assert_eq!(one.reason().await, "revoked");
    with("one").refused(&app, StatusCode::UNAUTHORIZED).await;
    let labels = [("reason", "revoked")];
    let dropped = app.metric_with("eclusa_topic_dropped_total", &labels).await;
    assert_eq!(dropped, 1.0);
    subscribers(&app, "newest", 1).await;
    // Then the other may do something else.
    app.rewrite_config(
        "auth.keys",
        json!([key("root", "admin"), key("two", "ingest")]),
    );
    app.sighup();
    assert_eq!(two.reason().await, "revoked");
}

async fn is_opened_again(app: &App) {
    eventually(SOON, "there is room again", async || {
        let response = Ask::from("now").send(app).await;
        (response.status() == StatusCode::OK).then_some(())
    })
    .await;
}

async fn as_many_streams_as_may_be_and_no_more(place: &Place) {
    let mut app = on(place)
        .set("topics.max_streams", 3)
        .set("topics.max_streams_per_key", 2)
        .start()
        .await;
    let first = Ask::from("now").open(&app).await;
    let second = Ask::from("now").open(&app).await;
    let response = Ask::from("now").send(&app).await;
    assert!(response.headers().contains_key("retry-after"));
    let told = Ask::from("now")
        .refused(&app, StatusCode::TOO_MANY_REQUESTS)
        .await;
    assert!(told.contains("max_streams_per_key"), "{told}");
    // A client that hangs up leaves its place.
    drop(second);
    is_opened_again(&app).await;
    // The bounds change while it runs.
    app.rewrite_config("topics.max_streams", 1);
    app.sighup();
    eventually(SOON, "there is less room", async || {
        let response = Ask::from("now").send(&app).await;
        let status = response.status();
        let body = response.text();
        (status == StatusCode::TOO_MANY_REQUESTS
            && body.await.unwrap().contains("topics.max_streams)"))
        .then_some(())
    })
    .await;
    drop(first);
    is_opened_again(&app).await;
}

async fn a_server_that_stops_says_so_and_ends_its_streams(place: &Place) {
    let mut app = on(place).start().await;
    let mut stream = Ask::from("beginning").open(&app).await;
    let ids = post(&app, &["t"], 3).await;
    assert_eq!(stream.ids(3).await, ids);
    subscribers(&app, "newest", 1).await;
    app.sigterm();
    let (more, last) = stream.rest().await;
    assert!(more.is_empty());
    let comment = last.comment.clone().unwrap_or_default();
    assert!(comment.contains("stopping"), "{last:?}");
    assert_eq!(last.kind, None, "a client connects again");
    assert!(app.wait_exit(SOON).await.success());
}
