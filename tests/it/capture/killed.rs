//! Faults at random moments while several clients write: the records replayed into nothing are what the tables have, and
//! consumers of a stream and of a topic get them in the order of the log.

use super::replay::{assert_replayed, ids};
use super::shop::{self, CAUGHT_UP, Shop};
use super::writers::Writers;
use crate::harness::{Direction, Postgres, Proxy, RabbitMq, eventually, free_port};
use crate::outlets::{Reader, first_deliveries};
use crate::topics::{Ask, Events};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

const STREAM: &str = "changes";
const TYPES: &str = "change.public.*";

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillApp,
    KillPostgres,
    Cut,
    Reset,
    Swallow(Direction),
    AddColumn,
    /// All tables are read again.
    Resnapshot,
}

const FAULTS: [Fault; 10] = [
    Fault::KillApp,
    Fault::KillApp,
    Fault::KillApp,
    Fault::KillPostgres,
    Fault::KillPostgres,
    Fault::Cut,
    Fault::Reset,
    Fault::Swallow(Direction::Down),
    Fault::AddColumn,
    Fault::Resnapshot,
];

/// All faults so often: once in the suite, more by hand.
fn rounds() -> usize {
    let given = std::env::var("ECLUSA_TEST_ROUNDS").ok();
    given.map_or(1, |number| number.parse().unwrap())
}

/// A shop whose parts can fail.
struct Setting {
    shop: Shop,
    postgres: Postgres,
    /// The way from the capture to the captured database.
    net: Proxy,
    writers: Writers,
    random: StdRng,
}

impl Setting {
    /// `outlets` are those of the settings.
    async fn start(embedded: bool, outlets: Value) -> Self {
        let seed = rand::rng().random();
        println!("seed {seed}");
        let postgres = Postgres::start().await;
        let net = Proxy::to(postgres.port()).await;
        let url = shop::tables(&postgres).await;
        shop::fill_stock(&url, 300).await;
        let writers = Writers::start(&url, 4, seed);
        let captures = shop::capture(&net.url(&url));
        let shop = Shop::of(url, embedded, |app| {
            app.set("http.port", free_port())
                .set("captures", captures)
                .set("outlets", outlets)
        });
        Self {
            shop: shop.await,
            postgres,
            net,
            writers,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// All faults, some time after each other.
    async fn suffer(&mut self) {
        for _ in 0..rounds() {
            let mut faults = FAULTS;
            faults.shuffle(&mut self.random);
            for fault in faults {
                let transactions = self.random.random_range(1..60);
                self.writers.more(transactions).await;
                self.strike(fault).await;
                self.goes_on(fault).await;
            }
        }
    }

    async fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::KillApp => {
                self.shop.app.kill9();
                self.shop.app.start_again().await;
            }
            Fault::KillPostgres => {
                self.postgres.kill9();
                self.postgres.start_again().await;
            }
            Fault::Cut => drop(self.net.cut()),
            Fault::Reset => drop(self.net.reset()),
            Fault::Swallow(way) => {
                self.net.drop_silently(way);
                self.writers.more(30).await;
                self.net.heal();
            }
            Fault::AddColumn => self.writers.add_column(&self.shop.url).await,
            Fault::Resnapshot => {
                eventually(CAUGHT_UP, "a new snapshot is asked for", async || {
                    (self.shop.command("resnapshot", &json!({})).await == 200).then_some(())
                })
                .await;
            }
        }
    }

    /// Waits until changes are durable that were not before.
    async fn goes_on(&self, fault: Fault) {
        let position = async || Some(self.shop.shown().await?["position"].clone());
        let before = eventually(CAUGHT_UP, "the store is there", position).await;
        eventually(
            CAUGHT_UP,
            &format!("it goes on after {fault:?}"),
            async || (position().await? != before).then_some(()),
        )
        .await;
    }

    /// The records of all that was written, which are checked.
    async fn end(&mut self) -> Vec<Value> {
        let transactions = self.writers.stop().await;
        let records = self.shop.caught_up().await;
        println!("{transactions} transactions, {} records", records.len());
        assert_replayed(&records, &self.shop.url).await;
        records
    }
}

/// A client of a topic that connects again and goes on behind what it has got.
struct Subscriber {
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Subscriber {
    fn start(url: &str) -> Self {
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let task = subscribe(url.to_owned(), Arc::clone(&seen));
        Self {
            task: tokio::task::spawn_local(task),
            seen,
        }
    }

    /// What it has got, as soon as that is so much.
    async fn seen(self, number: usize) -> Vec<String> {
        let seen = eventually(CAUGHT_UP, "the subscriber has all", async || {
            let seen = self.seen.lock().unwrap().clone();
            (seen.len() >= number).then_some(seen)
        })
        .await;
        self.task.abort();
        seen
    }
}

async fn subscribe(url: String, seen: Arc<Mutex<Vec<String>>>) {
    let mut ask = Ask::from("beginning").of(TYPES);
    loop {
        let response = eventually(CAUGHT_UP, "the server is there", async || {
            let response = ask.send_to(&url).await.ok()?;
            response.status().is_success().then_some(response)
        });
        let mut events = Events::of(response.await);
        while let Ok(Some(block)) = events.try_block().await {
            let id = block.event_id().map(|id| id.to_string());
            seen.lock().unwrap().extend(id);
        }
        if !events.last_id.is_empty() {
            ask = Ask::behind(&events.last_id).of(TYPES);
        }
    }
}

#[actix_rt::test]
async fn records_in_an_embedded_store_equal_the_source_and_consumers_get_them_in_order() {
    let url = RabbitMq::shared().await.vhost().await;
    let outlets = json!([{
        "name": "changes", "types": [TYPES], "url": url, "stream": STREAM, "start": "beginning",
    }]);
    let mut setting = Setting::start(true, outlets).await;
    let subscriber = Subscriber::start(setting.shop.app.url());
    setting.suffer().await;
    let records = setting.end().await;
    let log: Vec<String> = ids(&records).map(str::to_owned).collect();
    assert!(subscriber.seen(log.len()).await == log, "the topic differs");
    let mut reader = Reader::of_stream(&url, STREAM).await;
    reader.all_of(&log).await;
    // A message that was sent before a crash may come again.
    assert!(first_deliveries(&reader.ids()) == log, "the stream differs");
}

/// The store dies with the captured database.
#[actix_rt::test]
async fn records_in_the_captured_database_equal_the_source() {
    let mut setting = Setting::start(false, json!([])).await;
    setting.suffer().await;
    let records = setting.end().await;
    let ask = Ask::from("beginning").of(TYPES).until_the_end();
    let (topic, _) = ask.open(&setting.shop.app).await.rest().await;
    let topic: Vec<String> = topic.iter().map(ToString::to_string).collect();
    assert!(ids(&records).eq(&topic), "the topic differs");
}
