//! Streams of any events, as the settings declare them, and keys that are bound.

use super::{Answer, Api, SOON, on};
use crate::followers::{Place, on_both_stores};
use crate::harness::{App, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

on_both_stores! {
    events_are_collected_by_key_in_the_shape_of_the_settings,
    messages_that_are_given_back_come_again_and_end_as_dead_letters,
    one_order_key_is_with_one_session_at_a_time,
    a_message_behind_many_of_an_order_key_that_another_has_comes_at_once,
    a_key_that_no_message_can_have_is_refused_by_every_route,
}

pub async fn app(place: &Place, stream: Value) -> App {
    on(place).set("streams", json!([stream])).start().await
}

pub async fn order(api: &Api, store: &str, user: &str, number: u32) {
    let data = json!({"store": store, "number": number, "total": 12.5});
    let event = json!({"userId": user, "eventType": "order.placed", "eventData": data});
    assert_eq!(
        api.post("/v1/events", &event).await.status,
        StatusCode::ACCEPTED
    );
}

pub async fn waiting(api: &Api, key: &str, number: u64) {
    let path = format!("/v1/streams/orders/{key}");
    eventually(SOON, "messages wait", async || {
        (api.get(&path).await.json()["waiting"] == number).then_some(())
    })
    .await;
}

pub fn numbers(answer: &Answer) -> Vec<u64> {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let body = answer.json();
    let messages = body["messages"].as_array().unwrap().iter();
    messages
        .map(|one| one["message"]["number"].as_u64().unwrap())
        .collect()
}

async fn events_are_collected_by_key_in_the_shape_of_the_settings(place: &Place) {
    let stream = json!({
        "name": "orders", "on": ["order.*"], "key": "eventData.store", "when": "eventData.number > 0",
        "fields": {"number": "eventData.number", "who": "userId", "total": "eventData.total"}
    });
    let app = app(place, stream).await;
    let api = Api::of(&app);
    for (store, number) in [("north/1", 1), ("south", 2), ("north/1", 0), ("north/1", 3)] {
        order(&api, store, "u", number).await;
    }
    waiting(&api, "north%2F1", 2).await;
    let answer = api.get("/v1/streams/orders/north%2F1/start?limit=5").await;
    assert_eq!(numbers(&answer), [1, 3]);
    let first = &answer.json()["messages"][0];
    assert_eq!(
        first["message"],
        json!({"number": 1, "who": "u", "total": 12.5})
    );
    assert_eq!(first["deliveryCount"], 1);
    assert!(
        answer.next().starts_with("/v1/streams/orders/north%2F1/"),
        "{answer:?}"
    );
    assert_eq!(api.delete(&answer.next()).await.status, StatusCode::OK);
    let listed = api.get("/v1/streams/orders").await.json();
    assert_eq!(listed["keys"][0]["key"], "south");
    for path in [
        "/v1/streams/none",
        "/v1/streams/none/k",
        "/v1/streams/none/k/start",
    ] {
        api.get(path).await.assert_problem(StatusCode::NOT_FOUND);
    }
    api.get("/v1/streams/orders/k/start?limit=101")
        .await
        .assert_problem(StatusCode::BAD_REQUEST);
}

async fn messages_that_are_given_back_come_again_and_end_as_dead_letters(place: &Place) {
    let stream = json!({
        "name": "orders", "on": ["order.*"], "key": "eventData.store", "max_deliveries": 2,
        "fields": {"number": "eventData.number"}, "wait": "0s"
    });
    let app = app(place, stream).await;
    let api = Api::of(&app);
    for number in [1, 2] {
        order(&api, "s", "u", number).await;
    }
    waiting(&api, "s", 2).await;
    let first = api.get("/v1/streams/orders/s/start").await;
    assert_eq!(numbers(&first), [1, 2]);
    let one = first.json()["messages"][0]["id"].clone();
    let nack = format!("{}/nack", first.next());
    let body = json!({"ids": [one], "delay": "0s"});
    assert_eq!(api.post(&nack, &body).await.json(), json!({"returned": 1}));
    let extended = api
        .post(&format!("{}/extend", first.next()), &json!({"lease": "5m"}))
        .await;
    assert_eq!(extended.status, StatusCode::OK);
    let second = api.get(&first.next()).await;
    assert_eq!(
        (
            numbers(&second),
            second.json()["messages"][0]["deliveryCount"].clone()
        ),
        (vec![1], json!(2))
    );
    assert_eq!(
        api.post(&format!("{}/nack", second.next()), &json!({}))
            .await
            .status,
        StatusCode::OK
    );
    assert_eq!(api.get(&second.next()).await.status, StatusCode::NO_CONTENT);
    let letters = api.get("/v1/dead-letters").await.json();
    let letter = &letters["deadLetters"][0];
    assert_eq!(
        (&letter["cause"], &letter["eventId"]),
        (&json!("undeliverable"), &one),
        "{letters}"
    );
    for (path, body) in [
        ("nack", json!({"delay": "13h"})),
        ("extend", json!({"lease": "soon"})),
    ] {
        let answer = api.post(&format!("{}/{path}", second.next()), &body).await;
        answer.assert_problem(StatusCode::BAD_REQUEST);
    }
}

async fn one_order_key_is_with_one_session_at_a_time(place: &Place) {
    let stream = json!({
        "name": "orders", "on": ["order.*"], "key": "eventData.store", "order_by": "userId",
        "fields": {"number": "eventData.number"}, "wait": "0s"
    });
    let app = app(place, stream).await;
    let api = Api::of(&app);
    for (user, number) in [("a", 1), ("a", 2), ("b", 3), ("a", 4), ("b", 5)] {
        order(&api, "s", user, number).await;
    }
    waiting(&api, "s", 5).await;
    let first = api.get("/v1/streams/orders/s/start?limit=1").await;
    assert_eq!(numbers(&first), [1]);
    let second = api.get("/v1/streams/orders/s/start?limit=10").await;
    assert_eq!(numbers(&second), [3, 5]);
    assert_eq!(
        api.get("/v1/streams/orders/s/start").await.status,
        StatusCode::NO_CONTENT
    );
    let third = api.get(&format!("{}?limit=10", first.next())).await;
    assert_eq!(numbers(&third), [2, 4]);
    let released = api
        .send(Method::POST, "/v1/streams/orders/s/release", None)
        .await;
    released.assert_problem(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let released = api.post("/v1/streams/orders/s/release", &json!({})).await;
    assert_eq!(released.json()["waiting"], 4, "{released:?}");
}

async fn a_message_behind_many_of_an_order_key_that_another_has_comes_at_once(place: &Place) {
    const MANY: u32 = 3_000;
    let stream = json!({
        "name": "orders", "on": ["order.*"], "key": "eventData.store", "order_by": "userId",
        "fields": {"number": "eventData.number"}, "wait": "0s"
    });
    let app = app(place, stream).await;
    let api = Api::of(&app);
    let event = |user: &str, number: u32| {
        let data = json!({"store": "s", "number": number});
        json!({"userId": user, "eventType": "order.placed", "eventData": data})
    };
    let mut events: Vec<Value> = (1..=MANY).map(|number| event("a", number)).collect();
    events.push(event("b", 0));
    for part in events.chunks(500) {
        let sent = api.post("/v1/events", &json!(part)).await;
        assert!(sent.status.is_success(), "{sent:?}");
    }
    waiting(&api, "s", u64::from(MANY) + 1).await;
    let first = api.get("/v1/streams/orders/s/start?limit=1").await;
    assert_ne!(numbers(&first), [0]);
    // Without a wait: the first look is all there is.
    let other = api.get("/v1/streams/orders/s/start").await;
    assert_eq!(numbers(&other), [0]);
}

async fn a_key_that_no_message_can_have_is_refused_by_every_route(place: &Place) {
    let stream =
        json!({"name": "orders", "on": ["order.*"], "key": "eventData.store", "wait": "0s"});
    let app = app(place, stream).await;
    let api = Api::of(&app);
    let longest = "%C3%A9".repeat(128);
    let longer = format!("{longest}k");
    for (stream, key) in [
        ("orders", longer.as_str()),
        ("orders", "a%00"),
        ("pix", "abc"),
        ("pix", "123456789"),
        ("pix", "1234567a"),
    ] {
        let of = |rest: &str| format!("/v1/streams/{stream}/{key}{rest}");
        for path in ["", "/start", "/sometoken"].map(of) {
            api.get(&path).await.assert_problem(StatusCode::BAD_REQUEST);
        }
        let answer = api.delete(&of("/sometoken")).await;
        answer.assert_problem(StatusCode::BAD_REQUEST);
        for (rest, body) in [
            ("/release", json!({})),
            ("/sometoken/nack", json!({})),
            ("/sometoken/extend", json!({"lease": "1m"})),
        ] {
            let answer = api.post(&of(rest), &body).await;
            answer.assert_problem(StatusCode::BAD_REQUEST);
        }
    }
    let keys = api.get("/v1/streams/orders").await.json()["keys"].clone();
    assert_eq!(keys, json!([]), "no session was opened");
    let path = format!("/v1/streams/orders/{longest}/start");
    assert_eq!(api.get(&path).await.status, StatusCode::NO_CONTENT);
}
