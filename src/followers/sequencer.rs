//! `Sequencer`: has the commits of the log numbered, and watches the end of the log for all followers of
//! the process.
//!
//! Each round is one statement that the store carries out as a whole, so a process that stops in the
//! middle of one holds nothing up. Between two rounds it rests four times as long as a round takes. While an
//! old snapshot keeps dead rows alive, most rounds look at what was written last only; see `passes`.

use super::log_end::{CommitSignal, LogEnd, LogWatch};
use super::passes::Passes;
use crate::metrics::Metrics;
use crate::store::commit_log::{Peers, Position, ROUND};
use crate::store::{CommitLog, ReactionStore, StoreError};
use crate::supervision::{Backoff, Lifecycle, failpoint};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often the log is looked at although there is no news: events that a transaction of an
/// application's own records are not announced.
const IDLE: Duration = Duration::from_millis(200);
/// The same while nothing follows the log, here or elsewhere.
const UNWATCHED: Duration = Duration::from_secs(1);
/// Times the length of a round to rest, but no longer than this: the dear rounds are rare by themselves.
const REST: u32 = 4;
const MAX_REST: Duration = Duration::from_millis(40);
/// Stretches that one round takes in.
const STRETCHES: usize = 1_000;
/// First and longest pause after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often changes of followers are looked for although none was announced.
const COMMANDS: Duration = Duration::from_secs(5);

/// What the sequencer is wired to.
#[derive(Clone)]
pub struct SequencerParams {
    pub log: Arc<dyn CommitLog>,
    pub reactions: Arc<dyn ReactionStore>,
    pub commits: CommitSignal,
    pub watch: LogWatch,
    pub lifecycle: Lifecycle,
    pub metrics: Arc<Metrics>,
}

pub struct Sequencer {
    params: SequencerParams,
    peers: Arc<Peers>,
}

impl Sequencer {
    pub fn new(params: SequencerParams) -> Self {
        Self {
            params,
            peers: Arc::default(),
        }
    }
}

impl Actor for Sequencer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let rounds = Rounds {
            params: self.params.clone(),
            peers: Arc::clone(&self.peers),
            followed: AtomicBool::new(false),
        };
        ctx.spawn(
            async move {
                let lifecycle = rounds.params.lifecycle.clone();
                let working = async {
                    tokio::join!(rounds.number(), rounds.exchange(), rounds.commands());
                };
                lifecycle.unless_draining(working).await;
            }
            .into_actor(self),
        );
    }
}

// A restart begins with a round.
impl Supervised for Sequencer {}

struct Rounds {
    params: SequencerParams,
    peers: Arc<Peers>,
    /// By this process or another one, as of the last look.
    followed: AtomicBool,
}

impl Rounds {
    /// Round after round. Never ends.
    async fn number(&self) {
        let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
        let mut sessions = HashSet::new();
        let mut passes = Passes::default();
        loop {
            let began = Instant::now();
            match self.round(&mut sessions, &mut passes).await {
                Ok(true) => backoff.reset(),
                Ok(false) => {
                    backoff.reset();
                    let rest = began.elapsed().saturating_mul(REST).min(MAX_REST);
                    tokio::time::sleep(rest).await;
                    self.news().await;
                }
                Err(error) => {
                    tracing::warn!(kind = error.kind().as_str(), %error, "the log cannot be sequenced");
                    // The next answer may come from another server, or from an earlier state of this one.
                    sessions.clear();
                    passes = Passes::default();
                    tokio::time::sleep(backoff.next_pause()).await;
                }
            }
        }
    }

    /// Waits until there may be something new.
    async fn news(&self) {
        let params = &self.params;
        let followed = self.followed.load(Ordering::Relaxed);
        if params.watch.end.receiver_count() == 0 && !followed {
            tokio::select! {
                () = tokio::time::sleep(UNWATCHED) => {}
                () = params.watch.wanted.notified() => {}
            }
            return;
        }
        tokio::select! {
            () = params.commits.raised() => {}
            () = self.peers.told.notified() => {}
            () = params.watch.wanted.notified() => {}
            () = tokio::time::sleep(IDLE) => {}
        }
    }

    /// Numbers what is committed and takes in what is new. `true` when there may be more.
    async fn round(
        &self,
        sessions: &mut HashSet<i32>,
        passes: &mut Passes,
    ) -> Result<bool, StoreError> {
        let params = &self.params;
        let began = Instant::now();
        let (numbered, look) = params.log.number_with(passes.next(began)).await?;
        let now = Instant::now();
        let complete = numbered.commits < ROUND;
        passes.made(look, complete, now.duration_since(began), now);
        if passes.wants_horizon() {
            passes.take(params.log.horizon().await?, now);
        }
        failpoint::hit("sequencer.numbered");
        if numbered.commits > 0 {
            params
                .metrics
                .commits_numbered
                .inc_by(u64::from(numbered.commits));
            self.peers.tell.notify_one();
        }
        if sessions.insert(numbered.session) {
            // A new connection may lead to another server, or to an earlier state of this one.
            params.log.generation().await?;
            // Positions that followers have only in memory may not be there.
            params.watch.end.send_replace(LogEnd::default());
            params.watch.command();
            *passes = Passes::default();
            return Ok(true);
        }
        let known = params.watch.end.borrow().end;
        if numbered.end == known {
            return Ok(false);
        }
        if known == Position::START || numbered.end < known {
            // The first look, or a log that was taken back to an earlier state.
            params.watch.end.send_replace(LogEnd::at(numbered.end));
            params.watch.command();
            return Ok(numbered.commits >= ROUND);
        }
        let stretches = params.log.stretches(known, STRETCHES).await?;
        if stretches.len() >= STRETCHES {
            // Too far behind to look at each.
            params.watch.end.send_replace(LogEnd::at(numbered.end));
        } else {
            params.watch.end.send_modify(|end| end.extend(stretches));
        }
        let behind = params.watch.end.borrow().end < numbered.end;
        Ok(behind || numbered.commits >= ROUND)
    }

    /// Exchanges news with other processes. Never ends.
    async fn exchange(&self) {
        let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
        loop {
            let since = Instant::now();
            if let Err(error) = self.params.log.exchange(Arc::clone(&self.peers)).await {
                tracing::debug!(%error, "no news from other processes");
            }
            if since.elapsed() > AGAIN.1 {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next_pause()).await;
        }
    }

    /// Tells the followers that one of them may have been changed, and finds out whether there are any and
    /// how long commits wait for their number. Never ends.
    async fn commands(&self) {
        loop {
            tokio::select! {
                () = self.peers.commanded.notified() => {}
                () = tokio::time::sleep(COMMANDS) => {}
            }
            self.params.watch.command();
            if let Ok(followed) = self.params.log.is_followed().await {
                self.followed.store(followed, Ordering::Relaxed);
            }
            if let Err(error) = self.params.reactions.refresh_awaited().await {
                tracing::debug!(%error, "the declarations of reactions cannot be read");
            }
            if let Ok(unnumbered) = self.params.log.unnumbered().await {
                self.params
                    .metrics
                    .unnumbered_seconds
                    .set(unnumbered.seconds);
            }
        }
    }
}
