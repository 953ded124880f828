//! What all streams of a process share.

use super::counts::TypeCounter;
use super::roll::Roll;
use super::tail::Tail;
use crate::config::LiveSettings;
use crate::event::budget::Budget;
use crate::followers::LogWatch;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::supervision::Lifecycle;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What all streams of a process share.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) settings: LiveSettings,
    pub(super) log: LogWatch,
    pub(super) tail: Arc<Tail>,
    pub(super) roll: Arc<Roll>,
    pub(super) counter: TypeCounter,
    /// Subscribers that may read the log at a time.
    pub(super) turns: Semaphore,
    pub(super) budget: Budget,
    pub(super) lifecycle: Lifecycle,
    pub(super) metrics: Arc<Metrics>,
}
