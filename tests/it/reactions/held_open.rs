//! A handler's transaction with the outcome of its run stays open for long, on PostgreSQL: nothing else waits for it.

use super::effects::Effects;
use super::observing::start;
use crate::followers::{Place, SOON, typed};
use crate::harness::eventually;
use crate::store_contract::event;
use diesel::sql_types::Text;
use diesel_async::{AnsiTransactionManager, AsyncConnection as _, AsyncPgConnection};
use diesel_async::{RunQueryDsl as _, TransactionManager as _};
use eclusa::reactions::{HandlerError, Reaction, Reactions, Run};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// As long as the outcome of a run may be late by another one's transaction.
const LATE: Duration = Duration::from_secs(2);
/// As long as the transaction is open before another run begins.
const OPEN: Duration = Duration::from_secs(10);

/// The open transaction.
type Held = Arc<Mutex<Option<AsyncPgConnection>>>;

/// A reaction that fails up to the attempt `at`, which has an effect for the event `held` and leaves the transaction open.
fn reaction(place: &Place, held: &Held, at: u32) -> Reaction {
    let (url, held) = (place.url.clone().unwrap(), Arc::clone(held));
    let handler = move |run: Run| {
        let (url, held) = (url.clone(), Arc::clone(&held));
        async move {
            if run.attempt < at {
                return Err(HandlerError::Failed("not yet".to_owned()));
            }
            if run.event.event_type != "held" {
                return Ok(());
            }
            if held.lock().is_some() {
                return Err(HandlerError::Failed("it is open".to_owned()));
            }
            let mut connection = AsyncPgConnection::establish(&url).await.unwrap();
            AnsiTransactionManager::begin_transaction(&mut connection)
                .await
                .unwrap();
            run.complete_in(&mut connection).await.unwrap();
            diesel::sql_query("INSERT INTO effects VALUES ($1)")
                .bind::<Text, _>(run.event.event_id.to_string())
                .execute(&mut connection)
                .await
                .unwrap();
            *held.lock() = Some(connection);
            Ok(())
        }
    };
    Reaction::new("effects")
        .on("*", handler)
        .concurrency(3)
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
}

/// Nothing else is late while the transaction is open, and it decides when it is committed.
async fn nothing_waits(at: u32) {
    let place = Place::postgres().await;
    let (effects, held) = (Effects::of(&place), Held::default());
    effects.create().await;
    let running = start(&place, Reactions::new().react(reaction(&place, &held, at))).await;
    place.write(vec![event(), typed("held"), event()]).await;
    eventually(SOON, "the transaction is open", async || {
        held.lock().is_some().then_some(())
    })
    .await;
    place.ended(2).await;
    let opened = Instant::now();
    let mut ended = 2;
    eventually(SOON, "runs end meanwhile", async || {
        let written = Instant::now();
        place.write(vec![event(), event()]).await;
        ended += 2;
        place.ended(ended).await;
        assert!(written.elapsed() < LATE, "{:?}", written.elapsed());
        (opened.elapsed() > OPEN).then_some(())
    })
    .await;
    let mut connection = held.lock().take().unwrap();
    AnsiTransactionManager::commit_transaction(&mut connection)
        .await
        .unwrap();
    let runs = place.ended(ended + 1).await;
    let succeeded = |run: &super::observing::RunRow| {
        (run.state.as_str(), run.attempts) == ("succeeded", at as i32)
    };
    assert!(runs.iter().all(succeeded), "{runs:?}");
    assert_eq!(effects.done().await.len(), 1);
    place.processed(ended as i64 + 1, 0).await;
    running.stop().await;
}

#[actix_rt::test]
async fn no_outcome_waits_for_an_open_transaction() {
    // That of a first attempt, and that of a later one.
    futures::join!(nothing_waits(1), nothing_waits(2));
}
