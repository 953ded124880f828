//! Health by progress: an actor that takes nothing out of a mailbox that is not empty is stuck.

use super::mailbox::MailboxStats;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Every mailbox of the process.
#[derive(Clone, Default)]
pub struct HealthBoard {
    mailboxes: Arc<Mutex<Vec<Weak<MailboxStats>>>>,
}

impl HealthBoard {
    /// Adds a mailbox for as long as somebody holds it.
    pub fn watch(&self, stats: &Arc<MailboxStats>) {
        let mut mailboxes = self.mailboxes.lock();
        mailboxes.retain(|known| known.strong_count() > 0);
        mailboxes.push(Arc::downgrade(stats));
    }

    /// The actors that have had messages waiting for `limit` or longer without taking one.
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
