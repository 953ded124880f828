//! What followers cost that have nothing to do, and the locks of many.

use crate::Arguments;
use crate::database::{Database, Running, connect, event, processor_ticks, write};
use crate::projections::{Seeing, TABLES, Unmatched};
use crate::rate::fill;
use eclusa::followers::Followers;
use eclusa::store::Store;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn unmatched(count: usize) -> Followers {
    (0..count).fold(Followers::new(), |all, n| {
        all.project(Unmatched(format!("unmatched-{n}")))
    })
}

/// Processor time of ten followers while nothing happens, beside that of none.
pub async fn run(arguments: &Arguments) {
    for count in [0, 10] {
        let database = Database::create(&arguments.url).await;
        let client = connect(&database.url).await;
        client.batch_execute(TABLES).await.unwrap();
        let store = database.store().await;
        let running = Running::start(store.clone() as Arc<dyn Store>, unmatched(count)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (server, own) = processor_ticks(&client).await;
        tokio::time::sleep(arguments.time).await;
        let (server_after, own_after) = processor_ticks(&client).await;
        let part = |ticks: u64| ticks as f64 / arguments.time.as_secs_f64();
        println!(
            "{count} followers: {:.2} % of a core in this process, {:.2} % in the server",
            part(own_after - own),
            part(server_after - server)
        );
        running.stop().await;
        drop(store);
        database.drop().await;
    }
}

/// Most locks that one connection holds, and whether a write fails, while 20 followers read 400 days.
pub async fn locks(arguments: &Arguments) {
    let database = Database::create(&arguments.url).await;
    let client = connect(&database.url).await;
    client.batch_execute(TABLES).await.unwrap();
    let store = database.store().await;
    fill(&*store, 400_000, 400).await;
    const NAMES: [&str; 20] = [
        "f00", "f01", "f02", "f03", "f04", "f05", "f06", "f07", "f08", "f09", "f10", "f11", "f12",
        "f13", "f14", "f15", "f16", "f17", "f18", "f19",
    ];
    let all = NAMES
        .into_iter()
        .fold(Followers::new(), |all, name| all.project(Seeing(name)));
    let running = Running::start(store.clone() as Arc<dyn Store>, all).await;
    let sql = "SELECT count(*), coalesce(max(held), 0) FROM \
               (SELECT pid, count(*) AS held FROM pg_locks JOIN pg_stat_activity USING (pid) \
                WHERE datname = current_database() AND pid <> pg_backend_pid() GROUP BY pid) AS locks";
    let (began, mut most, mut written) = (Instant::now(), 0_i64, 0);
    while began.elapsed() < arguments.time {
        write(&*store, (0..100).map(|n| event(n, "t")).collect()).await;
        written += 100;
        let row = client.query_one(sql, &[]).await.unwrap();
        most = most.max(row.get(1));
    }
    let seen: i64 = client
        .query_one("SELECT count(*) FROM seen", &[])
        .await
        .unwrap()
        .get(0);
    println!("{most} locks held by one connection at most; {written} events written, {seen} seen");
    running.stop().await;
    drop(store);
    database.drop().await;
}
