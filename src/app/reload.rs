//! Reloads the settings on SIGHUP and when their file changes.

use super::signals::ReloadSignal;
use crate::batch::writer_partitions::WriterPartitions;
use crate::config::{LiveSettings, Sources};
use crate::logging::LogControl;
use std::time::Duration;

/// Interval of reading the file. Comparing its text works for every way of replacing a file, mounted
/// ConfigMaps included.
const FILE_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The parts that reloaded settings apply to.
pub struct Reload {
    /// Asks for a reload.
    pub signal: ReloadSignal,
    /// The settings in effect.
    pub live: LiveSettings,
    /// Where the settings come from.
    pub sources: Sources,
    pub log: LogControl,
    pub partitions: WriterPartitions,
}

impl Reload {
    /// Watches for changes. Never returns.
    pub async fn run(&mut self) {
        let mut text = self.text();
        loop {
            tokio::select! {
                () = self.signal.requested() => {
                    tracing::info!("SIGHUP received, reloading the settings");
                    text = self.text();
                    self.apply().await;
                }
                () = tokio::time::sleep(FILE_POLL_INTERVAL) => {
                    let now = self.text();
                    // A file that is missing while it is being replaced is not a change.
                    if now.is_some() && now != text {
                        tracing::info!("the settings file changed, reloading it");
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
                tracing::error!(%error, "the new settings are invalid; the old ones stay in effect");
                return;
            }
        };
        let settings = self.live.get().clone();
        if reloaded.log {
            self.log.set_filter(&settings.log.filter);
        }
        if reloaded.batch {
            self.partitions.reconfigure(&settings.batch).await;
        }
        if reloaded.needs_restart {
            tracing::warn!("a changed setting takes effect only at the next start");
        }
        tracing::info!("settings reloaded");
    }
}
