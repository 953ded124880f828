//! What a subscriber gets.

use super::{Ask, log_of, post, subscribers};
use crate::collectors::on;
use crate::followers::{Place, on_both_stores};
use chrono::{SecondsFormat, Utc};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::collections::HashSet;

on_both_stores! {
    all_come_in_the_order_of_the_log_while_writers_write_and_after_a_resume,
    a_type_is_a_pattern_and_is_decoded,
    an_event_is_shown_as_it_is_by_its_id,
    a_stream_begins_where_it_is_told_to,
    a_client_with_nothing_to_get_is_told_that_the_server_is_alive,
}

async fn all_come_in_the_order_of_the_log_while_writers_write_and_after_a_resume(place: &Place) {
    const WRITERS: usize = 4;
    const REQUESTS: usize = 40;
    const ARRAY: usize = 5;
    let app = on(place).start().await;
    let before = post(&app, &["a", "b"], 60).await;
    let all = before.len() + WRITERS * REQUESTS * ARRAY;
    let writing = futures::future::join_all((0..WRITERS).map(async |_| {
        for _ in 0..REQUESTS {
            post(&app, &["a", "b"], ARRAY).await;
        }
    }));
    let reading = async {
        let mut stream = Ask::from("beginning").open(&app).await;
        let mut seen = stream.ids(all / 3).await;
        // The connection is lost in the middle, with events that the client has not looked at.
        let id = stream.last_id.clone();
        drop(stream);
        let mut stream = Ask::behind(&id).open(&app).await;
        seen.extend(stream.ids(all - seen.len()).await);
        seen
    };
    let (seen, _) = tokio::join!(reading, writing);
    let log = log_of(place, all).await;
    assert_eq!(seen, log);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), all);
}

async fn a_type_is_a_pattern_and_is_decoded(place: &Place) {
    let app = on(place).start().await;
    let types = ["order.paid", "order/ä b%20", "reorder", "order."];
    let ids = post(&app, &types, 4).await;
    for (pattern, expected) in [
        ("order.*", vec![ids[0], ids[3]]),
        ("order/ä b%20", vec![ids[1]]),
        ("*order*", ids.clone()),
        ("order", vec![]),
        ("*", ids.clone()),
    ] {
        let ask = Ask::from("beginning").of(pattern).until_the_end();
        let (found, last) = ask.open(&app).await.rest().await;
        assert_eq!(found, expected, "{pattern}");
        assert!(last.comment.unwrap().contains("end of the log"));
    }
    // The same at the end of the log, where all share what is read.
    let mut orders = Ask::from("now").of("order.*").open(&app).await;
    let mut slashes = Ask::from("now").of("order/*").open(&app).await;
    subscribers(&app, "newest", 2).await;
    let ids = post(&app, &types, 4).await;
    assert_eq!(orders.ids(2).await, [ids[0], ids[3]]);
    assert_eq!(slashes.ids(1).await, [ids[1]]);
}

async fn an_event_is_shown_as_it_is_by_its_id(place: &Place) {
    let app = on(place).start().await;
    // Line breaks between the parts of a payload are none of the stream.
    let body = "{\"id\":\"mine\",\"userId\":\"u\",\"eventType\":\"t\",\"sessionId\":\"s\",\n\
                \"eventData\":{\r\n  \"text\": \"a\\nb\",\n\n  \"n\": 1.50}}";
    let response = app.post_as("/v1/events", "application/json", body).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let mut stream = Ask::from("beginning").open(&app).await;
    let shown = stream.event().await;
    let by_id = app.get_json("/v1/events/mine?wait=5s").await;
    assert_eq!(shown.data, Some(by_id.clone()));
    assert_eq!(by_id["eventData"]["text"], "a\nb");
    let ask = Ask {
        ndjson: true,
        ..Ask::from("beginning").until_the_end()
    };
    let response = ask.send(&app).await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let text = response.text().await.unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0]["event"].is_null() && lines[0]["end"].is_null());
    assert_eq!(lines[1], json!({"position": shown.id, "event": by_id}));
    assert_eq!(lines[2]["end"]["reason"], "finished");
}

async fn a_stream_begins_where_it_is_told_to(place: &Place) {
    let app = on(place).start().await;
    let first = post(&app, &["t"], 3).await;
    let mut all = Ask::from("beginning").open(&app).await;
    assert_eq!(all.ids(3).await, first);
    let end = all.last_id.clone();
    let time = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    let mut now = Ask::default().open(&app).await;
    // Where it begins is its first word, so that not even the first event can be missed.
    let begins = now.block().await.unwrap().id.unwrap();
    drop(now);
    let second = post(&app, &["t"], 3).await;
    assert_eq!(all.ids(3).await, second);
    for ask in [
        Ask::from(&time),
        Ask::from(&end),
        Ask::behind(&end),
        Ask::behind(&begins),
        // The header wins.
        Ask {
            from: Some("beginning".to_owned()),
            ..Ask::behind(&end)
        },
    ] {
        assert_eq!(ask.open(&app).await.ids(3).await, second, "{:?}", ask.from);
    }
    let mut middle = Ask::from("beginning").open(&app).await;
    middle.ids(4).await;
    let rest = Ask::behind(&middle.last_id).open(&app).await.ids(2).await;
    assert_eq!(rest, second[1..]);
    for (from, words) in [
        ("yesterday", "must be beginning, now"),
        ("9000-01-01T00:00:00Z", "yet to come"),
    ] {
        let told = Ask::from(from).refused(&app, StatusCode::BAD_REQUEST).await;
        assert!(told.contains(words), "{told}");
    }
    let told = Ask::behind("x")
        .refused(&app, StatusCode::BAD_REQUEST)
        .await;
    assert!(told.contains("Last-Event-ID"), "{told}");
}

/// A sign of life comes each 15 s, with the position up to which there was nothing.
async fn a_client_with_nothing_to_get_is_told_that_the_server_is_alive(place: &Place) {
    let app = on(place).start().await;
    let mut stream = Ask::from("now").of("rare").open(&app).await;
    stream.block().await.unwrap();
    subscribers(&app, "newest", 1).await;
    post(&app, &["often"], 3).await;
    let mut all = Ask::from("beginning").open(&app).await;
    all.ids(3).await;
    let alive = stream.block().await.unwrap();
    assert_eq!(alive.comment.as_deref(), Some("alive"));
    let position = |id: &str| id.split_once('-').unwrap().1.parse::<i64>().unwrap();
    assert!(position(&alive.id.unwrap()) >= position(&all.last_id));
    assert_eq!(alive.data, None);
}
