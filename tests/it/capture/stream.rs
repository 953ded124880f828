//! The stream: what is confirmed, back-pressure, and the end of the server.

use super::{Bench, SOON, database};
use crate::harness::{Postgres, eventually, memory_of};
use eclusa::capture::catalog::{publication, server, slot};
use eclusa::capture::{CaptureError, Lsn, ReplicationMessage, ReplicationStream};
use eclusa::store::ErrorKind;
use std::time::Duration;
use tokio::time::timeout;

const T: &str = "CREATE TABLE t (id int PRIMARY KEY, body text)";

async fn next(stream: &mut ReplicationStream) -> ReplicationMessage {
    let next = timeout(SOON, stream.next()).await;
    next.expect("a message in time").unwrap()
}

/// The end of the next transaction, and how many changes it has.
async fn transaction(stream: &mut ReplicationStream) -> (usize, Lsn) {
    let mut changes = 0;
    loop {
        match next(stream).await {
            ReplicationMessage::Change(_) => changes += 1,
            ReplicationMessage::Commit { end_lsn, .. } => return (changes, end_lsn),
            _ => {}
        }
    }
}

/// The error that ends a stream.
async fn end(stream: &mut ReplicationStream) -> CaptureError {
    let end = async {
        loop {
            if let Err(error) = stream.next().await {
                return error;
            }
        }
    };
    timeout(SOON, end).await.expect("the stream ends")
}

async fn confirmed(bench: &Bench) -> Lsn {
    let state = slot::find(&bench.client, &bench.slot).await.unwrap();
    state.unwrap().confirmed_flush_lsn.unwrap()
}

#[tokio::test]
async fn what_is_confirmed_does_not_come_again() {
    let bench = Bench::start(T, &["public.t"]).await;
    bench.execute("INSERT INTO public.t VALUES (1)").await;
    bench.execute("INSERT INTO public.t VALUES (2), (3)").await;
    let mut stream = bench.open().await;
    let (first, end_of_first) = transaction(&mut stream).await;
    let (second, end_of_second) = transaction(&mut stream).await;
    assert_eq!((first, second), (1, 2));
    stream.confirm(end_of_first);
    stream.close().await;
    assert_eq!(confirmed(&bench).await, end_of_first);

    let mut stream = bench.open().await;
    let (again, end) = transaction(&mut stream).await;
    assert_eq!((again, end), (2, end_of_second));
    // An older confirmation does not take a newer one back.
    stream.confirm(end);
    stream.confirm(end_of_first);
    stream.close().await;
    assert_eq!(confirmed(&bench).await, end);

    // A place behind the slot's is no use, one before it is.
    bench.execute("INSERT INTO public.t VALUES (4)").await;
    bench
        .execute("INSERT INTO public.t VALUES (5), (6), (7)")
        .await;
    let mut stream = bench.open().await;
    let (_, end_of_fourth) = transaction(&mut stream).await;
    stream.close().await;
    let opened = bench
        .database
        .open(&bench.slot, "captured", Some(end_of_fourth));
    let mut stream = opened.await.unwrap();
    assert_eq!(transaction(&mut stream).await.0, 3);
}

#[tokio::test]
async fn each_confirmation_arrives_soon() {
    let bench = Bench::start(T, &["public.t"]).await;
    let mut stream = bench.open().await;
    for n in 0..3 {
        bench
            .execute(&format!("INSERT INTO public.t VALUES ({n})"))
            .await;
        let (_, end) = transaction(&mut stream).await;
        stream.confirm(end);
        // Reports that nothing is due for come each 10 s.
        eventually(SOON / 4, "the server is told", async || {
            (confirmed(&bench).await >= end).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_transaction_that_is_rolled_back_never_comes() {
    let bench = Bench::start(T, &["public.t"]).await;
    bench
        .execute("BEGIN; INSERT INTO public.t VALUES (1); ROLLBACK; INSERT INTO public.t VALUES (2), (3)")
        .await;
    let mut stream = bench.open().await;
    assert_eq!(transaction(&mut stream).await.0, 2);
}

#[tokio::test]
async fn a_slow_reader_keeps_its_connection() {
    let bench = Bench::start(T, &["public.t"]).await;
    let name = bench.database.name().unwrap().to_owned();
    bench
        .execute(&format!(
            "ALTER DATABASE {name} SET wal_sender_timeout = '2s'"
        ))
        .await;
    bench
        .execute(
            "INSERT INTO public.t SELECT n, repeat('x', 1000) FROM generate_series(1, 60000) n",
        )
        .await;
    let mut stream = bench.open().await;
    while !matches!(next(&mut stream).await, ReplicationMessage::Begin(_)) {}
    // The server has much to send, and hears nothing but reports for three times its limit.
    let slow = tokio::time::Instant::now();
    let alive = async || {
        let row = bench
            .client
            .query_one(
                "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'eclusa capture' \
                 AND pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1)",
                &[&bench.slot],
            )
            .await;
        row.unwrap().get::<_, i64>(0)
    };
    eventually(SOON, "six seconds have gone by", async || {
        assert_eq!(alive().await, 1, "the server has ended the connection");
        (slow.elapsed() > Duration::from_secs(6)).then_some(())
    })
    .await;
    let (changes, end) = transaction(&mut stream).await;
    assert_eq!(changes, 60_000);
    stream.confirm(end);
    eventually(SOON, "the confirmation arrives by itself", async || {
        (confirmed(&bench).await == end).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_huge_transaction_takes_no_memory() {
    let bench = Bench::start(T, &["public.t"]).await;
    bench
        .execute("INSERT INTO public.t SELECT n, repeat(md5(n::text), 40) FROM generate_series(1, 200000) n")
        .await;
    let mut stream = bench.open().await;
    let me = i32::try_from(std::process::id()).unwrap();
    let before = memory_of(me).unwrap();

    let (mut changes, mut most) = (0, 0);
    loop {
        match next(&mut stream).await {
            ReplicationMessage::Change(_) => {
                changes += 1;
                if changes % 1000 == 0 {
                    most = memory_of(me).unwrap().max(most);
                }
            }
            ReplicationMessage::Commit { .. } => break,
            _ => {}
        }
    }
    assert_eq!(changes, 200_000);
    // 260 MB went through. Other tests run in this process.
    let grown = most.saturating_sub(before);
    assert!(grown < 100 << 20, "{grown} bytes");
}

#[tokio::test]
async fn an_idle_slot_moves_with_what_others_write() {
    let bench = Bench::start(&format!("{T}; CREATE TABLE other (n int)"), &["public.t"]).await;
    let name = bench.database.name().unwrap().to_owned();
    bench
        .execute(&format!(
            "ALTER DATABASE {name} SET wal_sender_timeout = '3s'"
        ))
        .await;
    let mut stream = bench.open().await;
    bench
        .execute("INSERT INTO public.other SELECT generate_series(1, 50000)")
        .await;
    let written = server::emit(&bench.client, false, "elsewhere", "")
        .await
        .unwrap();
    loop {
        if let ReplicationMessage::Keepalive { wal_end } = next(&mut stream).await
            && wal_end >= written
        {
            stream.confirm(wal_end);
            break;
        }
    }
    eventually(SOON, "the slot has moved", async || {
        (confirmed(&bench).await >= written).then_some(())
    })
    .await;
}

#[tokio::test]
async fn watermarks_come_in_their_place() {
    let bench = Bench::start(T, &["public.t"]).await;
    let mut stream = bench.open().await;
    bench.execute("INSERT INTO public.t VALUES (1)").await;
    let low = server::emit(&bench.client, true, "eclusa", "low")
        .await
        .unwrap();
    bench.execute("INSERT INTO public.t VALUES (2)").await;
    server::emit(&bench.client, false, "eclusa", "now")
        .await
        .unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        match next(&mut stream).await {
            ReplicationMessage::Change(_) => seen.push("change".to_owned()),
            ReplicationMessage::Logical {
                lsn,
                transactional,
                prefix,
                content,
            } => {
                let content = String::from_utf8(content.to_vec()).unwrap();
                assert_eq!((&*prefix, transactional), ("eclusa", content == "low"));
                assert!(content != "low" || lsn == low);
                seen.push(content);
            }
            _ => {}
        }
    }
    assert_eq!(seen, ["change", "low", "change", "now"]);
}

#[tokio::test]
async fn a_killed_server_goes_on_where_it_was_confirmed() {
    let mut postgres = Postgres::start().await;
    let bench = Bench::start_on(&postgres, T, &["public.t"]).await;
    bench.execute("INSERT INTO public.t VALUES (0)").await;
    bench
        .execute("INSERT INTO public.t SELECT n, repeat('x', 500) FROM generate_series(1, 50000) n")
        .await;
    let mut stream = bench.open().await;
    let (_, end_of_first) = transaction(&mut stream).await;
    stream.confirm(end_of_first);
    let mut changes = 0;
    while changes < 100 {
        changes += usize::from(matches!(
            next(&mut stream).await,
            ReplicationMessage::Change(_)
        ));
    }
    // The first confirmation has arrived, since the server answers each report.
    eventually(SOON, "the confirmation has arrived", async || {
        (confirmed(&bench).await == end_of_first).then_some(())
    })
    .await;
    postgres.kill9();
    assert_eq!(end(&mut stream).await.kind(), ErrorKind::Outage);
    let refused = bench.database.open(&bench.slot, "captured", None).await;
    assert_eq!(refused.map(|_| ()).unwrap_err().kind(), ErrorKind::Outage);

    postgres.start_again().await;
    let mut stream = bench.open().await;
    let (mut changes, mut last) = (0, 0);
    while changes < 50_000 {
        let (of_one, _) = transaction(&mut stream).await;
        (changes, last) = (changes + of_one, of_one);
    }
    // The slot's position on disk may be older; a transaction comes whole.
    assert_eq!(last, 50_000);
}

#[tokio::test]
async fn a_server_that_stops_is_not_kept_waiting() {
    let mut postgres = Postgres::start().await;
    let bench = Bench::start_on(&postgres, T, &["public.t"]).await;
    bench.execute("INSERT INTO public.t VALUES (1)").await;
    bench.execute("INSERT INTO public.t VALUES (2), (3)").await;
    let mut stream = bench.open().await;
    let (_, end_of_first) = transaction(&mut stream).await;
    transaction(&mut stream).await;
    stream.confirm(end_of_first);
    eventually(SOON, "the confirmation has arrived", async || {
        (confirmed(&bench).await == end_of_first).then_some(())
    })
    .await;
    // The second transaction is not confirmed. The server waits for that when it stops, unless the stream gives up.
    let (_, error) = tokio::join!(postgres.stop(), async {
        let error = end(&mut stream).await;
        drop(stream);
        error
    });
    assert_eq!(error.kind(), ErrorKind::Outage, "{error}");
    postgres.start_again().await;
    // The slot may have gone back to what was on its disk.
    let opened = bench
        .database
        .open(&bench.slot, "captured", Some(end_of_first));
    let mut stream = opened.await.unwrap();
    assert_eq!(transaction(&mut stream).await.0, 2);
}

#[tokio::test]
async fn a_stream_of_a_database_without_the_publication_says_so() {
    let bench = Bench::start(T, &["public.t"]).await;
    publication::remove(&bench.client, "captured")
        .await
        .unwrap();
    bench.execute("INSERT INTO public.t VALUES (1)").await;
    let database = database(&bench.url);
    let mut stream = database.open(&bench.slot, "missing", None).await.unwrap();
    let error = end(&mut stream).await;
    assert_eq!(
        error.fault(),
        eclusa::capture::CaptureFault::PublicationMissing,
        "{error}"
    );
}
