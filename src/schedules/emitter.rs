//! Making the events of schedules durable.

use crate::event::budget::Budget;
use crate::event::{Event, Source};
use crate::ingest::admission::AdmissionControl;
use crate::ingest::http_ingest::{HttpIngest, Ingest};
use crate::ingest::request;
use crate::metrics::Metrics;
use crate::supervision::Mailbox;
use std::sync::Arc;
use std::time::Duration;

/// The way of a schedule's event into the flow: that of a request's.
#[derive(Clone)]
pub struct Emitter {
    pub ingest: Mailbox<HttpIngest>,
    /// Whether events can be made durable now.
    pub admission: AdmissionControl,
    pub budget: Budget,
    /// How long an event may take to become durable.
    pub timeout: Duration,
    pub metrics: Arc<Metrics>,
}

impl Emitter {
    /// Makes an event durable.
    ///
    /// # Errors
    /// Why it is not known to be. It may be all the same, and emitting it again is safe.
    pub(super) async fn emit(&self, event: Event) -> Result<(), String> {
        self.admission.check().map_err(|away| away.to_string())?;
        let permit = self
            .budget
            .try_take(event.footprint())
            .ok_or("more events are in flight than ingest.max_in_flight allows")?;
        let metrics = &self.metrics;
        let accepted = &metrics.accepted;
        accepted
            .with_label_values(&[Source::Schedule.as_str()])
            .inc();
        let accounts = metrics.accounting.ingest.clone();
        let (deliveries, outcomes) = request::open(vec![event], accounts, permit, None);
        // If the mailbox is full the message is dropped here, and its ticket settles the request.
        drop(self.ingest.try_send(Ingest(deliveries)));
        match tokio::time::timeout(self.timeout, outcomes).await {
            Ok(Ok(outcomes)) if outcomes.iter().all(|outcome| outcome.is_durable()) => Ok(()),
            Ok(_) => Err("it was not taken".to_owned()),
            Err(_) => {
                let timeout = humantime::format_duration(self.timeout);
                Err(format!("it is not known to be durable after {timeout}"))
            }
        }
    }
}
