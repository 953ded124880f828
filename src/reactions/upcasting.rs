//! A handler that gets events as the newest version of their schema has them.

use super::handler::{Handler, HandlerError, Run};
use crate::config::LiveSettings;
use async_trait::async_trait;
use std::sync::Arc;

/// Upcasts the event of a run for another handler, with the schemas in effect at that time.
pub struct Upcasting {
    handler: Arc<dyn Handler>,
    settings: LiveSettings,
}

impl Upcasting {
    pub fn new(handler: Arc<dyn Handler>, settings: LiveSettings) -> Self {
        Self { handler, settings }
    }
}

#[async_trait]
impl Handler for Upcasting {
    async fn handle(&self, run: &Run) -> Result<(), HandlerError> {
        let schemas = self.settings.get().event_schemas().clone();
        let mut run = run.clone();
        run.event = Arc::new(schemas.to_latest(run.event.as_ref().clone()));
        self.handler.handle(&run).await
    }
}
