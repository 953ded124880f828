//! Runs with a key that were opened again: the lane of the key lets them begin when it has no other run of the key.

use super::lane::Lane;
use crate::store::StoreError;
use crate::store::commit_log::Position;
use crate::store::reactions::ReopenedKey;
use futures::FutureExt;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Most runs that are looked at at a time.
const PAGE: usize = 1_000;

impl Lane {
    /// Looks which keys have runs that were opened again.
    pub(super) fn look_for_reopened(&mut self) {
        // Their keys are those of the newest declaration.
        if self.reopening.is_some() || self.leaving || self.record.until < Position::MAX {
            return;
        }
        let (store, reaction) = (Arc::clone(&self.store), self.source.reaction);
        let after = self.reopened_after;
        let looking = async move { store.reopened_keys(reaction, after, PAGE).await };
        self.reopening = Some(looking.boxed());
    }

    /// What has not begun of these keys follows into the queue if it is ordered. Keys of which nothing is under way are
    /// released; the others the next time.
    pub(super) fn reopened(&mut self, found: Result<Vec<ReopenedKey>, StoreError>) {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(follower = self.record.name, %error, "reopened runs cannot be read");
                return;
            }
        };
        self.reopened_after = Position::START;
        if let Some(last) = found.get(PAGE - 1) {
            self.reopened_after = last.position;
            self.queue.expect(Duration::ZERO);
        }
        let (selection, lane) = (&self.source.selection, self.source.lane);
        let keys: HashSet<String> = found
            .into_iter()
            .map(|run| run.key)
            .filter(|key| selection.lane_of_key(key) == lane)
            .collect();
        if self.fetching.is_some() {
            // That read may not find them in the queue.
            for key in &keys {
                let read = self.queued.entry(key.clone()).or_default();
                *read = self.fetches.max(*read);
            }
        }
        if self.outcomes.keys.is_ordered {
            for (position, key, event) in self.window.take_waiting(&keys) {
                self.join_queue(position, key, event);
            }
        }
        let is_idle = |key: &String| !self.window.is_open(key);
        self.outcomes.released = keys.into_iter().filter(is_idle).collect();
    }
}
