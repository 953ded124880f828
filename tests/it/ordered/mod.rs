//! `broker.order = "user"`: the events of each user reach the log in the order in which they were
//! taken, whatever happens meanwhile.

mod changes;
mod consumer;
mod failing;
mod foreign;
mod lanes;
mod layout;
mod takeover;

use crate::harness::{App, Postgres, RabbitMq, eventually};
use futures::future::join_all;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Replicas that share the shards.
struct Fleet {
    apps: Vec<App>,
    database: String,
    broker: String,
}

impl Fleet {
    async fn start(replicas: usize, set: &[(&str, Value)]) -> Self {
        let broker = RabbitMq::shared().await.vhost().await;
        let brokers: Vec<String> = (0..replicas).map(|_| broker.clone()).collect();
        let mut fleet = Self::start_at(&brokers, set).await;
        fleet.broker = broker;
        fleet
    }

    /// Each reaches the broker by a way of its own.
    async fn start_at(brokers: &[String], set: &[(&str, Value)]) -> Self {
        let database = Postgres::shared().await.database().await;
        let mut fleet = Self {
            apps: Vec::new(),
            database,
            broker: brokers[0].clone(),
        };
        for broker in brokers {
            fleet.add(broker, set).await;
        }
        fleet
    }

    async fn add(&mut self, broker: &str, set: &[(&str, Value)]) {
        let mut builder = App::builder()
            .postgres(&self.database)
            .rabbitmq(broker)
            .set("broker.order", "user")
            .set("batch.max_wait", "100ms")
            .set("broker.reconnect_max", "1s");
        for (key, value) in set {
            builder = builder.set(key, value.clone());
        }
        let app = builder.start().await;
        app.wait_ready().await;
        self.apps.push(app);
    }

    fn urls(&self) -> Vec<String> {
        self.apps.iter().map(|app| app.url().to_owned()).collect()
    }

    async fn shards_of(&self, replica: usize) -> usize {
        self.apps[replica].metric("eclusa_shards_active").await as usize
    }

    /// Restarts of an actor, over all replicas.
    async fn restarts(&self, actor: &str) -> f64 {
        let mut restarts = 0.0;
        for app in &self.apps {
            let of_actor = [("actor", actor)];
            restarts += app
                .metric_with("eclusa_actor_restarts_total", &of_actor)
                .await;
        }
        restarts
    }

    /// Until each shard has an owner and nobody has more than its part.
    async fn shared_out(&self, shards: usize) {
        eventually(SOON, "the shards are shared out", async || {
            let mut held = Vec::new();
            for replica in 0..self.apps.len() {
                held.push(self.shards_of(replica).await);
            }
            let even = shards.div_ceil(self.apps.len());
            let done = held.iter().sum::<usize>() == shards && held.iter().all(|h| *h <= even);
            done.then_some(())
        })
        .await;
    }

    /// Rows of a type.
    async fn count_of(&self, event_type: &str) -> i64 {
        let sql = "SELECT count(*) FROM user_interactions WHERE event_type = $1";
        let postgres = Postgres::shared().await;
        let rows = postgres.query(&self.database, sql, &[&event_type]).await;
        rows[0].get(0)
    }

    async fn count(&self) -> i64 {
        self.count_of("step").await
    }

    async fn wait_rows(&self, count: usize) {
        eventually(SOON, "every event is a row", async || {
            (self.count().await >= count as i64).then_some(())
        })
        .await;
    }

    /// Every event of every user is there once, and in its order.
    async fn in_order(&self, users: usize, each: usize) {
        self.in_order_from(users, 0, each).await;
    }

    /// The same of those from a number on.
    async fn in_order_from(&self, users: usize, from: usize, each: usize) {
        self.wait_rows(users * (from + each)).await;
        let sql = format!(
            "SELECT count(*), count(DISTINCT event_id),
                    count(*) FILTER (WHERE n <> {from} + place - 1)
             FROM (SELECT event_id, n, row_number() OVER (PARTITION BY user_id ORDER BY id) AS place
                   FROM (SELECT *, (event_data->>'n')::int AS n FROM user_interactions
                         WHERE event_type = 'step') AS steps
                   WHERE n >= {from}) AS log"
        );
        let postgres = Postgres::shared().await;
        let row = &postgres.query(&self.database, &sql, &[]).await[0];
        let found: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
        let count = (users * each) as i64;
        let expected = [count, count, 0];
        if found != expected {
            // Each user's numbers as the log has them.
            let sql = "SELECT user_id || ': ' || string_agg(event_data->>'n', ' ' ORDER BY id)
                       FROM user_interactions WHERE event_type = 'step' GROUP BY user_id";
            for row in postgres.query(&self.database, sql, &[]).await {
                println!("{}", row.get::<_, String>(0));
            }
        }
        assert_eq!(found, expected, "rows, ids, out of place");
    }
}

fn event(user: &str, n: usize) -> Value {
    json!({"id": format!("{user}-{n}"), "userId": user, "eventType": "step", "eventData": {"n": n}})
}

/// Users who each send one event after the other, each when the one before was taken; what is not
/// taken is repeated, at another replica.
#[derive(Clone)]
struct Users {
    urls: Arc<Vec<String>>,
    client: reqwest::Client,
    taken: Arc<AtomicUsize>,
}

impl Users {
    fn of(urls: Vec<String>) -> Self {
        Self {
            urls: Arc::new(urls),
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(15))
                .build()
                .unwrap(),
            taken: Arc::default(),
        }
    }

    /// `from..from + each` of every user.
    async fn send(&self, users: usize, from: usize, each: usize) {
        join_all((0..users).map(async |user| {
            for n in from..from + each {
                self.send_one(&format!("u{user}"), n, user + n).await;
            }
        }))
        .await;
    }

    async fn send_one(&self, user: &str, n: usize, first: usize) {
        let mut replica = first;
        eventually(SOON, "the event is taken", async || {
            let url = &self.urls[replica % self.urls.len()];
            replica += 1;
            let sent = self
                .client
                .post(format!("{url}/v1/events"))
                .header("content-type", "application/json")
                .body(event(user, n).to_string())
                .send()
                .await
                .ok()?;
            let status = sent.status().as_u16();
            assert!(status == 202 || status == 503, "{status}");
            (status == 202).then_some(())
        })
        .await;
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    async fn wait_taken(&self, count: usize) {
        eventually(SOON, "so many are taken", async || {
            (self.taken.load(Ordering::Relaxed) >= count).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn settings_that_contradict_an_order_are_refused_in_words() {
    let refused = async |key: &str, value: &str, full: bool| {
        let mut builder = App::builder().set("broker.order", "user").set(key, value);
        if full {
            builder = builder
                .postgres("postgres://127.0.0.1:1/none")
                .rabbitmq("amqp://127.0.0.1:1");
        }
        let (status, told) = builder.refused().await;
        assert!(!status.success());
        told
    };
    let told = refused("broker.fallback", "store", true).await;
    assert!(
        told.contains("broker.order, broker.fallback contradict"),
        "{told}"
    );
    let told = refused("environment", "test", false).await;
    assert!(told.contains("mode embedded has no RabbitMQ"), "{told}");
}
