//! Writes of one lane, in whichever process, draw their `id`s one after the other.

use crate::harness::{connect, eventually};
use crate::store_contract::{event_of, postgres_store};
use eclusa::event::Rows;
use eclusa::store::EventStore;
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
        async move { store.write_in_lane(rows, LANE).await.unwrap() }
    });
    let observer = connect(&url).await;
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    eventually(Duration::from_secs(30), "the write waits", async || {
        let waiting: i64 = observer.query_one(waits, &[]).await.unwrap().get(0);
        (waiting == 1).then_some(())
    })
    .await;
    // Another lane does not wait, and what is written meanwhile comes before.
    store.write_in_lane(rows(early), LANE + 1).await.unwrap();
    ahead.batch_execute("COMMIT").await.unwrap();
    waiting.await.unwrap();
    let sequence = async |id| store.get(id).await.unwrap().unwrap().id;
    assert!(sequence(early).await < sequence(late).await);
}
