//! The load generator: many connections on few threads, each of which sends events and remembers
//! which ones the server has said yes to.

mod connection;

use crate::http::Target;
use crate::latency::Latency;
use crate::schedule::{Pace, Schedule};
use crate::thread;
use indicatif::ProgressBar;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

/// What to send, and how fast.
#[derive(Debug, Clone)]
pub struct Load {
    pub target: Target,
    /// Connections, over all threads.
    pub connections: usize,
    pub threads: usize,
    /// Events in a request as an array; 0 is one event alone.
    pub array: usize,
    /// Bytes of an event.
    pub event_bytes: usize,
    /// Requests a second (open loop), or `None` for as fast as they are answered.
    pub rate: Option<f64>,
    pub duration: Duration,
    /// Most requests that are sent.
    pub requests: u64,
}

impl Load {
    /// Events in a request.
    pub fn events_each(&self) -> usize {
        self.array.max(1)
    }
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Ids of all events that the server said yes to.
    pub accepted: Vec<Uuid>,
    /// Ids of events whose requests were refused, or never answered: they may be stored or not.
    pub unsure: Vec<Uuid>,
    /// Requests answered with a status other than 2xx.
    pub refused: u64,
    /// Requests without an answer.
    pub broken: u64,
    /// Answers with 2xx that do not name the ids they answer for, or report them as dead-lettered.
    pub strange: u64,
    /// From the intended time to the answer, for requests that were accepted.
    pub latency: Latency,
    /// When the first request was due.
    pub began: Instant,
    /// When the last answer was there.
    pub ended: Instant,
}

impl Sent {
    fn new(began: Instant) -> anyhow::Result<Self> {
        Ok(Self {
            accepted: Vec::new(),
            unsure: Vec::new(),
            refused: 0,
            broken: 0,
            strange: 0,
            latency: Latency::new()?,
            began,
            ended: began,
        })
    }

    /// Nothing.
    ///
    /// # Errors
    /// The histogram's, which do not occur.
    pub fn nothing() -> anyhow::Result<Self> {
        Self::new(Instant::now())
    }

    /// Adds what another thread or run did.
    pub fn add(&mut self, other: Self) -> anyhow::Result<()> {
        self.accepted.extend(other.accepted);
        self.unsure.extend(other.unsure);
        self.refused += other.refused;
        self.broken += other.broken;
        self.strange += other.strange;
        self.latency.add(&other.latency)?;
        self.began = self.began.min(other.began);
        self.ended = self.ended.max(other.ended);
        Ok(())
    }

    /// Events accepted in a second.
    pub fn rate(&self) -> f64 {
        let seconds = (self.ended - self.began).as_secs_f64();
        self.accepted.len() as f64 / seconds.max(0.000_001)
    }
}

/// What the connections of a thread share.
struct Shared {
    load: Load,
    pace: Pace,
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

/// Ends the threads when it is dropped.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends it all, and shows on the bar how far it is.
///
/// # Errors
/// When a thread cannot be started, or has crashed.
pub async fn send(load: &Load, bar: &ProgressBar) -> anyhow::Result<Sent> {
    if load.duration.is_zero() {
        return Sent::nothing();
    }
    let threads = load.threads.clamp(1, load.connections.max(1));
    let answered = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let _stop = StopOnDrop(Arc::clone(&stop));
    // Time for all threads to be there.
    let began = Instant::now() + Duration::from_millis(50);
    let mut running = Vec::new();
    for number in 0..threads {
        let mut share = load.clone();
        share.connections =
            load.connections / threads + usize::from(number < load.connections % threads);
        share.rate = load.rate.map(|rate| rate / threads as f64);
        share.requests = load.requests.div_ceil(threads as u64);
        let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
        running.push(thread::run("bench-load", async move || {
            drive(share, number, began, answered, stop).await
        })?);
    }
    let watch = async {
        let mut every = tokio::time::interval(Duration::from_millis(200));
        loop {
            every.tick().await;
            let seconds = Instant::now()
                .saturating_duration_since(began)
                .as_secs_f64();
            let events = answered.load(Ordering::Relaxed) * load.events_each() as u64;
            bar.set_position((seconds * 1_000.0) as u64);
            bar.set_message(format!(
                "{:.0} events/s",
                events as f64 / seconds.max(0.001)
            ));
        }
    };
    let all = async {
        let mut total = Sent::new(began)?;
        for thread in running {
            total.add(thread.await?)?;
        }
        anyhow::Ok(total)
    };
    tokio::select! {
        total = all => total,
        () = watch => anyhow::bail!("the load was not watched"),
    }
}

async fn drive(
    load: Load,
    thread: usize,
    began: Instant,
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Sent> {
    let pace = match load.rate {
        None => Pace::Closed {
            until: began + load.duration,
            left: AtomicU64::new(load.requests),
        },
        Some(rate) => Pace::Open(Schedule::new(began, rate, load.duration).at_most(load.requests)),
    };
    let connections = load.connections;
    let shared = Arc::new(Shared {
        load,
        pace,
        answered,
        stop,
    });
    let mut tasks = JoinSet::new();
    for number in 0..connections {
        let source = u16::try_from(thread * 4_096 + number).unwrap_or(u16::MAX);
        tasks.spawn(connection::run(Arc::clone(&shared), source, began));
    }
    let all = async {
        let mut total = Sent::new(began)?;
        while let Some(sent) = tasks.join_next().await {
            total.add(sent??)?;
        }
        anyhow::Ok(total)
    };
    let clock = async {
        if let Pace::Open(schedule) = &shared.pace {
            schedule.run().await?;
        }
        anyhow::Ok(())
    };
    let (total, clock) = futures::join!(all, clock);
    clock?;
    total
}
