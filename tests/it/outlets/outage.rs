//! A broker that is away, silent or full.

use super::*;
use crate::followers::on_both_stores;
use crate::harness::{Direction, Proxy, RabbitMq};

on_both_stores! {
    a_broker_that_is_away_harms_no_event_and_no_ingest,
}

async fn a_broker_that_is_away_harms_no_event_and_no_ingest(place: &Place) {
    let mut rabbitmq = RabbitMq::start().await;
    let url = rabbitmq.vhost().await;
    rabbitmq.stop().await;
    let outlets = to_stream(&url, json!({"on_error": "dead_letter"}));
    let app = start(place, outlets).await;
    post(&app, "a", 0..50).await;
    fails(&app, "outage").await;
    assert!(app.is_ready().await);
    post(&app, "a", 50..100).await;
    rabbitmq.start_again().await;
    let log = logged_ids(place, &["*"]).await;
    let mut reader = Reader::of_stream(&url, STREAM).await;
    reader.all_of(&log).await;
    assert_eq!(reader.ids(), log);
    let letters = app.get_json("/v1/dead-letters").await;
    assert_eq!(letters["deadLetters"], json!([]));
    caught_up(&app).await;
}

#[actix_rt::test]
async fn a_broker_that_confirms_nothing_is_connected_to_anew() {
    let place = Place::sqlite().await;
    let rabbitmq = RabbitMq::shared().await;
    let url = rabbitmq.vhost().await;
    let net = Proxy::to(rabbitmq.port()).await;
    let limit = humantime::format_duration(SHORT).to_string();
    let app = place
        .app()
        .set("outlets", to_stream(&net.url(&url), json!({})))
        .set("broker.confirm_timeout", limit)
        .start()
        .await;
    post(&app, "a", 0..20).await;
    caught_up(&app).await;
    net.drop_silently(Direction::Down);
    post(&app, "a", 20..40).await;
    fails(&app, "outage").await;
    app.wait_for_log(SOON, "has confirmed nothing within 2s")
        .await;
    net.heal();
    let log = logged_ids(&place, &["*"]).await;
    let mut reader = Reader::of_stream(&url, STREAM).await;
    reader.all_of(&log).await;
    assert_eq!(first_deliveries(&reader.ids()), log);
    caught_up(&app).await;
}

#[actix_rt::test]
async fn a_broker_that_says_it_takes_nothing_gets_each_message_once() {
    let place = Place::sqlite().await;
    let rabbitmq = RabbitMq::start().await;
    let url = rabbitmq.vhost().await;
    let limit = humantime::format_duration(SHORT).to_string();
    let app = place
        .app()
        .set("outlets", to_stream(&url, json!({})))
        .set("broker.confirm_timeout", limit)
        .start()
        .await;
    post(&app, "a", 0..20).await;
    caught_up(&app).await;
    let alarm = "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []})";
    rabbitmq.eval(alarm).await;
    post(&app, "a", 20..60).await;
    // The server tells it when it publishes.
    eventually(SOON, "its connection is blocked", async || {
        let blocked =
            "[S || [{state, S}] <- rabbit_networking:connection_info_all([state]), S =:= blocked]";
        (rabbitmq.eval(blocked).await != "[]").then_some(())
    })
    .await;
    // For longer than a confirm may take otherwise.
    eventually(SOON, "time passes", async || {
        let behind = follower(&app).await["behind"]["seconds"].as_f64()?;
        (behind > 2.0 * SHORT.as_secs_f64()).then_some(())
    })
    .await;
    let over = "rabbit_alarm:clear_alarm({resource_limit, memory, node()})";
    rabbitmq.eval(over).await;
    caught_up(&app).await;
    // Another connection would have repeated what was on its way.
    let failures = app.metric("eclusa_follower_failures_total").await;
    assert_eq!(failures, 0.0);
    let log = logged_ids(&place, &["*"]).await;
    let mut reader = Reader::of_stream(&url, STREAM).await;
    reader.all_of(&log).await;
    assert_eq!(reader.ids(), log);
}
