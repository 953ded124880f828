//! How fast a follower reads a log that is there.

use crate::Arguments;
use crate::database::{Database, Running, connect, event, write};
use crate::projections::{Counting, TABLES};
use chrono::{Days, Utc};
use eclusa::event::Event;
use eclusa::followers::Followers;
use eclusa::store::followers::FollowerCommand;
use eclusa::store::{FollowerStore, Store};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BATCH: usize = 1_000;

/// An event whose id lies `days` ago.
fn on_day(n: usize, days: u64) -> Event {
    let at = Utc::now().checked_sub_days(Days::new(days)).unwrap();
    let millis = u64::try_from(at.timestamp_millis()).unwrap();
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid();
    Event {
        event_id: id,
        ..event(n, ["page.view", "order.paid", "order.sent"][n % 3])
    }
}

/// Fills a log with events of the last `days` days, each batch of one day.
pub async fn fill(store: &dyn Store, events: usize, days: u64) {
    for batch in 0..events / BATCH {
        let day = batch as u64 % days;
        let from = batch * BATCH;
        write(
            store,
            (from..from + BATCH).map(|n| on_day(n, day)).collect(),
        )
        .await;
    }
    while store.number_commits().await.unwrap().commits > 0 {}
}

pub async fn caught_up(store: &dyn Store, name: &str) {
    loop {
        let end = store.number_commits().await.unwrap().end;
        let record = store.follower(name).await.unwrap();
        if record.is_some_and(|record| record.position >= end && !record.rebuild) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn run(arguments: &Arguments) {
    for days in [10, 400] {
        let database = Database::create(&arguments.url).await;
        let client = connect(&database.url).await;
        client.batch_execute(TABLES).await.unwrap();
        let store = database.store().await;
        fill(&*store, arguments.events, days).await;
        client.batch_execute("VACUUM ANALYZE").await.unwrap();
        let began = Instant::now();
        let running = Running::start(
            store.clone() as Arc<dyn Store>,
            Followers::new().project(Counting),
        )
        .await;
        caught_up(&*store, "counting").await;
        let rate = arguments.events as f64 / began.elapsed().as_secs_f64();
        println!("{days} days: {rate:.0} events/s from the beginning");
        let began = Instant::now();
        let rebuild = FollowerCommand::Rebuild {
            accept_truncated: false,
        };
        FollowerStore::command(&*store, "counting", rebuild)
            .await
            .unwrap();
        running.followers.watch.command();
        caught_up(&*store, "counting").await;
        let rate = arguments.events as f64 / began.elapsed().as_secs_f64();
        let sql = "SELECT sum(events)::bigint FROM counts";
        let counted: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
        println!("{days} days: {rate:.0} events/s rebuilt; {counted} counted");
        running.stop().await;
        drop(store);
        database.drop().await;
    }
}
