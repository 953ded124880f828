//! From commit to applied.

use crate::Arguments;
use crate::database::{Database, Running, connect, event, quantile, write};
use crate::projections::{TABLES, Telling};
use eclusa::followers::{CommitSignal, Followers};
use eclusa::store::{EventStore, Store};
use futures::StreamExt;
use futures::stream::poll_fn;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, NoTls};

/// Batches a second, each of which is a commit; with ten events they make 1,000 events/s.
const BATCHES: u32 = 100;
const BATCH: usize = 10;

/// When each event was committed, by its number.
pub type Committed = Arc<Mutex<Vec<Instant>>>;

/// What the follower has told: numbers of events, and when that came.
pub async fn applied(url: &str) -> mpsc::Receiver<(Vec<usize>, Instant)> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let (sender, receiver) = mpsc::channel(1_000_000);
    tokio::spawn(async move {
        let mut messages = poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notification(news) = message {
                let numbers = news.payload().split(',');
                let numbers = numbers.filter_map(|text| text.parse().ok()).collect();
                let _ = sender.send((numbers, Instant::now())).await;
            }
        }
    });
    client.batch_execute("LISTEN applied").await.unwrap();
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(client);
    });
    receiver
}

/// Writes at a steady rate, and notes when each batch was committed.
pub async fn offer(
    store: &dyn EventStore,
    signal: Option<&CommitSignal>,
    committed: &Committed,
    time: Duration,
) {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / BATCHES);
    let began = Instant::now();
    while began.elapsed() < time {
        tick.tick().await;
        let from = committed.lock().unwrap().len();
        write(
            store,
            (from..from + BATCH).map(|n| event(n, "timed")).collect(),
        )
        .await;
        let now = Instant::now();
        if let Some(signal) = signal {
            signal.raise();
        }
        committed.lock().unwrap().extend([now; BATCH]);
    }
}

/// The times from commit to applied of all events, sorted.
pub async fn collect(
    told: &mut mpsc::Receiver<(Vec<usize>, Instant)>,
    committed: &Committed,
) -> Vec<Duration> {
    let all = committed.lock().unwrap().len();
    let mut times = Vec::new();
    while times.len() < all {
        let waited = tokio::time::timeout(Duration::from_secs(60), told.recv()).await;
        let (numbers, at) = waited.expect("all are applied").expect("it tells");
        let committed = committed.lock().unwrap();
        times.extend(
            numbers
                .iter()
                .map(|n| at.saturating_duration_since(committed[*n])),
        );
    }
    times.sort_unstable();
    times
}

pub fn show(what: &str, times: &[Duration]) {
    let ms = |part| quantile(times, part).as_secs_f64() * 1_000.0;
    println!(
        "{what}: {} events, p50 {:.1} ms, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
        times.len(),
        ms(0.5),
        ms(0.9),
        ms(0.99),
        ms(0.999),
        ms(1.0)
    );
}

pub async fn run(arguments: &Arguments) {
    let database = Database::create(&arguments.url).await;
    let client = connect(&database.url).await;
    client.batch_execute(TABLES).await.unwrap();
    let store = database.store().await;

    let running = Running::start(
        store.clone() as Arc<dyn Store>,
        Followers::new().project(Telling),
    )
    .await;
    let mut told = applied(&database.url).await;
    for (what, open) in [("one process", false), ("beside an open transaction", true)] {
        let mut blocking = connect(&database.url).await;
        let transaction = match open {
            true => {
                let transaction = blocking.transaction().await.unwrap();
                transaction
                    .execute("SELECT eclusa_record('held')", &[])
                    .await
                    .unwrap();
                Some(transaction)
            }
            false => None,
        };
        let committed = Committed::default();
        offer(
            &*store,
            Some(&running.followers.commits),
            &committed,
            arguments.time,
        )
        .await;
        show(what, &collect(&mut told, &committed).await);
        drop(transaction);
    }
    running.stop().await;

    // The writer's process is this one, and numbers its commits; the follower's is another.
    let mut other = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["follow", "--url", &database.url])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let running = Running::start(store.clone() as Arc<dyn Store>, Followers::new()).await;
    // It looks now and then whether another process follows.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let committed = Committed::default();
    offer(
        &*store,
        Some(&running.followers.commits),
        &committed,
        arguments.time,
    )
    .await;
    show(
        "the follower in another process",
        &collect(&mut told, &committed).await,
    );
    other.kill().await.unwrap();
    running.stop().await;
    drop(store);
    database.drop().await;
}
