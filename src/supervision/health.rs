//! Health by progress: an actor that takes no message from a non-empty mailbox is stuck.

use super::mailbox::MailboxStats;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// All mailboxes of the process.
#[derive(Clone, Default)]
pub struct HealthBoard {
    mailboxes: Arc<Mutex<Vec<Weak<MailboxStats>>>>,
}

impl HealthBoard {
    /// Watches a mailbox until its last handle is dropped.
    pub fn watch(&self, stats: &Arc<MailboxStats>) {
        let mut mailboxes = self.mailboxes.lock();
        mailboxes.retain(|known| known.strong_count() > 0);
        mailboxes.push(Arc::downgrade(stats));
    }

    /// The actors whose messages have waited for at least `limit` without one being taken.
    pub fn stuck(&self, limit: Duration) -> Vec<String> {
        self.mailboxes
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|stats| stats.stuck_for() >= limit)
            .map(|stats| stats.instance().to_owned())
            .collect()
    }
}
