//! What a capture costs whose tables are not written, and what its slot keeps.

use crate::Arguments;
use crate::place::Place;
use crate::server::Server;
use crate::site::Site;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// After it what follows the start is over.
const SETTLED: Duration = Duration::from_secs(10);
/// Rows of a statement that writes another table.
const ROWS: usize = 100;

async fn measure(what: &str, arguments: &Arguments, place: &Place, server: &Server) {
    sleep(SETTLED).await;
    let before = place.processor(server).await;
    sleep(arguments.time).await;
    let used = place.processor(server).await.since(before);
    let percent = |used: f64| used / arguments.time.as_secs_f64() * 100.0;
    println!(
        "{what}: {:.2} % of a core in the server, {:.2} % in PostgreSQL; {:.1} MiB resident",
        percent(used.server),
        percent(used.postgres),
        server.usage().resident as f64 / f64::from(1 << 20)
    );
}

pub async fn idle(arguments: &Arguments) {
    let without = Place::create(arguments, String::new()).await;
    let server = without.server("server").await;
    measure("without a capture", arguments, &without, &server).await;
    server.stop().await;
    without.drop().await;
    let site = Site::create(arguments).await;
    site.read().await.stop().await;
    let server = site.place.server("server").await;
    measure("with one", arguments, &site.place, &server).await;
    site.drop(server).await;
}

/// Writes a table that is not captured.
pub async fn others(arguments: &Arguments) {
    let site = Site::create(arguments).await;
    let other = "CREATE TABLE other (id bigint, filler text)";
    site.client.batch_execute(other).await.unwrap();
    let server = site.read().await;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..arguments.writers {
        let client = crate::database::connect(site.url()).await;
        let pause = Duration::from_secs(1) * (ROWS * arguments.writers) as u32;
        let mut tick = tokio::time::interval(pause / arguments.rate as u32);
        writers.spawn_local(async move {
            let insert = format!(
                "INSERT INTO other SELECT n, rpad('', 84, 'x') FROM generate_series(1, {ROWS}) AS n"
            );
            loop {
                tick.tick().await;
                client.batch_execute(&insert).await.expect("rows");
            }
        });
    }
    let look = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn, pg_current_wal_lsn() - confirmed_flush_lsn \
                FROM pg_replication_slots WHERE slot_name = $1";
    let look =
        format!("SELECT written::bigint, behind::bigint FROM ({look}) AS looked (written, behind)");
    let slot = format!("eclusa_{}", site.name);
    let before = site.place.processor(&server).await;
    let (began, mut first, mut last, mut behind) = (Instant::now(), None, 0, Vec::new());
    while began.elapsed() < arguments.time {
        let row = site.client.query_one(&look, &[&slot]).await.unwrap();
        last = row.get::<_, i64>(0);
        first.get_or_insert(last);
        behind.push(row.get::<_, i64>(1));
        sleep(Duration::from_millis(20)).await;
    }
    let used = site.place.processor(&server).await.since(before);
    let seconds = began.elapsed().as_secs_f64();
    drop(writers);
    behind.sort_unstable();
    let part = |part: f64| behind[((behind.len() - 1) as f64 * part) as usize] as f64 / 1024.0;
    println!(
        "{:.1} MiB of log a second in other tables: not confirmed p50 {:.0} KiB, p99 {:.0} KiB, most {:.0} KiB; {:.1} % \
         of a core in the server",
        (last - first.unwrap_or_default()) as f64 / f64::from(1 << 20) / seconds,
        part(0.5),
        part(0.99),
        part(1.0),
        used.server / seconds * 100.0
    );
    site.drop(server).await;
}
