//! Signals as futures.

use tokio::signal::unix::{SignalKind, signal};

/// Completes at the next SIGTERM or SIGINT.
pub async fn stop_requested() {
    let (terminate, interrupt) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    match (terminate, interrupt) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "cannot listen for signals; only kill -9 will stop this");
            std::future::pending().await
        }
    }
}

/// Completes at the next SIGHUP.
pub async fn reload_requested() {
    match signal(SignalKind::hangup()) {
        Ok(mut hangup) => {
            hangup.recv().await;
        }
        Err(error) => {
            tracing::error!(%error, "cannot listen for SIGHUP");
            std::future::pending().await
        }
    }
}
