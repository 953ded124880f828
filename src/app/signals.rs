//! Unix signals as futures. A stream is created once and kept: a signal that arrives between two
//! streams would be lost.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that stop the process: SIGTERM and SIGINT.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Installs the handlers, so that the signals no longer end the process by default.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Completes at the next signal, also one that arrived since the last call.
    pub async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The signal that reloads the settings: SIGHUP.
pub struct ReloadSignal(Signal);

impl ReloadSignal {
    /// Installs the handler, as [`StopSignals::install`].
    ///
    /// # Errors
    /// The system refuses the handler.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Completes at the next signal, also one that arrived since the last call.
    pub async fn requested(&mut self) {
        self.0.recv().await;
    }
}
