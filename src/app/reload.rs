//! Settings read again on SIGHUP and when their file changes.

use super::signals;
use crate::actors::Lanes;
use crate::config::{LiveSettings, Sources};
use crate::logging::LogControl;
use std::time::Duration;

/// How often the file is looked at. Its text is compared rather than watched for: that works for
/// every way a file can be replaced, mounted configuration maps included.
const LOOK: Duration = Duration::from_millis(500);

/// Who has to hear of new settings.
pub struct Reload {
    /// The settings in force.
    pub live: LiveSettings,
    /// Where they come from.
    pub sources: Sources,
    /// The log filter.
    pub log: LogControl,
    /// The batch bounds.
    pub lanes: Lanes,
}

impl Reload {
    /// Never ends.
    pub async fn run(&self) {
        let mut text = self.text();
        loop {
            tokio::select! {
                () = signals::reload_requested() => {
                    tracing::info!("SIGHUP: reading the settings again");
                    text = self.text();
                    self.apply().await;
                }
                () = tokio::time::sleep(LOOK) => {
                    let now = self.text();
                    // A file that is gone for the moment of its replacement is no change.
                    if now.is_some() && now != text {
                        tracing::info!("the settings file has changed: reading it again");
                        text = now;
                        self.apply().await;
                    }
                }
            }
        }
    }

    fn text(&self) -> Option<String> {
        std::fs::read_to_string(self.sources.file()?).ok()
    }

    async fn apply(&self) {
        let reloaded = match self.live.reload(&self.sources) {
            Ok(reloaded) => reloaded,
            Err(error) => {
                tracing::error!(%error, "the new settings are not in order; the old ones stay");
                return;
            }
        };
        let settings = self.live.get().clone();
        if reloaded.log {
            self.log.set_filter(&settings.log.filter);
        }
        if reloaded.batch {
            self.lanes.reconfigure(&settings.batch).await;
        }
        if reloaded.needs_restart {
            tracing::warn!("a setting has changed that takes effect with the next start only");
        }
        tracing::info!("settings in force");
    }
}
