//! The shutdown of the process, after SIGTERM, SIGINT or an unrecoverable failure.
//!
//! | phase | what happens |
//! |---|---|
//! | `Leaving` | `/health/ready` answers 503 and connections close after their response; events are still accepted, for `shutdown.grace` |
//! | `Draining` | new events get 503; open batches are dispatched; consumers stop and acknowledge what settles; replays stop; leases are released |
//! | end | after all events have settled, or `shutdown.deadline`, the server stops and the process ends |
//!
//! Events that are not settled return to their source: the broker redelivers them, and a caller gets no
//! 2xx. A second signal ends the current phase.

use super::flow::Flow;
use super::signals::StopSignals;
use crate::config::shutdown::ShutdownSettings;
use crate::supervision::Phase;
use actix_web::dev::ServerHandle;
use std::time::Duration;

/// Seconds that the last responses may take after everything is settled. Idle connections, for which
/// a graceful stop waits too, are closed after it.
pub const RESPONSE_GRACE_SECONDS: u64 = 1;

/// Shuts the process down in the phases above.
pub(super) async fn run(
    flow: &Flow,
    server: &ServerHandle,
    settings: &ShutdownSettings,
    stop: &mut StopSignals,
) {
    flow.lifecycle.advance(Phase::Leaving);
    tracing::info!(
        grace_ms = settings.grace.as_millis() as u64,
        "stopping: not ready, still serving"
    );
    if flow.lifecycle.failure().is_none() {
        tokio::select! {
            () = tokio::time::sleep(settings.grace) => {}
            () = stop.requested() => {}
        }
    }
    drain(flow, settings.deadline, stop).await;
    // A graceful stop lets the last responses leave, within RESPONSE_GRACE_SECONDS.
    server.stop(true).await;
}

/// Accepts nothing new and settles events in flight within the deadline.
async fn drain(flow: &Flow, deadline: Duration, stop: &mut StopSignals) {
    flow.lifecycle.advance(Phase::Draining);
    let settled = async {
        flow.partitions.drain().await;
        flow.lifecycle.released().await;
        let accounting = &flow.metrics.accounting;
        while accounting.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        done = tokio::time::timeout(deadline, settled) => match done {
            Ok(()) => tracing::info!("drained"),
            Err(_) => tracing::error!(
                in_flight = flow.metrics.accounting.in_flight(),
                "not all events settled within shutdown.deadline; the rest returns to its source"
            ),
        },
        () = stop.requested() => tracing::warn!("second signal: stopping at once"),
    }
}
