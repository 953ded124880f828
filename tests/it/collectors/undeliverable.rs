//! Messages that collectors got too often: dead letters, their metric, and the way back.

use super::streams::{app, numbers, order, waiting};
use super::{Answer, Api, SOON};
use crate::followers::{Place, on_both_stores};
use crate::harness::{App, eclusa, eventually, told};
use reqwest::StatusCode;
use serde_json::{Value, json};

on_both_stores! {
    a_message_that_was_handed_out_too_often_is_counted_and_its_replay_brings_it_back,
    a_message_of_a_collector_that_vanishes_ends_as_a_dead_letter_too,
}

const START: &str = "/v1/streams/orders/s/start";

async fn two_orders(place: &Place, idle: &str) -> (App, Api) {
    let stream = json!({
        "name": "orders", "on": ["order.*"], "key": "eventData.store", "max_deliveries": 2,
        "fields": {"number": "eventData.number"}, "wait": "0s", "idle": idle
    });
    let app = app(place, stream).await;
    let api = Api::of(&app);
    for number in [1, 2] {
        order(&api, "s", "u", number).await;
    }
    waiting(&api, "s", 2).await;
    (app, api)
}

async fn letters(api: &Api) -> Vec<Value> {
    let listed = api.get("/v1/dead-letters").await.json();
    listed["deadLetters"].as_array().unwrap().clone()
}

async fn counted(app: &App) -> f64 {
    let cause = [("cause", "undeliverable")];
    app.metric_with("eclusa_events_dead_lettered_total", &cause)
        .await
}

fn deliveries(answer: &Answer) -> Vec<Value> {
    let body = answer.json();
    let messages = body["messages"].as_array().unwrap().iter();
    messages.map(|one| one["deliveryCount"].clone()).collect()
}

async fn replay(place: &Place) -> String {
    let setting = match (&place.url, &place.folder) {
        (Some(url), _) => format!("store.url={url}"),
        (None, folder) => format!("data_dir={}", folder.as_ref().unwrap().path().display()),
    };
    let replay = ["dlq", "replay", "--cause", "undeliverable", "--set"];
    let mut command = eclusa(&[&replay[..], &[&setting]].concat());
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    told(&output)
}

async fn a_message_that_was_handed_out_too_often_is_counted_and_its_replay_brings_it_back(
    place: &Place,
) {
    let (app, api) = two_orders(place, "60s").await;
    for round in 1..=2 {
        let answer = api.get(&format!("{START}?limit=1")).await;
        assert_eq!(numbers(&answer), [1]);
        assert_eq!(deliveries(&answer), [round]);
        assert_eq!(counted(&app).await, 0.0);
        let nack = format!("{}/nack", answer.next());
        let refused = api.post(&nack, &json!({})).await;
        assert_eq!(refused.status, StatusCode::OK, "{refused:?}");
        assert_eq!(api.delete(&answer.next()).await.status, StatusCode::OK);
    }
    assert_eq!(counted(&app).await, 1.0);
    let found = letters(&api).await;
    assert_eq!(found.len(), 1, "{found:?}");
    let letter = &found[0];
    assert_eq!(letter["cause"], "undeliverable");
    assert_eq!(
        (&letter["state"], &letter["origin"], &letter["attempts"]),
        (&json!("dead"), &json!("streams.orders"), &json!(2))
    );
    // The other one is not held up.
    let other = api.get(START).await;
    assert_eq!(numbers(&other), [2]);
    assert_eq!(api.delete(&other.next()).await.status, StatusCode::OK);
    waiting(&api, "s", 0).await;

    let said = replay(place).await;
    assert!(said.contains("1 replayed, 0 failed"), "{said}");
    waiting(&api, "s", 1).await;
    let again = api.get(START).await;
    assert_eq!(numbers(&again), [1]);
    assert_eq!(deliveries(&again), [1], "it begins anew");
    let body = again.json();
    assert_eq!(body["messages"][0]["id"], letter["eventId"]);
    assert_eq!(api.delete(&again.next()).await.status, StatusCode::OK);
    let found = letters(&api).await;
    assert_eq!((found.len(), &found[0]["state"]), (1, &json!("replayed")));
    assert_eq!(counted(&app).await, 1.0);
}

async fn a_message_of_a_collector_that_vanishes_ends_as_a_dead_letter_too(place: &Place) {
    let (app, api) = two_orders(place, "1s").await;
    for _ in 0..2 {
        // They return when the session before has lapsed.
        waiting(&api, "s", 2).await;
        let found = api.get(START).await;
        assert_eq!(numbers(&found), [1, 2]);
    }
    // No client calls any longer.
    eventually(SOON, "both are dead letters", async || {
        (counted(&app).await == 2.0).then_some(())
    })
    .await;
    let found = letters(&api).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|one| one["cause"] == "undeliverable"));
    waiting(&api, "s", 0).await;
}
