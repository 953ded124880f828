//! SIGTERM: unready at once, still serving for the grace period, then everything in hand settles.

use crate::harness::{App, Postgres, eventually, temp_dir};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn it_says_unready_and_serves_on_through_the_grace_period() {
    let dir = temp_dir("grace-");
    let mut app = App::builder()
        .embedded(dir.path())
        .set("shutdown.grace", "60s")
        .start()
        .await;
    app.wait_ready().await;
    app.sigterm();
    eventually(SOON, "it is unready", async || {
        (!app.is_ready().await).then_some(())
    })
    .await;
    let response = app.get("/health/ready").await.text().await.unwrap();
    assert!(response.contains("stopping"), "{response}");
    let event = json!({"userId": "u", "eventType": "t"});
    assert_eq!(app.post("/v1/events", &event).await.status(), 202);
    assert_eq!(app.get("/health/live").await.status(), 200);
    // A second signal cuts the grace short, and still everything settles.
    app.sigterm();
    assert!(app.wait_exit(SOON).await.success());
}

/// The streams of the signals are older than the server, so none falls between two of them.
#[tokio::test]
async fn a_signal_right_after_the_start_is_not_lost() {
    for _ in 0..10 {
        let dir = temp_dir("early-");
        let builder = App::builder().embedded(dir.path());
        let mut app = builder.set("shutdown.grace", "0s").start().await;
        app.sigterm();
        assert!(app.wait_exit(SOON).await.success());
    }
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_end() {
    let mut postgres = Postgres::start().await;
    let mut app = App::builder()
        .postgres(&postgres.database().await)
        .start()
        .await;
    app.wait_ready().await;
    postgres.pause();
    let url = format!("{}/v1/events", app.url());
    let in_flight = tokio::spawn(async move {
        let request = reqwest::Client::new().post(url);
        let request = request.header("content-type", "application/json");
        let body = json!({"userId": "u", "eventType": "t"}).to_string();
        request.body(body).send().await.unwrap().status().as_u16()
    });
    eventually(SOON, "it is in flight", async || {
        (app.metric("eclusa_events_in_flight").await == 1.0).then_some(())
    })
    .await;
    app.sigterm();
    app.wait_for_log(SOON, "still serving").await;
    postgres.resume();
    assert_eq!(in_flight.await.unwrap(), 202);
    assert!(app.wait_exit(SOON).await.success());
}

#[tokio::test]
async fn what_does_not_settle_within_the_deadline_is_told_to_come_back() {
    let mut postgres = Postgres::start().await;
    let mut app = App::builder()
        .postgres(&postgres.database().await)
        .set("shutdown.deadline", "1s")
        .start()
        .await;
    app.wait_ready().await;
    postgres.pause();
    let url = format!("{}/v1/events", app.url());
    let in_flight = tokio::spawn(async move {
        let request = reqwest::Client::new().post(url);
        let request = request.header("content-type", "application/json");
        let body = json!({"userId": "u", "eventType": "t"}).to_string();
        request
            .body(body)
            .send()
            .await
            .map(|response| response.status().as_u16())
    });
    eventually(SOON, "it is in flight", async || {
        (app.metric("eclusa_events_in_flight").await == 1.0).then_some(())
    })
    .await;
    app.sigterm();
    assert!(app.wait_exit(SOON).await.success());
    // Either a 503 or a connection that ends: never a yes.
    assert!(!matches!(in_flight.await.unwrap(), Ok(202)));
    postgres.resume();
}
