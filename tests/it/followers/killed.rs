//! A process that dies, or stands still, at each step of a follower: what is applied is what the log has.

use crate::harness::{App, Counted, Postgres, connect, eventually, miscounted, temp_dir};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// The steps between which a follower can die.
const POINTS: [&str; 5] = [
    "sequencer.numbered",
    "follower.before_apply",
    "follower.after_apply",
    "follower.before_commit",
    "follower.after_commit",
];

async fn send(app: &App, from: usize, count: usize) {
    let events: Value = (from..from + count)
        .map(|n| json!({"id": format!("e{n}"), "userId": "u", "eventType": format!("t{}", n % 7)}))
        .collect();
    eventually(SOON, "the events are taken", async || {
        let sent = app
            .try_post("/v1/events", "application/json", events.to_string())
            .await
            .ok()?;
        sent.status().is_success().then_some(())
    })
    .await;
}

/// Kills the process at each point, while events come, and starts it again.
async fn dies_at_each_step(app: &mut App) -> usize {
    let mut sent = 0;
    for point in POINTS {
        send(app, sent, 40).await;
        sent += 40;
        // The answer may be lost with the process.
        let _ = app.set_failpoint(point, "1:1:kill").await;
        eventually(SOON, &format!("it dies at {point}"), async || {
            let events = json!([{"id": format!("e{sent}"), "userId": "u", "eventType": "t0"}]);
            let _ = app
                .try_post("/v1/events", "application/json", events.to_string())
                .await;
            app.has_exited().then_some(())
        })
        .await;
        app.start_again().await;
        app.wait_ready().await;
        send(app, sent, 1).await;
        sent += 1;
    }
    sent
}

async fn caught_up(app: &App) {
    eventually(SOON, "the followers have caught up", async || {
        let list = app.get_json("/v1/followers").await;
        let mut followers = list["followers"].as_array()?.clone();
        // Beside that of the Pix messages, of which there are none.
        followers.retain(|one| one["name"] != "streams.pix");
        assert_eq!(followers.len(), 2, "{list}");
        let end = |shown: &Value| shown["behind"]["events"] == 0;
        followers.iter().all(end).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nothing_is_counted_twice_or_never_on_postgresql() {
    let database = Postgres::shared().await.database().await;
    let mut app = App::builder()
        .followers()
        .postgres(&database)
        .set("store.lease_ttl", "1s")
        .start()
        .await;
    app.wait_ready().await;
    let sent = dies_at_each_step(&mut app).await;
    caught_up(&app).await;
    assert!(miscounted(&Counted::Postgres(&database)).await.is_empty());
    let client = connect(&database).await;
    let sql = "SELECT count(*) FROM user_interactions";
    let stored: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(stored, i64::try_from(sent).unwrap());
}

#[tokio::test]
async fn nothing_is_counted_twice_or_never_on_sqlite() {
    let folder = temp_dir("followers-");
    let mut app = App::builder()
        .followers()
        .embedded(folder.path())
        .start()
        .await;
    app.wait_ready().await;
    let sent = dies_at_each_step(&mut app).await;
    caught_up(&app).await;
    let file = folder.path().join("eclusa.db");
    assert!(miscounted(&Counted::Sqlite(&file)).await.is_empty());
    let listed = app.get_json("/v1/events?limit=1000").await;
    assert_eq!(listed["events"].as_array().unwrap().len(), sent);
}

/// A process that stands still in the middle of a step holds up neither the log nor, for longer than its
/// lease lasts, its followers.
#[tokio::test]
async fn a_process_that_stands_still_is_replaced() {
    let database = Postgres::shared().await.database().await;
    let start = || {
        App::builder()
            .followers()
            .postgres(&database)
            .set("store.lease_ttl", "1s")
            .start()
    };
    for point in ["sequencer.numbered", "follower.before_commit"] {
        let mut first = start().await;
        first.wait_ready().await;
        eventually(SOON, "it runs its followers", async || {
            let held = first.metric("eclusa_lease_held").await;
            (held >= 2.0).then_some(())
        })
        .await;
        let second = start().await;
        second.wait_ready().await;
        let _ = first.set_failpoint(point, "0:1:stall").await;
        for n in 0..20 {
            let event = json!({"id": format!("{point}{n}"), "userId": "u", "eventType": "t"});
            let status = second.post("/v1/events", &event).await.status();
            assert!(status.is_success());
        }
        first.pause();
        caught_up(&second).await;
        first.kill9();
    }
    let client = connect(&database).await;
    let sql = "SELECT events FROM example_counts_by_type WHERE key = 't'";
    let counted: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(counted, 40);
}
