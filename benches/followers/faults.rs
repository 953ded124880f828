//! Each event applied once, in one order, whatever is killed.

use crate::Arguments;
use crate::database::{Database, connect, event, write};
use crate::projections::TABLES;
use crate::rate::caught_up;
use eclusa::event::Event;
use eclusa::store::followers::FollowerCommand;
use eclusa::store::{FollowerStore, Store};
use rand::Rng as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

const WRITERS: usize = 8;
/// Events a second that all of them write, at most, so that the run is longer than a held transaction.
const RATE: f64 = 10_000.0;
/// How long some transactions are held open.
const HELD: Duration = Duration::from_secs(30);
/// Processes that follow.
const PROCESSES: usize = 2;

fn follower(url: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["follow", "--url", url])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Writes batches of all sizes until all events are written, each of the types at random.
async fn writer(number: usize, store: Arc<impl Store>, left: Arc<AtomicUsize>) {
    let mut next = 0;
    loop {
        let size = rand::rng().random_range(1..400);
        let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            (left > 0).then(|| left.saturating_sub(size))
        });
        let Ok(before) = taken else {
            return;
        };
        let kind = |n: usize| {
            if n.is_multiple_of(50) {
                "echoed"
            } else {
                "plain"
            }
        };
        let end = next + size.min(before);
        let events = (next..end).map(|n| Event {
            user_id: Some(format!("writer-{number}")),
            ..event(n, kind(n))
        });
        write(&*store, events.collect()).await;
        let due = (end - next) as f64 * WRITERS as f64 / RATE;
        tokio::time::sleep(Duration::from_secs_f64(due)).await;
        next = end;
    }
}

/// Records events in transactions that are held open, every other of which is rolled back. How many are
/// committed.
async fn holder(url: String, left: Arc<AtomicUsize>) -> usize {
    let mut client = connect(&url).await;
    let mut committed = 0;
    for round in 0.. {
        if left.load(Ordering::SeqCst) == 0 {
            break;
        }
        let transaction = client.transaction().await.unwrap();
        for _ in 0..10 {
            transaction
                .execute("SELECT eclusa_record('held')", &[])
                .await
                .unwrap();
        }
        let until = Instant::now() + HELD;
        while Instant::now() < until && left.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if round % 2 == 0 {
            transaction.commit().await.unwrap();
            committed += 10;
        } else {
            transaction.rollback().await.unwrap();
        }
    }
    committed
}

pub async fn run(arguments: &Arguments) {
    let database = Database::create(&arguments.url).await;
    let client = connect(&database.url).await;
    client.batch_execute(TABLES).await.unwrap();
    let store = database.store().await;
    let left = Arc::new(AtomicUsize::new(arguments.events));
    let began = Instant::now();
    let mut processes: Vec<Child> = (0..PROCESSES).map(|_| follower(&database.url)).collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::task::spawn_local(writer(n, Arc::clone(&store), Arc::clone(&left))))
        .collect();
    let holders: Vec<_> = (0..2)
        .map(|_| tokio::task::spawn_local(holder(database.url.clone(), Arc::clone(&left))))
        .collect();
    let mut kills = 0;
    while left.load(Ordering::SeqCst) > 0 {
        let pause = rand::rng().random_range(1_000..4_000);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let victim = rand::rng().random_range(0..PROCESSES);
        processes[victim].kill().await.unwrap();
        processes[victim] = follower(&database.url);
        kills += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let mut held = 0;
    for holder in holders {
        held += holder.await.unwrap();
    }
    println!(
        "{} events written, {held} recorded in held transactions, {kills} kills, {:.0} s",
        arguments.events,
        began.elapsed().as_secs_f64()
    );
    for name in ["echoing", "first", "second"] {
        caught_up(&*store, name).await;
    }
    // The echoes of the last echo.
    for name in ["first", "second"] {
        caught_up(&*store, name).await;
    }
    println!("caught up after {:.0} s", began.elapsed().as_secs_f64());
    check(&client).await;
    let at = Instant::now();
    let rebuild = FollowerCommand::Rebuild {
        accept_truncated: false,
    };
    FollowerStore::command(&*store, "second", rebuild)
        .await
        .unwrap();
    caught_up(&*store, "second").await;
    println!("rebuilt in {:.1} s", at.elapsed().as_secs_f64());
    check(&client).await;
    for mut process in processes {
        process.kill().await.unwrap();
    }
    drop(store);
    database.drop().await;
}

/// Fails unless both followers have seen each event of the log once, in one order, in which no later commit
/// of a writer stands before an earlier one.
async fn check(client: &tokio_postgres::Client) {
    const SQL: &str = "\
        SELECT (SELECT count(*) FROM user_interactions), \
               (SELECT count(*) FROM seen WHERE follower = 'first'), \
               (SELECT count(*) FROM seen WHERE follower = 'second'), \
               (SELECT count(DISTINCT id) FROM seen WHERE follower = 'first'), \
               (SELECT count(*) FROM user_interactions WHERE event_type = 'echoed'), \
               (SELECT count(DISTINCT event_data->>'of') FROM user_interactions \
                WHERE event_type = 'echo'), \
               (SELECT count(*) FROM user_interactions WHERE event_type = 'echo'), \
               (SELECT count(*) FROM \
                    (SELECT id, row_number() OVER (ORDER BY n) FROM seen WHERE follower = 'first' \
                     EXCEPT \
                     SELECT id, row_number() OVER (ORDER BY n) FROM seen WHERE follower = 'second') \
                    AS other), \
               (SELECT count(*) FROM \
                    (SELECT position, lag(position) OVER (ORDER BY n) AS before FROM seen \
                     WHERE follower = 'first') AS steps \
                WHERE position <= before), \
               (SELECT count(*) FROM \
                    (SELECT (event_data->>'n')::bigint AS number, \
                            lag((event_data->>'n')::bigint) \
                                OVER (PARTITION BY user_id ORDER BY seen.n) AS before \
                     FROM seen JOIN user_interactions ON event_id = seen.id \
                     WHERE follower = 'first' AND user_id LIKE 'writer-%') AS of_writers \
                WHERE number <= before)";
    let row = client.query_one(SQL, &[]).await.unwrap();
    let found: Vec<i64> = (0..10).map(|column| row.get(column)).collect();
    println!(
        "log {}, first {} ({} ids), second {}, echoed {}, echoes {} of {}, other order {}, backwards {}, \
         inversions {}",
        found[0],
        found[1],
        found[3],
        found[2],
        found[4],
        found[6],
        found[5],
        found[7],
        found[8],
        found[9]
    );
    assert!(
        found[0] == found[1] && found[1] == found[2] && found[2] == found[3],
        "each once"
    );
    assert!(
        found[4] == found[5] && found[5] == found[6],
        "each echoed once"
    );
    assert_eq!((found[7], found[8], found[9]), (0, 0, 0), "one order");
}
