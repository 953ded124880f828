//! Waiting for a condition.

use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Calls `attempt` until it gives `Some`, and panics naming `what` and the caller when `deadline`
/// has passed first. An attempt that hangs is cut off at the deadline too.
///
/// A condition with a generous deadline is as quick as the machine and never flaky on a slow one;
/// a sleep of fixed length is neither.
#[track_caller]
pub fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    let caller = Location::caller();
    async move {
        let end = Instant::now() + deadline;
        let mut pause = FIRST_PAUSE;
        loop {
            match timeout_at(end, attempt()).await {
                Ok(Some(value)) => return value,
                Ok(None) if Instant::now() < end => {}
                _ => panic!("not within {deadline:?}: {what} (waited for at {caller})"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
