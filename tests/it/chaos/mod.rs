//! A long run under load in which everything that can be killed, cut or stopped is, at random.
//!
//! The clients offer events at a steady rate whatever happens. A strike comes only while requests
//! are under way and after events have been taken since the last one; what it harmed is healed, and
//! at the end the model says what became of every event.

mod plan;
mod report;
mod strike;
mod watch;
mod world;

pub use plan::{Mode, Plan};
pub use report::{Report, Verdict};

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::sleep;

use crate::harness::{Counted, Load, LoadPlan, Log, miscounted};
use strike::{Strike, Tally};
use watch::Watch;
use world::World;

/// A little above what the issue asks for, so that the run's ragged ends don't take it below.
const EVENTS_PER_SECOND: usize = 2_100;
const CONNECTIONS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(45);
/// For everything to work again after a strike, and for the backlog to drain at the end.
const RECOVERY: Duration = Duration::from_secs(120);
/// Events taken between two strikes, at least.
const BETWEEN: usize = 500;

/// Does as planned; prints what happens as it happens.
pub async fn run(plan: &Plan) -> Report {
    let mut random = StdRng::seed_from_u64(plan.seed);
    println!(
        "chaos: mode {}, {:?}, seed {}",
        plan.mode, plan.time, plan.seed
    );
    let mut world = World::build(plan.mode).await;
    let mut tally = Tally::default();
    let watch = Watch::start(&world);
    let load = Load::start(LoadPlan {
        doors: world.doors(),
        events_per_second: EVENTS_PER_SECOND,
        connections: CONNECTIONS,
        patience: PATIENCE,
        seed: plan.seed.wrapping_add(1),
        ordered: plan.mode == Mode::Ordered,
    });
    let began = Instant::now();
    let mut recovered = true;
    while recovered {
        recovered = work_goes_on(&load).await;
        if !recovered || began.elapsed() >= plan.time {
            break;
        }
        sleep(random.random_range(Duration::ZERO..plan.pause)).await;
        let strike = Strike::choose(&mut random, &world);
        println!(
            "{:>6.1} s  {:>8} taken  {strike}",
            began.elapsed().as_secs_f64(),
            load.taken()
        );
        let harm = random.random_range(Duration::ZERO..plan.harm);
        let passes = random.random_range(0..30);
        world.suffer(strike, harm, passes, &mut tally).await;
        watch.follow(&world);
    }
    let offering = began.elapsed();
    // What the clients still hold is part of the run: they repeat it until their patience ends.
    load.stop(PATIENCE + RECOVERY).await;
    world.heal().await;
    watch.follow(&world);
    let drained = drained(&world, &load).await;
    let miscounted = counted_right(&world).await;
    Report {
        plan: plan.clone(),
        offering,
        recovered,
        drained: drained.is_some(),
        miscounted,
        findings: match drained {
            Some(findings) => findings,
            None => load.model.check(world.log()).await,
        },
        counts: load.counts.clone(),
        complaints: load.complaints(),
        tally,
        seen: watch.stop(),
    }
}

/// Waits until work is in flight and events have been taken. `false` if none are any more.
async fn work_goes_on(load: &Load) -> bool {
    let before = load.taken();
    let began = Instant::now();
    while load.taken() < before + BETWEEN || load.pending() == 0 {
        if began.elapsed() > RECOVERY {
            return false;
        }
        sleep(Duration::from_millis(20)).await;
    }
    true
}

/// Waits until every promised event is where it belongs, and gives the whole check of it.
async fn drained(world: &World, load: &Load) -> Option<crate::harness::Findings> {
    let began = Instant::now();
    while began.elapsed() < RECOVERY {
        if world.is_idle().await {
            let findings = load.model.check(world.log()).await;
            if findings.lost.is_empty() {
                return Some(findings);
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
    None
}

/// Waits until the followers have counted what the log has, and gives what differs at the end.
async fn counted_right(world: &World) -> Vec<String> {
    let began = Instant::now();
    let (database, file) = world.counted();
    let place = match database {
        Some(url) => Counted::Postgres(url),
        None => Counted::Sqlite(&file),
    };
    loop {
        let differences = miscounted(&place).await;
        if differences.is_empty() || began.elapsed() > RECOVERY {
            return differences;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

impl World {
    fn log(&self) -> Log<'_> {
        match self.database() {
            Some(url) => Log::Postgres(url),
            None => Log::Http(self.first_url()),
        }
    }
}
