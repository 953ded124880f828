//! Answers that are lost on their way, and collectors that end while one is on its way to them.

use super::streams::{numbers, order, waiting};
use super::{Answer, Api, SOON, fresh_ispb, on, start};
use crate::followers::{Place, on_both_stores};
use crate::harness::{App, Direction, Moment, Proxy, eventually};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::HashSet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

on_both_stores! {
    an_id_whose_answer_was_lost_gets_the_same_messages,
    an_end_whose_answer_was_lost_has_acknowledged,
    an_id_whose_answer_was_lost_is_a_410_after_the_lease_and_its_messages_come_again,
    messages_of_a_start_whose_answer_was_lost_come_again_after_the_lease,
    messages_of_an_answer_that_was_reset_on_its_way_come_again_after_the_lease,
}

/// A server, and two ways to it.
struct Ways {
    /// Sees what the server has.
    direct: Api,
    /// By way of a network that loses answers.
    lossy: Api,
    net: Proxy,
    _app: App,
}

impl Ways {
    async fn to(place: &Place, idle: &str) -> Self {
        let app = on(place)
            .set("pix.idle", idle)
            .set("pix.wait", "1s")
            .start()
            .await;
        let port = app.url().rsplit(':').next().unwrap().parse().unwrap();
        let net = Proxy::to(port).await;
        Self {
            direct: Api::of(&app),
            lossy: Api::at(&net.url(app.url()), HeaderMap::new()),
            net,
            _app: app,
        }
    }

    /// A call whose answer does not come back.
    async fn lose(&self, moment: Moment, method: Method, path: &str) {
        let sprung = self.net.sprung();
        self.net.cut_when(Direction::Up, path.as_bytes(), moment);
        let answer = self.lossy.try_send(method, path, Some("multipart/json"));
        let answer = answer.await;
        assert!(answer.is_err(), "{answer:?}");
        assert_eq!(self.net.sprung(), sprung + 1);
    }

    async fn lapse(&self, ispb: &str, level: (u64, Vec<u64>)) {
        eventually(SOON, "the stream lapses", async || {
            (self.direct.level(ispb).await == level).then_some(())
        })
        .await;
    }
}

async fn an_id_whose_answer_was_lost_gets_the_same_messages(place: &Place) {
    let ways = Ways::to(place, "60s").await;
    let ispb = fresh_ispb();
    ways.direct.make(&ispb, 25).await;
    let first = ways.lossy.many(&start(&ispb)).await;
    let path = first.next();
    // The server does not get the call, so it acknowledges nothing.
    ways.lose(Moment::Before, Method::GET, &path).await;
    assert_eq!(ways.direct.level(&ispb).await, (15, vec![10]));
    // It carries the call out, and its answer is lost; so is that of the repeat.
    for _ in 0..2 {
        ways.lose(Moment::Answered, Method::GET, &path).await;
        assert_eq!(ways.direct.level(&ispb).await, (5, vec![10]));
    }
    let second = ways.lossy.many(&path).await;
    let again = ways.lossy.many(&path).await;
    assert_eq!((again.ids(), again.next()), (second.ids(), second.next()));
    assert_eq!(ways.direct.level(&ispb).await, (5, vec![10]));
    let third = ways.lossy.many(&second.next()).await;
    let mut all = HashSet::new();
    for answer in [&first, &second, &third] {
        all.extend(answer.ids());
    }
    assert_eq!(all.len(), 25, "each comes in one answer");
    let spent = ways.lossy.many(&path).await;
    spent.assert_problem(StatusCode::GONE);
    let ended = ways.lossy.delete(&third.next()).await;
    assert_eq!(ended.status, StatusCode::OK);
    assert_eq!(ways.direct.level(&ispb).await, (0, vec![]));
}

async fn an_end_whose_answer_was_lost_has_acknowledged(place: &Place) {
    let ways = Ways::to(place, "60s").await;
    let ispb = fresh_ispb();
    ways.direct.make(&ispb, 12).await;
    let path = ways.lossy.many(&start(&ispb)).await.next();
    ways.lose(Moment::Answered, Method::DELETE, &path).await;
    assert_eq!(ways.direct.level(&ispb).await, (2, vec![]));
    let again = ways.lossy.delete(&path).await;
    again.assert_problem(StatusCode::GONE);
    let rest = ways.lossy.many(&start(&ispb)).await;
    assert_eq!(rest.ids().len(), 2);
}

async fn an_id_whose_answer_was_lost_is_a_410_after_the_lease_and_its_messages_come_again(
    place: &Place,
) {
    let ways = Ways::to(place, "5s").await;
    let ispb = fresh_ispb();
    ways.direct.make(&ispb, 15).await;
    let first = ways.lossy.many(&start(&ispb)).await;
    let path = first.next();
    ways.lose(Moment::Answered, Method::GET, &path).await;
    assert_eq!(ways.direct.level(&ispb).await, (0, vec![5]));
    ways.lapse(&ispb, (5, vec![])).await;
    let late = ways.lossy.many(&path).await;
    late.assert_problem(StatusCode::GONE);
    let rest = ways.lossy.many(&start(&ispb)).await;
    let acknowledged = first.ids();
    assert_eq!(rest.ids().len(), 5);
    assert!(rest.ids().iter().all(|id| !acknowledged.contains(id)));
    assert_eq!(ways.lossy.delete(&rest.next()).await.status, StatusCode::OK);
    assert_eq!(ways.direct.level(&ispb).await, (0, vec![]));
}

async fn messages_of_a_start_whose_answer_was_lost_come_again_after_the_lease(place: &Place) {
    let ways = Ways::to(place, "5s").await;
    let ispb = fresh_ispb();
    ways.direct.make(&ispb, 3).await;
    // Its client never learns of the stream.
    let path = start(&ispb);
    ways.lose(Moment::Answered, Method::GET, &path).await;
    assert_eq!(ways.direct.level(&ispb).await, (0, vec![3]));
    // Another one waits until they return.
    let mut answer = ways.lossy.many(&path).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    eventually(SOON, "they come again", async || {
        answer = ways.lossy.many(&answer.next()).await;
        (answer.status == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(answer.ids().len(), 3);
}

/// Bytes of an event's data, so that a hundred do not fit into the buffers of a connection.
const LARGE: usize = 20_000;

/// Asks for an answer, reads where it begins, and resets the connection.
async fn reset_midway(api: &Api, path: &str) {
    let address = api.url.strip_prefix("http://").unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut begun = vec![0; 2_000];
    stream.read_exact(&mut begun).await.unwrap();
    let begun = String::from_utf8_lossy(&begun).into_owned();
    assert!(begun.starts_with("HTTP/1.1 200"), "{begun}");
    assert!(begun.contains(r#"{"messages":["#), "its body is on the way");
    stream.set_zero_linger().unwrap();
}

fn deliveries(answer: &Answer) -> Vec<Value> {
    let body = answer.json();
    let messages = body["messages"].as_array().unwrap().iter();
    messages.map(|one| one["deliveryCount"].clone()).collect()
}

async fn messages_of_an_answer_that_was_reset_on_its_way_come_again_after_the_lease(place: &Place) {
    let fields = json!({"number": "eventData.number", "rest": "eventData.rest"});
    let stream = json!({
        "name": "orders", "on": ["order.*"], "key": "eventData.store", "fields": fields,
        "idle": "5s", "wait": "1s"
    });
    let app = super::streams::app(place, stream).await;
    let api = Api::of(&app);
    for number in 0..10 {
        order(&api, "s", "u", number).await;
    }
    let rest = "x".repeat(LARGE);
    for number in 10..100 {
        let data = json!({"store": "s", "number": number, "rest": rest});
        let event = json!({"userId": "u", "eventType": "order.placed", "eventData": data});
        let taken = api.post("/v1/events", &event).await;
        assert_eq!(taken.status, StatusCode::ACCEPTED);
    }
    waiting(&api, "s", 100).await;
    let first = api.get("/v1/streams/orders/s/start?limit=10").await;
    assert_eq!(numbers(&first), Vec::from_iter(0..10));
    reset_midway(&api, &format!("{}?limit=100", first.next())).await;
    // The call has acknowledged the first ten, whatever became of its answer.
    waiting(&api, "s", 90).await;
    let late = api.get(&first.next()).await;
    late.assert_problem(StatusCode::GONE);
    let again = api.get("/v1/streams/orders/s/start?limit=100").await;
    assert_eq!(numbers(&again), Vec::from_iter(10..100));
    assert_eq!(deliveries(&again), vec![json!(2); 90]);
    assert_eq!(api.delete(&again.next()).await.status, StatusCode::OK);
    waiting(&api, "s", 0).await;
}
