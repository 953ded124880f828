//! Writes of one lane, in whichever process, draw their `id`s one after the other.

use super::{Fleet, SOON, event};
use crate::harness::{connect, eventually};
use crate::store_contract::{event_of, postgres_store};
use eclusa::event::{Fence, Lane, Rows, Shards};
use eclusa::store::leases::Fenced;
use eclusa::store::{EventStore, LeaseStore, RowOutcome};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const LANE: i64 = -7;

#[tokio::test]
async fn a_write_draws_no_ids_before_the_one_ahead_of_it_is_committed() {
    let (store, url) = postgres_store().await;
    let store = Arc::new(store);
    let (late, early) = (Uuid::new_v4(), Uuid::new_v4());
    let rows = |id| Rows::all(Arc::new(vec![event_of(id)]));
    let ahead = connect(&url).await;
    let hold = format!("BEGIN; SELECT pg_advisory_xact_lock({LANE})");
    ahead.batch_execute(&hold).await.unwrap();
    let waiting = tokio::spawn({
        let (store, rows) = (Arc::clone(&store), rows(late));
        async move {
            store
                .write_in_lane(rows, &Lane::unfenced(LANE))
                .await
                .unwrap()
        }
    });
    wait_for_lane(&url).await;
    // Another lane does not wait, and what is written meanwhile comes before.
    let other = Lane::unfenced(LANE + 1);
    let written = store.write_in_lane(rows(early), &other).await.unwrap();
    assert_eq!(written, Fenced::Done(vec![RowOutcome::Stored]));
    ahead.batch_execute("COMMIT").await.unwrap();
    let written = waiting.await.unwrap();
    assert_eq!(written, Fenced::Done(vec![RowOutcome::Stored]));
    let sequence = async |id| store.get(id).await.unwrap().unwrap().id;
    assert!(sequence(early).await < sequence(late).await);
}

/// What a process sends late that has lost its lease meanwhile is not written.
#[tokio::test]
async fn a_fenced_lane_writes_nothing_without_its_lease() {
    let (store, url) = postgres_store().await;
    let store = Arc::new(store);
    let ttl = Duration::from_secs(60);
    let lease = store.acquire("fenced", "a", ttl).await.unwrap().unwrap();
    let lane = Lane {
        key: LANE,
        fence: Some(Fence {
            lease: lease.name.clone(),
            token: lease.token,
        }),
    };
    let rows = |id| Rows::all(Arc::new(vec![event_of(id)]));
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    for outcome in [
        RowOutcome::Stored,
        RowOutcome::Duplicate { conflicting: false },
    ] {
        let written = store.write_in_lane(rows(first), &lane).await.unwrap();
        assert_eq!(written, Fenced::Done(vec![outcome]));
    }
    // The lease goes while the write waits for its turn.
    let ahead = connect(&url).await;
    let hold = format!("BEGIN; SELECT pg_advisory_xact_lock({LANE})");
    ahead.batch_execute(&hold).await.unwrap();
    let waiting = tokio::spawn({
        let (store, rows, lane) = (Arc::clone(&store), rows(second), lane.clone());
        async move { store.write_in_lane(rows, &lane).await.unwrap() }
    });
    wait_for_lane(&url).await;
    store.release(&lease).await.unwrap();
    assert!(store.acquire("fenced", "b", ttl).await.unwrap().is_some());
    ahead.batch_execute("COMMIT").await.unwrap();
    assert_eq!(waiting.await.unwrap(), Fenced::Lost);
    assert!(store.get(second).await.unwrap().is_none());
    let written = store.write_in_lane(rows(first), &lane).await.unwrap();
    assert_eq!(written, Fenced::Lost);
}

/// Waits until a write waits for its lane.
async fn wait_for_lane(url: &str) {
    let observer = connect(url).await;
    let waits = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                 WHERE l.locktype = 'advisory' AND NOT l.granted AND d.datname = current_database()";
    eventually(Duration::from_secs(30), "the write waits", async || {
        let waiting: i64 = observer.query_one(waits, &[]).await.unwrap().get(0);
        (waiting == 1).then_some(())
    })
    .await;
}

/// Behind the lock of a replica that hangs, one shard waits; the others are written.
#[tokio::test]
async fn a_held_lane_holds_up_no_other() {
    let settings = [("store.statement_timeout", json!("300ms"))];
    let fleet = Fleet::start(1, &settings).await;
    let shards = Shards {
        count: 4,
        prefetch: 1,
    };
    let of_shard = |wanted: usize| {
        let mut users = (0..).map(|user| format!("u{user}"));
        users.find(|user| shards.of_user(user) == wanted).unwrap()
    };
    let hang = connect(&fleet.database).await;
    let lane = shards.lane_key("eclusa.events", 0);
    let hold = format!("BEGIN; SELECT pg_advisory_xact_lock({lane})");
    hang.batch_execute(&hold).await.unwrap();
    let app = &fleet.apps[0];
    let send = async |user: String| {
        let sent = app.post("/v1/events", &event(&user, 0)).await;
        assert_eq!(sent.status(), 202);
    };
    send(of_shard(0)).await;
    let failures = async || {
        let outages = [("outcome", "timeout")];
        app.metric_with("eclusa_store_write_seconds_count", &outages)
            .await
    };
    eventually(SOON, "more failures than open a breaker", async || {
        (failures().await > 3.0).then_some(())
    })
    .await;
    let store = [("breaker", "store")];
    let opened = app.metric_with("eclusa_breaker_opened_total", &store).await;
    assert_eq!(opened, 0.0);
    for shard in 1..4 {
        send(of_shard(shard)).await;
    }
    fleet.wait_rows(3).await;
    hang.batch_execute("COMMIT").await.unwrap();
    fleet.wait_rows(4).await;
    assert_eq!(app.metric("eclusa_dead_letters").await, 0.0);
}
