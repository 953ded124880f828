//! Clients that behave well: they send events, and repeat what was not taken with the same ids
//! until it is.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use super::eventually;
use super::model::Model;

const TICK: Duration = Duration::from_millis(10);
/// Requests that wait for a connection. What comes on top is offered and not taken.
const QUEUE: usize = 10_000;
/// A client that hears nothing for so long repeats its request.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
const COMPLAINTS_KEPT: usize = 10;

/// How to load it.
#[derive(Clone)]
pub struct LoadPlan {
    /// Base URLs. A request goes to one, its repetition to the next.
    pub doors: Vec<String>,
    pub events_per_second: usize,
    pub connections: usize,
    /// How long a request is repeated before its client gives up.
    pub patience: Duration,
    pub seed: u64,
    /// Each user's next request is sent when the one before was taken, so that the log must keep
    /// their order.
    pub ordered: bool,
}

/// Events, but for the last two.
#[derive(Default)]
pub struct Counts {
    /// Made, whether sent or not.
    pub offered: AtomicUsize,
    pub taken: AtomicUsize,
    /// Not taken within the client's patience.
    pub given_up: AtomicUsize,
    /// Requests answered 503 or 429.
    pub refused: AtomicUsize,
    /// Requests that were not answered at all.
    pub broken: AtomicUsize,
    /// Requests under way or waiting for a connection.
    pub pending: AtomicUsize,
}

/// Running clients; they end with its drop.
pub struct Load {
    pub model: Arc<Model>,
    pub counts: Arc<Counts>,
    stopped: Arc<AtomicBool>,
    complaints: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

struct Job {
    events: Vec<Value>,
    made: Instant,
}

impl Load {
    pub fn start(plan: LoadPlan) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let queue = Arc::new(tokio::sync::Mutex::new(queue));
        let mut load = Self {
            model: Arc::default(),
            counts: Arc::default(),
            stopped: Arc::default(),
            complaints: Arc::default(),
            _tasks: JoinSet::new(),
        };
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(CLIENT_TIMEOUT)
            .build()
            .unwrap();
        for number in 0..plan.connections {
            let client = Client {
                client: client.clone(),
                plan: plan.clone(),
                number,
                model: Arc::clone(&load.model),
                counts: Arc::clone(&load.counts),
                complaints: Arc::clone(&load.complaints),
            };
            let queue = Arc::clone(&queue);
            load._tasks.spawn(async move {
                while let Some(job) = { queue.lock().await.recv().await } {
                    client.work(job).await;
                    client.counts.pending.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
        let producing = produce(
            plan,
            jobs,
            Arc::clone(&load.counts),
            Arc::clone(&load.stopped),
        );
        load._tasks.spawn(producing);
        load
    }

    pub fn taken(&self) -> usize {
        self.counts.taken.load(Ordering::SeqCst)
    }

    pub fn pending(&self) -> usize {
        self.counts.pending.load(Ordering::SeqCst)
    }

    /// Returns when so many more events have been taken than at the call.
    pub async fn taken_more(&self, deadline: Duration, count: usize) {
        let before = self.taken();
        eventually(deadline, "more events are taken", async || {
            (self.taken() >= before + count).then_some(())
        })
        .await;
    }

    /// Makes no more events, and returns when every client has what it wants or has given up.
    pub async fn stop(&self, deadline: Duration) {
        self.stopped.store(true, Ordering::SeqCst);
        eventually(deadline, "every request is answered", async || {
            (self.pending() == 0).then_some(())
        })
        .await;
    }

    /// Answers that no well-behaved client should ever get.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }
}

/// Mostly arrays of 10 to 50 events, and single ones. Keeps to the clock whatever becomes of them.
async fn produce(
    plan: LoadPlan,
    jobs: mpsc::Sender<Job>,
    counts: Arc<Counts>,
    stopped: Arc<AtomicBool>,
) {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let began = Instant::now();
    let mut offered = 0;
    loop {
        ticks.tick().await;
        let due = began.elapsed().as_secs_f64() * plan.events_per_second as f64;
        while (offered as f64) < due {
            if stopped.load(Ordering::SeqCst) {
                return;
            }
            let size = match random.random_range(0..4) {
                0 => 1,
                _ => random.random_range(10..=50),
            };
            let events = (0..size).map(|n| event(&mut random, offered + n)).collect();
            offered += size;
            counts.offered.fetch_add(size, Ordering::SeqCst);
            counts.pending.fetch_add(1, Ordering::SeqCst);
            let made = Instant::now();
            if jobs.try_send(Job { events, made }).is_err() {
                counts.pending.fetch_sub(1, Ordering::SeqCst);
                counts.given_up.fetch_add(size, Ordering::SeqCst);
            }
        }
    }
}

/// An event with an id of every kind, and fields that are easily mangled.
pub fn event(random: &mut StdRng, number: usize) -> Value {
    const TEXTS: &[&str] = &[
        "plain",
        "Ünïcödé 事件 🚪",
        "\"quoted\" \\ and \t tabbed\nlines",
        "{\"json\": [1, 2]}",
        "",
        "NULL, $1, {a,b}",
    ];
    let bytes: [u8; 10] = random.random();
    let id = match random.random_range(0..10) {
        0 => format!("caller-{number}-{:x}", random.random::<u64>()),
        1 | 2 => uuid::Builder::from_random_bytes(random.random())
            .into_uuid()
            .to_string(),
        _ => {
            let now = chrono::Utc::now().timestamp_millis().unsigned_abs();
            let builder = uuid::Builder::from_unix_timestamp_millis(now, &bytes);
            Uuid::to_string(&builder.into_uuid())
        }
    };
    let mut event = json!({
        "id": id,
        "userId": format!("user-{}", random.random_range(0..1_000)),
        "eventType": format!("chaos.type-{}", random.random_range(0..7)),
        "eventData": {
            "number": number,
            "text": TEXTS[random.random_range(0..TEXTS.len())],
            "price": f64::from(random.random_range(0..100_000u32)) / 100.0,
            "big": i64::MAX - i64::from(random.random::<u32>()),
            "flags": [true, false, null],
            "nested": {"b": {"a": []}, "a": random.random::<u32>()},
            "padding": "x".repeat(random.random_range(0..200)),
        },
    });
    if random.random_bool(0.9) {
        event["sessionId"] = format!("session-{}", random.random_range(0..5_000)).into();
    }
    if random.random_bool(0.9) {
        let micros = random.random_range(1_000_000_000_000_000..2_000_000_000_000_000);
        let time = chrono::DateTime::from_timestamp_micros(micros).expect("in range");
        event["timestamp"] = time.to_rfc3339().into();
    }
    event
}

struct Client {
    client: reqwest::Client,
    plan: LoadPlan,
    number: usize,
    model: Arc<Model>,
    counts: Arc<Counts>,
    complaints: Arc<Mutex<Vec<String>>>,
}

impl Client {
    /// Sends a request until it is taken or the client's patience has ended.
    async fn work(&self, mut job: Job) {
        /// Users of each client.
        const USERS: usize = 8;
        let count = job.events.len();
        if self.plan.ordered {
            for (n, event) in job.events.iter_mut().enumerate() {
                event["userId"] = format!("user-{}-{}", self.number, n % USERS).into();
            }
        }
        for event in &job.events {
            self.model.sending(event, "http");
        }
        let body = match job.events.as_slice() {
            [single] => single.to_string(),
            many => Value::from(many).to_string(),
        };
        let (mut tries, mut pause) = (self.number, FIRST_PAUSE);
        while job.made.elapsed() < self.plan.patience {
            if self.post(tries, &body).await {
                job.events.iter().for_each(|event| self.model.taken(event));
                if self.plan.ordered {
                    self.model.taken_in_order(&job.events);
                }
                self.counts.taken.fetch_add(count, Ordering::SeqCst);
                return;
            }
            tries += 1;
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.counts.given_up.fetch_add(count, Ordering::SeqCst);
    }

    async fn post(&self, tries: usize, body: &str) -> bool {
        let door = &self.plan.doors[tries % self.plan.doors.len()];
        let request = self.client.post(format!("{door}/v1/events"));
        let request = request.header(CONTENT_TYPE, "application/json");
        let Ok(response) = request.body(body.to_owned()).send().await else {
            self.counts.broken.fetch_add(1, Ordering::SeqCst);
            return false;
        };
        let status = response.status().as_u16();
        match status {
            // The status is the promise; that the rest of the answer is cut off changes nothing.
            202 => return true,
            // A connection that lay in the pool unused for too long; RFC 9110 (15.5.9) has the
            // client repeat its request on another.
            408 => {
                self.counts.broken.fetch_add(1, Ordering::SeqCst);
                return false;
            }
            503 | 429 => {
                self.counts.refused.fetch_add(1, Ordering::SeqCst);
                if response.headers().contains_key("retry-after") {
                    return false;
                }
                self.complain(format!("{status} without Retry-After"));
            }
            _ => {
                let text = response.text().await.unwrap_or_default();
                self.complain(format!("{status} {text}"));
            }
        }
        false
    }

    fn complain(&self, complaint: String) {
        let mut complaints = self.complaints.lock().unwrap();
        if complaints.len() < COMPLAINTS_KEPT {
            complaints.push(complaint);
        }
    }
}
