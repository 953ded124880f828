//! Starts the actors from HTTP and AMQP to the store, downstream first.

use super::consumers;
use super::consumers::Consumers;
use super::writers::Writers;
use crate::batch::messages::AccumulatorMessage;
use crate::batch::writer_partitions::WriterPartitions;
use crate::broker::connection;
use crate::broker::connection::{BrokerConnection, LinkWatch};
use crate::broker::publisher::Publisher;
use crate::broker::topology::Topology;
use crate::capture::{CaptureWiring, Captures};
use crate::collectors::{CollectorActors, Collectors, Polls, Stream};
use crate::config::{LiveSettings, Mode, Settings};
use crate::consume::message_decoder::MessageDecoder;
use crate::dead_letters::dead_letter_projector;
use crate::dead_letters::dead_letter_projector::DeadLetterProjector;
use crate::dead_letters::replay::{ReplayFlow, ReplayTarget, Replayer};
use crate::event::budget::{Budget, Permit};
use crate::event::read_waiters::ReadWaiters;
use crate::event::{Delivery, Event, Outcome};
use crate::followers::{FollowerOptions, Followers, RunningFollowers};
use crate::ingest::IngestQueue;
use crate::ingest::admission::AdmissionControl;
use crate::ingest::http_ingest::IngestTarget;
use crate::ingest::publish_buffer::PublishBuffer;
use crate::ingest::request;
use crate::maintenance::leader::Leader;
use crate::maintenance::retention::Retention;
use crate::maintenance::{leader, retention};
use crate::metrics::Metrics;
use crate::ordering::ShardAssigner;
use crate::reactions::Reactions;
use crate::retry::breaker;
use crate::retry::breaker::{Breaker, BreakerProbe};
use crate::retry::policy;
use crate::retry::retry_supervisor;
use crate::retry::retry_supervisor::RetrySupervisor;
use crate::store::{
    CommitLog, DeadLetterStore, EventStore, FollowerStore, ShardLayoutStore, Store,
};
use crate::supervision::{HealthBoard, Lifecycle, Mailbox, Starter};
use crate::topics::{TopicActors, Topics};
use actix_rt::Arbiter;
use async_trait::async_trait;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long the store may take to answer a probe.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);
/// Messages in its mailbox before `try_send` fails; senders then await their answer.
const RETRY_MAILBOX: usize = 1_024;

/// The running flow, and what HTTP and the command line need of it.
#[derive(Clone)]
pub struct Flow {
    pub store: Arc<dyn EventStore>,
    pub letters: Arc<dyn DeadLetterStore>,
    pub partitions: WriterPartitions,
    /// The queue to the first accumulator, for events whose callers wait.
    pub ingest_queue: IngestQueue,
    /// The publisher, in full mode.
    pub publisher: Option<Publisher>,
    /// The connection to the broker, in full mode.
    pub link: Option<LinkWatch>,
    /// Dead-letters events.
    pub retry: Mailbox<RetrySupervisor>,
    /// Whether the store is available.
    pub store_breaker: Breaker,
    /// Whether the broker is available, in full mode.
    pub broker_breaker: Option<Breaker>,
    /// Readers that wait for events.
    pub read_waiters: ReadWaiters,
    /// The followers, and the end of the log.
    pub followers: RunningFollowers,
    /// Their records.
    pub follower_store: Arc<dyn FollowerStore>,
    /// The log in the order of commits.
    pub log: Arc<dyn CommitLog>,
    /// The store with every capability.
    pub whole: Arc<dyn Store>,
    /// Answers collectors.
    pub polls: Polls,
    /// Streams of events.
    pub topics: Topics,
    /// The captures of the settings.
    pub captures: Captures,
    /// The bound on bytes in the process.
    pub budget: Budget,
    /// Which actors are stuck.
    pub health: HealthBoard,
    /// The phase of the process.
    pub lifecycle: Lifecycle,
    pub metrics: Arc<Metrics>,
    settings: Arc<Settings>,
    /// Kept because an actor without an address is not restarted.
    _connection: Option<Mailbox<BrokerConnection>>,
    _consumers: Option<Consumers>,
    _probes: Vec<Mailbox<BreakerProbe>>,
    _projector: Option<Mailbox<DeadLetterProjector>>,
    _retention: Option<(Mailbox<Leader>, Mailbox<Retention>)>,
    _collectors: CollectorActors,
    _topics: TopicActors,
}

/// What follows the log in a process. By default nothing does, as in a command that only writes.
#[derive(Default)]
pub struct Following {
    pub followers: Followers,
    pub reactions: Reactions,
    /// What collectors can pull.
    pub streams: Vec<Stream>,
    /// Whether the changes of the settings' captures are read.
    pub captures: bool,
}

impl Flow {
    /// Starts all actors but those of the HTTP workers. Full mode needs the layouts of shards.
    ///
    /// # Errors
    /// When a follower or a reaction cannot be declared; when the metrics cannot be registered, which is a defect.
    pub async fn start(
        live: &LiveSettings,
        store: Arc<dyn Store>,
        layouts: Option<Arc<dyn ShardLayoutStore>>,
        following: Following,
    ) -> anyhow::Result<Self> {
        let Following {
            followers,
            reactions,
            streams,
            captures,
        } = following;
        let letters: Arc<dyn DeadLetterStore> = store.clone();
        let whole = Arc::clone(&store);
        let store: Arc<dyn EventStore> = store;
        let settings = Arc::clone(&live.get());
        let metrics = Arc::new(Metrics::new()?);
        let starter = Starter::new(Arc::clone(&metrics));
        let options = FollowerOptions {
            lease_ttl: settings.store.lease_ttl,
            connections: settings.followers.connections,
        };
        let followers = reactions.declare(&whole, followers, &metrics).await?;
        let (collectors, followers) = Collectors::declare(streams, &whole, followers).await?;
        let followers = followers
            .start(Arc::clone(&whole), options, &starter)
            .await?;
        let (polls, collectors) = collectors.start(&settings, &whole, &followers.watch, &starter);
        let (topics, topic_actors) = Topics::start(live, &whole, &followers.watch, &starter);
        let budget = Budget::new(settings.ingest.bytes_in_flight());
        let read_waiters = ReadWaiters::default();
        let work = Arbiter::new();
        let broker = Arbiter::new();
        let store_breaker = Breaker::new("store", &metrics);
        let mut probes = vec![start_probe(
            &starter,
            &work,
            &store_breaker,
            probe_of_store(&store),
        )];

        let (publisher, link, connection) = match layouts.filter(|_| settings.mode() == Mode::Full)
        {
            Some(layouts) => {
                let (publisher, link, mailbox) =
                    start_connection(&starter, &broker, &settings, layouts);
                (Some(publisher), Some(link), Some(mailbox))
            }
            None => (None, None, None),
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
            probes.push(start_probe(&starter, &broker, &breaker, probe));
            breaker
        });

        let (retry, retry_inbox) = starter.mailbox("retry_supervisor", 0, RETRY_MAILBOX);
        let retry_params = retry_supervisor::RetrySupervisorParams {
            publisher: publisher.clone(),
            queue: link.is_some().then(|| settings.broker.queue.clone()),
            letters: Arc::clone(&letters),
            metrics: Arc::clone(&metrics),
        };
        starter.start(&broker, retry_inbox, RetrySupervisor::new(retry_params));

        let writers = Writers {
            starter: &starter,
            arbiter: &work,
            settings: &settings,
            store: &store,
            breaker: &store_breaker,
            retry: &retry,
            read_waiters: &read_waiters,
            commits: &followers.commits,
        };
        let (partitions, ingest_queue) =
            writers.start(publisher.as_ref().and_then(Publisher::shards));
        let lanes = match captures {
            true => writers.start_ordered(&partitions, settings.captures.len()),
            false => Vec::new(),
        };
        let captures = Captures::start(&CaptureWiring {
            settings: &settings,
            starter: &starter,
            store: &whole,
            retry: &retry,
            budget: &budget,
            lanes: &lanes,
        })?;
        let partitions = partitions.with_sources(lanes);

        let consumers = link
            .as_ref()
            .zip(publisher.as_ref())
            .map(|(link, publisher)| {
                consumers::ConsumersParams {
                    starter: &starter,
                    arbiter: &broker,
                    link,
                    publisher,
                    decoder: MessageDecoder {
                        settings: live.clone(),
                        retry: retry.clone(),
                        budget: budget.clone(),
                        metrics: Arc::clone(&metrics),
                    },
                    partitions: &partitions,
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
            partitions,
            ingest_queue,
            publisher,
            link,
            retry,
            store_breaker,
            broker_breaker,
            read_waiters,
            followers,
            follower_store: whole.clone(),
            log: whole.clone(),
            whole,
            polls,
            topics,
            captures,
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
            _collectors: collectors,
            _topics: topic_actors,
        })
    }

    /// Where the events of requests become durable.
    pub fn ingest_target(&self) -> IngestTarget {
        match (&self.publisher, &self.broker_breaker) {
            (Some(publisher), Some(breaker)) => IngestTarget::Broker {
                publisher: Box::new(publisher.clone()),
                breaker: breaker.clone(),
                fallback: (!self.settings.broker.refuses()).then(|| self.ingest_queue.clone()),
                shards: publisher.shards(),
                publish_buffer: PublishBuffer::default(),
                frames_in_flight: self.settings.broker.frames_in_flight,
                bounds: publisher.bounds(),
            },
            _ => IngestTarget::Direct(self.ingest_queue.clone()),
        }
    }

    /// Whether events can be made durable now.
    pub fn admission(&self) -> AdmissionControl {
        AdmissionControl {
            store: self.store_breaker.clone(),
            broker: self.broker_breaker.clone().zip(self.publisher.clone()),
            refuses: self.settings.broker.refuses(),
        }
    }

    /// Sends dead letters back into the flow.
    pub fn replayer(&self, live: &LiveSettings) -> Replayer {
        let target = match &self.publisher {
            None => ReplayTarget::Store,
            Some(publisher) => ReplayTarget::Queue(Box::new(publisher.clone())),
        };
        Replayer {
            letters: Arc::clone(&self.letters),
            followers: Arc::clone(&self.follower_store),
            target,
            flow: Arc::new(self.clone()),
            settings: live.clone(),
            budget: self.budget.clone(),
            lifecycle: self.lifecycle.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

#[async_trait]
impl ReplayFlow for Flow {
    fn open(
        &self,
        events: Vec<Event>,
        permit: Permit,
    ) -> (Vec<Delivery>, oneshot::Receiver<Vec<Outcome>>) {
        request::open(events, self.metrics.accounting.ingest.clone(), permit, None)
    }

    async fn write(&self, deliveries: Vec<Delivery>) {
        // If the accumulator panics over the message, the tickets in it answer.
        let push = AccumulatorMessage::push(deliveries);
        let _ = self.partitions.any().send(push).await;
    }
}

fn start_probe(
    starter: &Starter,
    arbiter: &Arbiter,
    breaker: &Breaker,
    probe: Arc<breaker::Probe>,
) -> Mailbox<BreakerProbe> {
    let (mailbox, inbox) = starter.mailbox("breaker_probe", 0, 1);
    starter.start(arbiter, inbox, BreakerProbe::new(breaker.clone(), probe));
    mailbox
}

fn probe_of_store(store: &Arc<dyn EventStore>) -> Arc<breaker::Probe> {
    let store = Arc::clone(store);
    Arc::new(move || -> BoxFuture<'static, Result<(), String>> {
        let store = Arc::clone(&store);
        Box::pin(async move {
            // What failed was a write, so a write has to work again.
            let probe = async {
                store.ping().await?;
                store.write_probe(&[], None).await
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
    layouts: Arc<dyn ShardLayoutStore>,
) -> (Publisher, LinkWatch, Mailbox<BrokerConnection>) {
    let topology = Topology::new(&settings.broker, policy::delays(&settings.retry));
    // A URL that cannot be read is reported when connecting.
    let uri = connection::uri(&settings.broker);
    let vhost = uri.map_or_else(|_| String::new(), |uri| uri.vhost);
    let assigner = ShardAssigner::new(layouts, topology.clone(), &vhost);
    let (actor, link, waiting) = BrokerConnection::new(connection::ConnectionParams {
        settings: settings.broker.clone(),
        topology: topology.clone(),
        assigner: Arc::new(assigner),
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
    let params = dead_letter_projector::DeadLetterProjectorParams {
        link: link.clone(),
        settings: settings.broker.clone(),
        letters: Arc::clone(letters),
        lifecycle: starter.lifecycle.clone(),
        metrics: Arc::clone(&starter.metrics),
    };
    starter.start(arbiter, inbox, DeadLetterProjector::new(params));
    mailbox
}

/// On a thread of its own, away from the events.
fn start_retention(
    starter: &Starter,
    store: &Arc<dyn Store>,
    settings: &Settings,
) -> (Mailbox<Leader>, Mailbox<Retention>) {
    let arbiter = Arbiter::new();
    let (actor, leadership) = Leader::new(leader::LeaderParams {
        name: retention::LEASE.to_owned(),
        ttl: settings.store.lease_ttl,
        store: store.clone(),
        lifecycle: starter.lifecycle.clone(),
        metrics: Arc::clone(&starter.metrics),
    });
    let (leader, inbox) = starter.mailbox("leader", 0, 1);
    starter.start(&arbiter, inbox, actor);
    let (mailbox, inbox) = starter.mailbox("retention", 0, 1);
    let params = retention::RetentionParams {
        leadership,
        store: store.clone(),
        keep: settings.store.retention,
        hold: settings.followers.hold_days,
        keep_runs: settings.store.keep_runs,
        lifecycle: starter.lifecycle.clone(),
        metrics: Arc::clone(&starter.metrics),
    };
    starter.start(&arbiter, inbox, Retention::new(params));
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
                in_flight = metrics.accounting.in_flight(),
                "totals since start"
            );
            reported = totals;
        }
    }
}
