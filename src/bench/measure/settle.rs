//! Waiting until what was accepted is stored.

use crate::bench::child::Child;
use crate::bench::load::Sent;
use crate::bench::process::Usage;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How often the server is asked how much it has stored.
const LOOK: Duration = Duration::from_millis(50);
/// What has not moved for this long will not.
const STILL: Duration = Duration::from_secs(30);
/// The same where it is not known how many are to come.
const STILL_UNSURE: Duration = Duration::from_secs(2);

/// Waits until everything accepted is stored and says when that was. When nothing moves any more,
/// the moment of the last move; what is missing then shows in the verification.
pub(super) async fn settle(child: &Child, sent: &Sent) -> anyhow::Result<Instant> {
    let wanted = sent.accepted.len() as f64;
    let (mut last, mut moved) = (0.0, Instant::now());
    loop {
        let names = [
            "eclusa_events_stored_total",
            "eclusa_events_duplicate_total",
        ];
        let [stored, duplicate] = child.metrics(names).await?;
        let now = Instant::now();
        if stored > last {
            (last, moved) = (stored, now);
        } else {
            // The last batch is not full, and leaves when somebody waits for an event.
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
