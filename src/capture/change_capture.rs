//! `ChangeCapture`: captures the tables of one PostgreSQL, under a lease.

use super::catalog::slot;
use super::params::CaptureParams;
use super::preparation::Preparation;
use super::session::{Session, SessionEnd};
use super::state::{CaptureOrder, CaptureState, StoredState, command};
use super::{CaptureError, CaptureFault, Lsn};
use crate::batch::messages::AccumulatorMessage;
use crate::store::leases::Lease;
use crate::supervision::{Backoff, Phase};
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use futures::FutureExt;
use std::convert::Infallible;
use std::time::Duration;

/// First and longest pause after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How often the slot is looked at, and how long that may take.
const LOOK_AT_SLOT: Duration = Duration::from_secs(5);
const LOOKED: Duration = Duration::from_secs(10);
/// A preparation that takes longer is said to wait. A server that takes no connection is an error before that.
const SLOW: Duration = Duration::from_secs(15);
/// How long a session may take to end.
const END: Duration = Duration::from_secs(5);
/// How often a capture that has stopped looks for a command.
const LOOK: Duration = Duration::from_secs(1);

/// The pauses after failures: each is longer than the one before, until an attempt gets further than that one.
struct Pauses {
    backoff: Backoff,
    /// Where the last attempt began.
    position: Option<Lsn>,
}

impl Pauses {
    fn new() -> Self {
        Self {
            backoff: Backoff::new(AGAIN.0, AGAIN.1),
            position: None,
        }
    }

    fn begins_at(&mut self, state: &CaptureState) {
        let position = state.lsn();
        if position > self.position {
            self.backoff.reset();
        }
        self.position = position;
    }
}

impl CaptureParams {
    /// Captures until the process drains, and watches the slot meanwhile.
    async fn run(self) {
        tokio::select! {
            () = self.capture() => {}
            never = self.watch() => match never {},
        }
    }

    async fn capture(&self) {
        let mut leadership = self.leadership.clone();
        let mut pauses = Pauses::new();
        loop {
            let held = leadership.lease().now_or_never();
            let lease = match held {
                Some(lease) => lease,
                None => {
                    self.slot_watch.is_waiting();
                    match self.lifecycle.unless_draining(leadership.lease()).await {
                        Some(lease) => lease,
                        None => return,
                    }
                }
            };
            let _at_work = leadership.at_work();
            let pause = match self.under(&lease, &mut pauses).await {
                Ok(end) => {
                    pauses.backoff.reset();
                    match end {
                        Some(SessionEnd::Draining) => return,
                        Some(SessionEnd::Commanded | SessionEnd::Altered) => Duration::ZERO,
                        // A lease that is lost runs out by then, or later.
                        Some(SessionEnd::Lost) | None => LOOK,
                    }
                }
                Err(error) => {
                    self.failed(&error).await;
                    let pause = pauses.backoff.next_pause();
                    tracing::warn!(
                        capture = self.name(),
                        kind = error.kind().as_str(),
                        %error,
                        again_in_ms = pause.as_millis() as u64,
                        "a capture was interrupted"
                    );
                    pause
                }
            };
            let resting = tokio::time::sleep(pause);
            if self.lifecycle.unless_draining(resting).await.is_none() {
                return;
            }
        }
    }

    /// Prepares and runs a session; `None` if the capture has stopped.
    async fn under(
        &self,
        lease: &Lease,
        pauses: &mut Pauses,
    ) -> Result<Option<SessionEnd>, CaptureError> {
        let mut stored = StoredState::load(&*self.store, self.name()).await?;
        pauses.begins_at(&stored.state);
        if stored.is_newer_than(lease.token) {
            return Ok(Some(SessionEnd::Lost));
        }
        let preparing = self
            .wanted
            .prepare(&self.database, &*self.store, lease.token, &mut stored);
        let preparing = self.unless_slow(preparing);
        // A server that does not answer holds up no drain.
        let Some(prepared) = self.lifecycle.unless_draining(preparing).await else {
            return Ok(Some(SessionEnd::Draining));
        };
        match prepared? {
            Preparation::Ready(prepared) => {
                let opening = Session::open(self, lease, stored, *prepared);
                let Some(session) = self.lifecycle.unless_draining(opening).await else {
                    return Ok(Some(SessionEnd::Draining));
                };
                let session = session?;
                self.slot_watch.is_running();
                tokio::select! {
                    end = session.run() => Ok(Some(end?)),
                    // What it has in hand is read again. It waits for a server that does not answer, or for the store.
                    () = self.is_overdue() => Ok(Some(SessionEnd::Draining)),
                }
            }
            Preparation::Stopped => {
                let reason = stored.state.stopped.clone().unwrap_or_default();
                self.slot_watch.has_stopped(&reason);
                Ok(None)
            }
            Preparation::Overtaken => Ok(Some(SessionEnd::Commanded)),
        }
    }

    /// Says so when a preparation takes long.
    async fn unless_slow<T>(&self, preparing: impl Future<Output = T>) -> T {
        let mut preparing = std::pin::pin!(preparing);
        match tokio::time::timeout(SLOW, &mut preparing).await {
            Ok(prepared) => prepared,
            Err(_) => {
                let what = "for the captured server; a new slot is made when all transactions that are open there, also \
                            prepared ones, have ended";
                tracing::warn!(capture = self.name(), "a capture waits {what}");
                self.slot_watch.waits_for(&format!("it waits {what}"));
                preparing.await
            }
        }
    }

    /// Waits until the process drains and a session has had its time to end.
    async fn is_overdue(&self) {
        self.lifecycle.reached(Phase::Draining).await;
        tokio::time::sleep(END).await;
    }

    /// Looks at the slot while this process has the lease. It has a connection of its own, since the slot falls behind
    /// when the capture waits for something else, such as the store.
    async fn watch(&self) -> Infallible {
        let mut leadership = self.leadership.clone();
        loop {
            let lease = leadership.lease().await;
            tokio::select! {
                never = self.look_at_slot() => match never {},
                () = leadership.lost(&lease) => self.slot_watch.saw(None),
            }
        }
    }

    async fn look_at_slot(&self) -> Infallible {
        let mut client = None;
        loop {
            let looked = tokio::time::timeout(LOOKED, async {
                let connected = match client.take() {
                    Some(client) => client,
                    None => self.database.connect().await?,
                };
                let found = slot::find(&connected, &self.wanted.slot).await?;
                client = Some(connected);
                Ok::<_, CaptureError>(found)
            });
            match looked.await {
                Ok(Ok(found)) => self.slot_watch.saw(found),
                Ok(Err(error)) => tracing::debug!(%error, "a slot is looked at later"),
                Err(_) => tracing::debug!("a slot is looked at later: no answer"),
            }
            tokio::time::sleep(LOOK_AT_SLOT).await;
        }
    }

    /// After a failure: nothing of the session is written any more. A slot that has lost changes stops the capture.
    async fn failed(&self, error: &CaptureError) {
        self.slot_watch.has_failed(&error.to_string());
        if self.lane.send(AccumulatorMessage::Discard).await.is_err() {
            tracing::warn!("the accumulator crashed; what it held has returned");
        }
        // A slot that is missing or lost is found by the next preparation, which says so and stops.
        if error.fault() == CaptureFault::PublicationMissing {
            let stop = |state: &mut CaptureState| {
                state.stopped = Some(error.to_string());
                state.order == CaptureOrder::Run
            };
            if let Err(error) = command(&*self.store, self.name(), stop).await {
                tracing::warn!(capture = self.name(), %error, "a capture cannot be stopped");
            }
        }
    }
}

/// Captures the tables of one PostgreSQL, under a lease.
pub struct ChangeCapture {
    params: CaptureParams,
}

impl ChangeCapture {
    pub(super) fn new(params: CaptureParams) -> Self {
        Self { params }
    }
}

impl Actor for ChangeCapture {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let params = self.params.clone();
        ctx.spawn(
            async move {
                // The process ends when what was handed over is durable, or its time is over.
                let _hold = params.lifecycle.hold();
                params.run().await;
            }
            .into_actor(self),
        );
    }
}

// A restart drops the session, and begins again from the stored position.
impl Supervised for ChangeCapture {}
