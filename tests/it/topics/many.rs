//! Many subscribers of the same events.

use super::{Ask, Events, SOON, log_of, post, subscribers};
use crate::collectors::on;
use crate::followers::{Place, on_both_stores};
use crate::harness::{App, connect, peak_memory_of};
use futures::future::join_all;
use std::time::{Duration, Instant};
use uuid::Uuid;

const SUBSCRIBERS: usize = 200;
/// What docs/OPERATIONS.md says that a process takes, and this one that asks.
const MOST_CONNECTIONS: i64 = 24 + 1;

on_both_stores! {
    two_hundred_subscribers_get_each_event_once_and_in_order,
}

async fn reads(app: &App, by: &str) -> f64 {
    app.metric_with("eclusa_topic_reads_total", &[("by", by)])
        .await
}

async fn connections(place: &Place) -> i64 {
    let Some(url) = &place.url else {
        return 0;
    };
    let count = "SELECT count(*) FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name = 'eclusa'";
    let row = connect(url).await.query_one(count, &[]).await;
    row.unwrap().get(0)
}

/// Opens streams.
async fn open(app: &App, number: usize) -> Vec<Events> {
    join_all((0..number).map(async |_| Ask::from("now").open(app).await)).await
}

async fn two_hundred_subscribers_get_each_event_once_and_in_order(place: &Place) {
    const REQUESTS: usize = 40;
    const ARRAY: usize = 10;
    const EVENTS: usize = REQUESTS * ARRAY;
    let app = on(place).start().await;
    post(&app, &["t"], 5).await;
    let mut streams = open(&app, SUBSCRIBERS / 2).await;
    subscribers(&app, "newest", SUBSCRIBERS / 2).await;
    // By now the pools are as large as they get: none of the others needs a connection.
    let before = connections(place).await;
    streams.extend(open(&app, SUBSCRIBERS / 2).await);
    subscribers(&app, "newest", SUBSCRIBERS).await;
    let with_all = connections(place).await;
    assert!(with_all <= before + 3, "{before}, then {with_all}");
    assert!(with_all <= MOST_CONNECTIONS, "{with_all}");
    let own = reads(&app, "own").await;
    let writing = async {
        for _ in 0..REQUESTS {
            post(&app, &["t"], ARRAY).await;
        }
    };
    let reading = join_all(
        streams
            .iter_mut()
            .map(async |stream| stream.ids(EVENTS).await),
    );
    let (seen, ()) = tokio::join!(reading, writing);
    let log = log_of(place, EVENTS + 5).await;
    for seen in seen {
        assert_eq!(seen, log[5..]);
    }
    assert_eq!(reads(&app, "own").await, own, "none reads by itself");
    let shared = reads(&app, "shared").await;
    assert!(shared <= (2 * REQUESTS) as f64, "{shared} reads");
    let sent = app.metric("eclusa_topic_events_sent_total").await;
    assert_eq!(sent, (SUBSCRIBERS * EVENTS) as f64);
}

/// The full run: `TOPICS_SECONDS` of 1,000 events a second. The numbers hold for an optimized build on an idle machine.
mod full {
    mod on_postgres {
        #[actix_rt::test]
        #[ignore = "takes long; see docs/TOPICS.md"]
        async fn a_thousand_events_a_second() {
            super::super::full_run(&crate::followers::Place::postgres().await).await;
        }
    }
    mod on_sqlite {
        #[actix_rt::test]
        #[ignore = "takes long; see docs/TOPICS.md"]
        async fn a_thousand_events_a_second() {
            super::super::full_run(&crate::followers::Place::sqlite().await).await;
        }
    }
}

/// The positions of a stream, read with as little work as can be, until there were so many events.
async fn positions(mut response: reqwest::Response, events: usize) -> Vec<(i64, Uuid)> {
    let mut text = Vec::new();
    let mut found = Vec::with_capacity(events);
    while found.len() < events {
        let part = tokio::time::timeout(SOON, response.chunk()).await;
        text.extend_from_slice(&part.unwrap().unwrap().expect("it goes on"));
        let Some(end) = memchr::memrchr(b'\n', &text) else {
            continue;
        };
        let rest = text.split_off(end + 1);
        for line in std::mem::replace(&mut text, rest).split(|byte| *byte == b'\n') {
            let line = std::str::from_utf8(line).unwrap();
            let Some((position, event)) = line.split_once("\",\"event\":") else {
                continue;
            };
            let position = position.rsplit_once('-').unwrap().1.parse().unwrap();
            let id = event.split_once("\"id\":\"").unwrap().1;
            found.push((position, id[..36].parse().unwrap()));
        }
    }
    found
}

async fn full_run(place: &Place) {
    const ARRAY: usize = 10;
    let seconds: usize = std::env::var("TOPICS_SECONDS").map_or(30, |text| text.parse().unwrap());
    let rate: usize = std::env::var("TOPICS_RATE").map_or(1_000, |text| text.parse().unwrap());
    let events = seconds * rate;
    let app = on(place).set("topics.patience", "5s").start().await;
    let ask = Ask {
        ndjson: true,
        ..Ask::from("now")
    };
    let streams = join_all((0..SUBSCRIBERS).map(async |_| ask.send(&app).await)).await;
    // It reads nothing: it is dropped when the sockets are full, and harms none of the others.
    let _slow = ask.send(&app).await;
    subscribers(&app, "newest", SUBSCRIBERS + 1).await;
    let began = Instant::now();
    let writing = async {
        for n in 0..events / ARRAY {
            let due = Duration::from_secs_f64((n * ARRAY) as f64 / rate as f64);
            tokio::time::sleep_until((began + due).into()).await;
            post(&app, &["t"], ARRAY).await;
        }
        began.elapsed()
    };
    let reading = join_all(streams.into_iter().map(|stream| positions(stream, events)));
    let (seen, written) = tokio::join!(reading, writing);
    let read = began.elapsed();
    let log = log_of(place, events).await;
    for seen in seen {
        assert!(seen.is_sorted_by(|one, next| one.0 < next.0));
        let ids: Vec<Uuid> = seen.into_iter().map(|(_, id)| id).collect();
        assert_eq!(ids, log);
    }
    let slow = app
        .metric_with("eclusa_topic_dropped_total", &[("reason", "slow")])
        .await;
    let peak = peak_memory_of(app.pid()).unwrap();
    eprintln!(
        "{SUBSCRIBERS} subscribers x {events} events: written in {written:.1?}, read in {read:.1?}; {} shared and {} \
         own reads; {slow} dropped as slow; {} MB at most",
        reads(&app, "shared").await,
        reads(&app, "own").await,
        peak / 1_000_000
    );
}
