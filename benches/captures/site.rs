//! The captured database and the server that captures it.

use crate::Arguments;
use crate::database::{Database, connect};
use crate::place::Place;
use crate::server::Server;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use tokio_postgres::Client;

/// How long a number may stay as it is that is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Site {
    pub place: Place,
    /// The captured database, if the store is a file.
    apart: Option<Database>,
    pub name: String,
    pub client: Client,
}

impl Site {
    /// Makes the table with its rows, and the settings of a capture of it.
    pub async fn create(arguments: &Arguments) -> Self {
        let name = format!("bench_{:08x}", rand::random::<u32>());
        let mut apart = None;
        let mut settings =
            format!("[[captures]]\nname = {name:?}\ntables = [\"public.account\"]\n");
        if arguments.url.is_none() {
            let database = Database::create(&arguments.captured).await;
            settings.push_str(&format!("url = {:?}\n", database.url));
            apart = Some(database);
        }
        let place = Place::create(arguments, settings).await;
        let captured = apart.as_ref().or(place.database.as_ref());
        let client = connect(&captured.expect("a database").url).await;
        let site = Self {
            place,
            apart,
            name,
            client,
        };
        let rows = arguments.rows;
        let make = format!(
            "CREATE TABLE account (id bigint PRIMARY KEY, branch int NOT NULL, balance numeric(14, 2) NOT NULL, \
             filler text NOT NULL); \
             INSERT INTO account SELECT n, n % 100, 0, rpad('', 84, 'x') FROM generate_series(1, {rows}) AS n; \
             ANALYZE account"
        );
        site.client.batch_execute(&make).await.unwrap();
        site
    }

    pub fn url(&self) -> &str {
        let database = self.apart.as_ref().or(self.place.database.as_ref());
        &database.expect("a database").url
    }

    /// Starts the server, and waits until all rows are read.
    pub async fn read(&self) -> Server {
        let server = self.place.server("server").await;
        let mut seen = (0, Instant::now());
        while !self.is_read(&server).await {
            let stored = stored(&server).await;
            if stored > seen.0 {
                seen = (stored, Instant::now());
            }
            assert!(seen.1.elapsed() < PATIENCE, "the rows are not read");
            sleep(Duration::from_millis(100)).await;
        }
        server
    }

    /// Whether the snapshot of the table is complete.
    pub async fn is_read(&self, server: &Server) -> bool {
        let path = format!("/v1/captures/{}", self.name);
        let (status, text) = server.target.get(&path).await.expect("the capture");
        if status == 404 {
            // It has not begun.
            return false;
        }
        assert_eq!(status, 200, "{text}");
        let view: Value = serde_json::from_str(&text).unwrap();
        let mut tables = view["tables"].as_array().expect("tables").iter();
        view["state"] == "running" && tables.all(|table| !table["doneAt"].is_null())
    }

    /// Stops the server, drops the slot and the databases.
    pub async fn drop(self, server: Server) {
        server.stop().await;
        let slot = format!("eclusa_{}", self.name);
        let statement = "SELECT pg_drop_replication_slot($1)";
        self.client
            .execute(statement, &[&slot])
            .await
            .expect("the slot");
        drop(self.client);
        self.place.drop().await;
        if let Some(database) = self.apart {
            database.drop().await;
        }
    }
}

/// Events that this process of the server has stored.
pub async fn stored(server: &Server) -> usize {
    let (_, text) = server.target.get("/metrics").await.expect("metrics");
    let mut values = text
        .lines()
        .filter_map(|line| line.strip_prefix("eclusa_events_stored_total "));
    values.next().expect("the metric").parse().unwrap()
}

/// Waits until so many are stored.
pub async fn until_stored(server: &Server, wanted: usize) {
    let mut seen = (0, Instant::now());
    loop {
        let now = stored(server).await;
        if now >= wanted {
            return;
        }
        if now > seen.0 {
            seen = (now, Instant::now());
        }
        assert!(seen.1.elapsed() < PATIENCE, "{now} of {wanted} are stored");
        sleep(Duration::from_millis(10)).await;
    }
}
