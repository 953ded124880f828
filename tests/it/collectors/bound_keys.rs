//! API keys that are bound to an ISPB, or to a key of a stream: they see no other.

use super::streams::{order, waiting};
use super::{Answer, Api, on, start};
use crate::followers::{Place, on_both_stores};
use crate::harness::App;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

on_both_stores! {
    a_key_of_an_ispb_collects_that_one_alone,
    a_key_of_a_streams_key_collects_that_one_alone,
    a_key_without_the_scope_collects_nothing,
}

const OWN: &str = "11111111";
const OTHER: &str = "22222222";

fn key(name: &str, scopes: &[&str], bound: Option<(&str, &str)>) -> Value {
    let hash = format!("sha256:{:x}", Sha256::digest(name));
    let mut key = json!({"name": name, "hash": hash, "scopes": scopes});
    if let Some((to, what)) = bound {
        key[to] = what.into();
    }
    key
}

/// A server with keys whose text is their name.
async fn app(place: &Place) -> App {
    let keys = json!([
        key("root", &["admin"], None),
        key("bank", &["collect", "ingest"], Some(("ispb", OWN))),
        key(
            "shop",
            &["collect", "ingest"],
            Some(("stream", "orders/own"))
        ),
        key("sender", &["ingest", "read"], None),
    ]);
    let stream = json!({
        "name": "orders", "on": ["order.*"], "key": "eventData.store", "wait": "0s",
        "fields": {"number": "eventData.number"}
    });
    let builder = on(place).set("auth.keys", keys).set("pix.wait", "0s");
    builder.set("streams", json!([stream])).start().await
}

/// Each call of a key of a stream as `/v1/streams` has them.
fn calls(stream: &str, key: &str, token: &str) -> Vec<(Method, String, Value)> {
    let of = |rest: &str| format!("/v1/streams/{stream}/{key}/{rest}");
    vec![
        (Method::GET, of("start"), Value::Null),
        (Method::GET, of(token), Value::Null),
        (Method::DELETE, of(token), Value::Null),
        (Method::POST, of(&format!("{token}/nack")), json!({})),
        (
            Method::POST,
            of(&format!("{token}/extend")),
            json!({"lease": "1m"}),
        ),
    ]
}

/// The same of `/api/pix`, and the generator.
fn pix_calls(ispb: &str, token: &str) -> Vec<(Method, String, Value)> {
    let of = |rest: &str| format!("/api/pix/{ispb}/stream/{rest}");
    vec![
        (Method::GET, of("start"), Value::Null),
        (Method::GET, of(token), Value::Null),
        (Method::DELETE, of(token), Value::Null),
        (Method::GET, of("stop"), Value::Null),
        (Method::DELETE, of("stop"), Value::Null),
        (
            Method::POST,
            format!("/api/util/msgs/{ispb}/1"),
            Value::Null,
        ),
    ]
}

/// What shows all keys of streams, or the events of all.
fn views(stream: &str, key: &str) -> Vec<(Method, String, Value)> {
    let paths = [
        "/v1/streams".to_owned(),
        format!("/v1/streams/{stream}"),
        format!("/v1/streams/{stream}/{key}"),
        "/v1/events".to_owned(),
        "/v1/dead-letters".to_owned(),
    ];
    let mut views = Vec::from(paths.map(|path| (Method::GET, path, Value::Null)));
    let release = format!("/v1/streams/{stream}/{key}/release");
    views.push((Method::POST, release, json!({})));
    views
}

async fn call(api: &Api, (method, path, body): &(Method, String, Value)) -> Answer {
    match body {
        Value::Null => api.send(method.clone(), path, None).await,
        body => api.post(path, body).await,
    }
}

async fn all_are_forbidden(api: &Api, calls: &[(Method, String, Value)]) {
    for one in calls {
        let answer = call(api, one).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{one:?} {answer:?}");
        answer.assert_problem(StatusCode::FORBIDDEN);
    }
}

fn token(answer: &Answer) -> String {
    answer.next().rsplit('/').next().unwrap().to_owned()
}

async fn a_key_of_an_ispb_collects_that_one_alone(place: &Place) {
    let app = app(place).await;
    let (root, bank) = (Api::with_key(&app, "root"), Api::with_key(&app, "bank"));
    root.make(OTHER, 2).await;
    bank.make(OWN, 2).await;
    let held = root.get(&start(OTHER)).await;
    let before = root.level(OTHER).await;
    assert_eq!(before, (1, vec![1]));
    let token_of_other = token(&held);
    all_are_forbidden(&bank, &pix_calls(OTHER, &token_of_other)).await;
    all_are_forbidden(&bank, &calls("pix", OTHER, &token_of_other)).await;
    all_are_forbidden(&bank, &calls("orders", OWN, &token_of_other)).await;
    all_are_forbidden(&bank, &views("pix", OTHER)).await;
    all_are_forbidden(&bank, &views("pix", OWN)).await;
    // The same digits written otherwise.
    let escaped = OTHER.replace('2', "%32");
    all_are_forbidden(&bank, &pix_calls(&escaped, &token_of_other)).await;
    // A token of another ISPB is none of this one.
    let path = format!("/api/pix/{OWN}/stream/{token_of_other}");
    bank.get(&path).await.assert_problem(StatusCode::NOT_FOUND);
    bank.delete(&path)
        .await
        .assert_problem(StatusCode::NOT_FOUND);
    assert_eq!(root.level(OTHER).await, before, "nothing was touched");

    let first = bank.get(&start(OWN)).await;
    let second = bank.get(&first.next()).await;
    assert_ne!(first.ids(), second.ids());
    let nack = format!("/v1/streams/pix/{OWN}/{}/nack", token(&second));
    let refused = bank.post(&nack, &json!({})).await;
    assert_eq!(refused.json(), json!({"returned": 1}));
    assert_eq!(bank.delete(&second.next()).await.status, StatusCode::OK);
    let again = bank.get(&format!("/v1/streams/pix/{OWN}/start")).await;
    assert_eq!(again.json()["messages"].as_array().unwrap().len(), 1);
    let stopped = bank.delete(&format!("/api/pix/{OWN}/stream/stop")).await;
    assert_eq!(stopped.status, StatusCode::OK);
    assert_eq!(root.level(OWN).await, (1, vec![]));
}

async fn a_key_of_a_streams_key_collects_that_one_alone(place: &Place) {
    let app = app(place).await;
    let (root, shop) = (Api::with_key(&app, "root"), Api::with_key(&app, "shop"));
    for (store, number) in [("own", 1), ("other", 2)] {
        order(&root, store, "u", number).await;
    }
    // Each `start` takes a slot, so none is sent before its message waits.
    for store in ["own", "other"] {
        waiting(&root, store, 1).await;
    }
    let held = root.get("/v1/streams/orders/other/start").await;
    assert_eq!(held.status, StatusCode::OK, "{held:?}");
    let token_of_other = token(&held);
    all_are_forbidden(&shop, &calls("orders", "other", &token_of_other)).await;
    all_are_forbidden(&shop, &calls("orders", "ow%6E%2Fx", &token_of_other)).await;
    all_are_forbidden(&shop, &calls("pix", "own", &token_of_other)).await;
    all_are_forbidden(&shop, &pix_calls(OTHER, &token_of_other)).await;
    all_are_forbidden(&shop, &views("orders", "own")).await;
    let level = root.get("/v1/streams/orders/other").await.json();
    let leased = level["sessions"].as_array().unwrap().iter();
    let leased: u64 = leased.map(|one| one["leased"].as_u64().unwrap()).sum();
    assert_eq!(leased, 1, "nothing was touched: {level}");

    let own = shop.get("/v1/streams/orders/own/start").await;
    assert_eq!(own.status, StatusCode::OK, "{own:?}");
    assert_eq!(own.json()["messages"][0]["message"]["number"], 1);
    let extend = format!("{}/extend", own.next());
    let extended = shop.post(&extend, &json!({"lease": "1m"})).await;
    assert_eq!(extended.status, StatusCode::OK);
    assert_eq!(shop.delete(&own.next()).await.status, StatusCode::OK);
}

async fn a_key_without_the_scope_collects_nothing(place: &Place) {
    let app = app(place).await;
    let (root, sender) = (Api::with_key(&app, "root"), Api::with_key(&app, "sender"));
    root.make(OWN, 1).await;
    let held = root.get(&start(OWN)).await;
    let token = token(&held);
    let mut collecting = pix_calls(OWN, &token);
    // Sending needs another scope.
    collecting.pop();
    all_are_forbidden(&sender, &collecting).await;
    all_are_forbidden(&sender, &calls("pix", OWN, &token)).await;
    let release = (
        Method::POST,
        format!("/v1/streams/pix/{OWN}/release"),
        json!({}),
    );
    all_are_forbidden(&sender, &[release]).await;
    assert_eq!(root.level(OWN).await, (0, vec![1]));
    let unknown = Api::with_key(&app, "nobody");
    let refused = unknown.get(&start(OWN)).await;
    refused.assert_problem(StatusCode::UNAUTHORIZED);
    let without = Api::of(&app).get(&start(OWN)).await;
    without.assert_problem(StatusCode::UNAUTHORIZED);
}
