//! Reloading of settings while the process runs.

use super::{Settings, Sources};
use arc_swap::ArcSwap;
use std::sync::Arc;

/// The settings in effect; clones share them. Keys marked *(live)* change on reload.
#[derive(Clone)]
pub struct LiveSettings {
    current: Arc<ArcSwap<Settings>>,
}

impl LiveSettings {
    /// Starts with `settings`.
    pub fn new(settings: Settings) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(settings)),
        }
    }

    /// The current settings. Cheap; call it for every request instead of keeping the result.
    pub fn get(&self) -> arc_swap::Guard<Arc<Settings>> {
        self.current.load()
    }

    /// Reads the sources again. Live keys take effect; all others keep their value until a restart.
    ///
    /// # Errors
    /// The invalid keys; the settings stay unchanged.
    pub fn reload(&self, sources: &Sources) -> Result<Reloaded, crate::config::ConfigError> {
        let new = sources.load()?;
        let old = self.get();
        let mut next = Settings::clone(&old);
        next.http.allowed_hosts = new.http.allowed_hosts.clone();
        next.http.max_body = new.http.max_body;
        next.http.max_items = new.http.max_items;
        next.ingest.max_depth = new.ingest.max_depth;
        next.ingest.max_field_bytes = new.ingest.max_field_bytes;
        next.ingest.accept_days = new.ingest.accept_days;
        next.batch.max_events = new.batch.max_events;
        next.batch.max_rows = new.batch.max_rows;
        next.batch.max_bytes = new.batch.max_bytes;
        next.batch.max_wait = new.batch.max_wait;
        next.batch.linger = new.batch.linger;
        next.topics.max_streams = new.topics.max_streams;
        next.topics.max_streams_per_key = new.topics.max_streams_per_key;
        next.topics.patience = new.topics.patience;
        #[cfg(feature = "service")]
        next.take_schemas(&new);
        next.auth.keys = new.auth.keys.clone();
        next.log.filter = new.log.filter.clone();
        let invalid = next.validate();
        if !invalid.is_empty() {
            return Err(crate::config::ConfigError::Invalid(invalid));
        }
        let reloaded = Reloaded {
            batch: next.batch != old.batch,
            log: next.log.filter != old.log.filter,
            needs_restart: differ(&next, &new),
        };
        self.current.store(Arc::new(next));
        Ok(reloaded)
    }
}

/// Whether two settings differ, also in secrets, which `Debug` does not show.
fn differ(one: &Settings, other: &Settings) -> bool {
    #[cfg(feature = "service")]
    if one.reactions != other.reactions
        || one.schedules != other.schedules
        || one.outlets != other.outlets
        || one.captures != other.captures
    {
        return true;
    }
    format!("{one:?}{}{}", one.store.url, one.broker.url)
        != format!("{other:?}{}{}", other.store.url, other.broker.url)
}

/// The parts that a reload changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reloaded {
    pub batch: bool,
    pub log: bool,
    /// A key that is not live has changed and takes effect at the next start.
    pub needs_restart: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "service")]
    fn reactions_change_at_the_next_start_only() {
        let reaction = |path: &str| {
            Sources::from_text(&format!(
                "[[reactions]]\nname = \"hook\"\non = [\"*\"]\n[reactions.webhook]\n\
                 url = \"https://example.org/{path}\"\n\
                 secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\""
            ))
        };
        let live = LiveSettings::new(reaction("a").load().unwrap());
        assert!(!live.reload(&reaction("a")).unwrap().needs_restart);
        for other in [reaction("b"), Sources::from_text("")] {
            assert!(live.reload(&other).unwrap().needs_restart);
            assert_eq!(live.get().reactions.len(), 1);
        }
    }

    #[test]
    #[cfg(feature = "service")]
    fn outlets_change_at_the_next_start_only() {
        let outlet = |password: &str| {
            Sources::from_text(&format!(
                "[[outlets]]\nname = \"all\"\ntypes = [\"*\"]\nstream = \"events\"\n\
                 url = \"amqp://u:{password}@h\""
            ))
        };
        let live = LiveSettings::new(outlet("a").load().unwrap());
        assert!(!live.reload(&outlet("a")).unwrap().needs_restart);
        // Only the secret differs.
        assert!(live.reload(&outlet("b")).unwrap().needs_restart);
        assert!(live.get().outlets[0].url.contains(":a@"));
    }

    #[test]
    fn live_keys_change_and_invalid_settings_change_nothing() {
        let live = LiveSettings::new(Sources::from_text("").load().unwrap());
        let reloaded = live
            .reload(&Sources::from_text(
                "batch.max_events = 10\nhttp.port = 4000",
            ))
            .unwrap();
        assert!(reloaded.batch && reloaded.needs_restart && !reloaded.log);
        assert_eq!(live.get().batch.max_events, 10);
        assert_eq!(live.get().http.port, 3000);

        assert!(
            live.reload(&Sources::from_text("batch.max_events = 0"))
                .is_err()
        );
        assert_eq!(live.get().batch.max_events, 10);
    }
}
