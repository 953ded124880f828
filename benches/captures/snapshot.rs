//! The snapshot of a large table while it is changed, and the server killed.

use crate::Arguments;
use crate::load::Load;
use crate::site::{Site, stored};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Of each row the newest record, in the order of the log, beside the row itself.
const DIFFERENT: &str = "
    WITH newest AS (
        SELECT DISTINCT ON (id) (event_data->>'id')::bigint AS id, (event_data->>'balance')::numeric AS balance
        FROM (SELECT (event_data->>'id')::bigint AS id, event_data, log.id AS n FROM user_interactions AS log
              WHERE event_type = 'change.public.account') AS records
        ORDER BY id, n DESC
    )
    SELECT count(*) FROM newest FULL JOIN account USING (id) WHERE newest.balance IS DISTINCT FROM account.balance";
const READ: &str = "SELECT count(*) FROM user_interactions WHERE event_data->>'op' = 'r'";

pub async fn run(arguments: &Arguments) {
    assert!(
        arguments.url.is_some(),
        "the events are compared with the rows in one database"
    );
    let site = Site::create(arguments).await;
    let rows = arguments.rows;
    let began = Instant::now();
    let mut server = site.place.server("server").await;
    let idle = server.usage().resident;
    let load = Load::start(site.url(), arguments, arguments.rate).await;
    let (mut before_kills, mut kills, mut most) = (0, 0, 0);
    loop {
        sleep(Duration::from_millis(100)).await;
        most = most.max(server.usage().peak);
        let now = before_kills + stored(&server).await;
        if kills < 2 && now >= rows * (kills + 1) / 3 {
            (before_kills, kills) = (now, kills + 1);
            // Without a word: SIGKILL.
            drop(server);
            server = site.place.server("server").await;
        }
        if site.is_read(&server).await {
            break;
        }
        assert!(began.elapsed() < arguments.time, "{now} records are stored");
    }
    let time = began.elapsed();
    let made = load.end().await;
    sleep(Duration::from_secs(3)).await;
    let mut different: i64 = -1;
    while different != 0 && began.elapsed() < arguments.time + time {
        different = site.client.query_one(DIFFERENT, &[]).await.unwrap().get(0);
    }
    let read: i64 = site.client.query_one(READ, &[]).await.unwrap().get(0);
    println!(
        "{rows} rows with {made} changes beside, {kills} times killed: read in {:.0} s, {:.0}/s; {read} records of rows; \
         {different} rows differ; at most {:.1} MiB resident ({:.1} at the start)",
        time.as_secs_f64(),
        rows as f64 / time.as_secs_f64(),
        most as f64 / f64::from(1 << 20),
        idle as f64 / f64::from(1 << 20)
    );
    assert_eq!(different, 0);
    site.drop(server).await;
}
