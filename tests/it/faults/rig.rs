//! One Eclusa under load, its servers, and the networks between them.

use std::ops::Deref;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    App, Findings, Load, LoadPlan, Log, Postgres, Proxy, RabbitMq, eventually, free_port, temp_dir,
};

pub const SOON: Duration = Duration::from_secs(60);
/// Enough that batches fill and something is always under way, also on a busy machine.
const EVENTS_PER_SECOND: usize = 400;

/// A server that the test may harm, or one that all tests share.
pub enum Server<T: 'static> {
    Own(T),
    Shared(&'static T),
}

impl<T> Deref for Server<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Server::Own(server) => server,
            Server::Shared(server) => server,
        }
    }
}

impl<T> Server<T> {
    pub fn own(&mut self) -> &mut T {
        match self {
            Server::Own(server) => server,
            Server::Shared(_) => panic!("a shared server must not be harmed"),
        }
    }
}

/// What is to be set up.
#[derive(Default)]
pub struct Plan {
    /// Else PostgreSQL alone, else SQLite.
    rabbitmq: bool,
    postgres: bool,
    own_rabbitmq: bool,
    own_postgres: bool,
    disk: Option<TempDir>,
    settings: Vec<(String, Value)>,
}

/// It stands, and is loaded until [`Rig::settle`].
pub struct Rig {
    pub app: App,
    pub load: Load,
    pub postgres: Option<Server<Postgres>>,
    pub rabbitmq: Option<Server<RabbitMq>>,
    /// Between Eclusa and PostgreSQL.
    pub store_net: Option<Proxy>,
    /// Between Eclusa and RabbitMQ.
    pub broker_net: Option<Proxy>,
    /// Not by way of the proxies.
    pub database: String,
    pub vhost: String,
    _folder: TempDir,
}

impl Plan {
    pub fn full() -> Self {
        Self {
            rabbitmq: true,
            ..Self::database()
        }
    }

    pub fn database() -> Self {
        Self {
            postgres: true,
            ..Self::default()
        }
    }

    pub fn embedded() -> Self {
        Self::default()
    }

    pub fn own_postgres(mut self) -> Self {
        self.own_postgres = true;
        self
    }

    /// All files of the database lie here.
    pub fn on_disk(mut self, folder: TempDir) -> Self {
        self.disk = Some(folder);
        self
    }

    pub fn own_rabbitmq(mut self) -> Self {
        self.own_rabbitmq = true;
        self
    }

    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.push((key.to_owned(), value.into()));
        self
    }

    pub async fn start(mut self) -> Rig {
        let mut folder = temp_dir("rig-");
        let (mut database, mut vhost) = (String::new(), String::new());
        let (mut postgres, mut rabbitmq, mut store_net, mut broker_net) = (None, None, None, None);
        let mut builder = App::builder()
            .set("http.port", free_port())
            .set("batch.max_wait", "200ms")
            .set("broker.reconnect_max", "1s");
        if !self.postgres {
            folder = self.disk.take().unwrap_or(folder);
            builder = builder.embedded(folder.path());
        } else {
            let server = match self.disk {
                Some(disk) => Server::Own(Postgres::start_in(disk).await),
                None if self.own_postgres => Server::Own(Postgres::start().await),
                None => Server::Shared(Postgres::shared().await),
            };
            database = server.database().await;
            let proxy = Proxy::to(server.port()).await;
            builder = builder.postgres(&proxy.url(&database));
            (postgres, store_net) = (Some(server), Some(proxy));
        }
        if self.rabbitmq {
            let server = if self.own_rabbitmq {
                Server::Own(RabbitMq::start().await)
            } else {
                Server::Shared(RabbitMq::shared().await)
            };
            vhost = server.vhost().await;
            let proxy = Proxy::to(server.port()).await;
            builder = builder.rabbitmq(&proxy.url(&vhost));
            (rabbitmq, broker_net) = (Some(server), Some(proxy));
        }
        for (key, value) in self.settings {
            builder = builder.set(&key, value);
        }
        let app = builder.start().await;
        app.wait_ready().await;
        let load = Load::start(LoadPlan {
            doors: vec![app.url().to_owned()],
            events_per_second: EVENTS_PER_SECOND,
            connections: 8,
            patience: SOON * 2,
            seed: 7,
            ordered: false,
        });
        let rig = Rig {
            app,
            load,
            postgres,
            rabbitmq,
            store_net,
            broker_net,
            database,
            vhost,
            _folder: folder,
        };
        rig.flows().await;
        rig
    }
}

impl Rig {
    /// Events are being taken.
    pub async fn flows(&self) {
        self.load.taken_more(SOON, 300).await;
    }

    pub fn postgres(&mut self) -> &mut Postgres {
        self.postgres.as_mut().expect("has one").own()
    }

    pub fn rabbitmq(&mut self) -> &mut RabbitMq {
        self.rabbitmq.as_mut().expect("has one").own()
    }

    pub fn store_net(&self) -> &Proxy {
        self.store_net.as_ref().expect("has one")
    }

    pub fn broker_net(&self) -> &Proxy {
        self.broker_net.as_ref().expect("has one")
    }

    /// After it ended: again, on the same port.
    pub async fn start_again(&mut self) {
        self.app.wait_exit(SOON).await;
        self.app.start_again().await;
    }

    /// Every event is taken while this lasts: nothing is refused and nothing breaks off.
    pub async fn assert_taken_all_along(&self) {
        let counts = &self.load.counts;
        let told_to_return = || (counts.refused.load(SeqCst), counts.broken.load(SeqCst));
        // What was under way when the fault began may be told to come back.
        self.flows().await;
        let before = told_to_return();
        self.load.taken_more(SOON, 2_000).await;
        assert_eq!(before, told_to_return(), "refused, broken off");
    }

    /// Ends the load, waits until every event is where it belongs, and says what is not.
    pub async fn settle(&self) -> Findings {
        self.load.stop(SOON * 2).await;
        let given_up = &self.load.counts.given_up;
        let given_up = given_up.load(SeqCst);
        assert_eq!(given_up, 0, "a client gave up");
        assert_eq!(self.load.complaints(), Vec::<String>::new());
        eventually(SOON, "nothing is in flight", async || {
            (self.app.metric("eclusa_events_in_flight").await == 0.0).then_some(())
        })
        .await;
        // In full mode an event may be in no process and wait in a queue.
        let findings = std::cell::RefCell::new(Findings::default());
        let settled = async {
            loop {
                let found = self.check().await;
                let is_complete = found.lost.is_empty();
                findings.replace(found);
                if is_complete {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        // What is still lost then is the caller's to complain about, with its id.
        let _ = tokio::time::timeout(SOON, settled).await;
        findings.into_inner()
    }

    async fn check(&self) -> Findings {
        let log = if self.postgres.is_some() {
            Log::Postgres(&self.database)
        } else {
            Log::Http(self.app.url())
        };
        self.load.model.check(log).await
    }

    /// No attempt was spent and nothing put aside: what happened was an outage, nobody's fault.
    pub async fn assert_no_attempt_spent(&self) {
        let metrics = self.app.metrics().await;
        for name in [
            "eclusa_events_dead_lettered_total",
            "eclusa_events_retried_total",
        ] {
            assert_eq!(metrics.sum(name, &[]), 0.0, "{name}");
        }
    }
}
