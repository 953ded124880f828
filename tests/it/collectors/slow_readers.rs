//! Clients that do not read their answers.

use super::streams::{numbers, waiting};
use super::{Api, SOON, on};
use crate::followers::{Place, on_both_stores};
use crate::harness::eventually;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

on_both_stores! {
    answers_that_are_not_read_are_bounded_and_the_messages_of_others_stay,
}

/// Much more than sockets hold, and more than half of the bound.
const MESSAGES: u64 = 14;

async fn order(api: &Api, store: &str, number: u64) {
    let data = json!({"store": store, "number": number, "pad": "x".repeat(900_000)});
    let event = json!({"userId": "u", "eventType": "order.placed", "eventData": data});
    let answer = api.post("/v1/events", &event).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
}

/// A client whose answer is under way.
async fn hold(api: &Api, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let address = api.url.strip_prefix("http://").unwrap();
    let mut client = socket.connect(address.parse().unwrap()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut begun = [0; 12];
    client.read_exact(&mut begun).await.unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    client
}

/// How many messages of a key wait, and how many are with each of its sessions.
async fn level(api: &Api, key: &str) -> (Value, Vec<Value>) {
    let place = api.get(&format!("/v1/streams/orders/{key}")).await.json();
    let sessions = place["sessions"].as_array().unwrap().iter();
    let leased = sessions.map(|session| session["leased"].clone()).collect();
    (place["waiting"].clone(), leased)
}

async fn answers_that_are_not_read_are_bounded_and_the_messages_of_others_stay(place: &Place) {
    let stream = json!({
        "name": "orders", "on": ["order.*"], "key": "eventData.store", "wait": "0s",
        "fields": {"number": "eventData.number", "pad": "eventData.pad"}
    });
    let builder = on(place).set("streams", json!([stream]));
    let app = builder.set("ingest.max_in_flight", "16 MiB").start().await;
    let api = Api::of(&app);
    for store in ["held", "other"] {
        for number in 0..=MESSAGES {
            order(&api, store, number).await;
        }
        waiting(&api, store, MESSAGES + 1).await;
    }
    let first = api.get("/v1/streams/orders/other/start?limit=1").await;
    assert_eq!(numbers(&first), [0]);
    let held = hold(&api, "/v1/streams/orders/held/start?limit=14").await;
    // There is room for a small answer.
    let small = api.get("/v1/streams/orders/held/start?limit=1").await;
    assert_eq!(numbers(&small), [MESSAGES]);
    // A session that its collector cannot ask again is not left behind.
    let start = "/v1/streams/orders/other/start?limit=14";
    let refused = api.get(start).await;
    refused.assert_problem(StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.retry_after.is_some(), "{refused:?}");
    assert_eq!(level(&api, "other").await, (json!(14), vec![json!(1)]));
    // Those of one that goes on stay with it.
    let next = format!("{}?limit=14", first.next());
    for _ in 0..2 {
        let refused = api.get(&next).await;
        refused.assert_problem(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(level(&api, "other").await, (json!(0), vec![json!(14)]));
    }
    drop(held);
    let answer = eventually(SOON, "there is room again", async || {
        let answer = api.get(&next).await;
        (answer.status == StatusCode::OK).then_some(answer)
    })
    .await;
    let expected: Vec<u64> = (1..=MESSAGES).collect();
    assert_eq!(numbers(&answer), expected);
    let body = answer.json();
    let first = &body["messages"][0];
    assert_eq!(first["deliveryCount"], 1, "a 503 hands nothing out");
    assert_eq!(api.delete(&answer.next()).await.status, StatusCode::OK);
    assert_eq!(level(&api, "other").await, (json!(0), vec![]));
}
