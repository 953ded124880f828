//! A supervisor that restarts an actor after a panic, built on actix's public `dev` API.
//!
//! It polls the actor's context inside `catch_unwind`. After a panic the address, the mailbox and
//! its messages survive; the actor resets itself in `restarting()`, which drops what it held and so
//! returns its tickets, and after a back-off `started()` runs again and re-arms its timers. Futures
//! that the actor returned as replies continue; futures in its context (`ctx.spawn`, `ctx.wait`) are
//! cancelled.

use super::{Backoff, Inbox, Lifecycle};
use crate::metrics::Metrics;
use actix::dev::ContextFut;
use actix::{Actor, Context, Supervised};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// How often and how fast an actor may be restarted.
#[derive(Debug, Clone)]
pub struct RestartPolicy {
    /// Shortest and longest pause before a restart.
    pub pause: (Duration, Duration),
    /// Restarts allowed within `window`; one more ends the process.
    pub max_restarts: usize,
    /// Period over which restarts are counted.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            pause: (Duration::from_millis(10), Duration::from_secs(5)),
            max_restarts: 12,
            window: Duration::from_secs(60),
        }
    }
}

/// Starts an actor on the current arbiter and restarts it until its last address is dropped.
pub fn supervise<A>(
    inbox: Inbox<A>,
    actor: A,
    policy: RestartPolicy,
    metrics: &Arc<Metrics>,
    lifecycle: &Lifecycle,
) where
    A: Actor<Context = Context<A>> + Supervised + Unpin,
{
    let name = inbox.actor;
    for cause in [ActorExit::Panicked, ActorExit::Stopped] {
        // The series exist from the start, so that alerts can use them.
        metrics.restarts.with_label_values(&[name, cause.as_str()]);
    }
    let supervisor = Supervisor {
        context: Context::with_receiver(inbox.receiver).into_future(actor),
        name,
        pause: None,
        backoff: Backoff::new(policy.pause.0, policy.pause.1),
        restarts: VecDeque::new(),
        policy,
        metrics: Arc::clone(metrics),
        lifecycle: lifecycle.clone(),
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the supervisor that every other task runs under"
    )]
    actix_rt::spawn(supervisor);
}

/// Why an actor has to be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ActorExit {
    Panicked,
    Stopped,
}

impl ActorExit {
    /// The word in metric labels and logs.
    fn as_str(self) -> &'static str {
        match self {
            ActorExit::Panicked => "panic",
            ActorExit::Stopped => "stopped",
        }
    }
}

struct Supervisor<A: Actor<Context = Context<A>>> {
    context: ContextFut<A, Context<A>>,
    name: &'static str,
    pause: Option<Pin<Box<Sleep>>>,
    backoff: Backoff,
    restarts: VecDeque<Instant>,
    policy: RestartPolicy,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
}

impl<A> Supervisor<A>
where
    A: Actor<Context = Context<A>> + Supervised + Unpin,
{
    /// Resets the actor, counts the restart, and sets the pause before it runs again. `false` when
    /// the last address is gone, so there is nothing to restart.
    fn restart(&mut self, exit: ActorExit) -> bool {
        let cause = exit.as_str();
        // The reset precedes the pause, so that held tickets return at once. A panic in
        // `restarting()` leaves the old value in place; the next poll catches it.
        let reachable = catch_unwind(AssertUnwindSafe(|| self.context.restart()));
        if matches!(reachable, Ok(false)) {
            return false;
        }
        let now = Instant::now();
        let window = self.policy.window;
        let calm = self
            .restarts
            .back()
            .is_none_or(|last| now.duration_since(*last) > window);
        if calm {
            self.backoff.reset();
        }
        self.restarts.push_back(now);
        self.restarts
            .retain(|restart| now.duration_since(*restart) <= window);
        self.metrics
            .restarts
            .with_label_values(&[self.name, cause])
            .inc();
        if self.restarts.len() > self.policy.max_restarts {
            self.lifecycle.fail(format!(
                "actor {} was restarted {} times within {window:?} (last cause: {cause})",
                self.name,
                self.restarts.len(),
            ));
        }
        let pause = self.backoff.next_pause();
        tracing::warn!(
            actor = self.name,
            cause,
            pause_ms = pause.as_millis() as u64,
            "actor restarted"
        );
        self.pause = Some(Box::pin(tokio::time::sleep(pause)));
        true
    }
}

impl<A> Future for Supervisor<A>
where
    A: Actor<Context = Context<A>> + Supervised + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            let context = &mut this.context;
            let restarted = match catch_unwind(AssertUnwindSafe(|| Pin::new(context).poll(cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(())) => this.restart(ActorExit::Stopped),
                Err(_panic) => this.restart(ActorExit::Panicked),
            };
            if !restarted {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
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

    /// Counts messages; a `Crash` makes it panic at a chosen point.
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
    struct CountUp;
    impl ActorMessage for CountUp {
        fn name(&self) -> &'static str {
            "count"
        }
    }

    impl Handler<Tracked<CountUp>> for Counter {
        type Result = u32;
        fn handle(&mut self, message: Tracked<CountUp>, _: &mut Self::Context) -> u32 {
            let _open = message.open();
            self.handled.fetch_add(1, Ordering::SeqCst) + 1
        }
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Crash(Where, Arc<AtomicU32>);
    impl ActorMessage for Crash {
        fn name(&self) -> &'static str {
            "crash"
        }
    }
    impl Drop for Crash {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Handler<Tracked<Crash>> for Counter {
        type Result = ResponseFuture<()>;
        fn handle(&mut self, message: Tracked<Crash>, ctx: &mut Self::Context) -> Self::Result {
            let (crash, _handling) = message.open();
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
            assert_eq!(bench.mailbox.send(CountUp).await.unwrap(), 1);
            let crash = Crash(place, Arc::clone(&bench.dropped));
            assert!(bench.mailbox.try_send(crash).is_ok());
            // Queued behind the crash; it must be answered by the restarted actor, or, where the crash
            // comes later than the message, by the one before.
            assert_eq!(bench.mailbox.send(CountUp).await.unwrap(), 2);
            while bench.starts.load(Ordering::SeqCst) < 2 {
                tokio::task::yield_now().await;
            }
            assert_eq!(bench.mailbox.send(CountUp).await.unwrap(), 3);
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
                "the sender gets an error"
            );
        }
        bench.lifecycle.reached(Phase::Leaving).await;
        assert!(bench.lifecycle.failure().unwrap().contains("actor counter"));
    }

    #[actix_rt::test]
    async fn a_full_mailbox_gives_the_message_back() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (mailbox, _inbox) =
            mailbox::<Counter>("counter", 0, 1, &metrics, &HealthBoard::default());
        let mut sent = 0;
        while mailbox.try_send(CountUp).is_ok() {
            sent += 1;
            assert!(sent < 10, "the bound does not hold");
        }
        assert_eq!(
            metrics.mailbox_depth.with_label_values(&["counter"]).get(),
            sent
        );
    }
}
