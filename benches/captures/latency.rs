//! How soon a change is in the log.

use crate::Arguments;
use crate::load::Load;
use crate::site::{Site, stored, until_stored};
use tokio::time::sleep;

/// From the time of a change's commit, which is the event's, to that of the transaction that wrote the event.
const TIMES: &str = "
    SELECT count(*), percentile_cont(ARRAY[0.5, 0.99, 1.0]) WITHIN GROUP (ORDER BY ms) FROM (
        SELECT extract(epoch FROM
            pg_xact_commit_timestamp(xmin) - \"timestamp\")::float8 * 1000 AS ms
        FROM user_interactions
        WHERE event_data->>'op' = 'u'
    ) AS times";

pub async fn run(arguments: &Arguments) {
    assert!(
        arguments.url.is_some(),
        "only PostgreSQL knows when a transaction was committed"
    );
    let site = Site::create(arguments).await;
    let server = site.read().await;
    let first = stored(&server).await;
    let before = site.place.processor(&server).await;
    let load = Load::start(site.url(), arguments, arguments.rate).await;
    sleep(arguments.time).await;
    let made = load.end().await;
    until_stored(&server, first + made).await;
    let used = site.place.processor(&server).await.since(before);
    let row = site.client.query_one(TIMES, &[]).await;
    let row = row.expect("track_commit_timestamp is on");
    let (count, ms): (i64, Vec<f64>) = (row.get(0), row.get(1));
    assert_eq!(count as usize, made, "each change is there");
    println!(
        "{:.0} changes/s, {} in a transaction: commit to log p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms; server {:.1} %, \
         PostgreSQL {:.1} % of a core",
        made as f64 / arguments.time.as_secs_f64(),
        arguments.each,
        ms[0],
        ms[1],
        ms[2],
        used.server / arguments.time.as_secs_f64() * 100.0,
        used.postgres / arguments.time.as_secs_f64() * 100.0
    );
    site.drop(server).await;
}
