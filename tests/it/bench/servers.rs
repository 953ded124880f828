//! Servers for a bench, and what of it is on them.

use crate::harness::{Postgres, RabbitMq};
use std::path::Path;

/// A database and a virtual host. On PostgreSQL the bench has a role of its own, which may make
/// databases and nothing else, so that what it has made can be told.
pub struct Servers {
    postgres: &'static Postgres,
    rabbitmq: &'static RabbitMq,
    role: String,
    url: String,
    store: String,
    broker: String,
    vhost: String,
}

impl Servers {
    pub async fn new() -> Self {
        let (postgres, rabbitmq) = (Postgres::shared().await, RabbitMq::shared().await);
        let broker = rabbitmq.vhost().await;
        let vhost = broker.rsplit('/').next().unwrap().to_owned();
        let url = postgres.database().await;
        let role = format!("bench_{vhost}");
        postgres
            .execute(&url, &format!("CREATE ROLE {role} LOGIN CREATEDB"))
            .await;
        let own = url.replace("postgres@", &format!("{role}@"));
        Self {
            postgres,
            rabbitmq,
            role,
            url,
            store: format!("store.url={own}"),
            broker: format!("broker.url={broker}"),
            vhost,
        }
    }

    /// Arguments that name them.
    pub fn settings(&self) -> [&str; 4] {
        ["--set", &self.store, "--set", &self.broker]
    }

    /// The databases that there are of it.
    pub async fn databases(&self) -> usize {
        let sql = "SELECT 1 FROM pg_database WHERE pg_get_userbyid(datdba) = $1";
        let rows = self.postgres.query(&self.url, sql, &[&self.role]).await;
        rows.len()
    }

    /// Queues and exchanges, except the ones that every virtual host has.
    pub async fn names(&self) -> String {
        let vhost = &self.vhost;
        self.rabbitmq
            .eval(&format!(
                "length(rabbit_amqqueue:list(<<\"{vhost}\">>)) + \
                 length(rabbit_exchange:list(<<\"{vhost}\">>)) - 7"
            ))
            .await
    }

    /// Whether all is as it was.
    pub async fn assert_nothing_is_left(&self, folder: &Path) {
        assert_eq!(self.databases().await, 0);
        assert_eq!(self.names().await, "0");
        assert_eq!(folder.read_dir().unwrap().count(), 0);
        let sql = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
        let tables: i64 = self.postgres.query(&self.url, sql, &[]).await[0].get(0);
        assert_eq!(tables, 0, "the user's database is untouched");
    }
}
