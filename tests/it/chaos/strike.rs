//! What may happen, how often of each, and how long it lasts.

use std::fmt;
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::time::sleep;

use super::plan::Mode;
use super::world::World;
use crate::harness::{Direction, Moment, Proxy};

/// For a failpoint or a pattern to be passed; if it is not, the strike came to nothing.
const PASSING: Duration = Duration::from_secs(8);

const POINTS: &[&str] = &[
    "http_ingest.ingest",
    "http_ingest.flush",
    "batch_accumulator.push",
    "batch_accumulator.dispatch",
    "db_writer.write_batch",
    "db_writer.after_commit",
];
const BROKER_POINTS: &[&str] = &[
    "http_ingest.publish",
    "http_ingest.after_confirm",
    "amqp_consumer.acknowledge",
];
const UNORDERED_POINTS: &[&str] = &["amqp_consumer.push"];
const ORDERED_POINTS: &[&str] = &["shard_consumer.push"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    Door(usize),
    Store,
    Broker,
}

#[derive(Debug, Clone, Copy)]
pub enum Strike {
    KillApp(usize),
    KillAppAt(usize, &'static str),
    PanicAt(usize, &'static str),
    KillPostgres,
    KillRabbitMq,
    KillBothServers,
    StopApp(usize),
    StopPostgres,
    StopRabbitMq,
    Cut(Net),
    Reset(Net),
    /// On the connection that carries the next event of a kind.
    CutAt(Net, Direction, Moment),
    Swallow(Net, Direction),
    Delay(Net),
}

/// What was done.
#[derive(Debug, Default)]
pub struct Tally {
    pub kills: usize,
    pub cuts: usize,
    pub stops: usize,
    pub panics: usize,
    /// Processes that ended without having been killed.
    pub crashes: usize,
}

impl Strike {
    /// Of those that this world has something for.
    pub fn choose(random: &mut StdRng, world: &World) -> Self {
        let app = random.random_range(0..world.apps.len());
        let mut nets = vec![Net::Door(app)];
        let mut points = POINTS.to_vec();
        let mut strikes = vec![(5, Self::KillApp(app)), (2, Self::StopApp(app))];
        if world.postgres.is_some() {
            nets.push(Net::Store);
            strikes.extend([(3, Self::KillPostgres), (2, Self::StopPostgres)]);
        }
        if world.rabbitmq.is_some() {
            nets.push(Net::Broker);
            points.extend(BROKER_POINTS);
            points.extend(match world.mode() {
                Mode::Ordered => ORDERED_POINTS,
                _ => UNORDERED_POINTS,
            });
            strikes.extend([
                (2, Self::KillRabbitMq),
                (1, Self::KillBothServers),
                (2, Self::StopRabbitMq),
            ]);
        }
        let net = *nets.choose(random).expect("one at least");
        let point = points.choose(random).expect("one at least");
        let way = *[Direction::Up, Direction::Down]
            .choose(random)
            .expect("two");
        let moment = *[Moment::Before, Moment::Answered]
            .choose(random)
            .expect("two");
        strikes.extend([
            (4, Self::KillAppAt(app, point)),
            (3, Self::PanicAt(app, point)),
            (4, Self::Cut(net)),
            (4, Self::Reset(net)),
            (2, Self::Swallow(net, way)),
            (1, Self::Delay(net)),
            (4, Self::CutAt(net, Direction::Up, moment)),
        ]);
        let chosen = strikes.choose_weighted(random, |(weight, _)| *weight);
        chosen.expect("weights above zero").1
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl World {
    /// One strike, from its beginning to the end of its cause, which lasts for `harm`. A failpoint
    /// is passed so often before it strikes.
    pub async fn suffer(&mut self, strike: Strike, harm: Duration, passes: u32, tally: &mut Tally) {
        self.revive(tally).await;
        match strike {
            Strike::KillApp(app) => {
                self.apps[app].kill9();
                tally.kills += 1;
                sleep(harm).await;
                self.apps[app].spawn_again();
            }
            Strike::KillAppAt(app, point) => {
                if self.arm(app, point, &format!("{passes}:1:kill")).await {
                    tally.kills += 1;
                    sleep(harm).await;
                    self.apps[app].spawn_again();
                }
            }
            Strike::PanicAt(app, point) => {
                let action = format!("{passes}:1:panic");
                let armed = self.apps[app].set_failpoint(point, &action).await;
                tally.panics += usize::from(armed.is_ok());
            }
            Strike::KillPostgres => {
                self.postgres.as_mut().expect("chosen").0.kill9();
                tally.kills += 1;
                sleep(harm).await;
                self.postgres
                    .as_mut()
                    .expect("chosen")
                    .0
                    .start_again()
                    .await;
            }
            Strike::KillRabbitMq => {
                self.rabbitmq.as_mut().expect("chosen").0.kill9().await;
                tally.kills += 1;
                sleep(harm).await;
                self.rabbitmq
                    .as_mut()
                    .expect("chosen")
                    .0
                    .start_again()
                    .await;
            }
            Strike::KillBothServers => {
                let postgres = &mut self.postgres.as_mut().expect("chosen").0;
                let rabbitmq = &mut self.rabbitmq.as_mut().expect("chosen").0;
                rabbitmq.kill9().await;
                postgres.kill9();
                tally.kills += 2;
                sleep(harm).await;
                futures::join!(postgres.start_again(), rabbitmq.start_again());
            }
            Strike::StopApp(app) => {
                self.apps[app].pause();
                tally.stops += 1;
                sleep(harm).await;
                self.apps[app].resume();
            }
            Strike::StopPostgres => {
                self.postgres.as_mut().expect("chosen").0.pause();
                tally.stops += 1;
                sleep(harm).await;
                self.postgres.as_mut().expect("chosen").0.resume();
            }
            Strike::StopRabbitMq => {
                self.rabbitmq.as_mut().expect("chosen").0.pause();
                tally.stops += 1;
                sleep(harm).await;
                self.rabbitmq.as_mut().expect("chosen").0.resume();
            }
            Strike::Cut(net) => tally.cuts += usize::from(self.net(net).cut() > 0),
            Strike::Reset(net) => tally.cuts += usize::from(self.net(net).reset() > 0),
            Strike::CutAt(net, way, moment) => {
                let net = self.net(net);
                let before = net.sprung();
                net.cut_when(way, b"chaos.type-", moment);
                let began = Instant::now();
                while net.sprung() == before && began.elapsed() < PASSING {
                    sleep(Duration::from_millis(10)).await;
                }
                tally.cuts += usize::from(net.sprung() > before);
                net.heal();
            }
            Strike::Swallow(net, way) => {
                let net = self.net(net);
                net.drop_silently(way);
                sleep(harm).await;
                tally.cuts += usize::from(net.open() > 0);
                net.heal();
            }
            Strike::Delay(net) => {
                let net = self.net(net);
                net.delay(Duration::from_millis(20));
                sleep(harm).await;
                net.heal();
            }
        }
    }

    fn net(&self, net: Net) -> &Proxy {
        match net {
            Net::Door(app) => &self.doors[app],
            Net::Store => &self.postgres.as_ref().expect("chosen").1,
            Net::Broker => &self.rabbitmq.as_ref().expect("chosen").1,
        }
    }

    /// Whether the process died of it.
    async fn arm(&mut self, app: usize, point: &str, action: &str) -> bool {
        let app = &mut self.apps[app];
        if app.set_failpoint(point, action).await.is_err() {
            return false;
        }
        let began = Instant::now();
        while began.elapsed() < PASSING {
            if app.has_exited() {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
        // If the answer fails it died just now, and `revive` will count a crash too many; so ask.
        app.set_failpoint(point, "off").await.is_err() && app.has_exited()
    }

    /// Starts what has ended by itself.
    async fn revive(&mut self, tally: &mut Tally) {
        for app in &mut self.apps {
            if app.has_exited() {
                tally.crashes += 1;
                for line in app.logs().iter().rev().take(5).rev() {
                    println!("          it has ended: {line}");
                }
                app.spawn_again();
            }
        }
    }
}
