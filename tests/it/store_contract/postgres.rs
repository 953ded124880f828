//! What holds for PostgreSQL alone: replicas, partitions, and which failure is of which kind.

use super::*;
use crate::harness::{connect, eventually};
use chrono::{Days, NaiveDate};
use eclusa::store::{ErrorKind, EventFilter};
use std::time::{Duration, Instant};

#[tokio::test]
async fn four_processes_migrate_at_once() {
    let options = PostgresOptions::new(fresh_postgres().await);
    let runs = (0..4).map(|_| pg::migrate(&options));
    let mut applied = 0;
    for run in futures::future::join_all(runs).await {
        applied += run.expect("migrates").len();
    }
    assert_eq!(applied, 13);
    PostgresStore::connect(&options).await.unwrap();
}

#[tokio::test]
async fn another_schema_is_refused() {
    let url = fresh_postgres().await;
    let options = PostgresOptions::new(&url);
    let refused = async || {
        PostgresStore::connect(&options)
            .await
            .map(|_| ())
            .unwrap_err()
    };
    let error = refused().await;
    assert_eq!(error.kind(), ErrorKind::Operator);
    assert!(error.to_string().contains("eclusa migrate"), "{error}");
    pg::migrate(&options).await.unwrap();
    let client = connect(&url).await;
    let set = async |version: i32, oldest: i32| {
        let update = "UPDATE eclusa_schema SET version = $1, oldest_compatible = $2";
        client.execute(update, &[&version, &oldest]).await.unwrap();
    };
    set(99, 98).await;
    let error = refused().await;
    assert_eq!(error.kind(), ErrorKind::Operator);
    assert!(
        error.to_string().contains("schema 99, needs at least 98"),
        "{error}"
    );
    let error = pg::migrate(&options).await.unwrap_err();
    assert!(error.to_string().contains("upgrade this binary"), "{error}");
    set(99, 1).await;
    PostgresStore::connect(&options).await.unwrap();
    set(0, 0).await;
    assert!(refused().await.to_string().contains("eclusa migrate"));
}

async fn partitions(client: &tokio_postgres::Client) -> Vec<String> {
    let sql = "SELECT inhrelid::regclass::text FROM pg_inherits \
               WHERE inhparent = 'user_interactions'::regclass ORDER BY 1";
    let rows = client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn replicas_make_the_same_partitions_at_once() {
    let (_, url) = postgres_store().await;
    let options = PostgresOptions::new(&url);
    let connects = (0..4).map(|_| PostgresStore::connect(&options));
    let stores: Vec<_> = futures::future::join_all(connects)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let days: Vec<NaiveDate> = (1..6)
        .map(|day| NaiveDate::from_ymd_opt(2024, 2, day).unwrap())
        .chain([(Utc::now() + Days::new(40)).date_naive()])
        .collect();
    let id_of = |day: &NaiveDate| {
        let noon = day
            .and_hms_opt(12, 0, 0)
            .unwrap()
            .and_utc()
            .timestamp_millis();
        let millis = u64::try_from(noon).unwrap();
        uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
    };
    let writes = stores.iter().map(|store| {
        let events: Vec<_> = days.iter().map(|day| event_of(id_of(day))).collect();
        write(store, events)
    });
    for outcomes in futures::future::join_all(writes).await {
        assert_eq!(outcomes.unwrap(), vec![RowOutcome::Stored; days.len()]);
    }
    let client = connect(&url).await;
    // The fixed one, today and thirty days ahead, and those above.
    assert_eq!(partitions(&client).await.len(), 1 + 31 + days.len());
}

#[tokio::test]
async fn a_partition_that_was_dropped_is_made_again() {
    let (store, url) = postgres_store().await;
    let client = connect(&url).await;
    write(&store, [event()]).await.unwrap();
    let today = format!("user_interactions_{}", Utc::now().format("%Y%m%d"));
    client
        .batch_execute(&format!("DROP TABLE {today}"))
        .await
        .unwrap();
    let outcomes = write(&store, [event(), event()]).await.unwrap();
    assert_eq!(outcomes, [RowOutcome::Stored; 2]);
    assert!(partitions(&client).await.contains(&today));
}

#[tokio::test]
async fn a_missing_table_or_right_is_for_the_operator() {
    let (store, url) = postgres_store().await;
    let client = connect(&url).await;
    client
        .batch_execute("ALTER TABLE user_interactions RENAME TO elsewhere")
        .await
        .unwrap();
    let error = write(&store, [event()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Operator, "{error}");
    assert_eq!(error.sqlstate(), Some("42P01"));
    let error = store.get(Uuid::now_v7()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Operator, "{error}");
    client
        .batch_execute("ALTER TABLE elsewhere RENAME TO user_interactions")
        .await
        .unwrap();
    write(&store, [event()]).await.unwrap();
}

#[tokio::test]
async fn a_read_only_database_is_for_the_operator() {
    let (_, url) = postgres_store().await;
    let name = url.rsplit('/').next().unwrap();
    let set = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    connect(&url).await.batch_execute(&set).await.unwrap();
    let store = PostgresStore::connect(&PostgresOptions::new(&url))
        .await
        .unwrap();
    let error = store.ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Operator);
    assert!(error.to_string().contains("read-only"), "{error}");
    let error = write(&store, [event()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Operator, "{error}");
}

#[tokio::test]
async fn nobody_there_is_an_outage() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let options = PostgresOptions::new(format!("postgres://u:secret@127.0.0.1:{port}/x"));
    let refused = PostgresStore::connect(&options)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Outage, "{refused}");
    assert!(!format!("{refused:?}").contains("secret"));
    let refused = pg::migrate(&options).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Outage, "{refused}");
}

#[tokio::test]
async fn nobody_answering_is_an_outage() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut options = PostgresOptions::new(format!("postgres://u@127.0.0.1:{port}/x"));
    options.connect_timeout = Duration::from_millis(200);
    options.acquire_timeout = Duration::from_millis(200);
    let begun = Instant::now();
    let error = PostgresStore::connect(&options)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Outage, "{error}");
    assert_eq!(error.to_string(), "no connection within 200ms");
    let error = pg::migrate(&options).await.unwrap_err();
    assert_eq!(error.to_string(), "no connection within 200ms");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_wrong_name_is_for_the_operator() {
    let url = fresh_postgres().await;
    let options = PostgresOptions::new(format!("{url}_not_there"));
    let error = PostgresStore::connect(&options)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Operator, "{error}");
    let error = pg::migrate(&options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Operator, "{error}");
    assert_eq!(error.sqlstate(), Some("3D000"));
}

/// Ends the store's own connections, as an administrator or a crash would.
async fn kill_connections(client: &tokio_postgres::Client, only_active: bool) -> u64 {
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND application_name = 'eclusa' \
               AND (state = 'active' OR NOT $1)";
    client.query(sql, &[&only_active]).await.unwrap().len() as u64
}

#[tokio::test]
async fn a_connection_killed_at_work_is_an_outage_and_the_next_one_works() {
    let (store, url) = postgres_store().await;
    let client = connect(&url).await;
    let mut blocking = connect(&url).await;
    // Holds the insert up, so that it can be killed in the middle.
    let lock = blocking.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE user_interactions IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let events = [event(), event()];
    let kill = async {
        eventually(Duration::from_secs(10), "the insert runs", async || {
            (kill_connections(&client, true).await > 0).then_some(())
        })
        .await;
    };
    let (written, ()) = futures::future::join(write(&store, events.clone()), kill).await;
    let error = written.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Outage, "{error}");
    lock.commit().await.unwrap();
    assert_eq!(
        write(&store, events).await.unwrap(),
        [RowOutcome::Stored; 2]
    );
}

#[tokio::test]
async fn idle_connections_that_died_are_replaced() {
    let (store, url) = postgres_store().await;
    store.ping().await.unwrap();
    write(&store, [event()]).await.unwrap();
    let client = connect(&url).await;
    assert!(kill_connections(&client, false).await >= 2);
    eventually(
        Duration::from_secs(10),
        "the connections are gone",
        async || (kill_connections(&client, false).await == 0).then_some(()),
    )
    .await;
    store.ping().await.unwrap();
    write(&store, [event()]).await.unwrap();
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_transient() {
    let (_, url) = postgres_store().await;
    let mut options = PostgresOptions::new(&url);
    options.statement_timeout = Duration::from_millis(300);
    let store = PostgresStore::connect(&options).await.unwrap();
    let mut blocking = connect(&url).await;
    let lock = blocking.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE user_interactions IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let error = write(&store, [event()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert_eq!(error.sqlstate(), Some("57014"));
}

/// A caller that stops waiting takes its connection out of the pool: the next caller does not
/// wait behind its query, and the query does not run on in the server.
#[tokio::test]
async fn a_query_that_is_abandoned_keeps_no_connection_busy() {
    let (_, url) = postgres_store().await;
    let mut options = PostgresOptions::new(&url);
    options.write_connections = 1;
    options.read_connections = 1;
    let store = PostgresStore::connect(&options).await.unwrap();
    let store: &dyn Store = &store;
    let ttl = Duration::from_secs(600);
    store.acquire("a", "me", ttl).await.unwrap().unwrap();
    let mut blocking = connect(&url).await;
    let lock = blocking.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE user_interactions, leases IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();

    let (impatient, patient) = (Duration::from_millis(300), Duration::from_secs(10));
    let none = EventFilter::default();
    for _ in 0..3 {
        let listing = store.list(&none, None, 1);
        assert!(tokio::time::timeout(impatient, listing).await.is_err());
        let writing = write(store, [event()]);
        assert!(tokio::time::timeout(impatient, writing).await.is_err());
        let asking = store.acquire("b", "me", ttl);
        assert!(tokio::time::timeout(impatient, asking).await.is_err());
    }
    // One on each kind of connection that needs neither table.
    let reading = tokio::time::timeout(patient, store.ping()).await;
    reading.expect("a reader is free").unwrap();
    let marking = tokio::time::timeout(patient, store.mark_replayed(Vec::new())).await;
    marking.expect("a writer is free").unwrap();
    let holding = tokio::time::timeout(patient, store.due_days(10_000)).await;
    holding.expect("one for maintenance is free").unwrap();
    let watcher = connect(&url).await;
    eventually(patient, "nothing waits in the server", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let waiting: i64 = watcher.query_one(sql, &[]).await.unwrap().get(0);
        (waiting == 0).then_some(())
    })
    .await;
}

/// Each lock fails the probe of the rows that run into it, and no other.
#[tokio::test]
async fn a_write_probe_finds_locks_on_the_log_a_day_and_a_lane() {
    const LANE: i64 = -9;
    let url = fresh_postgres().await;
    let mut options = PostgresOptions::new(&url);
    pg::migrate(&options).await.unwrap();
    options.statement_timeout = Duration::from_millis(200);
    let store = PostgresStore::connect(&options).await.unwrap();
    let today = [event_of(uuid::Uuid::now_v7())];
    let no_day = [event_of(uuid::Uuid::new_v4())];
    let partition = Utc::now().format("user_interactions_%Y%m%d");
    let probes = [
        (&today[..], None),
        (&no_day[..], None),
        (&no_day[..], Some(LANE)),
        (&[][..], Some(LANE + 1)),
    ];
    let cases = [
        ("SELECT 1".to_owned(), [true, true, true, true]),
        (
            format!("LOCK TABLE {partition} IN ACCESS EXCLUSIVE MODE"),
            [false, true, true, true],
        ),
        (
            format!("SELECT pg_advisory_xact_lock({LANE})"),
            [true, true, false, true],
        ),
        (
            "LOCK TABLE user_interactions IN ACCESS EXCLUSIVE MODE".to_owned(),
            [false; 4],
        ),
    ];
    let mut client = connect(&url).await;
    for (lock, expected) in cases {
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute(&lock).await.unwrap();
        for ((rows, lane), expected) in probes.iter().zip(expected) {
            let probed = store.write_probe(rows, *lane).await;
            assert_eq!(probed.is_ok(), expected, "{lock}: {probed:?}");
        }
        transaction.rollback().await.unwrap();
    }
    let page = store.list(&EventFilter::default(), None, 10).await.unwrap();
    assert!(page.events.is_empty(), "a probe leaves no row");
}
