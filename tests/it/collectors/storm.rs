//! Collectors that lose answers, repeat calls and end with messages in hand, while replicas and whole collectors are
//! killed: nothing is lost, nothing acknowledged comes again, and no message is with two streams at once.

use super::example::Drain;
use super::records::{Held, flaws};
use super::replicas::{DRAINED, make, number};
use super::{Answer, Api, fresh_ispb, on, start};
use crate::followers::{Place, on_both_stores};
use crate::harness::{App, Direction, Moment, Proxy, eventually, free_port, temp_dir};
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

on_both_stores! {
    no_message_is_with_two_streams_whatever_is_lost_and_killed,
}

const COLLECTORS: u64 = 4;
const IDLE: Duration = Duration::from_secs(2);
/// More than a message takes.
const PER_MESSAGE: Duration = Duration::from_millis(200);
/// Answers between two kills of a replica.
const BETWEEN: usize = 8;

struct Storm {
    ispb: String,
    streams: AtomicUsize,
    answers: AtomicUsize,
    over: AtomicBool,
}

impl Storm {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    async fn progress(&self, answers: usize) {
        let so_far = self.answers.load(Ordering::Relaxed);
        eventually(DRAINED, "collectors get on, or all is over", async || {
            let more = self.answers.load(Ordering::Relaxed) - so_far;
            (self.is_over() || more >= answers).then_some(())
        })
        .await;
    }

    /// Kills one replica after the other. Returns how often.
    async fn kill_replicas(&self, replicas: &mut [App]) -> usize {
        let (mut kills, count) = (0, replicas.len());
        while !self.is_over() {
            self.progress(BETWEEN).await;
            let replica = &mut replicas[kills % count];
            replica.kill9();
            replica.start_again().await;
            kills += 1;
        }
        kills
    }

    /// Kills the example when it has written something, some times. Returns what it has written.
    async fn kill_examples(&self, api: &Api, folder: &Path) -> Vec<String> {
        let mut written = Vec::new();
        for run in 0..3 {
            self.progress(BETWEEN).await;
            if self.is_over() {
                break;
            }
            let drain = Drain::start(api, &self.ispb, false, &folder.join(format!("{run}")));
            eventually(DRAINED, "it writes, or all is over", async || {
                (self.is_over() || !drain.ids().is_empty()).then_some(())
            })
            .await;
            written.extend(drain.kill());
        }
        written
    }

    /// Waits until nothing waits and nothing is with a stream.
    async fn drained(&self, ways: &[Api], number: usize) {
        let path = format!("/v1/streams/pix/{}", self.ispb);
        let patience = DRAINED + PER_MESSAGE * u32::try_from(number).unwrap();
        let mut calls = 0;
        eventually(patience, "all is collected", async || {
            calls += 1;
            let answer = ways[calls % ways.len()].try_send(Method::GET, &path, None);
            let answer = answer.await.ok()?;
            let place = (answer.status == StatusCode::OK).then(|| answer.json())?;
            let mut sessions = place["sessions"].as_array()?.iter();
            let is_drained = place["waiting"] == 0 && sessions.all(|one| one["leased"] == 0);
            is_drained.then_some(())
        })
        .await;
        self.over.store(true, Ordering::Relaxed);
    }
}

/// An answer, and the times of its call.
struct Got {
    answer: Answer,
    asked: Instant,
    called: Instant,
    came: Instant,
}

/// A collector with a network of its own to each replica.
struct Collector<'a> {
    storm: &'a Storm,
    ways: Vec<(Proxy, Api)>,
    random: StdRng,
    records: Vec<Held>,
}

impl<'a> Collector<'a> {
    async fn new(storm: &'a Storm, ports: &[u16], seed: u64) -> Self {
        let mut ways = Vec::new();
        for port in ports {
            let net = Proxy::to(*port).await;
            let url = net.url(&format!("http://127.0.0.1:{port}"));
            ways.push((net, Api::at(&url, HeaderMap::new())));
        }
        Self {
            storm,
            ways,
            random: StdRng::seed_from_u64(seed),
            records: Vec::new(),
        }
    }

    fn lost(&self) -> u64 {
        self.ways.iter().map(|(net, _)| net.sprung()).sum()
    }

    async fn collect(&mut self) {
        while !self.storm.is_over() {
            self.one_stream().await;
        }
    }

    /// Collects until it ends with an answer in hand, the stream has lapsed, or all is over.
    async fn one_stream(&mut self) -> Option<()> {
        let stream = self.storm.streams.fetch_add(1, Ordering::Relaxed);
        let mut path = start(&self.storm.ispb);
        loop {
            let got = self.ask(&path).await?;
            if self.has_unacknowledged(stream) && got.answer.status != StatusCode::GONE {
                self.last().acknowledged = Some(got.came);
            }
            match got.answer.status {
                StatusCode::GONE => return None,
                StatusCode::OK => self.take(stream, &got),
                _ => {}
            }
            let next = got.answer.next();
            match self.random.random_range(0..12) {
                0 | 1 => return None,
                2 => return self.end(stream, &next).await,
                3..=5 if got.answer.status == StatusCode::OK => {
                    self.ask_again(&path, &got.answer).await?;
                }
                _ => {}
            }
            if self.has_unacknowledged(stream) {
                self.let_go();
            }
            path = next;
        }
    }

    fn take(&mut self, stream: usize, got: &Got) {
        self.storm.answers.fetch_add(1, Ordering::Relaxed);
        self.records.push(Held {
            stream,
            messages: got.answer.ids(),
            asked: got.asked,
            came: got.came,
            until: got.called + IDLE,
            acknowledged: None,
        });
    }

    fn last(&mut self) -> &mut Held {
        self.records.last_mut().unwrap()
    }

    fn has_unacknowledged(&self, stream: usize) -> bool {
        let last = self.records.last();
        last.is_some_and(|last| last.stream == stream && last.acknowledged.is_none())
    }

    /// From now on the last answer may be acknowledged.
    fn let_go(&mut self) {
        let last = self.last();
        last.until = last.until.min(Instant::now());
    }

    /// The same answer once more, also from another replica. The lease begins anew.
    async fn ask_again(&mut self, path: &str, before: &Answer) -> Option<()> {
        if path.ends_with("/start") {
            return Some(());
        }
        let got = self.ask(path).await?;
        if got.answer.status == StatusCode::GONE {
            return None;
        }
        let same = (got.answer.ids(), got.answer.next());
        assert_eq!(same, (before.ids(), before.next()));
        self.last().until = got.called + IDLE;
        Some(())
    }

    /// Ends the stream. If the answer is lost it is not known whether that was done.
    async fn end(&mut self, stream: usize, path: &str) -> Option<()> {
        let acknowledges = self.has_unacknowledged(stream);
        if acknowledges {
            self.let_go();
        }
        let way = self.random.random_range(0..self.ways.len());
        let api = &self.ways[way].1;
        let answer = api.try_send(Method::DELETE, path, None).await.ok()?;
        if acknowledges && answer.status == StatusCode::OK {
            self.last().acknowledged = Some(Instant::now());
        }
        None
    }

    /// Calls until there is an answer that says something about the stream; `None` when all is over.
    async fn ask(&mut self, path: &str) -> Option<Got> {
        let accept = self.random.random_ratio(1, 2).then_some("multipart/json");
        let mut first = None;
        eventually(DRAINED, "an answer", async || {
            if self.storm.is_over() {
                return Some(None);
            }
            let (net, api) = &self.ways[self.random.random_range(0..self.ways.len())];
            if self.random.random_ratio(1, 4) {
                let moments = [Moment::Before, Moment::Answered];
                let moment = moments[self.random.random_range(0..2)];
                net.cut_when(Direction::Up, path.as_bytes(), moment);
            }
            let called = Instant::now();
            let asked = match path.ends_with("/start") {
                // Each one opens a stream of its own.
                true => called,
                false => *first.get_or_insert(called),
            };
            let answer = api.try_send(Method::GET, path, accept).await.ok()?;
            match answer.status {
                StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::GONE => Some(Some(Got {
                    answer,
                    asked,
                    called,
                    came: Instant::now(),
                })),
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => None,
                _ => panic!("{answer:?}"),
            }
        })
        .await
    }
}

/// Collects what is left, of streams whose time is not over yet too.
async fn collect_the_rest(api: &Api, ispb: &str) -> Vec<String> {
    let (mut path, mut seen) = (start(ispb), Vec::new());
    loop {
        let answer = api.many(&path).await;
        if answer.status == StatusCode::OK {
            seen.extend(answer.ids());
        } else if api.level(ispb).await == (0, vec![0]) {
            return seen;
        }
        path = answer.next();
    }
}

async fn no_message_is_with_two_streams_whatever_is_lost_and_killed(place: &Place) {
    let number = number(400);
    let ports: Vec<u16> = match place.url {
        Some(_) => vec![free_port(), free_port()],
        None => vec![free_port()],
    };
    let idle = humantime::format_duration(IDLE).to_string();
    let mut replicas = Vec::new();
    for port in &ports {
        let builder = on(place).set("http.port", *port).set("pix.slots", 30);
        let builder = builder.set("pix.idle", idle.as_str()).set("pix.wait", "1s");
        replicas.push(builder.start().await);
    }
    let ways: Vec<Api> = replicas.iter().map(Api::of).collect();
    let storm = Storm {
        ispb: fresh_ispb(),
        streams: AtomicUsize::new(0),
        answers: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    };
    make(&ways[0], &storm.ispb, number).await;
    let mut collectors = Vec::new();
    for seed in 0..COLLECTORS {
        collectors.push(Collector::new(&storm, &ports, seed).await);
    }
    // The example does not get all of it before it is killed.
    let slow = Proxy::to(ports[0]).await;
    slow.delay(Duration::from_millis(50));
    let slow_api = Api::at(&slow.url(&ways[0].url), HeaderMap::new());
    let out = temp_dir("collector-");
    let (_, kills, written, ()) = tokio::join!(
        join_all(collectors.iter_mut().map(Collector::collect)),
        storm.kill_replicas(&mut replicas),
        storm.kill_examples(&slow_api, out.path()),
        storm.drained(&ways, number),
    );
    let lost: u64 = collectors.iter().map(Collector::lost).sum();
    let records: Vec<Held> = collectors.into_iter().flat_map(|one| one.records).collect();
    let rest = collect_the_rest(&ways[0], &storm.ispb).await;
    drop(replicas);

    let made = place.words("SELECT end_to_end_id AS word FROM pix_messages");
    let made: BTreeSet<String> = made.await.into_iter().collect();
    let held: Vec<&String> = records.iter().flat_map(|one| &one.messages).collect();
    let seen: BTreeSet<&String> = held.iter().copied().chain(&written).chain(&rest).collect();
    assert_eq!(made.len(), number);
    assert_eq!(seen, made.iter().collect(), "each one is delivered");
    assert_eq!(flaws(&records), BTreeSet::new());
    // There was something to find.
    let distinct: BTreeSet<&&String> = held.iter().collect();
    let again = held.len() - distinct.len();
    assert!(
        kills > 2 && lost > 2 && again > 2,
        "{kills} kills, {lost} lost, {again} again"
    );
}
