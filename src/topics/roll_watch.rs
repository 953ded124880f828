//! `RollWatch`: ends streams whose clients take nothing or are gone, whose API key may not read any more, or whose log
//! has become another one; and all of them when the process stops.

use super::roll::{EndReason, Seat};
use super::shared::Shared;
use crate::config::Settings;
use crate::config::auth::Scope;
use actix::{Actor, AsyncContext, Context, Supervised, WrapFuture};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// A client that takes nothing for so long keeps no events from those that do; they are read again for it.
const STALLED: Duration = Duration::from_secs(1);
/// Between two looks at the generation of the log.
const GENERATION: Duration = Duration::from_secs(5);
/// How long a client has to take the last words. Then its connection is closed.
const LAST_WORDS: Duration = Duration::from_secs(5);

pub(super) struct RollWatch {
    shared: Arc<Shared>,
}

impl RollWatch {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl Actor for RollWatch {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let shared = Arc::clone(&self.shared);
        ctx.spawn(
            async move {
                let lifecycle = shared.lifecycle.clone();
                lifecycle
                    .unless_draining(shared.watch_again_and_again())
                    .await;
                shared.roll.stop();
            }
            .into_actor(self),
        );
    }
}

// A restart begins with a look.
impl Supervised for RollWatch {}

impl Shared {
    /// Never ends.
    async fn watch_again_and_again(&self) {
        let mut looked = Instant::now();
        loop {
            if self.roll.is_empty() {
                self.roll.joined().await;
            }
            let seats = self.roll.all();
            let settings = Arc::clone(&self.settings.get());
            for seat in &seats {
                look(seat, &settings);
            }
            if looked.elapsed() >= GENERATION {
                looked = Instant::now();
                self.check_generation(&seats).await;
            }
            drop(seats);
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn check_generation(&self, seats: &[Arc<Seat>]) {
        match self.store.generation().await {
            Ok(generation) => {
                for seat in seats.iter().filter(|seat| seat.is_of_another(generation)) {
                    seat.end(EndReason::Generation);
                }
            }
            Err(error) => tracing::debug!(%error, "the generation of the log cannot be read"),
        }
    }
}

fn look(seat: &Seat, settings: &Settings) {
    let stalled = seat.stalled();
    if stalled.is_some_and(|time| time >= STALLED) {
        drop(seat.take_own());
    }
    if let Some(time) = seat.ending_for() {
        if let Some(client) = &seat.client
            && time >= LAST_WORDS
        {
            client.cut();
        }
        return;
    }
    if seat.client.as_ref().is_some_and(|client| client.is_gone()) {
        seat.end(EndReason::Left);
    } else if !settings
        .auth
        .grants(seat.holder.digest.as_ref(), Scope::Read)
    {
        seat.end(EndReason::Revoked);
    } else if stalled.is_some_and(|time| time >= settings.topics.patience) {
        seat.end(EndReason::Slow);
    }
}
