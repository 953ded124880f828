//! How much the streams hold, for the metrics.

use super::polls::Polls;
use crate::store::streams::StreamLevel;
use std::time::{Duration, Instant};

/// How often, and how much longer than a measurement takes at least.
const EVERY: Duration = Duration::from_secs(5);
const REST: u32 = 50;

/// Measures the streams of a process, and never ends.
pub(super) async fn measure_again_and_again(polls: &Polls) {
    loop {
        let began = Instant::now();
        for declared in polls.streams() {
            match polls.store.stream_level(declared.id).await {
                Ok(level) => show(polls, &declared.stream.name, level),
                Err(error) => tracing::debug!(%error, "a stream is measured later"),
            }
        }
        tokio::time::sleep(began.elapsed().saturating_mul(REST).max(EVERY)).await;
    }
}

fn show(polls: &Polls, stream: &str, level: StreamLevel) {
    let metrics = &polls.metrics;
    for (gauge, number) in [
        (&metrics.stream_waiting, level.waiting),
        (&metrics.stream_leased, level.leased),
        (&metrics.stream_sessions, level.sessions),
    ] {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        gauge.with_label_values(&[stream]).set(number);
    }
    let oldest = level.oldest_waiting.unwrap_or_default();
    metrics
        .stream_oldest_waiting_seconds
        .with_label_values(&[stream])
        .set(oldest.as_secs_f64());
}
