//! Clients that write to the tables of a shop all the time, at random and side by side.

use super::shop::{CAUGHT_UP, TABLES};
use crate::harness::eventually;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, NoTls};

/// Rows of a table that are written to.
const ROWS: i64 = 150;
/// The pause between two transactions of a writer. It bounds what is written while a test waits for something else.
const PAUSE: Duration = Duration::from_millis(20);
/// Two writers may meet in a deadlock, which the server ends after this time.
const SESSION: &str = "SET deadlock_timeout = '20ms'";

/// Writers that run until they are told to stop.
pub struct Writers {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    done: AtomicUsize,
    stopped: AtomicBool,
    /// Whether the tables have the column `note`.
    is_wide: AtomicBool,
}

impl Writers {
    /// So many writers to the database of this URL.
    pub fn start(url: &str, number: u64, seed: u64) -> Self {
        let shared = Arc::<Shared>::default();
        let write = |n| {
            let writer = Writer {
                url: url.to_owned(),
                random: StdRng::seed_from_u64(seed.wrapping_add(n)),
                shared: Arc::clone(&shared),
            };
            tokio::spawn(writer.run())
        };
        Self {
            tasks: (0..number).map(write).collect(),
            shared,
        }
    }

    /// Waits until so many more transactions have ended.
    pub async fn more(&self, number: usize) {
        let wanted = self.shared.done.load(Ordering::SeqCst) + number;
        eventually(CAUGHT_UP, "more is written", async || {
            (self.shared.done.load(Ordering::SeqCst) >= wanted).then_some(())
        })
        .await;
    }

    /// Adds a column to all tables, which is written to from then on.
    pub async fn add_column(&self, url: &str) {
        for table in TABLES {
            let add = format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS note text");
            // The writers may make it the victim of a deadlock.
            eventually(CAUGHT_UP, "the column is added", async || {
                connect(url).await?.batch_execute(&add).await.ok()
            })
            .await;
        }
        self.shared.is_wide.store(true, Ordering::SeqCst);
    }

    /// Waits until the writers have ended what they were at; gives how many transactions there were.
    pub async fn stop(&mut self) -> usize {
        self.shared.stopped.store(true, Ordering::SeqCst);
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
        self.shared.done.load(Ordering::SeqCst)
    }
}

async fn connect(url: &str) -> Option<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
    tokio::spawn(connection);
    client.batch_execute(SESSION).await.ok()?;
    Some(client)
}

struct Writer {
    url: String,
    random: StdRng,
    shared: Arc<Shared>,
}

impl Writer {
    async fn run(mut self) {
        let mut ticks = tokio::time::interval(PAUSE);
        let mut client = None;
        while !self.shared.stopped.load(Ordering::SeqCst) {
            ticks.tick().await;
            let Some(connected) = &client else {
                client = connect(&self.url).await;
                continue;
            };
            if self.transaction(connected).await.is_err()
                && connected.batch_execute("ROLLBACK").await.is_err()
            {
                // Whether a COMMIT without an answer was carried out, the tables know.
                client = None;
            }
            self.shared.done.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Some statements, one after the other, so that those of other writers come between them. Some transactions are
    /// rolled back, as a whole or in part.
    async fn transaction(&mut self, client: &Client) -> Result<(), Error> {
        client.batch_execute("BEGIN").await?;
        for _ in 0..self.random.random_range(1..6) {
            let statement = self.statement();
            let all = match self.random.random_bool(0.1) {
                true => format!("SAVEPOINT s; {statement}; ROLLBACK TO s"),
                false => statement,
            };
            client.batch_execute(&all).await?;
        }
        let end = match self.random.random_bool(0.1) {
            true => "ROLLBACK",
            false => "COMMIT",
        };
        client.batch_execute(end).await
    }

    fn statement(&mut self) -> String {
        let is_wide = self.shared.is_wide.load(Ordering::SeqCst);
        let random = &mut self.random;
        let table = TABLES[random.random_range(0..TABLES.len())];
        let (id, other) = (random.random_range(0..ROWS), random.random_range(0..ROWS));
        let number: u32 = random.random();
        let quantity = number % 1000;
        let choice = random.random_range(0..100);
        // Long enough to be stored apart from its row, and not to be compressed.
        let mut long = || -> String {
            let words = (0..600).map(|_| format!("{:08x}", random.random::<u32>()));
            words.collect()
        };
        match choice {
            0..35 => format!(
                "INSERT INTO {table} (id, name, quantity, body) VALUES ({id}, 'n{number}', {quantity}, '{}') \
                 ON CONFLICT (id) DO UPDATE SET name = excluded.name",
                long()
            ),
            35..58 => format!("UPDATE {table} SET quantity = {quantity} WHERE id = {id}"),
            58..68 => format!("UPDATE {table} SET body = '{}' WHERE id = {id}", long()),
            68..80 => format!(
                "UPDATE {table} SET id = {other} WHERE id = {id} \
                 AND NOT EXISTS (SELECT FROM {table} WHERE id = {other})"
            ),
            80..95 => format!("DELETE FROM {table} WHERE id = {id}"),
            95 => "TRUNCATE public.sale".to_owned(),
            96 => format!(
                "UPDATE {table} SET quantity = {quantity} WHERE id % 3 = {}",
                id % 3
            ),
            _ if is_wide => format!("UPDATE {table} SET note = 'x{number}' WHERE id = {id}"),
            _ => format!("UPDATE {table} SET name = name WHERE id = {id}"),
        }
    }
}
