//! Signals as futures.

use tokio::signal::unix::{SignalKind, signal};

/// Takes the signals over from their defaults, which would end the process, from now on.
///
/// # Errors
/// When the system refuses a handler.
pub fn take_over() -> std::io::Result<()> {
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ] {
        // Once asked for, a signal stays taken over, whatever becomes of the stream.
        drop(signal(kind)?);
    }
    Ok(())
}

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
