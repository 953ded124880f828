//! Changes that no event can hold: dead letters with their keys, beside which the capture goes on.

use super::replay::Replayed;
use super::shop::{self, CAUGHT_UP, Shop};
use crate::harness::{App, Postgres, connect, eventually};
use serde_json::{Value, json};

/// The newest dead letters, as soon as there are so many.
async fn letters(app: &App, number: usize) -> Vec<Value> {
    let list = eventually(CAUGHT_UP, "the letters are there", async || {
        let list = app.get_json("/v1/dead-letters").await;
        let list = list["deadLetters"].as_array()?.clone();
        (list.len() >= number).then_some(list)
    })
    .await;
    let mut letters = Vec::new();
    for one in list {
        let path = format!("/v1/dead-letters/{}", one["id"].as_str().unwrap());
        letters.push(app.get_json(&path).await);
    }
    letters
}

async fn what_no_event_can_hold_is_a_dead_letter(embedded: bool) {
    let url = shop::tables(Postgres::shared().await).await;
    let client = connect(&url).await;
    client
        .batch_execute("ALTER TABLE sale ADD COLUMN j json; INSERT INTO sale VALUES (1, 'before', 1, repeat('x', 5000))")
        .await
        .unwrap();
    let mut shop = Shop::of(url, embedded, |app| app.set("http.max_body", "4 KiB")).await;
    shop.all_read().await;
    // The changes are read again behind the letters.
    let point = "capture.push";
    shop.app.set_failpoint(point, "0:1:panic").await.unwrap();
    let statements = r#"INSERT INTO sale VALUES (2, 'fits', 2, 'x', '{"a": 1}');
        INSERT INTO sale VALUES (3, 'large', 3, repeat('y', 5000), NULL);
        INSERT INTO sale VALUES (4, 'nul', 4, '', '"\u0000"'), (5, 'fits', 5, '', '"\u0001"');
        UPDATE sale SET body = 'small' WHERE id = 3"#;
    shop.execute(statements).await;
    let records = shop.caught_up().await;
    let found = letters(&shop.app, 3).await;
    let of = |key: i64| {
        let mut letters = found.iter().map(|letter| {
            let body: Value = serde_json::from_str(letter["body"].as_str().unwrap()).unwrap();
            (letter, body)
        });
        letters
            .find(|(_, body)| body["key"] == json!({ "id": key }))
            .unwrap()
    };
    assert_eq!(found.len(), 3);
    for (key, op, words) in [(1, "r", "limit"), (3, "c", "limit"), (4, "c", "U+0000")] {
        let (letter, body) = of(key);
        assert_eq!(body["op"], op);
        assert_eq!(letter["eventType"], "change.public.sale");
        assert_eq!(letter["cause"], "malformed");
        let error = letter["error"].as_str().unwrap();
        assert!(error.contains(words), "{error}");
        assert!(!body.to_string().contains("yyyy"));
    }
    // The next change of the row is an event again.
    let replayed = Replayed::of(&records);
    let keys: Vec<i64> = replayed.0["public.sale"].keys().copied().collect();
    assert_eq!(keys, [2, 3, 5]);
    assert_eq!(replayed.0["public.sale"][&3]["body"], "small");
    let actor = [("actor", "change_capture")];
    let restarts = shop.app.metric_with("eclusa_actor_restarts_total", &actor);
    assert_eq!(restarts.await, 1.0);
}

#[actix_rt::test]
async fn what_no_event_can_hold_is_a_dead_letter_in_an_embedded_store() {
    what_no_event_can_hold_is_a_dead_letter(true).await;
}

#[actix_rt::test]
async fn what_no_event_can_hold_is_a_dead_letter_in_the_captured_database() {
    what_no_event_can_hold_is_a_dead_letter(false).await;
}
