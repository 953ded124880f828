//! What calls of collectors read on PostgreSQL, and what operators read beside them.

use super::collecting::{Collecting, KEY, RULES, before, done, messages};
use crate::followers::{Place, SOON};
use crate::harness::{connect, eventually};
use eclusa::store::streams::Call;
use futures::future::join_all;
use tokio_postgres::Client;

const MESSAGES: usize = 2_000;
const CALLS: i64 = 20;
const LIMIT: usize = 10;

/// The planner knows nothing of a table that was never analyzed, and takes a key for one with few messages.
#[actix_rt::test]
async fn a_call_reads_what_it_hands_out_however_many_messages_wait() {
    let place = Place::postgres().await;
    let client = connect(place.url.as_ref().unwrap()).await;
    let unknown = "ALTER TABLE stream_messages SET (autovacuum_enabled = false)";
    client.batch_execute(unknown).await.unwrap();
    let stream = Collecting::new(&place, "s", RULES).await;
    stream.deliver(KEY, MESSAGES).await;
    let (mut ticket, _) = messages(stream.start(LIMIT).await);
    for _ in 1..CALLS {
        (ticket, _) = messages(stream.next(ticket, LIMIT).await);
    }
    stream.end(ticket).await;
    let read = entries_read(place, &client, "stream_messages").await;
    // Each message is met when it is chosen, when its body is read, and when it is deleted.
    let expected = 3 * CALLS * LIMIT as i64;
    assert!(
        (expected..2 * expected).contains(&read),
        "{read} entries of the index"
    );
}

#[actix_rt::test]
async fn a_call_reads_what_it_hands_out_however_many_messages_have_returned() {
    let place = Place::postgres().await;
    let client = connect(place.url.as_ref().unwrap()).await;
    let unknown = "ALTER TABLE stream_returned SET (autovacuum_enabled = false)";
    client.batch_execute(unknown).await.unwrap();
    let stream = Collecting::new(&place, "s", RULES).await;
    stream.deliver(KEY, MESSAGES).await;
    let (ticket, _) = messages(stream.start(MESSAGES).await);
    assert_eq!(stream.end(before(ticket)).await, done(0, MESSAGES as u32));
    let (mut ticket, _) = messages(stream.start(LIMIT).await);
    for _ in 1..CALLS {
        (ticket, _) = messages(stream.next(ticket, LIMIT).await);
    }
    stream.end(ticket).await;
    let read = entries_read(place, &client, "stream_returned").await;
    // Each message is met when it is chosen and when it is deleted, and once more by the call that meets it dead; by all
    // calls behind that one while an older transaction of the database is open, such as that of ANALYZE.
    let (calls, limit) = (CALLS, LIMIT as i64);
    let expected = 2 * calls * limit;
    let met_dead = limit * calls * (calls - 1) / 2;
    assert!(
        (expected..=expected + met_dead).contains(&read),
        "{read} entries of the index"
    );
}

/// The entries of a table's indexes that were read.
async fn entries_read(place: Place, client: &Client, table: &str) -> i64 {
    // Connections report what they have read when they end.
    drop(place);
    let others = "SELECT count(*) FROM pg_stat_activity \
                  WHERE datname = current_database() AND pid <> pg_backend_pid() \
                    AND backend_type = 'client backend'";
    eventually(SOON, "the store's connections end", async || {
        let row = client.query_one(others, &[]).await.unwrap();
        (row.get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    let read = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname = $1";
    client.query_one(read, &[&table]).await.unwrap().get(0)
}

#[actix_rt::test]
async fn operators_read_on_other_connections_than_collectors() {
    let place = Place::postgres().await;
    let client = connect(place.url.as_ref().unwrap()).await;
    let stream = Collecting::new(&place, "s", RULES).await;
    stream.deliver(KEY, 1).await;
    // One key for each connection of collectors, whose calls end when they have waited for the lock.
    let keys = ["a", "b", "c", "d"];
    for key in keys {
        let lock = format!(
            "SELECT pg_advisory_lock(hashtextextended('{key}', {}))",
            stream.id
        );
        client.batch_execute(&lock).await.unwrap();
    }
    let places = keys.map(|key| stream.place(key));
    let call = Call::Start { limit: 1 };
    let calls = join_all(places.iter().map(|at| place.store.call(at, &call, &RULES)));
    let reads = async {
        eventually(SOON, "all calls wait", async || {
            let waiting = "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database \
                           WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted";
            let row = client.query_one(waiting, &[]).await.unwrap();
            (row.get::<_, i64>(0) == 4).then_some(())
        })
        .await;
        let level = place.store.stream_level(stream.id).await.unwrap();
        assert_eq!((level.waiting, level.sessions), (1, 0));
        let keys = place.store.places(stream.id, None, 9).await.unwrap();
        assert_eq!(keys.len(), 1);
        assert_eq!(stream.level(KEY).await, (1, vec![]));
    };
    tokio::select! {
        calls = calls => panic!("they wait for one another: {calls:?}"),
        () = reads => {}
    }
}
