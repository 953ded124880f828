//! Events of schedules: one for each due time, whatever is running or away.

use crate::harness::{App, Postgres, RabbitMq, eclusa, eventually, temp_dir, told};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// A schedule named as its event type.
fn schedule(name: &str, cron: &str) -> Value {
    json!({"name": name, "cron": cron, "event_type": name, "event_data": {"of": name}})
}

fn each_second() -> Value {
    json!([schedule("tick", "* * * * * *")])
}

/// A pattern that was due `ago`, cut to the minute, and is due again in a year.
fn due_before(ago: TimeDelta) -> String {
    (Utc::now() - ago).format("%M %H %d %m *").to_string()
}

/// The due times that the log has of an event type, each checked to be there once under one id.
async fn due_times(app: &App, kind: &str) -> BTreeSet<DateTime<Utc>> {
    let page = app
        .get_json(&format!("/v1/events?eventType={kind}&limit=1000"))
        .await;
    let mut ids = BTreeMap::new();
    for event in page["events"].as_array().unwrap() {
        let due: DateTime<Utc> = event["timestamp"].as_str().unwrap().parse().unwrap();
        assert_eq!(event["source"], "schedule");
        assert_eq!(event["eventData"], json!({"of": kind}));
        let id = event["id"].as_str().unwrap().to_owned();
        assert_eq!(&id[14..15], "8", "{id}");
        let other = ids.insert(due, id);
        assert_eq!(other, None, "{due} is in the log twice");
    }
    let unique: BTreeSet<_> = ids.values().collect();
    assert_eq!(unique.len(), ids.len());
    ids.into_keys().collect()
}

/// The due times of an event type once there are so many, with none left out between them.
async fn without_gap(app: &App, kind: &str, count: usize) -> BTreeSet<DateTime<Utc>> {
    eventually(SOON, "events of the schedule without a gap", async || {
        let due = due_times(app, kind).await;
        let span = *due.last()? - *due.first()?;
        let complete = span.num_seconds() + 1 == due.len() as i64;
        (due.len() >= count && complete).then_some(due)
    })
    .await
}

async fn emitted(app: &App) -> f64 {
    let labels = [("source", "schedule")];
    app.metric_with("eclusa_events_accepted_total", &labels)
        .await
}

#[tokio::test]
async fn replicas_emit_one_event_a_due_time() {
    let url = Postgres::shared().await.database().await;
    let start = || {
        App::builder()
            .postgres(&url)
            .set("schedules", each_second())
            .start()
    };
    let (one, other) = futures::join!(start(), start());
    without_gap(&one, "tick", 4).await;
    // Both emit, so what is there once is so by its id.
    for app in [&one, &other] {
        eventually(SOON, "it emits too", async || {
            (emitted(app).await >= 2.0).then_some(())
        })
        .await;
    }
    due_times(&other, "tick").await;
    for mut app in [one, other] {
        assert_eq!(app.metric("eclusa_events_conflicting_total").await, 0.0);
        app.sigterm();
        assert!(app.wait_exit(SOON).await.success());
    }
}

#[tokio::test]
async fn replicas_behind_the_broker_emit_one_event_a_due_time() {
    let url = Postgres::shared().await.database().await;
    let vhost = RabbitMq::shared().await.vhost().await;
    let start = || {
        App::builder()
            .postgres(&url)
            .rabbitmq(&vhost)
            .set("broker.order", "user")
            .set("batch.max_wait", "100ms")
            .set("schedules", each_second())
            .start()
    };
    let (one, other) = futures::join!(start(), start());
    without_gap(&one, "tick", 4).await;
    eventually(SOON, "both emit", async || {
        (emitted(&one).await >= 2.0 && emitted(&other).await >= 2.0).then_some(())
    })
    .await;
    due_times(&other, "tick").await;
}

#[tokio::test]
async fn a_missed_time_is_caught_up_after_a_restart() {
    let dir = temp_dir("schedules-");
    let mut app = App::builder().embedded(dir.path()).start().await;
    app.kill9();
    let mut late = schedule("late", &due_before(TimeDelta::minutes(3)));
    late["catch_up"] = "10m".into();
    let mut too_late = schedule("too-late", &due_before(TimeDelta::minutes(3)));
    too_late["catch_up"] = "1m".into();
    let tick = schedule("tick", "* * * * * *");
    app.rewrite_config("schedules", json!([too_late, late, tick]));
    for round in 1..=2 {
        app.start_again().await;
        let due = eventually(SOON, "the missed time is emitted", async || {
            let due = due_times(&app, "late").await;
            (!due.is_empty()).then_some(due)
        })
        .await;
        let age = Utc::now() - *due.first().unwrap();
        assert!(
            age > TimeDelta::minutes(2) && age < TimeDelta::minutes(6),
            "{age}"
        );
        eventually(SOON, "the scheduler runs", async || {
            (due_times(&app, "tick").await.len() >= 2 * round).then_some(())
        })
        .await;
        assert_eq!(due_times(&app, "late").await.len(), 1);
        assert!(due_times(&app, "too-late").await.is_empty());
        app.kill9();
    }
}

#[tokio::test]
async fn no_due_time_is_left_out_while_the_store_is_away() {
    let mut postgres = Postgres::start().await;
    let url = postgres.database().await;
    let app = App::builder()
        .postgres(&url)
        .set("schedules", each_second())
        .start()
        .await;
    let before = without_gap(&app, "tick", 2).await;
    postgres.stop().await;
    app.wait_for_log(SOON, "schedule waits").await;
    let away = Utc::now();
    eventually(SOON, "due times pass", async || {
        (Utc::now() - away > TimeDelta::seconds(4)).then_some(())
    })
    .await;
    postgres.start_again().await;
    without_gap(&app, "tick", before.len() + 6).await;
    app.wait_for_log(SOON, "schedule goes on").await;
}

#[test]
fn schedules_are_checked_and_their_next_times_are_shown() {
    let dir = temp_dir("schedules-");
    let file = dir.path().join("eclusa.toml");
    let check = |cron: &str| {
        let lines = format!("[[schedules]]\nname = \"s\"\nevent_type = \"t\"\ncron = {cron:?}\n");
        std::fs::write(&file, lines).unwrap();
        let mut command = eclusa(&["config", "check", "--config", file.to_str().unwrap()]);
        command.output().unwrap()
    };
    let good = check("0 0 1 1 *");
    let said = told(&good);
    assert!(good.status.success(), "{said}");
    assert!(
        said.contains("Schedule s: next at 2") && said.contains("-01-01T00:00:00"),
        "{said}"
    );
    let bad = check("0 0 1 13 *");
    let said = told(&bad);
    assert!(
        !bad.status.success() && said.contains("schedules[0].cron"),
        "{said}"
    );
}
