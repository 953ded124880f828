//! The actors from the doors to the store, wired in one place, downstream first.

use super::consumers::{self, Consumers};
use super::starter::Starter;
use super::writers::Writers;
use crate::actors::departures::Departures;
use crate::actors::http_ingest::Door;
use crate::actors::intake::Intake;
use crate::actors::retry_supervisor::{self, RetrySupervisor};
use crate::actors::{
    DeadLetterProjector, Lanes, Leader, Retention, dead_letter_projector, leader, retention,
};
use crate::broker::connection::{self, BrokerConnection, LinkWatch};
use crate::broker::publisher::Publisher;
use crate::broker::topology::Topology;
use crate::config::{LiveSettings, Mode, Settings};
use crate::event::Awaited;
use crate::metrics::Metrics;
use crate::retry::policy;
use crate::retry::replay::{Replayer, Way};
use crate::store::{DeadLetterStore, EventStore, Store};
use crate::supervision::{Breaker, BreakerProbe, Budget, HealthBoard, Lifecycle, Mailbox, breaker};
use actix_rt::Arbiter;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// How long the store may take to answer a probe.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);
/// Failures that may wait; more make their senders wait.
const RETRY_MAILBOX: usize = 1_024;

/// The running flow: what its doors need to reach it.
#[derive(Clone)]
pub struct Flow {
    /// The log.
    pub store: Arc<dyn EventStore>,
    /// What was put aside.
    pub letters: Arc<dyn DeadLetterStore>,
    /// The ways into the store.
    pub lanes: Lanes,
    /// The way onto the work queue, in full mode.
    pub publisher: Option<Publisher>,
    /// The connection to the broker, in full mode.
    pub link: Option<LinkWatch>,
    /// Whether the store is there.
    pub store_breaker: Breaker,
    /// Whether the broker is there, in full mode.
    pub broker_breaker: Option<Breaker>,
    /// Who waits for which event.
    pub awaited: Awaited,
    /// The bound on bytes in the process.
    pub budget: Budget,
    /// Which actors are stuck.
    pub health: HealthBoard,
    /// Whether the process is leaving.
    pub lifecycle: Lifecycle,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    settings: Arc<Settings>,
    /// Nobody sends to these, but an actor that nobody can reach is not restarted.
    _connection: Option<Mailbox<BrokerConnection>>,
    _consumers: Option<Consumers>,
    _probes: Vec<Mailbox<BreakerProbe>>,
    _projector: Option<Mailbox<DeadLetterProjector>>,
    _retention: Option<(Mailbox<Leader>, Mailbox<Retention>)>,
}

impl Flow {
    /// Starts all actors but those of the HTTP workers.
    ///
    /// # Errors
    /// When the metrics cannot be registered, which is a defect.
    pub fn start(live: &LiveSettings, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let letters: Arc<dyn DeadLetterStore> = store.clone();
        let whole = Arc::clone(&store);
        let store: Arc<dyn EventStore> = store;
        let settings = Arc::clone(&live.get());
        let metrics = Arc::new(Metrics::new()?);
        let starter = Starter {
            metrics: Arc::clone(&metrics),
            health: HealthBoard::default(),
            lifecycle: Lifecycle::default(),
        };
        let bytes = usize::try_from(settings.ingest.max_in_flight.as_u64()).unwrap_or(usize::MAX);
        let budget = Budget::new(bytes);
        let awaited = Awaited::default();
        let work = Arbiter::new();
        let broker = Arbiter::new();
        let store_breaker = Breaker::new("store", &metrics);
        let mut probes = vec![starter.probe(&work, &store_breaker, probe_of_store(&store))];

        let (publisher, link, connection) = if settings.mode() == Mode::Full {
            let (publisher, link, mailbox) = start_connection(&starter, &broker, live);
            (Some(publisher), Some(link), Some(mailbox))
        } else {
            (None, None, None)
        };

        let broker_breaker = publisher.clone().map(|publisher| {
            let breaker = Breaker::new("broker", &metrics);
            let probe = Arc::new(move || -> BoxFuture<'static, Result<(), String>> {
                let available = publisher.is_available();
                let reason = "not connected, or taking no messages";
                Box::pin(std::future::ready(
                    available.then_some(()).ok_or_else(|| reason.to_owned()),
                ))
            });
            probes.push(starter.probe(&broker, &breaker, probe));
            breaker
        });

        let (retry, retry_inbox) = starter.mailbox("retry_supervisor", 0, RETRY_MAILBOX);
        let retry_wiring = retry_supervisor::Wiring {
            publisher: publisher.clone(),
            queue: link.is_some().then(|| settings.broker.queue.clone()),
            letters: Arc::clone(&letters),
            settings: settings.retry.clone(),
            metrics: Arc::clone(&metrics),
        };
        starter.start(&broker, retry_inbox, RetrySupervisor::new(retry_wiring));

        let lanes = Writers {
            starter: &starter,
            arbiter: &work,
            settings: &settings,
            store: &store,
            breaker: &store_breaker,
            retry: &retry,
            awaited: &awaited,
        }
        .start(publisher.as_ref().and_then(Publisher::shards));

        let consumers = link
            .as_ref()
            .zip(publisher.as_ref())
            .map(|(link, publisher)| {
                consumers::Wiring {
                    starter: &starter,
                    arbiter: &broker,
                    link,
                    publisher,
                    intake: Intake {
                        settings: live.clone(),
                        retry: retry.clone(),
                        budget: budget.clone(),
                        metrics: Arc::clone(&metrics),
                    },
                    lanes: &lanes,
                    store_breaker: &store_breaker,
                }
                .start()
            });

        let projector = link
            .as_ref()
            .filter(|_| settings.dead_letters.project)
            .map(|link| start_projector(&starter, &broker, link, &settings, &letters));
        // SQLite has nothing to prepare.
        let retention = (settings.store.retention.is_some() || settings.mode() != Mode::Embedded)
            .then(|| start_retention(&starter, &whole, &settings));

        Ok(Self {
            store,
            letters,
            lanes,
            publisher,
            link,
            store_breaker,
            broker_breaker,
            awaited,
            budget,
            health: starter.health,
            lifecycle: starter.lifecycle,
            metrics,
            settings,
            _connection: connection,
            _consumers: consumers,
            _probes: probes,
            _projector: projector,
            _retention: retention,
        })
    }

    /// Where requests become durable.
    pub fn door(&self) -> Door {
        match (&self.publisher, &self.broker_breaker) {
            (Some(publisher), Some(breaker)) => Door::Broker {
                publisher: Box::new(publisher.clone()),
                breaker: breaker.clone(),
                fallback: (!self.settings.broker.refuses()).then(|| self.lanes.handoff().clone()),
                shards: publisher.shards(),
                departures: Departures::default(),
                frames_in_flight: self.settings.broker.frames_in_flight,
                bounds: publisher.bounds(),
            },
            _ => Door::Direct(self.lanes.handoff().clone()),
        }
    }

    /// The way for dead letters back into the flow.
    pub fn replayer(&self, live: &LiveSettings) -> Replayer {
        let way = match &self.publisher {
            None => Way::Direct(self.lanes.any().clone()),
            Some(publisher) => Way::Queue(Box::new(publisher.clone())),
        };
        Replayer {
            letters: Arc::clone(&self.letters),
            way,
            settings: live.clone(),
            budget: self.budget.clone(),
            lifecycle: self.lifecycle.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

fn probe_of_store(store: &Arc<dyn EventStore>) -> Arc<breaker::Probe> {
    let store = Arc::clone(store);
    Arc::new(move || -> BoxFuture<'static, Result<(), String>> {
        let store = Arc::clone(&store);
        Box::pin(async move {
            // What failed was a write, so a write has to work again.
            let probe = async {
                store.ping().await?;
                store.canary().await
            };
            match tokio::time::timeout(PROBE_PATIENCE, probe).await {
                Ok(result) => result.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer within {PROBE_PATIENCE:?}")),
            }
        })
    })
}

fn start_connection(
    starter: &Starter,
    arbiter: &Arbiter,
    live: &LiveSettings,
) -> (Publisher, LinkWatch, Mailbox<BrokerConnection>) {
    let settings = live.get();
    let topology = Topology::new(&settings.broker, policy::delays(&settings.retry));
    let (actor, link, waiting) = BrokerConnection::new(connection::Wiring {
        settings: settings.broker.clone(),
        live: live.clone(),
        topology: topology.clone(),
        metrics: Arc::clone(&starter.metrics),
    });
    let (mailbox, inbox) = starter.mailbox("broker_connection", 0, 1);
    starter.start(arbiter, inbox, actor);
    let timeout = settings.broker.confirm_timeout;
    let publisher = Publisher::new(link.clone(), waiting, topology, timeout);
    (publisher, link, mailbox)
}

fn start_projector(
    starter: &Starter,
    arbiter: &Arbiter,
    link: &LinkWatch,
    settings: &Settings,
    letters: &Arc<dyn DeadLetterStore>,
) -> Mailbox<DeadLetterProjector> {
    let (mailbox, inbox) = starter.mailbox("dead_letter_projector", 0, 1);
    let wiring = dead_letter_projector::Wiring {
        link: link.clone(),
        settings: settings.broker.clone(),
        letters: Arc::clone(letters),
        lifecycle: starter.lifecycle.clone(),
        metrics: Arc::clone(&starter.metrics),
    };
    starter.start(arbiter, inbox, DeadLetterProjector::new(wiring));
    mailbox
}

/// On a thread of its own, away from the events.
fn start_retention(
    starter: &Starter,
    store: &Arc<dyn Store>,
    settings: &Settings,
) -> (Mailbox<Leader>, Mailbox<Retention>) {
    let arbiter = Arbiter::new();
    let (actor, leadership) = Leader::new(leader::Wiring {
        name: retention::LEASE,
        ttl: settings.store.lease_ttl,
        store: store.clone(),
        lifecycle: starter.lifecycle.clone(),
        metrics: Arc::clone(&starter.metrics),
    });
    let (leader, inbox) = starter.mailbox("leader", 0, 1);
    starter.start(&arbiter, inbox, actor);
    let (mailbox, inbox) = starter.mailbox("retention", 0, 1);
    let wiring = retention::Wiring {
        leadership,
        store: store.clone(),
        keep: settings.store.retention,
        lifecycle: starter.lifecycle.clone(),
        metrics: Arc::clone(&starter.metrics),
    };
    starter.start(&arbiter, inbox, Retention::new(wiring));
    (leader, mailbox)
}

/// Logs the totals each minute, for those who have only the log. Never ends.
pub async fn report_totals(flow: &Flow) {
    const EVERY: Duration = Duration::from_secs(60);
    let mut reported = (0, 0, 0);
    loop {
        tokio::time::sleep(EVERY).await;
        let metrics = &flow.metrics;
        let totals = (
            metrics.stored.get(),
            metrics.duplicate.get(),
            metrics.retried.get(),
        );
        if totals != reported {
            tracing::info!(
                stored = totals.0,
                duplicate = totals.1,
                retried = totals.2,
                in_flight = metrics.ledgers.in_flight(),
                "totals since start"
            );
            reported = totals;
        }
    }
}
