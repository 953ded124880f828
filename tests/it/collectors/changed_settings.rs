//! Streams whose settings change while messages wait and are with sessions.

use super::streams::{numbers, order, waiting};
use super::{Api, SOON, on};
use crate::followers::{Place, on_both_stores};
use crate::harness::{App, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};

on_both_stores! {
    messages_that_wait_for_earlier_ones_are_collected_when_order_by_is_switched_off,
    none_is_left_behind_when_the_collector_that_has_the_earlier_one_vanishes,
    order_by_that_is_switched_off_and_on_again_leaves_nothing_behind,
}

const START: &str = "/v1/streams/orders/s/start?limit=100";
/// More than are promoted at a time.
const MANY: u32 = 25;

fn streams(order_by: bool, idle: &str) -> Value {
    let mut stream = json!({
        "name": "orders", "on": ["order.*"], "key": "eventData.store", "wait": "0s", "idle": idle,
        "fields": {"number": "eventData.number"}
    });
    if order_by {
        stream["order_by"] = "userId".into();
    }
    json!([stream])
}

struct Stream {
    app: App,
    api: Api,
    idle: &'static str,
    /// `Pull-Next` of the session that has the first message of `a`.
    first: String,
}

impl Stream {
    /// One session has the first message of `a`, and the others, numbered from 2, are known to wait for it.
    async fn parked(place: &Place, idle: &'static str) -> Self {
        let builder = on(place).set("streams", streams(true, idle));
        let app = builder.start().await;
        let api = Api::of(&app);
        for number in 1..=MANY {
            order(&api, "s", "a", number).await;
        }
        order(&api, "s", "b", 0).await;
        waiting(&api, "s", u64::from(MANY) + 1).await;
        let first = api.get("/v1/streams/orders/s/start?limit=1").await;
        assert_eq!(numbers(&first), [1]);
        let other = api.get(START).await;
        assert_eq!(numbers(&other), [0], "that of `b` passes those that wait");
        assert_eq!(api.delete(&other.next()).await.status, StatusCode::OK);
        let first = first.next();
        Self {
            app,
            api,
            idle,
            first,
        }
    }

    async fn restart(&mut self, order_by: bool) {
        self.app
            .rewrite_config("streams", streams(order_by, self.idle));
        self.app.sigterm();
        self.app.wait_exit(SOON).await;
        self.app.start_again().await;
        self.api = Api::of(&self.app);
    }

    /// Collects until nothing is left.
    async fn rest(&self) -> Vec<u64> {
        let mut seen = Vec::new();
        let mut path = START.to_owned();
        eventually(SOON, "nothing is left", async || {
            let answer = self.api.get(&path).await;
            path = answer.next();
            if answer.status == StatusCode::OK {
                seen.extend(numbers(&answer));
                return None;
            }
            let place = self.api.get("/v1/streams/orders/s").await.json();
            let mut sessions = place["sessions"].as_array().unwrap().iter();
            let is_empty = place["waiting"] == 0 && sessions.all(|one| one["leased"] == 0);
            is_empty.then_some(())
        })
        .await;
        seen
    }
}

fn all(from: u32, to: u32) -> Vec<u64> {
    (from..=to).map(u64::from).collect()
}

async fn messages_that_wait_for_earlier_ones_are_collected_when_order_by_is_switched_off(
    place: &Place,
) {
    let mut stream = Stream::parked(place, "60s").await;
    stream.restart(false).await;
    waiting(&stream.api, "s", u64::from(MANY) - 1).await;
    // The session lives on, and acknowledges what it has.
    let ended = stream.api.delete(&stream.first).await;
    assert_eq!(ended.status, StatusCode::OK, "{ended:?}");
    assert_eq!(stream.rest().await, all(2, MANY));
}

async fn none_is_left_behind_when_the_collector_that_has_the_earlier_one_vanishes(place: &Place) {
    let mut stream = Stream::parked(place, "5s").await;
    stream.restart(false).await;
    // The first one comes again when its session has lapsed.
    let mut seen = stream.rest().await;
    seen.sort_unstable();
    assert_eq!(seen, all(1, MANY));
}

async fn order_by_that_is_switched_off_and_on_again_leaves_nothing_behind(place: &Place) {
    let mut stream = Stream::parked(place, "60s").await;
    stream.restart(false).await;
    // What waits is not all collected while there is no order.
    let ended = stream.api.delete(&stream.first).await;
    assert_eq!(ended.status, StatusCode::OK, "{ended:?}");
    stream.restart(true).await;
    order(&stream.api, "s", "a", MANY + 1).await;
    waiting(&stream.api, "s", u64::from(MANY)).await;
    assert_eq!(stream.rest().await, all(2, MANY + 1));
}
