//! From the commit of an event to the start of its handler.

use crate::Arguments;
use crate::database::{event, quantile, write};
use crate::place::Place;
use eclusa::reactions::{Reaction, Reactions, Run};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Events in a second.
const RATE: u32 = 500;

pub async fn run(arguments: &Arguments) {
    let place = Place::create(arguments.url.as_deref()).await;
    let started: Arc<Mutex<Vec<(usize, Instant)>>> = Arc::default();
    let seen = Arc::clone(&started);
    let note = move |run: Run| {
        let now = Instant::now();
        let data: serde_json::Value = serde_json::from_str(run.event.event_data.get()).unwrap();
        let n = usize::try_from(data["n"].as_u64().unwrap()).unwrap();
        seen.lock().unwrap().push((n, now));
        std::future::ready(Ok(()))
    };
    let reaction = Reaction::new("latency")
        .on("page.view", note)
        .concurrency(arguments.concurrency);
    let followers = place.declare(Reactions::new().react(reaction)).await;
    let running = place.start(followers).await;
    let signal = running.followers.commits.clone();
    // Once before the clock runs, so that everything is connected.
    write(&*place.store, vec![event(0, "other")]).await;
    signal.raise();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut committed = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
    let until = Instant::now() + arguments.time;
    while Instant::now() < until {
        tick.tick().await;
        write(&*place.store, vec![event(committed.len(), "page.view")]).await;
        committed.push(Instant::now());
        signal.raise();
    }
    while started.lock().unwrap().len() < committed.len() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut times: Vec<Duration> = started
        .lock()
        .unwrap()
        .iter()
        .map(|(n, at)| at.saturating_duration_since(committed[*n]))
        .collect();
    times.sort();
    println!(
        "{} events at {:.0}/s: commit to handler p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        times.len(),
        committed.len() as f64 / arguments.time.as_secs_f64(),
        quantile(&times, 0.5).as_secs_f64() * 1e3,
        quantile(&times, 0.99).as_secs_f64() * 1e3,
        times.last().copied().unwrap_or_default().as_secs_f64() * 1e3,
    );
    running.stop().await;
    place.drop().await;
}
