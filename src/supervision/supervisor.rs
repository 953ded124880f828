//! A supervisor that survives panics, built from actix's public parts.
//!
//! It polls the actor's context inside `catch_unwind`. After a panic the address, the mailbox and
//! the messages behind the bad one are still there; the actor replaces itself by a fresh value in
//! `restarting()`, which drops what it held and so returns its tickets, and after a back-off
//! `started()` runs again and re-arms its timers. Plain futures an actor has given as replies are
//! not touched; futures in its context (`ctx.spawn`, `ctx.wait`) are cancelled.

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

/// How often and how fast an actor may come back.
#[derive(Debug, Clone)]
pub struct RestartPolicy {
    /// First and longest pause before a restart.
    pub pause: (Duration, Duration),
    /// So many restarts ...
    pub max_restarts: usize,
    /// ... within this time are too many: the process ends.
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

/// Starts an actor on the current arbiter and keeps it alive until every way to it is gone.
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
    for cause in ["panic", "stopped"] {
        // A series that is there from the start can be alerted on.
        metrics.restarts.with_label_values(&[name, cause]);
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
    /// Resets the actor, counts the failure, and sets the pause before it runs again. `false` when
    /// nobody can reach the actor any more, so there is nothing to restart.
    fn restart(&mut self, cause: &'static str) -> bool {
        // At once, so that what the actor held is returned now and not after the pause. A panic in
        // `restarting()` itself leaves the old value in place; the next poll meets it.
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
                "actor {} had to be restarted {} times within {window:?} (last cause: {cause})",
                self.name,
                self.restarts.len(),
            ));
        }
        let pause = self.backoff.next_pause();
        tracing::warn!(
            actor = self.name,
            cause,
            pause_ms = pause.as_millis() as u64,
            "actor restarts"
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
                Ok(Poll::Ready(())) => this.restart("stopped"),
                Err(_panic) => this.restart("panic"),
            };
            if !restarted {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
