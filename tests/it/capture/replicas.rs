//! Two processes with one capture: one has the slot, and the other goes on when that one dies or stands still.

use super::replay::assert_replayed;
use super::shop::{self, CAUGHT_UP, Shop};
use super::writers::Writers;
use crate::harness::{App, Postgres, connect, eventually};

/// A server notices after this time that a client has fallen silent, and gives its slot free.
const SILENT: &str = "SET wal_sender_timeout = '2s'";

struct Pair {
    shops: [Shop; 2],
    writers: Writers,
}

impl Pair {
    async fn start(seed: u64) -> Self {
        let url = shop::tables(Postgres::shared().await).await;
        let name = url.rsplit('/').next().unwrap();
        let silent = format!("ALTER DATABASE {name} {SILENT}");
        connect(&url).await.batch_execute(&silent).await.unwrap();
        shop::fill_stock(&url, 120).await;
        let writers = Writers::start(&url, 3, seed);
        let first = Shop::of(url.clone(), false, |app| app).await;
        first.until("running").await;
        let second = Shop::of(url, false, |app| app).await;
        second.until("waiting").await;
        let pair = Self {
            shops: [first, second],
            writers,
        };
        pair.shops[0].all_read().await;
        pair
    }

    /// Has something happen to the process that captures, and waits until the other one has the slot.
    async fn takes_over(&mut self, holder: usize, strike: fn(&mut App)) {
        self.writers.more(50).await;
        strike(&mut self.shops[holder].app);
        let other = &self.shops[1 - holder];
        other.until("running").await;
        self.goes_on(1 - holder).await;
    }

    /// Waits until the position moves.
    async fn goes_on(&self, holder: usize) {
        let position = async || Some(self.shops[holder].shown().await?["position"].clone());
        let before = eventually(CAUGHT_UP, "there is a position", position).await;
        eventually(CAUGHT_UP, "the other one goes on", async || {
            (position().await? != before).then_some(())
        })
        .await;
    }

    /// Checks the records of all that was written.
    async fn end(mut self, holder: usize) {
        self.writers.stop().await;
        let shop = &mut self.shops[holder];
        let records = shop.caught_up().await;
        assert_replayed(&records, &shop.url).await;
        assert_eq!(shop.slots().await, 1);
    }
}

#[actix_rt::test]
async fn when_one_is_killed_the_other_goes_on() {
    let mut pair = Pair::start(21).await;
    pair.takes_over(0, App::kill9).await;
    pair.shops[0].app.start_again().await;
    pair.takes_over(1, App::kill9).await;
    pair.end(0).await;
}

#[actix_rt::test]
async fn one_that_stood_still_does_no_harm_when_it_wakes() {
    let mut pair = Pair::start(22).await;
    pair.takes_over(0, App::pause).await;
    pair.writers.more(50).await;
    pair.shops[0].app.resume();
    let view = pair.shops[0].until("waiting").await;
    assert!(
        view["slotState"].is_null() && view["reason"].is_null(),
        "{view}"
    );
    pair.writers.more(50).await;
    pair.goes_on(1).await;
    let captures = async |shop: &Shop| {
        let label = [shop.label()[0], ("state", "running")];
        shop.app.metric_with("eclusa_capture_state", &label).await
    };
    assert_eq!(captures(&pair.shops[0]).await, 0.0);
    assert_eq!(captures(&pair.shops[1]).await, 1.0);
    pair.end(1).await;
}
