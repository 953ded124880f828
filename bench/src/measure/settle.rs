//! Waiting until what was accepted is stored, and how fast that went.

use crate::child::Child;
use crate::load::Sent;
use crate::process::Usage;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How often the server is asked how much it has stored.
const LOOK: Duration = Duration::from_millis(50);
/// The same while it is under load, which looking adds to.
const LOOK_BESIDE: Duration = Duration::from_millis(200);
/// What has not moved for this long will not.
const STILL: Duration = Duration::from_secs(30);
/// The same where it is not known how many are to come.
const STILL_UNSURE: Duration = Duration::from_secs(2);

/// Share of the events at either end that says nothing of the rate: at the start nothing is stored
/// yet, and at the end the last batch, which is not full, waits for `batch.max_wait`.
const ENDS: f64 = 0.05;

/// How many events a server had stored at which moment.
#[derive(Debug, Default)]
pub(super) struct Stored(Vec<(Instant, f64)>);

impl Stored {
    fn note(&mut self, at: Instant, stored: f64) {
        self.0.push((at, stored));
    }

    /// Does the work, and meanwhile looks every now and then.
    ///
    /// # Errors
    /// The work's, or when the server does not answer.
    pub(super) async fn during<T>(
        &mut self,
        child: &Child,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep(LOOK_BESIDE) => {
                    let stored = child.metric("eclusa_events_stored_total").await?;
                    self.note(Instant::now(), stored);
                }
            }
        }
    }

    /// Events a second of the `events` that followed the first `before` ones, without the ends.
    /// `None` when it was not looked often enough to tell.
    pub(super) fn rate(&self, before: f64, events: f64) -> Option<f64> {
        let window = before + events * ENDS..=before + events * (1.0 - ENDS);
        let mut inside = self.0.iter().filter(|(_, stored)| window.contains(stored));
        let (began, first) = *inside.next()?;
        // The moment it got there, and not the ones after that.
        let (_, last) = *inside.next_back()?;
        let (ended, _) = *self.0.iter().find(|(_, stored)| *stored == last)?;
        let enough = last - first >= events / 2.0;
        enough.then(|| (last - first) / (ended - began).as_secs_f64())
    }
}

/// Waits until everything accepted is stored and says when that was. When nothing moves any more,
/// the moment of the last move; what is missing then shows in the verification.
pub(super) async fn settle(
    child: &Child,
    sent: &Sent,
    trace: &mut Stored,
) -> anyhow::Result<Instant> {
    let wanted = sent.accepted.len() as f64;
    let (mut last, mut moved) = (0.0, Instant::now());
    loop {
        let names = [
            "eclusa_events_stored_total",
            "eclusa_events_duplicate_total",
        ];
        let [stored, duplicate] = child.metrics(names).await?;
        let now = Instant::now();
        trace.note(now, stored);
        if stored > last {
            (last, moved) = (stored, now);
        } else {
            // The last batch is not full, and leaves when a reader waits for an event.
            let path = format!("/v1/events/{}?wait=10ms", Uuid::new_v4());
            child.target.get(&path).await?;
        }
        // What is committed while the connection breaks is counted when it is written again, as a
        // duplicate; but what was counted may also be written again.
        let unsure = !sent.unsure.is_empty() || stored < wanted;
        let patience = if unsure && stored + duplicate >= wanted {
            STILL_UNSURE
        } else {
            STILL
        };
        if (stored >= wanted && !unsure) || now - moved > patience {
            return Ok(moved);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Processor time by the event, in microseconds.
pub(super) fn processor_us(before: Option<Usage>, after: Option<Usage>, events: f64) -> f64 {
    match (before, after) {
        (Some(before), Some(after)) => {
            (after.processor - before.processor).as_secs_f64() * 1_000_000.0 / events
        }
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(stored: &[(u64, f64)]) -> Stored {
        let began = Instant::now();
        let at = |millis: u64| began + Duration::from_millis(millis);
        Stored(stored.iter().map(|(ms, n)| (at(*ms), *n)).collect())
    }

    #[test]
    fn the_wait_of_the_last_batch_is_no_part_of_the_rate() {
        // 1,000 a second after 300 of warming up; the last 30 wait for a second.
        let mut stored: Vec<(u64, f64)> = (0..10)
            .map(|n| (n * 100, 300.0 + n as f64 * 100.0))
            .collect();
        stored.extend([(970, 1_270.0), (1_500, 1_270.0), (1_970, 1_300.0)]);
        let rate = trace(&stored).rate(300.0, 1_000.0).unwrap();
        assert!((rate - 1_000.0).abs() < 1.0, "{rate}");
    }

    #[test]
    fn too_few_looks_give_no_rate() {
        assert_eq!(trace(&[(0, 0.0), (50, 1_000.0)]).rate(0.0, 1_000.0), None);
        assert_eq!(trace(&[(0, 100.0), (50, 300.0)]).rate(0.0, 1_000.0), None);
        assert_eq!(trace(&[]).rate(0.0, 1_000.0), None);
    }
}
