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
        next.auth.keys = new.auth.keys.clone();
        next.log.filter = new.log.filter.clone();
        let invalid = next.validate();
        if !invalid.is_empty() {
            return Err(crate::config::ConfigError::Invalid(invalid));
        }
        let reloaded = Reloaded {
            batch: next.batch != old.batch,
            log: next.log.filter != old.log.filter,
            needs_restart: format!("{next:?}{}{}", next.store.url, next.broker.url)
                != format!("{new:?}{}{}", new.store.url, new.broker.url),
        };
        self.current.store(Arc::new(next));
        Ok(reloaded)
    }
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
