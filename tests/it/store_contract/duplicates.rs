//! Telling a duplicate from a conflict costs memory for one stored event, not for all of them.

use crate::harness::{App, Postgres, eventually, peak_memory_of, temp_dir};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

const EVENTS: usize = 200;
/// Bytes of one stored payload.
const PAYLOAD: usize = 1_000_000;
/// A third of what the stored payloads weigh together, and twice a page cache of SQLite.
const BOUND: u64 = 64 << 20;

fn ids() -> Vec<Uuid> {
    (0..EVENTS).map(|_| Uuid::new_v4()).collect()
}

/// Sends one small array with the ids of all stored events.
async fn a_small_array_meets_large_rows(app: &App, ids: &[Uuid]) {
    let before = peak_memory_of(app.pid()).unwrap();
    let events: Vec<_> = ids
        .iter()
        .map(|id| json!({"id": id, "userId": "u", "eventType": "t"}))
        .collect();
    assert_eq!(app.post("/v1/events", &json!(events)).await.status(), 202);
    eventually(Duration::from_secs(60), "all are conflicts", async || {
        let conflicts = app.metric("eclusa_events_conflicting_total").await;
        (conflicts == EVENTS as f64).then_some(())
    })
    .await;
    let grown = peak_memory_of(app.pid()).unwrap() - before;
    println!("{} MiB more", grown >> 20);
    assert!(grown < BOUND, "{} MiB", grown >> 20);
}

#[tokio::test]
async fn comparing_with_large_rows_of_postgresql_stays_within_the_budget() {
    let database = Postgres::shared().await.database().await;
    let app = App::builder().postgres(&database).start().await;
    let ids = ids();
    let insert = format!(
        "INSERT INTO user_interactions \
             (id, event_id, bucket, source, producer, event_type, user_id, event_data) \
         SELECT nextval('log_blocks') << 12, id, '0001-01-01', 'http', 'tests', 't', 'u', \
                jsonb_build_object('a', repeat('x', {PAYLOAD})) \
         FROM unnest($1::uuid[]) AS id"
    );
    Postgres::shared()
        .await
        .query(&database, &insert, &[&ids])
        .await;
    a_small_array_meets_large_rows(&app, &ids).await;
}

#[tokio::test]
async fn comparing_with_large_rows_of_sqlite_stays_within_the_budget() {
    let folder = temp_dir("duplicates-");
    let mut app = App::builder().embedded(folder.path()).start().await;
    app.wait_ready().await;
    app.sigterm();
    assert!(app.wait_exit(Duration::from_secs(60)).await.success());
    let ids = ids();
    {
        use diesel::connection::SimpleConnection;
        use diesel::{Connection, SqliteConnection};
        let file = folder.path().join("eclusa.db");
        let mut connection = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
        let rows = ids.iter().map(|id| format!("(x'{}')", id.simple()));
        let rows = rows.collect::<Vec<_>>().join(", ");
        connection
            .batch_execute(&format!(
                "PRAGMA synchronous = OFF; \
                 WITH ids (id) AS (VALUES {rows}) \
                 INSERT INTO user_interactions (event_id, timestamp, received_at, processed, \
                     source, producer, event_type, user_id, event_data) \
                 SELECT id, 0, 0, 1, 'http', 'tests', 't', 'u', \
                     '{{\"a\":\"' || hex(zeroblob({})) || '\"}}' FROM ids",
                PAYLOAD / 2
            ))
            .unwrap();
    }
    app.start_again().await;
    a_small_array_meets_large_rows(&app, &ids).await;
}
