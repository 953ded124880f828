//! The phases of the process, which every part can watch.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

/// Phase of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Phase {
    Running,
    /// Asked to stop: still serving, but not ready.
    Leaving,
    /// Accepting nothing new and settling what is in flight.
    Draining,
}

/// The phase, and the reason when the process ends on its own; clones share both.
#[derive(Clone)]
pub struct Lifecycle {
    phase: Arc<watch::Sender<Phase>>,
    failure: Arc<Mutex<Option<String>>>,
    holds: Arc<watch::Sender<usize>>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Running)),
            failure: Arc::default(),
            holds: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Lifecycle {
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Advances to a later phase; an earlier one is ignored.
    pub fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            if later {
                *phase = to;
            }
            later
        });
    }

    /// Waits until the phase is `at_least` or later.
    pub async fn reached(&self, at_least: Phase) {
        let mut phases = self.phase.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = phases.wait_for(|phase| *phase >= at_least).await;
    }

    /// Does `work`, or gives it up when the process stops; `None` then.
    pub async fn unless_draining<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.reached(Phase::Draining) => None,
        }
    }

    /// Keeps the process from ending, within its deadline, until the hold is dropped.
    pub fn hold(&self) -> Hold {
        self.holds.send_modify(|holds| *holds += 1);
        Hold {
            holds: Arc::clone(&self.holds),
        }
    }

    /// Waits until all holds are dropped.
    pub async fn released(&self) {
        let mut holds = self.holds.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = holds.wait_for(|holds| *holds == 0).await;
    }

    /// Stops the process after an unrecoverable failure; the reason decides the exit status and the
    /// last log line.
    pub fn fail(&self, reason: String) {
        tracing::error!(%reason, "unrecoverable failure, stopping");
        self.failure.lock().get_or_insert(reason);
        self.advance(Phase::Leaving);
    }

    /// The reason why the process ends on its own, if it does.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }
}

/// Keeps the process from ending until dropped.
pub struct Hold {
    holds: Arc<watch::Sender<usize>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds
            .send_modify(|holds| *holds = holds.saturating_sub(1));
    }
}
