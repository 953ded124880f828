//! Faults at random moments while events come: what a consumer of the stream gets from the beginning is the
//! log, and each event comes for the first time where the log has it.

use super::*;
use crate::followers::on_both_stores;
use crate::harness::{Direction, Proxy, RabbitMq, free_port};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::task::JoinHandle;

on_both_stores! {
    first_deliveries_are_the_log_in_its_order_whatever_is_killed,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillApp,
    /// Between the confirms and the position.
    KillAppAtPosition,
    KillRabbitMq,
    Cut,
    Reset,
    Swallow(Direction),
    Pause,
}

const FAULTS: [Fault; 10] = [
    Fault::KillApp,
    Fault::KillApp,
    Fault::KillAppAtPosition,
    Fault::KillRabbitMq,
    Fault::KillRabbitMq,
    Fault::Cut,
    Fault::Reset,
    Fault::Swallow(Direction::Up),
    Fault::Swallow(Direction::Down),
    Fault::Pause,
];

/// Clients that send events all the time, and each until it is taken.
struct Source {
    taken: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    sending: JoinHandle<()>,
}

impl Source {
    fn start(url: String) -> Self {
        let (taken, stopped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (counter, end) = (Arc::clone(&taken), Arc::clone(&stopped));
        let sending = tokio::task::spawn_local(async move {
            let client = reqwest::Client::builder().no_proxy().timeout(SOON);
            let client = client.build().unwrap();
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            while !end.load(Ordering::SeqCst) {
                ticks.tick().await;
                let from = counter.load(Ordering::SeqCst);
                let events: Value = (from..from + 20)
                    .map(|n| json!({"id": format!("e{n}"), "userId": "u", "eventType": format!("t{}", n % 3)}))
                    .collect();
                let taken = eventually(SOON, "the events are taken", async || {
                    let sent = client.post(format!("{url}/v1/events")).json(&events).send();
                    sent.await.ok()?.status().is_success().then_some(())
                });
                taken.await;
                counter.fetch_add(20, Ordering::SeqCst);
            }
        });
        Self {
            taken,
            stopped,
            sending,
        }
    }

    /// Waits until so many more are taken.
    async fn more(&self, count: usize) {
        let before = self.taken.load(Ordering::SeqCst);
        eventually(SOON, "more events are taken", async || {
            (self.taken.load(Ordering::SeqCst) >= before + count).then_some(())
        })
        .await;
    }

    async fn stop(self) -> usize {
        self.stopped.store(true, Ordering::SeqCst);
        self.sending.await.unwrap();
        self.taken.load(Ordering::SeqCst)
    }
}

struct Setting {
    app: App,
    rabbitmq: RabbitMq,
    net: Proxy,
    source: Source,
    random: StdRng,
}

impl Setting {
    async fn strike(&mut self, fault: Fault) {
        let (few, more) = (
            self.random.random_range(0..60),
            self.random.random_range(20..200),
        );
        self.source.more(few).await;
        match fault {
            Fault::KillApp => {
                self.app.kill9();
                self.app.start_again().await;
            }
            Fault::KillAppAtPosition => {
                let point = format!("follower.sent/{FOLLOWER}");
                // The answer may be lost with the process.
                let _ = self.app.set_failpoint(&point, "1:1:kill").await;
                eventually(SOON, "it dies", async || {
                    self.app.has_exited().then_some(())
                })
                .await;
                self.app.start_again().await;
            }
            Fault::KillRabbitMq => {
                self.rabbitmq.kill9().await;
                self.source.more(more).await;
                self.rabbitmq.start_again().await;
            }
            Fault::Cut => {
                self.net.cut();
            }
            Fault::Reset => {
                self.net.reset();
            }
            Fault::Swallow(way) => {
                self.net.drop_silently(way);
                self.source.more(more).await;
                self.net.heal();
            }
            Fault::Pause => {
                assert_eq!(command(&self.app, "pause", json!({})).await.0, 200);
                self.source.more(more).await;
                assert_eq!(command(&self.app, "resume", json!({})).await.0, 200);
            }
        }
        // It has gone on before the next one.
        let position = async |app: &App| follower(app).await["position"].clone();
        let before = position(&self.app).await;
        eventually(SOON, &format!("it goes on after {fault:?}"), async || {
            (position(&self.app).await != before).then_some(())
        })
        .await;
    }
}

async fn first_deliveries_are_the_log_in_its_order_whatever_is_killed(place: &Place) {
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut faults = FAULTS;
    faults.shuffle(&mut random);
    let rabbitmq = RabbitMq::start().await;
    let url = rabbitmq.vhost().await;
    let net = Proxy::to(rabbitmq.port()).await;
    let app = place
        .app()
        .set("http.port", free_port())
        .set("outlets", to_stream(&net.url(&url), json!({"window": 50})))
        .set("broker.confirm_timeout", "2s")
        .start()
        .await;
    app.wait_ready().await;
    let mut setting = Setting {
        source: Source::start(app.url().to_owned()),
        app,
        rabbitmq,
        net,
        random,
    };
    // A RabbitMQ that dies while it makes a stream does not find it again, and nothing but its operator can help.
    let sent = [("follower", FOLLOWER)];
    eventually(SOON, "the stream is there", async || {
        let sent = setting
            .app
            .metric_with("eclusa_follower_applied_total", &sent);
        (sent.await > 0.0).then_some(())
    })
    .await;
    for fault in faults {
        setting.strike(fault).await;
    }
    let taken = setting.source.stop().await;
    caught_up(&setting.app).await;
    let log = logged_ids(place, &["*"]).await;
    assert_eq!(log.len(), taken);
    let mut reader = Reader::of_stream(&url, STREAM).await;
    reader.all_of(&log).await;
    let seen = reader.ids();
    println!("{taken} events, {} messages", seen.len());
    assert!(
        first_deliveries(&seen) == log,
        "another order, or another set of events"
    );
}
