//! Panics in every place an actor has code in, and what is left afterwards.

use super::*;
use crate::supervision::mailbox::{ActorMessage, Mailbox, Tracked, mailbox};
use crate::supervision::{HealthBoard, Phase};
use actix::{ActorFutureExt, AsyncContext, Handler, Message, ResponseFuture, WrapFuture};
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Clone, Copy, PartialEq)]
enum Where {
    Handle,
    Spawned,
    Waited,
    Timer,
    Started,
    Stop,
}

/// Counts to three; a `Crash` makes it panic somewhere.
struct Counter {
    handled: Arc<AtomicU32>,
    starts: Arc<AtomicU32>,
    failing_starts: Arc<AtomicU32>,
    held: Vec<Crash>,
}

impl Actor for Counter {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.starts.fetch_add(1, Ordering::SeqCst);
        let failing = self.failing_starts.load(Ordering::SeqCst);
        if failing > 0 {
            self.failing_starts.store(failing - 1, Ordering::SeqCst);
            panic!("in started");
        }
    }
}

impl Supervised for Counter {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.held.clear();
    }
}

#[derive(Message)]
#[rtype(result = "u32")]
struct Count;
impl ActorMessage for Count {
    const NAME: &'static str = "count";
}

impl Handler<Tracked<Count>> for Counter {
    type Result = u32;
    fn handle(&mut self, message: Tracked<Count>, _: &mut Self::Context) -> u32 {
        let _open = message.open();
        self.handled.fetch_add(1, Ordering::SeqCst) + 1
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Crash(Where, Arc<AtomicU32>);
impl ActorMessage for Crash {
    const NAME: &'static str = "crash";
}
impl Drop for Crash {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

impl Handler<Tracked<Crash>> for Counter {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, message: Tracked<Crash>, ctx: &mut Self::Context) -> Self::Result {
        let (crash, _handling) = message.open().unwrap();
        let place = crash.0;
        self.held.push(crash);
        match place {
            Where::Handle => panic!("in handle"),
            Where::Spawned => {
                ctx.spawn(
                    async { panic!("in spawn") }
                        .into_actor(self)
                        .map(|(), _, _| ()),
                );
            }
            Where::Waited => ctx.wait(async { panic!("in wait") }.into_actor(self)),
            Where::Timer => {
                ctx.run_later(Duration::from_millis(1), |_, _| panic!("in a timer"));
            }
            Where::Started => {
                self.failing_starts.store(3, Ordering::SeqCst);
                panic!("in handle, then in started");
            }
            Where::Stop => actix::ActorContext::stop(ctx),
        }
        Box::pin(std::future::ready(()))
    }
}

struct Bench {
    mailbox: Mailbox<Counter>,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
    starts: Arc<AtomicU32>,
    dropped: Arc<AtomicU32>,
}

fn bench(policy: RestartPolicy) -> Bench {
    let metrics = Arc::new(Metrics::new().unwrap());
    let lifecycle = Lifecycle::default();
    let (mailbox, inbox) = mailbox("counter", 0, 64, &metrics, &HealthBoard::default());
    let starts = Arc::new(AtomicU32::new(0));
    let actor = Counter {
        handled: Arc::default(),
        starts: Arc::clone(&starts),
        failing_starts: Arc::default(),
        held: Vec::new(),
    };
    supervise(inbox, actor, policy, &metrics, &lifecycle);
    Bench {
        mailbox,
        metrics,
        lifecycle,
        starts,
        dropped: Arc::default(),
    }
}

fn restarts(bench: &Bench, cause: &str) -> u64 {
    bench
        .metrics
        .restarts
        .with_label_values(&["counter", cause])
        .get()
}

#[actix_rt::test]
async fn a_panic_anywhere_costs_one_message() {
    for place in [
        Where::Handle,
        Where::Spawned,
        Where::Waited,
        Where::Timer,
        Where::Started,
        Where::Stop,
    ] {
        let bench = bench(RestartPolicy::default());
        assert_eq!(bench.mailbox.send(Count).await.unwrap(), 1);
        let crash = Crash(place, Arc::clone(&bench.dropped));
        assert!(bench.mailbox.try_send(crash).is_ok());
        // Queued behind the crash; it must be answered by the restarted actor, or, where the crash
        // comes later than the message, by the one before.
        assert_eq!(bench.mailbox.send(Count).await.unwrap(), 2);
        while bench.starts.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(bench.mailbox.send(Count).await.unwrap(), 3);
        assert_eq!(
            bench.dropped.load(Ordering::SeqCst),
            1,
            "what it held is dropped"
        );
        let expected = match place {
            Where::Started => (4, 0),
            Where::Stop => (0, 1),
            _ => (1, 0),
        };
        assert_eq!(
            (restarts(&bench, "panic"), restarts(&bench, "stopped")),
            expected
        );
        assert_eq!(bench.lifecycle.phase(), Phase::Running);
        assert_eq!(
            bench
                .metrics
                .mailbox_depth
                .with_label_values(&["counter"])
                .get(),
            0
        );
    }
}

#[actix_rt::test]
async fn too_many_restarts_end_the_process_with_a_reason() {
    let bench = bench(RestartPolicy {
        max_restarts: 3,
        pause: (Duration::from_millis(1), Duration::from_millis(1)),
        ..RestartPolicy::default()
    });
    for _ in 0..4 {
        let crash = Crash(Where::Handle, Arc::clone(&bench.dropped));
        assert!(
            bench.mailbox.send(crash).await.is_err(),
            "the bad sender is told"
        );
    }
    bench.lifecycle.reached(Phase::Leaving).await;
    assert!(bench.lifecycle.failure().unwrap().contains("actor counter"));
}

#[actix_rt::test]
async fn a_full_mailbox_gives_the_message_back() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let (mailbox, _inbox) = mailbox::<Counter>("counter", 0, 1, &metrics, &HealthBoard::default());
    let mut sent = 0;
    while mailbox.try_send(Count).is_ok() {
        sent += 1;
        assert!(sent < 10, "the bound does not hold");
    }
    assert_eq!(
        metrics.mailbox_depth.with_label_values(&["counter"]).get(),
        sent
    );
}
