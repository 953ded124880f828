//! A bare publisher at a given rate, with a consumer and a store at the other end.

use super::{FRAME_EXTRA, Publishing, close, consume};
use crate::body::Body;
use crate::database::Database;
use crate::latency::Latency;
use crate::schedule::{Pace, Schedule};
use crate::yardsticks::store_postgres;
use crate::{queues, thread};
use anyhow::bail;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Publishes frames of `events` events at `rate` events a second for this long, whatever the broker
/// does, while on another thread a consumer takes them and the bare store writes them. The times
/// are from when a frame was due to its confirm.
///
/// # Errors
/// The broker's, the store's.
pub async fn paced(
    url: &str,
    queue: &str,
    database: &Database,
    events: usize,
    event_bytes: usize,
    rate: f64,
    duration: Duration,
) -> anyhow::Result<Latency> {
    let connection = queues::connect(url).await?;
    queues::declare(&connection, queue).await?;
    let frames_a_second = rate / events.max(1) as f64;
    let store = {
        let (url, queue, database) = (url.to_owned(), queue.to_owned(), database.clone());
        let total = (frames_a_second * duration.as_secs_f64()).round().max(1.0) as u64;
        thread::run("bench-store", async move || {
            let due = Arc::new(Semaphore::new(0));
            let consuming = queues::connect(&url).await?;
            let taking = async {
                let on_message = |_| due.add_permits(events);
                let taken = consume(&consuming, &queue, on_message, |count| count >= total).await;
                due.close();
                taken
            };
            let writing = store_postgres::follow(&database, event_bytes, &due);
            futures::try_join!(taking, writing)?;
            close(&[&consuming]).await
        })?
    };
    let publisher = {
        let (url, queue) = (url.to_owned(), queue.to_owned());
        thread::run("bench-publisher", async move || {
            let publishing = queues::connect(&url).await?;
            let body = Body::new(events, event_bytes, FRAME_EXTRA);
            let mut frames = Publishing::new(&publishing, &queue, body, 0).await?;
            let latency = publish_at(&mut frames, frames_a_second, duration).await?;
            close(&[&publishing]).await?;
            Ok(latency)
        })?
    };
    // The consumer ends when the publisher's last frame is there; if the publisher fails, this
    // does.
    let (latency, ()) = futures::try_join!(publisher, store)?;
    queues::delete(&connection, queue).await?;
    close(&[&connection]).await?;
    Ok(latency)
}

async fn publish_at(
    frames: &mut Publishing,
    rate: f64,
    duration: Duration,
) -> anyhow::Result<Latency> {
    let pace = Pace::Open(Schedule::new(Instant::now(), rate, duration));
    let Pace::Open(schedule) = &pace else {
        bail!("the schedule is an open one");
    };
    let mut latency = Latency::new()?;
    let publish = async {
        let mut confirms = FuturesUnordered::new();
        let mut made = Vec::new();
        let mut ended = false;
        while !ended || !confirms.is_empty() {
            tokio::select! {
                turn = pace.next(), if !ended => match turn {
                    Some(turn) => {
                        made.clear();
                        let confirm = frames.send(&mut made).await?;
                        confirms.push(async move {
                            confirm.await?;
                            anyhow::Ok(turn.elapsed())
                        });
                    }
                    None => ended = true,
                },
                Some(confirmed) = confirms.next() => latency.record(confirmed?),
            }
        }
        anyhow::Ok(())
    };
    let clock = async { Ok(schedule.run().await?) };
    futures::try_join!(publish, clock)?;
    Ok(latency)
}
