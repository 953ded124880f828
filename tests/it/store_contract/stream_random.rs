//! Random calls of streams, compared with a model.

use super::collecting::{Collecting, RULES};
use super::reacting::LONG;
use super::stream_model::{Expected, Model};
use crate::followers::Place;
use eclusa::store::streams::{Call, Reply, StreamRules, Ticket, Which};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// Steps of one run.
const STEPS: usize = 80;
/// Steps of all runs; `ECLUSA_TEST_RUNS` for more.
const ALL: usize = 800;
const KEYS: [&str; 2] = ["a", "b"];
const ORDER_KEYS: [Option<&str>; 4] = [None, Some("x"), Some("y"), Some("z")];
const SLOTS: u32 = 3;
const MOST: u32 = 4;

/// What is done, to the first or the second key. Sessions are counted from the newest one on.
#[derive(Debug, Clone)]
enum Step {
    Deliver(Vec<usize>),
    Start(usize),
    /// A ticket so far behind the newest answer: 1 is the one that acknowledges it.
    Next(usize, i32, usize),
    /// The call that waits asks again.
    Poll(usize, usize),
    GiveBack(usize, i32),
    End(usize, i32),
    /// Those at these places, or all, with a delay or without.
    Refuse(usize, i32, Option<Vec<usize>>, bool),
    Extend(usize, i32),
    Release(Option<usize>),
    Expire(usize),
    DelaysPass,
    Lapse,
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0..5_usize;
    let limit = 1..5_usize;
    // Mostly the one that collectors should use.
    let behind = prop_oneof![5 => Just(1), 2 => Just(0), 1 => Just(-1), 1 => Just(2)];
    let which = prop::option::of(vec(0..4_usize, 1..3));
    prop_oneof![
        4 => vec(0..4_usize, 1..5).prop_map(Step::Deliver),
        4 => limit.clone().prop_map(Step::Start),
        8 => (session.clone(), behind.clone(), limit.clone())
            .prop_map(|(session, behind, limit)| Step::Next(session, behind, limit)),
        2 => (session.clone(), limit).prop_map(|(session, limit)| Step::Poll(session, limit)),
        1 => (session.clone(), 0..2_i32).prop_map(|(session, behind)| Step::GiveBack(session, behind)),
        2 => (session.clone(), behind.clone()).prop_map(|(session, behind)| Step::End(session, behind)),
        3 => (session.clone(), behind.clone(), which, any::<bool>())
            .prop_map(|(session, behind, which, delay)| Step::Refuse(session, behind, which, delay)),
        1 => (session.clone(), behind).prop_map(|(session, behind)| Step::Extend(session, behind)),
        1 => prop::option::weighted(0.8, session.clone()).prop_map(Step::Release),
        2 => session.prop_map(Step::Expire),
        1 => Just(Step::DelaysPass),
        1 => Just(Step::Lapse),
    ]
}

/// A stream, and what it should be.
struct Run<'a> {
    stream: Collecting<'a>,
    models: [Model; 2],
    /// All sessions with their key, oldest first, and the number of the newest answer that each had.
    sessions: Vec<(i64, usize)>,
    newest: HashMap<i64, i32>,
    polls: HashMap<i64, i64>,
}

impl<'a> Run<'a> {
    async fn new(place: &'a Place, ordered: bool) -> Self {
        let rules = StreamRules {
            slots: SLOTS,
            max_deliveries: Some(MOST),
            ordered,
            ..RULES
        };
        let name = format!("s{}", Uuid::now_v7().simple());
        Self {
            stream: Collecting::new(place, &name, rules).await,
            models: [0, 1].map(|_| Model::new(SLOTS, MOST, ordered)),
            sessions: Vec::new(),
            newest: HashMap::new(),
            polls: HashMap::new(),
        }
    }

    fn session(&self, back: usize) -> Option<i64> {
        let recent = self.sessions.iter().rev().take(5);
        let recent: Vec<i64> = recent.map(|(session, _)| *session).collect();
        recent.get(back % recent.len().max(1)).copied()
    }

    fn ticket(&self, back: usize, behind: i32) -> Option<Ticket> {
        let session = self.session(back)?;
        let n = (self.newest[&session] + behind).max(1);
        Some(Ticket { session, n })
    }

    async fn call(&self, key: usize, call: Call) -> Reply {
        self.stream.call(KEYS[key], call).await
    }

    async fn next(&mut self, key: usize, ticket: Ticket, limit: usize, waiting: Option<i64>) {
        let expected = self.models[key].next(ticket, waiting);
        let call = Call::Next {
            ticket,
            limit,
            waiting,
        };
        let reply = self.call(key, call).await;
        self.check(key, limit, expected, reply).await;
    }

    async fn check(&mut self, key: usize, limit: usize, expected: Expected, mut reply: Reply) {
        let session = match expected {
            Expected::Exactly(expected) => return assert_eq!(reply, expected),
            Expected::Full => return assert!(matches!(reply, Reply::Full { .. }), "{reply:?}"),
            Expected::Started => {
                let session = ticket_of(&reply).session;
                assert!(self.newest.insert(session, 0).is_none(), "a new one");
                self.sessions.push((session, key));
                self.models[key].started(session);
                session
            }
            Expected::Answer(session, expected) => {
                let (Reply::Messages { acknowledged, .. } | Reply::Waiting { acknowledged, .. }) =
                    &reply
                else {
                    panic!("{reply:?}");
                };
                assert_eq!(*acknowledged, expected);
                session
            }
        };
        let mut asked = 0;
        while self.models[key].answered(session, limit, &reply) {
            // What waited behind what this call has acknowledged or ended can be had now.
            asked += 1;
            assert!(asked < 2, "{reply:?} with {:#?}", self.models[key]);
            let call = Call::Next {
                ticket: ticket_of(&reply),
                limit,
                waiting: None,
            };
            reply = self.call(key, call).await;
        }
        if let Reply::Waiting { poll, .. } = reply {
            self.polls.insert(session, poll);
        }
    }

    async fn step(&mut self, key: usize, step: Step) {
        match step {
            Step::Deliver(order_keys) => {
                let order_keys: Vec<_> = order_keys.into_iter().map(|n| ORDER_KEYS[n]).collect();
                let ids = self.stream.deliver_ordered(KEYS[key], &order_keys).await;
                for (id, order_key) in ids.into_iter().zip(order_keys) {
                    self.models[key].arrive(id, order_key);
                }
            }
            Step::Start(limit) => {
                let expected = self.models[key].start();
                let reply = self.call(key, Call::Start { limit }).await;
                self.check(key, limit, expected, reply).await;
            }
            Step::Next(back, behind, limit) => {
                if let Some(ticket) = self.ticket(back, behind) {
                    self.next(key, ticket, limit, None).await;
                }
            }
            Step::Poll(back, limit) => {
                let Some(ticket) = self.ticket(back, 1) else {
                    return;
                };
                let poll = self.polls.get(&ticket.session).copied();
                self.next(key, ticket, limit, poll).await;
            }
            Step::GiveBack(back, behind) => {
                if let Some(ticket) = self.ticket(back, behind) {
                    let expected = self.models[key].give_back(ticket);
                    let reply = self.call(key, Call::GiveBack { ticket, row: None }).await;
                    assert_eq!(reply, expected);
                }
            }
            Step::End(back, behind) => {
                if let Some(ticket) = self.ticket(back, behind) {
                    let expected = self.models[key].end(ticket);
                    let reply = self.call(key, Call::End { ticket }).await;
                    assert_eq!(reply, expected);
                }
            }
            Step::Refuse(back, behind, which, delayed) => {
                if let Some(ticket) = self.ticket(back, behind) {
                    self.refuse(key, ticket, which, delayed).await;
                }
            }
            Step::Extend(back, behind) => {
                if let Some(ticket) = self.ticket(back, behind) {
                    let expected = self.models[key].extend(ticket);
                    let lease = LONG;
                    let reply = self.call(key, Call::Extend { ticket, lease }).await;
                    assert_eq!(reply, expected);
                }
            }
            Step::Release(back) => {
                let session = back.and_then(|back| self.session(back));
                let expected = self.models[key].release(session);
                let reply = self.call(key, Call::Release { session }).await;
                assert_eq!(reply, expected);
            }
            Step::Expire(back) => {
                if let Some(session) = self.session(back) {
                    self.stream.expire(session).await;
                    self.models
                        .iter_mut()
                        .for_each(|model| model.expire(session));
                }
            }
            Step::DelaysPass => {
                self.stream.delays_pass().await;
                self.models.iter_mut().for_each(Model::delays_pass);
            }
            Step::Lapse => {
                let expected = self.models[key].release(Some(0));
                let reply = self.call(key, Call::Lapse).await;
                assert_eq!(reply, expected);
            }
        }
        for (key, model) in KEYS.iter().zip(&self.models) {
            let (waiting, mut leased) = self.stream.level(key).await;
            leased.sort_unstable();
            assert_eq!((waiting, leased), model.level(), "{model:#?}");
        }
        for (session, key) in &self.sessions {
            let n = self.models[*key].n(*session);
            self.newest.extend(n.map(|n| (*session, n)));
        }
    }

    async fn refuse(
        &mut self,
        key: usize,
        ticket: Ticket,
        which: Option<Vec<usize>>,
        delayed: bool,
    ) {
        let events = self.models[key].events(ticket.session);
        let which = which.map(|places| {
            let named = places.into_iter().filter_map(|place| events.get(place));
            named.copied().collect::<Vec<Uuid>>()
        });
        let expected = self.models[key].refuse(ticket, which.as_deref(), delayed);
        let delay = match delayed {
            true => LONG,
            false => Duration::ZERO,
        };
        let which = which.map_or(Which::All, Which::Events);
        let call = Call::Refuse {
            ticket,
            which,
            delay,
        };
        let reply = self.call(key, call).await;
        assert_eq!(reply, expected);
    }
}

fn ticket_of(reply: &Reply) -> Ticket {
    match reply {
        Reply::Messages { next, .. } | Reply::Waiting { next, .. } => *next,
        reply => panic!("{reply:?}"),
    }
}

async fn run(place: &Place, ordered: bool, steps: Vec<(bool, Step)>) {
    let mut run = Run::new(place, ordered).await;
    for (second, step) in steps {
        run.step(usize::from(second), step).await;
    }
    let follower = &run.stream.follower;
    let letters = format!(
        "SELECT origin AS word FROM dead_letters WHERE cause = 'undeliverable' AND origin = '{follower}'"
    );
    let buried: usize = run.models.iter().map(|model| model.buried.len()).sum();
    assert_eq!(place.words(&letters).await.len(), buried);
}

/// Runs random steps on a runtime of its own, since the runner blocks.
fn runs(place: impl Future<Output = Place>) {
    let all = match std::env::var("ECLUSA_TEST_RUNS") {
        Ok(steps) => steps.parse().unwrap(),
        Err(_) => ALL,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let place = runtime.block_on(place);
    let config = ProptestConfig {
        cases: u32::try_from(all.div_ceil(STEPS)).unwrap(),
        max_shrink_iters: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let done = AtomicUsize::new(0);
    let steps = vec((prop::bool::weighted(0.2), step()), STEPS);
    let outcome = TestRunner::new(config).run(&(any::<bool>(), steps), |(ordered, steps)| {
        done.fetch_add(steps.len(), Ordering::Relaxed);
        runtime.block_on(run(&place, ordered, steps));
        Ok(())
    });
    println!("{} steps", done.load(Ordering::Relaxed));
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

mod on_postgres {
    #[test]
    fn random_calls_do_what_the_model_does() {
        super::runs(crate::followers::Place::postgres());
    }
}

mod on_sqlite {
    #[test]
    fn random_calls_do_what_the_model_does() {
        super::runs(crate::followers::Place::sqlite());
    }
}
