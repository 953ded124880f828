//! Where the log ends, as far as this process knows, and what woke it.

use crate::store::commit_log::{Position, Stretch, TypePatterns};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// Stretches that are remembered, so that a follower that keeps up need not ask the store whether they
/// concern it.
const REMEMBERED: usize = 512;

/// Says that this process has committed events. Clones are the same signal.
#[derive(Clone, Default)]
pub struct CommitSignal {
    notify: Arc<Notify>,
}

impl CommitSignal {
    /// Events were committed.
    pub fn raise(&self) {
        self.notify.notify_one();
    }

    /// Waits until it was raised since the last wait.
    pub(super) async fn raised(&self) {
        self.notify.notified().await;
    }
}

/// The end of the log, and the event types of the last stretches before it.
#[derive(Debug, Clone, Default)]
pub struct LogEnd {
    /// Behind the last numbered event.
    pub end: Position,
    known_from: Position,
    stretches: VecDeque<Arc<Stretch>>,
}

impl LogEnd {
    /// A log of which only the end is known.
    pub(super) fn at(end: Position) -> Self {
        Self {
            end,
            known_from: end,
            stretches: VecDeque::new(),
        }
    }

    /// Takes in what was found behind the end.
    pub(super) fn extend(&mut self, stretches: Vec<Stretch>) {
        for stretch in stretches {
            self.end = stretch.end;
            self.stretches.push_back(Arc::new(stretch));
        }
        while self.stretches.len() > REMEMBERED
            && let Some(oldest) = self.stretches.pop_front()
        {
            self.known_from = oldest.end;
        }
    }

    /// Whether nothing behind `after` has one of these types. `false` also if that is not known.
    pub fn is_quiet(&self, types: &TypePatterns, after: Position) -> bool {
        after >= self.known_from
            && !self
                .stretches
                .iter()
                .rev()
                .take_while(|stretch| stretch.end > after)
                .any(|stretch| stretch.types.iter().any(|one| types.matches(one)))
    }
}

/// The end of the log, to be watched. Clones watch the same log.
#[derive(Clone)]
pub struct LogWatch {
    pub(super) end: Arc<watch::Sender<LogEnd>>,
    pub(super) commanded: Arc<watch::Sender<u64>>,
    /// Raised when the first one begins to watch.
    pub(super) wanted: Arc<Notify>,
}

impl Default for LogWatch {
    fn default() -> Self {
        Self {
            end: Arc::new(watch::Sender::new(LogEnd::default())),
            commanded: Arc::new(watch::Sender::new(0)),
            wanted: Arc::default(),
        }
    }
}

impl LogWatch {
    /// The end of the log from now on. While there is no receiver the log is looked at once a second.
    pub fn subscribe(&self) -> watch::Receiver<LogEnd> {
        let receiver = self.end.subscribe();
        self.wanted.notify_one();
        receiver
    }

    /// Changes of followers by command.
    pub(super) fn commands(&self) -> watch::Receiver<u64> {
        self.commanded.subscribe()
    }

    /// A follower was changed by command.
    pub fn command(&self) {
        self.commanded
            .send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(end: i64, event_type: &str) -> Stretch {
        Stretch {
            end: Position(end),
            types: vec![event_type.to_owned()],
        }
    }

    #[test]
    fn only_what_is_known_is_quiet() {
        let mut log = LogEnd::at(Position(10));
        log.extend(vec![stretch(20, "a"), stretch(30, "b")]);
        let types = |one: &str| TypePatterns::new([one]);
        assert_eq!(log.end, Position(30));
        assert!(log.is_quiet(&types("c"), Position(10)));
        assert!(!log.is_quiet(&types("c"), Position(9)));
        assert!(!log.is_quiet(&types("a"), Position(10)));
        assert!(log.is_quiet(&types("a"), Position(20)));
        assert!(!log.is_quiet(&types("*"), Position(29)));
        assert!(log.is_quiet(&types("*"), Position(30)));
        log.extend((31..1_000).map(|end| stretch(end, "b")).collect());
        assert!(!log.is_quiet(&types("a"), Position(20)));
        assert!(log.is_quiet(&types("a"), Position(900)));
    }
}
