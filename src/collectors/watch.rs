//! `StreamWatch`: looks for messages on behalf of all calls that wait, and for what other processes did to these; ends
//! sessions whose time is over, and measures.
//!
//! It looks for messages when the log has grown, again shortly after that, since the follower takes its time, and in any case once
//! a second: what has returned, or is due after a delay, changes nothing about the log.

use super::measure::measure_again_and_again;
use super::polls::Polls;
use crate::followers::{LogEnd, LogWatch};
use crate::store::streams::{Call, Place};
use crate::store::{ErrorKind, StoreError};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// First and longest time between two looks.
const GAPS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// Times the length of a look to rest before the next one.
const REST: u32 = 4;
/// How often one looks for polls that another process has ended.
const ENDED: Duration = Duration::from_secs(1);
/// How often sessions are looked for whose time is over.
const LAPSES: Duration = Duration::from_secs(1);
/// Places whose sessions are ended at a time.
const PLACES: usize = 100;

/// What the actor is wired to.
#[derive(Clone)]
pub(super) struct StreamWatchParams {
    pub(super) polls: Polls,
    /// Other processes may answer calls too.
    pub(super) is_shared: bool,
    pub(super) log: LogWatch,
}

pub(super) struct StreamWatch {
    params: StreamWatchParams,
}

impl StreamWatch {
    pub(super) fn new(params: StreamWatchParams) -> Self {
        Self { params }
    }
}

impl Actor for StreamWatch {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let params = self.params.clone();
        ctx.spawn(
            async move {
                let working = async {
                    tokio::join!(
                        params.look_again_and_again(),
                        params.end_sessions(),
                        params.look_for_ended_polls(),
                        measure_again_and_again(&params.polls)
                    );
                };
                params.polls.lifecycle.unless_draining(working).await;
            }
            .into_actor(self),
        );
    }
}

// A restart begins with a look.
impl Supervised for StreamWatch {}

impl StreamWatchParams {
    async fn look_again_and_again(&self) {
        let mut end = self.log.subscribe();
        let mut gap = GAPS.0;
        loop {
            if self.polls.waiters.is_empty() {
                self.polls.waiters.joined().await;
                gap = GAPS.0;
            }
            let began = Instant::now();
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "waiting collectors look again later");
            }
            let rest = began.elapsed().saturating_mul(REST).max(GAPS.0);
            tokio::time::sleep(rest).await;
            tokio::select! {
                () = news(&mut end) => gap = GAPS.0,
                () = self.polls.waiters.joined() => gap = GAPS.0,
                () = tokio::time::sleep(gap) => gap = (gap * 2).min(GAPS.1),
            }
        }
    }

    async fn look(&self) -> Result<(), StoreError> {
        for declared in self.polls.streams() {
            let keys = self.polls.waiters.keys(declared.id);
            if keys.is_empty() {
                continue;
            }
            for key in self.polls.store.ready_keys(declared.id, &keys).await? {
                let stream = declared.id;
                self.polls.waiters.wake(&Place { stream, key });
            }
        }
        Ok(())
    }

    /// Has the calls ask again whose session another process has ended, or that were taken over there: they are told so
    /// at once, and a call whose time is over need not ask.
    async fn look_for_ended_polls(&self) {
        if !self.is_shared {
            return;
        }
        loop {
            let began = Instant::now();
            let polls = self.polls.waiters.polls();
            if !polls.is_empty() {
                match self.polls.store.ended_polls(&polls).await {
                    Ok(ended) => self.polls.waiters.wake_polls(&ended),
                    Err(error) => tracing::debug!(%error, "polls are looked for later"),
                }
            }
            let rest = began.elapsed().saturating_mul(REST).max(ENDED);
            tokio::time::sleep(rest).await;
        }
    }

    async fn end_sessions(&self) {
        loop {
            match self.lapse().await {
                Ok(places) if places >= PLACES => continue,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "sessions of collectors are ended later"),
            }
            tokio::time::sleep(LAPSES).await;
        }
    }

    /// Ends sessions whose time is over, of the streams that this process declares.
    async fn lapse(&self) -> Result<usize, StoreError> {
        let streams: Vec<i32> = self.polls.streams().map(|one| one.id).collect();
        let places = self.polls.store.lapsed_places(&streams, PLACES).await?;
        let mut ended = 0;
        for place in places {
            let declared = self.polls.streams().find(|one| one.id == place.stream);
            let Some(declared) = declared else {
                continue;
            };
            match self.polls.change(declared, &place, &Call::Lapse).await {
                Ok(_) => ended += 1,
                // One place may be locked, which others need not wait for.
                Err(error) if error.kind() == ErrorKind::Transient => {
                    tracing::debug!(%error, "sessions of a key are ended later");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(ended)
    }
}

async fn news(end: &mut watch::Receiver<LogEnd>) {
    if end.changed().await.is_err() {
        // The process is at its end.
        std::future::pending().await
    }
}
