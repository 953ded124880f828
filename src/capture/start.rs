//! The captures of a process: their actors.

use super::change_capture::ChangeCapture;
use super::params::{CaptureParams, Wanted, rules};
use super::slot_watch::SlotWatch;
use super::{CaptureDatabase, CaptureError, CaptureFault};
use crate::batch::BatchAccumulator;
use crate::config::Settings;
use crate::event::budget::Budget;
use crate::maintenance::leader::{Leader, LeaderParams};
use crate::retry::retry_supervisor::RetrySupervisor;
use crate::store::Store;
use crate::supervision::{Mailbox, Starter};
use actix_rt::Arbiter;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection to the captured database may take.
const CONNECT: Duration = Duration::from_secs(10);

/// What all captures of a process work with.
pub struct CaptureWiring<'a> {
    pub settings: &'a Settings,
    pub starter: &'a Starter,
    pub store: &'a Arc<dyn Store>,
    pub retry: &'a Mailbox<RetrySupervisor>,
    pub budget: &'a Budget,
    /// A writer for each capture, in the order of the settings.
    pub lanes: &'a [Mailbox<BatchAccumulator>],
}

/// The captures of a process; clones share them.
#[derive(Clone, Default)]
pub struct Captures {
    watches: Arc<[SlotWatch]>,
    // Kept because an actor without an address is not restarted.
    _actors: Arc<[(Mailbox<Leader>, Mailbox<ChangeCapture>)]>,
}

impl Captures {
    /// Starts the captures of the settings, on a thread of their own.
    ///
    /// # Errors
    /// A URL cannot be read.
    pub fn start(wiring: &CaptureWiring<'_>) -> Result<Self, CaptureError> {
        let captures = &wiring.settings.captures;
        if captures.is_empty() {
            return Ok(Self::default());
        }
        let arbiter = Arbiter::new();
        let (mut watches, mut actors) = (Vec::new(), Vec::new());
        for (index, (capture, lane)) in captures.iter().zip(wiring.lanes).enumerate() {
            let settings = wiring.settings;
            let invalid = |reason: String| CaptureError::operator(CaptureFault::Other, reason);
            let url = capture
                .database(&settings.store.url)
                .map_err(|flaw| invalid(format!("{} {}", flaw.key, flaw.reason)))?;
            let database = CaptureDatabase::new(&url, CONNECT)?;
            let tables = capture.tables.iter();
            let tables = tables.map(|table| Ok((table.parse()?, rules(capture, table))));
            let tables = tables.collect::<Result<_, _>>().map_err(invalid)?;
            let (leader, leadership) = Leader::new(LeaderParams {
                name: format!("capture {}", capture.name),
                ttl: settings.store.lease_ttl,
                store: wiring.store.clone(),
                lifecycle: wiring.starter.lifecycle.clone(),
                metrics: Arc::clone(&wiring.starter.metrics),
            });
            let (leader_mailbox, inbox) = wiring.starter.mailbox("capture_leader", index, 1);
            wiring.starter.start(&arbiter, inbox, leader);
            let max_lag = capture.max_lag.as_u64();
            let slot_watch = SlotWatch::new(&capture.name, max_lag, &wiring.starter.metrics);
            watches.push(slot_watch.clone());
            let identifier = capture.slot_name();
            let (mailbox, inbox) = wiring.starter.mailbox("change_capture", index, 1);
            let actor = ChangeCapture::new(CaptureParams {
                wanted: Wanted {
                    tables,
                    slot: identifier.clone(),
                    publication: identifier,
                    snapshot: capture.snapshot,
                },
                settings: capture.clone(),
                database,
                bounds: (
                    usize::try_from(settings.http.max_body.as_u64()).unwrap_or(usize::MAX),
                    settings.item_limits().max_depth,
                ),
                store: wiring.store.clone(),
                leadership,
                lane: lane.clone(),
                retry: wiring.retry.clone(),
                budget: wiring.budget.clone(),
                slot_watch,
                lifecycle: wiring.starter.lifecycle.clone(),
                metrics: Arc::clone(&wiring.starter.metrics),
            });
            wiring.starter.start(&arbiter, inbox, actor);
            actors.push((leader_mailbox, mailbox));
        }
        Ok(Self {
            watches: watches.into(),
            _actors: actors.into(),
        })
    }

    /// What is known of the captures that this process declares.
    pub fn watches(&self) -> &[SlotWatch] {
        &self.watches
    }
}
