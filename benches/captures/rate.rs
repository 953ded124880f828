//! How fast changes are captured.

use crate::Arguments;
use crate::load::{self, Load};
use crate::place::Processor;
use crate::site::{Site, stored, until_stored};
use std::time::{Duration, Instant};
use tokio::time::sleep;

fn show(used: Processor, changes: usize) -> String {
    format!(
        "processor: server {:.2} s, PostgreSQL {:.2} s, {:.1} us a change; this process {:.2} s",
        used.server,
        used.postgres,
        used.measured() / changes as f64 * 1e6,
        used.own
    )
}

/// Changes that were made while no server ran.
pub async fn backlog(arguments: &Arguments) {
    let site = Site::create(arguments).await;
    site.read().await.stop().await;
    let wrote = load::at_once(site.url(), arguments).await;
    let made: i64 = {
        let sum = "SELECT (sum(balance) / 1.25)::bigint FROM account";
        site.client.query_one(sum, &[]).await.unwrap().get(0)
    };
    let made = made as usize;
    let server = site.place.server("server").await;
    // What the start costs is not the rate.
    until_stored(&server, made / 10).await;
    let (first, began) = (stored(&server).await, Instant::now());
    let before = site.place.processor(&server).await;
    until_stored(&server, made).await;
    let time = began.elapsed();
    let used = site.place.processor(&server).await.since(before);
    let changes = made - first;
    println!(
        "{made} changes, {} in a transaction, made in {:.1} s: {:.0}/s captured; {}",
        arguments.each,
        wrote.as_secs_f64(),
        changes as f64 / time.as_secs_f64(),
        show(used, changes)
    );
    site.drop(server).await;
}

/// Changes that are made beside.
pub async fn paced(arguments: &Arguments) {
    let site = Site::create(arguments).await;
    let server = site.read().await;
    let first = stored(&server).await;
    let before = site.place.processor(&server).await;
    let load = Load::start(site.url(), arguments, arguments.rate).await;
    let began = Instant::now();
    let mut behind = Vec::new();
    while began.elapsed() < arguments.time {
        sleep(Duration::from_millis(100)).await;
        let made = load.made();
        behind.push(made.saturating_sub(stored(&server).await - first));
    }
    let made = load.end().await;
    let time = began.elapsed();
    let ended = Instant::now();
    until_stored(&server, first + made).await;
    let rest = ended.elapsed();
    let used = site.place.processor(&server).await.since(before);
    let last = behind.last().copied().unwrap_or_default();
    behind.sort_unstable();
    let part = |part: f64| behind[((behind.len() - 1) as f64 * part) as usize];
    println!(
        "{:.0} changes/s made for {:.0} s, {} in a transaction of {} writers: behind by p50 {}, p99 {}, most {}, at the \
         end {last} changes, which took {:.2} s; {}",
        made as f64 / time.as_secs_f64(),
        time.as_secs_f64(),
        arguments.each,
        arguments.writers,
        part(0.5),
        part(0.99),
        part(1.0),
        rest.as_secs_f64(),
        show(used, made)
    );
    site.drop(server).await;
}
