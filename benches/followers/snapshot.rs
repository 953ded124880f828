//! A snapshot that is held open keeps dead rows alive, while commits pass.

use crate::Arguments;
use crate::database::{Database, Running, connect, event, processor_ticks, quantile, write};
use crate::latency::{Committed, applied};
use crate::projections::{TABLES, Telling};
use eclusa::followers::Followers;
use eclusa::store::Store;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Connections that commit one event each.
const WRITERS: usize = 4;
/// One event in so many is timed.
const TIMED: usize = 50;
/// Parts of the run that are compared.
const PARTS: usize = 10;

pub async fn run(arguments: &Arguments) {
    let database = Database::create(&arguments.url).await;
    let mut client = connect(&database.url).await;
    client.batch_execute(TABLES).await.unwrap();
    let store = database.store().await;
    let running = Running::start(
        store.clone() as Arc<dyn Store>,
        Followers::new().project(Telling),
    )
    .await;
    let mut told = applied(&database.url).await;
    let watcher = connect(&database.url).await;

    let snapshot = client.build_transaction();
    let snapshot = snapshot.isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
    let snapshot = snapshot.start().await.unwrap();
    snapshot
        .query("SELECT count(*) FROM log_commits", &[])
        .await
        .unwrap();

    let committed = Committed::default();
    let done = Arc::new(AtomicUsize::new(0));
    let part = arguments.commits / PARTS;
    let writers = (0..WRITERS).map(|_| {
        let (store, done, committed) = (
            Arc::clone(&store),
            Arc::clone(&done),
            Arc::clone(&committed),
        );
        let (signal, all) = (running.followers.commits.clone(), arguments.commits);
        tokio::task::spawn_local(async move {
            loop {
                let n = done.fetch_add(1, Ordering::SeqCst);
                if n >= all {
                    return;
                }
                if n % TIMED == 0 {
                    // Its number is taken before it is written, and its time noted after.
                    let number = {
                        let mut committed = committed.lock().unwrap();
                        committed.push(Instant::now());
                        committed.len() - 1
                    };
                    write(&*store, vec![event(number, "timed")]).await;
                    committed.lock().unwrap()[number] = Instant::now();
                } else {
                    write(&*store, vec![event(n, "other")]).await;
                }
                signal.raise();
            }
        })
    });
    let writers: Vec<_> = writers.collect();

    println!(
        "commits     commits/s  p50 ms  p99 ms  sequencer's connection, core  rows dead in log_arrivals"
    );
    let mut times: Vec<Duration> = Vec::new();
    let (mut at, mut before) = (Instant::now(), sequencer_ticks(&watcher).await);
    for number in 1..=PARTS {
        while done.load(Ordering::SeqCst) < number * part {
            while let Ok((numbers, when)) = told.try_recv() {
                let committed = committed.lock().unwrap();
                times.extend(
                    numbers
                        .iter()
                        .map(|n| when.saturating_duration_since(committed[*n])),
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (seconds, ticks) = (at.elapsed().as_secs_f64(), sequencer_ticks(&watcher).await);
        times.sort_unstable();
        let dead = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'log_arrivals'";
        let dead: i64 = watcher.query_one(dead, &[]).await.unwrap().get(0);
        println!(
            "{:>9} {:>11.0} {:>7.1} {:>7.1} {:>29.2} {:>27}",
            number * part,
            part as f64 / seconds,
            quantile(&times, 0.5).as_secs_f64() * 1_000.0,
            quantile(&times, 0.99).as_secs_f64() * 1_000.0,
            ticks.saturating_sub(before) as f64 / 100.0 / seconds,
            dead
        );
        times.clear();
        (at, before) = (Instant::now(), ticks);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let (server, own) = processor_ticks(&watcher).await;
    println!(
        "processor seconds: server {}, this process {}",
        server / 100,
        own / 100
    );
    snapshot.rollback().await.unwrap();
    running.stop().await;
    drop(store);
    database.drop().await;
}

/// Ticks of the connection that numbers commits: followers and sequencer share some, so of all that have.
async fn sequencer_ticks(client: &tokio_postgres::Client) -> u64 {
    let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
               AND (query LIKE '%eclusa_number_commits%' OR query LIKE '%\"log_commits\".\"seq\"%') \
               AND pid <> pg_backend_pid()";
    let rows = client.query(sql, &[]).await.unwrap();
    let ticks =
        |row: &tokio_postgres::Row| crate::database::ticks_of(&row.get::<_, i32>(0).to_string());
    rows.iter().map(ticks).max().unwrap_or(0)
}
