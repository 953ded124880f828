//! Everything that can be harmed: processes, servers, and the networks between them.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::plan::Mode;
use crate::harness::{App, Postgres, Proxy, RabbitMq, eventually, free_port, temp_dir};

const START: Duration = Duration::from_secs(120);
const REPLICAS: usize = 2;

pub struct World {
    pub apps: Vec<App>,
    /// Between the clients and each process.
    pub doors: Vec<Proxy>,
    pub postgres: Option<(Postgres, Proxy)>,
    pub rabbitmq: Option<(RabbitMq, Proxy)>,
    mode: Mode,
    database: String,
    _folder: TempDir,
}

impl World {
    pub async fn build(mode: Mode) -> Self {
        let folder = temp_dir("chaos-");
        let mut world = Self {
            apps: Vec::new(),
            doors: Vec::new(),
            postgres: None,
            rabbitmq: None,
            mode,
            database: String::new(),
            _folder: folder,
        };
        let (mut store, mut broker) = (String::new(), String::new());
        if mode != Mode::Embedded {
            let postgres = Postgres::start().await;
            let net = Proxy::to(postgres.port()).await;
            world.database = postgres.database().await;
            store = net.url(&world.database);
            world.postgres = Some((postgres, net));
        }
        if mode.has_broker() {
            let rabbitmq = RabbitMq::start().await;
            let net = Proxy::to(rabbitmq.port()).await;
            broker = net.url(&rabbitmq.vhost().await);
            world.rabbitmq = Some((rabbitmq, net));
        }
        let replicas = if mode.has_broker() { REPLICAS } else { 1 };
        for _ in 0..replicas {
            let mut builder = App::builder()
                .followers()
                .set("store.lease_ttl", "5s")
                .set("http.port", free_port())
                .set("batch.max_wait", "1s")
                // Less than a client waits, so that it is told.
                .set("ingest.timeout", "8s")
                .set("log.filter", "warn");
            if mode == Mode::Embedded {
                builder = builder.embedded(world._folder.path());
            } else {
                builder = builder
                    .postgres(&store)
                    .set("store.startup_wait", "5m")
                    .set("store.statement_timeout", "5s");
            }
            if mode.has_broker() {
                builder = builder
                    .rabbitmq(&broker)
                    .set("broker.confirm_timeout", "3s")
                    .set("broker.heartbeat", "5s")
                    .set("broker.reconnect_max", "2s");
            }
            if mode == Mode::Ordered {
                builder = builder.set("broker.order", "user");
            }
            let app = builder.start().await;
            app.wait_ready().await;
            let port = app.url().rsplit(':').next().expect("a port");
            world.doors.push(Proxy::to(port.parse().unwrap()).await);
            world.apps.push(app);
        }
        world
    }

    /// Where clients send to.
    pub fn doors(&self) -> Vec<String> {
        let doors = self.doors.iter().zip(&self.apps);
        doors.map(|(door, app)| door.url(app.url())).collect()
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Past the proxies.
    pub fn urls(&self) -> Vec<String> {
        self.apps.iter().map(|app| app.url().to_owned()).collect()
    }

    pub fn first_url(&self) -> &str {
        self.apps[0].url()
    }

    pub fn database(&self) -> Option<&str> {
        self.postgres.as_ref().map(|_| self.database.as_str())
    }

    /// Where the followers of the processes count.
    pub fn counted(&self) -> (Option<&str>, PathBuf) {
        (self.database(), self._folder.path().join("eclusa.db"))
    }

    pub fn pids(&self) -> Vec<i32> {
        self.apps.iter().map(App::pid).collect()
    }

    /// Everything runs and every network is well.
    pub async fn heal(&mut self) {
        for door in &self.doors {
            door.heal();
        }
        for net in [
            self.postgres.as_ref().map(|(_, net)| net),
            self.rabbitmq.as_ref().map(|(_, net)| net),
        ]
        .into_iter()
        .flatten()
        {
            net.heal();
        }
        for app in &mut self.apps {
            if app.has_exited() {
                app.spawn_again();
            }
            app.wait_listening().await;
        }
        for app in &self.apps {
            eventually(START, "it is ready again", async || {
                app.is_ready().await.then_some(())
            })
            .await;
        }
    }

    /// Nothing is on its way, neither in a process nor in a queue.
    pub async fn is_idle(&self) -> bool {
        for app in &self.apps {
            if app.metric("eclusa_events_in_flight").await > 0.0 {
                return false;
            }
        }
        let Some((rabbitmq, _)) = &self.rabbitmq else {
            return true;
        };
        // Of all queues but the dead letters', and of all states.
        let count = "lists:sum([M || Q <- rabbit_amqqueue:list(), \
                     element(4, element(2, Q)) =/= <<\"eclusa.dlq\">>, \
                     [{messages, M}] <- [rabbit_amqqueue:info(Q, [messages])]])";
        rabbitmq.eval(count).await == "0"
    }
}
