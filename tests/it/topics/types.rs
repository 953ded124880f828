//! `GET /v1/topics`

use super::{SOON, log_of, post};
use crate::collectors::on;
use crate::followers::{Place, on_both_stores};
use crate::harness::{App, eventually};
use chrono::{DateTime, Utc};
use serde_json::Value;

on_both_stores! {
    types_are_listed_with_counts_that_follow_the_log,
    pages_of_types_go_on_behind_the_last_one,
}

async fn complete(app: &App, query: &str) -> Value {
    eventually(SOON, "all is counted", async || {
        let list = app.get_json(&format!("/v1/topics{query}")).await;
        list["complete"].as_bool().unwrap().then_some(list)
    })
    .await
}

/// Types with their counts.
fn counts(list: &Value) -> Vec<(String, u64)> {
    let topics = list["topics"].as_array().unwrap().iter();
    topics
        .map(|topic| {
            let name = topic["type"].as_str().unwrap().to_owned();
            (name, topic["events"].as_u64().unwrap())
        })
        .collect()
}

async fn types_are_listed_with_counts_that_follow_the_log(place: &Place) {
    let app = on(place).start().await;
    assert_eq!(counts(&complete(&app, "").await), []);
    post(&app, &["a", "b", "a"], 30).await;
    log_of(place, 30).await;
    let time = |value: &Value| value.as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    let pair = |name: &str, events| (name.to_owned(), events);
    let list = eventually(SOON, "what has come is counted", async || {
        let list = complete(&app, "").await;
        (counts(&list) == [pair("a", 20), pair("b", 10)]).then_some(list)
    })
    .await;
    let topic = &list["topics"][0];
    assert!(time(&topic["firstReceivedAt"]) <= time(&topic["lastReceivedAt"]));
    assert!(time(&topic["lastReceivedAt"]) <= time(&list["asOf"]));
    assert_eq!((&list["others"], &list["next"]), (&0.into(), &Value::Null));
    post(&app, &["b", "c"], 4).await;
    eventually(SOON, "what has come is counted", async || {
        let found = counts(&complete(&app, "").await);
        (found == [pair("a", 20), pair("b", 12), pair("c", 2)]).then_some(())
    })
    .await;
}

async fn pages_of_types_go_on_behind_the_last_one(place: &Place) {
    let app = on(place).start().await;
    post(&app, &["a", "b", "c", "d", "e"], 5).await;
    log_of(place, 5).await;
    eventually(SOON, "all types are counted", async || {
        (counts(&complete(&app, "").await).len() == 5).then_some(())
    })
    .await;
    let mut found = Vec::new();
    let mut cursor = String::new();
    for expected in [2, 2, 1] {
        let page = complete(&app, &format!("?limit=2{cursor}")).await;
        assert_eq!(counts(&page).len(), expected);
        found.extend(counts(&page).into_iter().map(|(name, _)| name));
        cursor = match page["next"].as_str() {
            Some(next) => format!("&cursor={next}"),
            None => String::new(),
        };
    }
    assert!(cursor.is_empty());
    assert_eq!(found, ["a", "b", "c", "d", "e"]);
}
