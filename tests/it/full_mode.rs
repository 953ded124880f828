//! Full mode end to end: every event posted is one row, whoever comes, goes or crashes meanwhile.

use crate::harness::{App, Postgres, RabbitMq, eventually};
use futures::StreamExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const CONNECTIONS: usize = 64;

struct Fleet {
    apps: Vec<App>,
    database: String,
}

impl Fleet {
    fn urls(&self) -> Vec<String> {
        self.apps.iter().map(|app| app.url().to_owned()).collect()
    }
}

/// Replicas that share a queue and a database.
async fn fleet(replicas: usize, set: &[(&str, Value)]) -> Fleet {
    let database = Postgres::shared().await.database().await;
    let vhost = RabbitMq::shared().await.vhost().await;
    let mut apps = Vec::new();
    for _ in 0..replicas {
        let mut builder = App::builder()
            .postgres(&database)
            .rabbitmq(&vhost)
            .set("batch.max_wait", "1s");
        for (key, value) in set {
            builder = builder.set(key, value.clone());
        }
        apps.push(builder.start().await);
    }
    for app in &apps {
        app.wait_ready().await;
    }
    Fleet { apps, database }
}

fn event(n: usize) -> Value {
    json!({
        "id": format!("flight-{n}"), "userId": format!("u{}", n % 97), "eventType": "flight.departed",
        "sessionId": format!("s{}", n % 1000), "timestamp": "2013-01-01T10:15:00Z",
        "eventData": {"n": n, "origin": "EWR", "dest": "IAH", "delay": 2.50, "gust": null},
    })
}

/// Posts events `0..count` one by one on 64 connections over all replicas; what fails is repeated,
/// at another replica, until it is taken. Calls `midway` once, when half of them are.
async fn post_all(urls: &[String], count: usize, midway: impl AsyncFnOnce()) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let posting = futures::stream::iter(0..count).for_each_concurrent(CONNECTIONS, |n| {
        let (client, taken) = (&client, Arc::clone(&taken));
        async move {
            let mut tries = n;
            eventually(SOON, "the event is taken", async || {
                tries += 1;
                let url = &urls[tries % urls.len()];
                let response = client
                    .post(format!("{url}/v1/events"))
                    .header("content-type", "application/json")
                    .body(event(n).to_string())
                    .send()
                    .await;
                let response = response.ok()?;
                let status = response.status().as_u16();
                assert!(status == 202 || status == 503, "{status}");
                (status == 202).then_some(())
            })
            .await;
            taken.fetch_add(1, Ordering::Relaxed);
        }
    });
    let half = async {
        eventually(SOON * 3, "half is taken", async || {
            (taken.load(Ordering::Relaxed) >= count / 2).then_some(())
        })
        .await;
        midway().await;
    };
    futures::join!(posting, half);
}

/// Waits until every event is a row, and checks that none is there twice or altered.
async fn exactly(fleet: &Fleet, count: usize) {
    let postgres = Postgres::shared().await;
    let rows = async || -> i64 {
        let rows = postgres
            .query(
                &fleet.database,
                "SELECT count(*) FROM user_interactions",
                &[],
            )
            .await;
        rows[0].get(0)
    };
    eventually(SOON, "every event is a row", async || {
        (rows().await >= count as i64).then_some(())
    })
    .await;
    let sql = "SELECT count(*), count(DISTINCT event_id), count(DISTINCT (event_data->>'n')::int),
                      count(*) FILTER (WHERE original_id = 'flight-' || (event_data->>'n')
                          AND user_id = 'u' || ((event_data->>'n')::int % 97)
                          AND session_id = 's' || ((event_data->>'n')::int % 1000)
                          AND event_data - 'n' = '{\"origin\":\"EWR\",\"dest\":\"IAH\",\"delay\":2.5,\"gust\":null}'
                          AND \"timestamp\" = '2013-01-01T10:15:00Z' AND source = 'http')
               FROM user_interactions";
    let row = &postgres.query(&fleet.database, sql, &[]).await[0];
    let counts: Vec<i64> = (0..4).map(|column| row.get(column)).collect();
    assert_eq!(counts, [count as i64; 4], "rows, ids, numbers, unaltered");
}

#[tokio::test]
async fn twenty_thousand_posts_are_twenty_thousand_rows() {
    let fleet = fleet(1, &[]).await;
    post_all(&fleet.urls(), 20_000, async || {}).await;
    exactly(&fleet, 20_000).await;
    let app = &fleet.apps[0];
    assert_eq!(app.metric("eclusa_events_dead_lettered_total").await, 0.0);
    assert_eq!(app.metric("eclusa_events_stored_total").await, 20_000.0);
}

#[tokio::test]
async fn three_replicas_share_the_queue_and_one_is_told_to_leave() {
    let mut fleet = fleet(3, &[]).await;
    let urls = fleet.urls();
    let mut leaving = fleet.apps.pop().unwrap();
    post_all(&urls, 20_000, async || {
        leaving.sigterm();
        assert!(leaving.wait_exit(SOON).await.success());
    })
    .await;
    exactly(&fleet, 20_000).await;
}

#[tokio::test]
async fn a_replica_killed_under_load_loses_and_doubles_nothing() {
    let mut fleet = fleet(2, &[]).await;
    let urls = fleet.urls();
    let mut victim = fleet.apps.pop().unwrap();
    post_all(&urls, 5_000, async || victim.kill9()).await;
    exactly(&fleet, 5_000).await;
}
