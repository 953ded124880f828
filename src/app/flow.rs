//! The actors from the doors to the store, wired in one place, downstream first.

use crate::actors::batch_accumulator::{self, BatchAccumulator, Drain};
use crate::actors::db_writer::{self, DbWriter};
use crate::actors::http_ingest::Door;
use crate::actors::retry_supervisor::{self, RetrySupervisor};
use crate::actors::{AmqpConsumer, DeadLetterProjector, amqp_consumer, dead_letter_projector};
use crate::broker::connection::{self, BrokerConnection, LinkWatch};
use crate::broker::publisher::Publisher;
use crate::broker::topology::Topology;
use crate::config::broker::Fallback;
use crate::config::{LiveSettings, Mode, Settings};
use crate::event::Awaited;
use crate::metrics::Metrics;
use crate::retry::policy;
use crate::retry::replay::{Replayer, Way};
use crate::store::{DeadLetterStore, EventStore, Store};
use crate::supervision::mailbox::{Inbox, Mailbox, mailbox};
use crate::supervision::{
    Breaker, BreakerProbe, Budget, HealthBoard, Lifecycle, RestartPolicy, breaker, supervise,
};
use actix::{Actor, Context, Supervised};
use actix_rt::Arbiter;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// Messages that may wait for the accumulator. Each is a group of events; the events are bounded
/// by prefetch and the budget of bytes.
const ACCUMULATOR_MAILBOX: usize = 1_024;
/// A writer has one batch at a time; besides it is asked whether it is idle.
const WRITER_MAILBOX: usize = 8;
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
    /// Where direct events go.
    pub accumulator: Mailbox<BatchAccumulator>,
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
    _consumers: Vec<Mailbox<AmqpConsumer>>,
    _probes: Vec<Mailbox<BreakerProbe>>,
    _projector: Option<Mailbox<DeadLetterProjector>>,
}

/// Starts actors, each on an arbiter, all under the same supervision.
struct Starter {
    metrics: Arc<Metrics>,
    health: HealthBoard,
    lifecycle: Lifecycle,
}

impl Starter {
    fn mailbox<A: Actor<Context = Context<A>>>(
        &self,
        name: &'static str,
        index: usize,
        capacity: usize,
    ) -> (Mailbox<A>, Inbox<A>) {
        mailbox(name, index, capacity, &self.metrics, &self.health)
    }

    fn probe(
        &self,
        arbiter: &Arbiter,
        breaker: &Breaker,
        probe: Arc<breaker::Probe>,
    ) -> Mailbox<BreakerProbe> {
        let (mailbox, inbox) = self.mailbox("breaker_probe", 0, 1);
        self.start(arbiter, inbox, BreakerProbe::new(breaker.clone(), probe));
        mailbox
    }

    fn start<A>(&self, arbiter: &Arbiter, inbox: Inbox<A>, actor: A)
    where
        A: Actor<Context = Context<A>> + Supervised + Unpin + Send,
    {
        let (metrics, lifecycle) = (Arc::clone(&self.metrics), self.lifecycle.clone());
        arbiter.spawn_fn(move || {
            supervise(inbox, actor, RestartPolicy::default(), &metrics, &lifecycle);
        });
    }
}

impl Flow {
    /// Starts all actors but those of the HTTP workers.
    ///
    /// # Errors
    /// When the metrics cannot be registered, which is a defect.
    pub fn start(live: &LiveSettings, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let letters: Arc<dyn DeadLetterStore> = store.clone();
        let store: Arc<dyn EventStore> = store;
        let settings = Arc::clone(&live.get());
        let metrics = Arc::new(Metrics::new()?);
        let starter = Starter {
            metrics: Arc::clone(&metrics),
            health: HealthBoard::default(),
            lifecycle: Lifecycle::default(),
        };
        let bytes = usize::try_from(settings.ingest.max_in_flight.as_u64()).unwrap_or(usize::MAX);
        let budget = Budget::new(bytes, metrics.in_flight_bytes.clone());
        let awaited = Awaited::default();
        let work = Arbiter::new();
        let broker = Arbiter::new();
        let store_breaker = Breaker::new("store", &metrics);
        let mut probes = vec![starter.probe(&work, &store_breaker, probe_of_store(&store))];

        let (publisher, link, connection) = if settings.mode() == Mode::Full {
            let (publisher, link, mailbox) = start_connection(&starter, &broker, &settings);
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

        // SQLite has one writer whatever one asks for.
        let writers = match settings.mode() {
            Mode::Embedded | Mode::Auto => 1,
            Mode::Database | Mode::Full => settings.batch.writers,
        };
        let (accumulator, accumulator_inbox) =
            starter.mailbox::<BatchAccumulator>("batch_accumulator", 0, ACCUMULATOR_MAILBOX);
        let writers: Vec<Mailbox<DbWriter>> = (0..writers)
            .map(|index| {
                let (mailbox, inbox) = starter.mailbox("db_writer", index, WRITER_MAILBOX);
                let wiring = db_writer::Wiring {
                    index,
                    store: Arc::clone(&store),
                    breaker: store_breaker.clone(),
                    accumulator: accumulator.clone(),
                    retry: retry.clone(),
                    attempts: settings.retry.clone(),
                    ingest_timeout: settings.ingest.timeout,
                    write_timeout: settings.store.acquire_timeout
                        + settings.store.statement_timeout
                        + settings.store.write_margin,
                    release_after: settings.broker.release_after,
                    awaited: awaited.clone(),
                    metrics: Arc::clone(&metrics),
                };
                starter.start(&work, inbox, DbWriter::new(wiring));
                mailbox
            })
            .collect();
        let wiring = batch_accumulator::Wiring {
            writers,
            awaited: awaited.clone(),
            metrics: Arc::clone(&metrics),
        };
        let actor = BatchAccumulator::new(wiring, settings.batch.clone());
        starter.start(&work, accumulator_inbox, actor);

        let mut consumers = Vec::new();
        if let Some(link) = &link {
            for index in 0..settings.broker.channels {
                let (mailbox, inbox) = starter.mailbox("amqp_consumer", index, 1);
                consumers.push(mailbox);
                let wiring = amqp_consumer::Wiring {
                    index,
                    link: link.clone(),
                    settings: live.clone(),
                    accumulator: accumulator.clone(),
                    retry: retry.clone(),
                    store_breaker: store_breaker.clone(),
                    budget: budget.clone(),
                    lifecycle: starter.lifecycle.clone(),
                    metrics: Arc::clone(&metrics),
                };
                starter.start(&broker, inbox, AmqpConsumer::new(wiring));
            }
        }

        let projector = link
            .as_ref()
            .filter(|_| settings.dead_letters.project)
            .map(|link| start_projector(&starter, &broker, link, &settings, &letters));

        Ok(Self {
            store,
            letters,
            accumulator,
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
        })
    }

    /// Where requests become durable.
    pub fn door(&self) -> Door {
        match (&self.publisher, &self.broker_breaker) {
            (Some(publisher), Some(breaker)) => Door::Broker {
                publisher: Box::new(publisher.clone()),
                breaker: breaker.clone(),
                fallback: (self.settings.broker.fallback == Fallback::Store)
                    .then(|| self.accumulator.clone()),
                max_events: self.settings.broker.max_frame_events,
                max_bytes: usize::try_from(self.settings.broker.max_message_bytes.as_u64())
                    .unwrap_or(usize::MAX),
            },
            _ => Door::Direct(self.accumulator.clone()),
        }
    }

    /// The way for dead letters back into the flow.
    pub fn replayer(&self, live: &LiveSettings) -> Replayer {
        let way = match &self.publisher {
            None => Way::Direct(self.accumulator.clone()),
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

    /// Lets every open batch go, and all that still comes, until the accumulator has heard it.
    pub async fn drain_accumulator(&self) {
        while self.accumulator.send(Drain).await.is_err() {
            // It crashed over this very message; it will be back.
            tokio::time::sleep(Duration::from_millis(20)).await;
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
    settings: &Settings,
) -> (Publisher, LinkWatch, Mailbox<BrokerConnection>) {
    let topology = Topology::new(&settings.broker, policy::delays(&settings.retry));
    let (actor, link) = BrokerConnection::new(connection::Wiring {
        settings: settings.broker.clone(),
        topology: topology.clone(),
        metrics: Arc::clone(&starter.metrics),
    });
    let (mailbox, inbox) = starter.mailbox("broker_connection", 0, 1);
    starter.start(arbiter, inbox, actor);
    let timeout = settings.broker.confirm_timeout;
    let publisher = Publisher::new(link.clone(), topology, timeout);
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
