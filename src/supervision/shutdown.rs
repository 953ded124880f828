//! The phases of the process's life, which every part can watch.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

/// Where in its life the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Phase {
    /// It serves.
    Running,
    /// Asked to stop: it still serves, but says that it is not ready.
    Leaving,
    /// It takes nothing new and settles what is in hand.
    Draining,
}

/// The phase, and the reason if the process has to end by itself; clones share both.
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
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on; phases never go back.
    pub fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            if later {
                *phase = to;
            }
            later
        });
    }

    /// Waits until the phase is `at_least` this.
    pub async fn reached(&self, at_least: Phase) {
        let mut phases = self.phase.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = phases.wait_for(|phase| *phase >= at_least).await;
    }

    /// Keeps the process from ending, within its deadline, until the hold is dropped.
    pub fn hold(&self) -> Hold {
        self.holds.send_modify(|holds| *holds += 1);
        Hold {
            holds: Arc::clone(&self.holds),
        }
    }

    /// Waits until nobody holds the process any more.
    pub async fn released(&self) {
        let mut holds = self.holds.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = holds.wait_for(|holds| *holds == 0).await;
    }

    /// Something is beyond repair: leave, and remember why for the exit status and the last line.
    pub fn fail(&self, reason: String) {
        tracing::error!(%reason, "beyond repair, stopping");
        self.failure.lock().get_or_insert(reason);
        self.advance(Phase::Leaving);
    }

    /// Why the process ends by itself, if it does.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }
}

/// Somebody who must finish before the process ends.
pub struct Hold {
    holds: Arc<watch::Sender<usize>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds
            .send_modify(|holds| *holds = holds.saturating_sub(1));
    }
}
