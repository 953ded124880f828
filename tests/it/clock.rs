//! The machine's clock is set back an hour under a running process.

use crate::harness::{App, Postgres, RabbitMq, eventually, precondition, temp_dir};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// The library that tells a process another time.
fn faketime() -> Result<PathBuf, String> {
    let folders = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    folders
        .into_iter()
        .map(|folder| PathBuf::from(format!("/usr/lib/{folder}/faketime/libfaketime.so.1")))
        .find(|library| library.exists())
        .ok_or_else(|| "libfaketime.so.1 is not installed".to_owned())
}

#[tokio::test]
async fn a_clock_set_back_an_hour_loses_nothing_and_delays_nothing() {
    let Some(library) = precondition("faketime", faketime()) else {
        return;
    };
    let dir = temp_dir("clock-");
    let clock = dir.path().join("clock");
    std::fs::write(&clock, "+0").unwrap();
    let database = Postgres::shared().await.database().await;
    let app = App::builder()
        .postgres(&database)
        .rabbitmq(&RabbitMq::shared().await.vhost().await)
        .set("batch.max_wait", "1s")
        .env("LD_PRELOAD", library.to_str().unwrap())
        .env("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap())
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .start()
        .await;
    app.wait_ready().await;
    let post = async |from: usize| {
        for n in from..from + 50 {
            let event = json!({"userId": "u", "eventType": "t", "eventData": {"n": n}});
            assert_eq!(app.post("/v1/events", &event).await.status(), 202);
        }
        eventually(SOON, "they are stored", async || {
            let stored = app.metric("eclusa_events_stored_total").await;
            (stored == (from + 50) as f64).then_some(())
        })
        .await;
    };
    post(0).await;
    std::fs::write(&clock, "-1h").unwrap();
    post(50).await;
    let sql = "SELECT count(*), count(DISTINCT event_id),
                      count(*) FILTER (WHERE received_at < now() - interval '50 minutes')
               FROM user_interactions";
    let row = &Postgres::shared().await.query(&database, sql, &[]).await[0];
    let counts: Vec<i64> = (0..3).map(|column| row.get(column)).collect();
    assert_eq!(
        counts,
        [100, 100, 50],
        "rows, ids, taken by the clock set back"
    );
    // The log's order is that of arrival, whatever the clock says.
    let page = app.get_json("/v1/events?limit=1").await;
    assert_eq!(
        page["events"][0]["eventData"]["n"].as_i64().unwrap() / 50,
        1
    );
    assert!(app.is_ready().await);
}
