//! `/metrics` and `/health/ready` while the store is slow.

use crate::harness::{App, Postgres, connect, eventually};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
/// Less than the count that a scrape once waited for, and more than a busy machine takes.
const AT_ONCE: Duration = Duration::from_millis(400);

/// The count of dead letters takes as long as it likes: one runs at a time, a scrape shows the last
/// known value at once, and the process stays ready.
#[tokio::test]
async fn a_slow_count_delays_no_scrape_and_fails_no_readiness() {
    let database = Postgres::shared().await.database().await;
    let app = App::builder()
        .postgres(&database)
        .set("store.read_connections", 1)
        .start()
        .await;
    app.wait_ready().await;
    let mut client = connect(&database).await;
    let letter = "INSERT INTO dead_letters \
            (id, created_at, failed_at, attempts, frame, cause, error, origin, body) \
        VALUES (gen_random_uuid(), now(), now(), 1, false, 'poison', 'e', 'direct', '')";
    client.batch_execute(letter).await.unwrap();
    let shown = async || app.metric("eclusa_dead_letters").await;
    eventually(SOON, "the dead letter is counted", async || {
        (shown().await == 1.0).then_some(())
    })
    .await;

    let locked = client.transaction().await.unwrap();
    let lock = "LOCK TABLE dead_letters IN ACCESS EXCLUSIVE MODE";
    locked.batch_execute(lock).await.unwrap();
    let watcher = connect(&database).await;
    let counting = async || -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        watcher.query_one(sql, &[]).await.unwrap().get(0)
    };
    eventually(SOON, "a count runs", async || {
        shown().await;
        (counting().await > 0).then_some(())
    })
    .await;
    // Longer than a count is good for.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        assert_eq!(shown().await, 1.0);
        assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
        let ready = app.get("/health/ready").await;
        assert_eq!(ready.status(), 200, "{}", ready.text().await.unwrap());
    }
    assert_eq!(counting().await, 1);

    locked
        .execute("DELETE FROM dead_letters", &[])
        .await
        .unwrap();
    locked.commit().await.unwrap();
    eventually(SOON, "it is counted again", async || {
        (shown().await == 0.0).then_some(())
    })
    .await;
}
