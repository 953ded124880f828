//! How fast runs of a handler that does nothing get their outcome.

use crate::Arguments;
use crate::database::{connect, event, write};
use crate::place::Place;
use eclusa::reactions::{Reaction, Reactions, Run};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const BATCH: usize = 1_000;

/// Finished runs of the reaction, before the events that are to come.
async fn leave_behind(url: &str, runs: i64) {
    let client = connect(url).await;
    let insert = format!(
        "INSERT INTO reaction_runs (reaction, position, epoch, event_id, state, attempts, finished_at, duration_us, worker) \
         SELECT (SELECT id FROM reactions), n, 0, gen_random_uuid(), 'succeeded', 1, now(), 100, 'bench/1' \
         FROM generate_series(1, {runs}) AS n"
    );
    client.batch_execute(&insert).await.expect("runs");
    client
        .batch_execute("VACUUM ANALYZE reaction_runs")
        .await
        .expect("vacuum");
    let last = (runs >> 12) + 1;
    let above = format!(
        "SELECT setval('log_commits_seq', {last}); \
         INSERT INTO follower_positions (follower, n, position) VALUES ('nothing:0', 1, {last} << 12 | 4095)"
    );
    client.batch_execute(&above).await.expect("a position");
}

pub async fn run(arguments: &Arguments, with_snapshot: bool) {
    let place = Place::create(arguments.url.as_deref()).await;
    let handled = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&handled);
    let nothing = move |_: Run| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(()))
    };
    let reaction = Reaction::new("nothing")
        .on("page.view", nothing)
        .concurrency(arguments.concurrency)
        .from_beginning();
    let followers = place.declare(Reactions::new().react(reaction)).await;
    // So that the events are written as not processed.
    place.store.refresh_awaited().await.expect("declarations");
    let database = place.database.as_ref();
    if let (Some(database), 1..) = (database, arguments.behind) {
        leave_behind(&database.url, arguments.behind).await;
    }
    for batch in 0..arguments.events / BATCH {
        let from = batch * BATCH;
        let events = (from..from + BATCH).map(|n| event(n, "page.view"));
        write(&*place.store, events.collect()).await;
    }
    let end = place.store.number_commits().await.expect("numbers").end;
    let mut holder = match (database, with_snapshot) {
        (Some(database), true) => Some(connect(&database.url).await),
        _ => None,
    };
    let _snapshot = match &mut holder {
        Some(client) => {
            let snapshot = client.build_transaction();
            let snapshot = snapshot.isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
            let snapshot = snapshot.start().await.expect("a snapshot");
            snapshot
                .query("SELECT count(*) FROM reactions", &[])
                .await
                .expect("a query");
            Some(snapshot)
        }
        None => None,
    };
    let before = place.processor().await;
    let began = Instant::now();
    let running = place.start(followers).await;
    let reached = async |follower: &str| {
        loop {
            let record = place.store.follower(follower).await.expect("a record");
            if record.is_some_and(|record| record.position >= end) {
                return began.elapsed();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (decided, marked) = futures::join!(reached("nothing:0"), reached("reactions:processed"));
    let after = place.processor().await;
    running.stop().await;
    let handled = handled.load(Ordering::Relaxed);
    if let Some(database) = database {
        let flipped = "SELECT count(*) FROM user_interactions WHERE processed";
        let row = connect(&database.url).await.query_one(flipped, &[]).await;
        let flipped: i64 = row.expect("a count").get(0);
        assert_eq!(flipped, arguments.events as i64, "each event is marked");
    }
    assert_eq!(handled, arguments.events, "each event is handled once");
    let rate = |time: Duration| arguments.events as f64 / time.as_secs_f64();
    let (server, own) = (after.0 - before.0, after.1 - before.1);
    println!(
        "{} runs, concurrency {}, {} behind: {:.0}/s decided, {:.0}/s with processed marked; \
         processor: server {server:.2} s, own {own:.2} s, {:.1} us each",
        arguments.events,
        arguments.concurrency,
        arguments.behind,
        rate(decided),
        rate(marked.max(decided)),
        (server + own) / arguments.events as f64 * 1e6,
    );
    place.drop().await;
}
