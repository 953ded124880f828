//! The modes without a broker: the caller hears that its event was put aside.

use super::*;
use crate::harness::temp_dir;
use std::path::Path;

/// Runs SQL on the file of an embedded app.
fn execute(dir: &Path, sql: &str) {
    use diesel::connection::SimpleConnection;
    use diesel::{Connection, SqliteConnection};
    let path = dir.join("eclusa.db");
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection
        .batch_execute(&format!("PRAGMA busy_timeout = 5000; {sql}"))
        .unwrap();
}

pub const FORBID_SQLITE: &str =
    "CREATE TRIGGER no_bad BEFORE INSERT ON user_interactions WHEN NEW.event_type = 'bad'
     BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: no_bad'); END";

pub fn forbid(dir: &Path) {
    execute(dir, FORBID_SQLITE);
}

pub fn allow(dir: &Path) {
    execute(dir, "DROP TRIGGER no_bad");
}

/// A request with good and bad events: all are answered 202, each with what became of it.
async fn mixed(app: &App) {
    let mut all = events("good", 0, 4);
    let bad = events("bad", 0, 2);
    all.as_array_mut().unwrap().insert(1, bad[0].clone());
    all.as_array_mut().unwrap().push(bad[1].clone());
    let response = app.post("/v1/events", &all).await;
    assert_eq!(response.status(), 202);
    let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    let statuses: Vec<_> = answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["status"].as_str().unwrap())
        .collect();
    assert_eq!(
        statuses,
        [
            "stored",
            "deadLettered",
            "stored",
            "stored",
            "stored",
            "deadLettered"
        ]
    );
    let dead = letters(app, "&state=dead").await;
    assert_eq!(dead.len(), 2);
    for letter in &dead {
        assert_eq!(
            (&letter["cause"], &letter["origin"]),
            (&json!("poison"), &json!("direct"))
        );
        let error = letter["error"].as_str().unwrap();
        assert!(error.contains("no_bad"), "{error}");
    }
    // The caller repeats: the same letters, with one more failure each.
    post(app, "bad", 0, 2).await;
    let dead = letters(app, "&state=dead").await;
    assert_eq!(dead.len(), 2);
    let whole = letter(app, &dead[0]["id"]).await;
    assert_eq!(whole["history"].as_array().unwrap().len(), 1);
    let body: Value = serde_json::from_str(whole["body"].as_str().unwrap()).unwrap();
    assert_eq!(body[0]["eventType"], "bad");

    // Fails again at once, and says so.
    let answer = act(app, "replay", json!({})).await;
    assert_eq!(
        (&answer["replayed"], &answer["failed"]),
        (&json!(0), &json!(2))
    );
    let whole = letter(app, &dead[0]["id"]).await;
    assert_eq!(
        (&whole["state"], &whole["replays"]),
        (&json!("dead"), &json!(1))
    );
    assert_eq!(whole["history"].as_array().unwrap().len(), 2);
}

/// The cause is mended: the letters become rows, once.
async fn mended(app: &App) {
    for (replayed, rows) in [(2, 6), (0, 6)] {
        let answer = act(app, "replay", json!({})).await;
        assert_eq!(
            (&answer["replayed"], &answer["failed"]),
            (&json!(replayed), &json!(0))
        );
        let page = app.get_json("/v1/events?limit=100").await;
        assert_eq!(page["events"].as_array().unwrap().len(), rows);
    }
    let event = app.get_json("/v1/events/bad-1").await;
    assert_eq!(event["eventData"], json!({"n": 1}));
    assert_eq!(event["source"], "http");
    eventually(SOON, "none is counted", async || {
        (app.metric("eclusa_dead_letters").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(letters(app, "&state=replayed").await.len(), 2);
    assert_eq!(app.metric("eclusa_events_in_flight").await, 0.0);
}

#[tokio::test]
async fn database_mode_puts_aside_and_replays() {
    let bench = Bench::database(|builder| builder).await;
    bench.sql(FORBID).await;
    mixed(&bench.app).await;
    bench.sql(ALLOW).await;
    mended(&bench.app).await;
}

#[tokio::test]
async fn embedded_mode_puts_aside_and_replays() {
    let dir = temp_dir("letters-");
    let app = App::builder().embedded(dir.path()).start().await;
    app.wait_ready().await;
    forbid(dir.path());
    mixed(&app).await;
    allow(dir.path());
    mended(&app).await;
}

#[tokio::test]
async fn a_letter_that_cannot_be_kept_is_the_callers_again() {
    let bench = Bench::database(|builder| builder).await;
    bench.sql(FORBID).await;
    bench
        .sql("ALTER TABLE dead_letters RENAME TO elsewhere")
        .await;
    let response = bench.app.post("/v1/events", &events("bad", 0, 1)).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    bench
        .sql("ALTER TABLE elsewhere RENAME TO dead_letters")
        .await;
    let answer = bench.post("bad", 0, 1).await;
    assert_eq!(answer["items"][0]["status"], "deadLettered");
    bench.wait_count("dead_letters", 1).await;
}
