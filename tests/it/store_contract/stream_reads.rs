//! What calls of collectors read on PostgreSQL, and what operators read beside them.

use super::collecting::{Collecting, KEY, RULES, messages};
use crate::followers::{Place, SOON};
use crate::harness::{connect, eventually};
use eclusa::store::streams::Call;
use futures::future::join_all;

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
    let read = "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes WHERE relname = 'stream_messages'";
    let read: i64 = client.query_one(read, &[]).await.unwrap().get(0);
    // Each message is met when it is chosen, when its body is read, and when it is deleted.
    let expected = 3 * CALLS * LIMIT as i64;
    assert!(
        (expected..2 * expected).contains(&read),
        "{read} entries of the index"
    );
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
            let waiting =
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
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
