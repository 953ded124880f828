//! `Roster`: starts the followers of a process, also those that are declared while it runs.

use super::driver::{Driver, DriverSource};
use super::follower::{Follower, FollowerParams};
use super::log_end::LogWatch;
use super::registry::Work;
use crate::maintenance::leader::{Leader, LeaderParams};
use crate::store::followers::lease_name;
use crate::store::{Store, StoreError};
use crate::supervision::{Backoff, Mailbox, Starter};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use actix_rt::Arbiter;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// First and longest pause after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What a roster is wired to.
pub(super) struct RosterParams {
    pub(super) sources: Vec<Arc<dyn DriverSource>>,
    pub(super) starter: Starter,
    /// The thread of the leases, and that of the followers.
    pub(super) arbiters: (Arbiter, Arbiter),
    /// Followers that may hold a chunk at a time.
    pub(super) turns: Arc<Semaphore>,
    pub(super) lease_ttl: Duration,
    pub(super) store: Arc<dyn Store>,
    pub(super) watch: LogWatch,
}

/// Starts the followers of a process.
pub struct Roster {
    shared: Arc<Shared>,
}

struct Shared {
    params: RosterParams,
    /// By name.
    started: Mutex<HashMap<String, StartedFollower>>,
}

/// The actors of a follower. Kept because an actor without an address is not restarted.
struct StartedFollower {
    _leader: Mailbox<Leader>,
    _follower: Mailbox<Follower>,
}

impl Roster {
    /// Starts these followers, and from then on those of the sources.
    pub(super) fn start(params: RosterParams, works: Vec<Work>) -> Mailbox<Self> {
        let shared = Arc::new(Shared {
            params,
            started: Mutex::default(),
        });
        for work in works {
            shared.start(work);
        }
        let starter = &shared.params.starter;
        let (mailbox, inbox) = starter.mailbox("roster", 0, 1);
        let roster = Self {
            shared: Arc::clone(&shared),
        };
        starter.start(&shared.params.arbiters.0, inbox, roster);
        mailbox
    }
}

impl Actor for Roster {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let shared = Arc::clone(&self.shared);
        let lifecycle = shared.params.starter.lifecycle.clone();
        ctx.spawn(
            async move {
                lifecycle.unless_draining(shared.look_for_drivers()).await;
            }
            .into_actor(self),
        );
    }
}

// A restart asks the sources again.
impl Supervised for Roster {}

impl Shared {
    /// Asks the sources now and after each command, and starts what is new. Never ends.
    async fn look_for_drivers(&self) {
        let mut commands = self.params.watch.commands();
        let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
        loop {
            match self.drivers().await {
                Ok(drivers) => {
                    backoff.reset();
                    for driver in drivers {
                        self.start(Work::Drive(driver));
                    }
                    // The sender lives in `self`, so waiting cannot fail.
                    let _ = commands.changed().await;
                }
                Err(error) => {
                    let pause = backoff.next_pause();
                    tracing::warn!(
                        kind = error.kind().as_str(),
                        %error,
                        again_in_ms = pause.as_millis() as u64,
                        "the declared followers cannot be read"
                    );
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    async fn drivers(&self) -> Result<Vec<Arc<dyn Driver>>, StoreError> {
        let mut drivers = Vec::new();
        for source in &self.params.sources {
            drivers.extend(source.drivers().await?);
        }
        Ok(drivers)
    }

    /// Starts a follower, unless one of its name is started.
    fn start(&self, work: Work) {
        let RosterParams {
            starter,
            arbiters: (leases, works),
            store,
            ..
        } = &self.params;
        let mut started = self.started.lock();
        let index = started.len();
        let Entry::Vacant(place) = started.entry(work.name().to_owned()) else {
            return;
        };
        let (actor, leadership) = Leader::new(LeaderParams {
            name: lease_name(work.name()),
            ttl: self.params.lease_ttl,
            store: store.clone(),
            lifecycle: starter.lifecycle.clone(),
            metrics: Arc::clone(&starter.metrics),
        });
        let (leader, inbox) = starter.mailbox("follower_leader", index, 1);
        starter.start(leases, inbox, actor);
        let (follower, inbox) = starter.mailbox("follower", index, 1);
        let params = FollowerParams {
            work,
            leadership,
            log: store.clone(),
            store: store.clone(),
            watch: self.params.watch.clone(),
            turns: Arc::clone(&self.params.turns),
            lifecycle: starter.lifecycle.clone(),
            metrics: Arc::clone(&starter.metrics),
        };
        starter.start(works, inbox, Follower::new(params));
        place.insert(StartedFollower {
            _leader: leader,
            _follower: follower,
        });
    }
}
