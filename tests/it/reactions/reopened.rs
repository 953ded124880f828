//! Runs with a key that are opened again while others of the key are under way for the first time.

use super::observing::start;
use crate::followers::{Place, Running, SOON, on_both_stores, typed};
use crate::harness::eventually;
use eclusa::event::Event;
use eclusa::reactions::{HandlerError, Reaction, Reactions, Run};
use eclusa::store::runs::ReopenedRun;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use uuid::Uuid;

on_both_stores! {
    a_run_of_an_order_key_waits_for_a_first_attempt,
    a_run_of_a_unique_key_waits_for_a_first_attempt,
    a_run_waits_for_the_lane_of_the_newest_declaration,
}

/// What handlers have begun and ended, by user, and how many may end of those that are held.
#[derive(Clone)]
struct Seen {
    under_way: Arc<Mutex<HashSet<String>>>,
    begun: Arc<Mutex<Vec<Uuid>>>,
    held: Arc<Semaphore>,
    /// A handler has begun while another one of its user was under way.
    overlap: Arc<Mutex<Option<Uuid>>>,
}

impl Seen {
    fn new() -> Self {
        Self {
            under_way: Arc::default(),
            begun: Arc::default(),
            held: Arc::new(Semaphore::new(0)),
            overlap: Arc::default(),
        }
    }

    /// Events of the type `fails` fail at their first attempt; of the others, those of the type `held` wait.
    fn reaction(&self, name: &str) -> Reaction {
        let seen = self.clone();
        let handler = move |run: Run| {
            let seen = seen.clone();
            async move {
                let user = run.event.user_id.clone().unwrap();
                seen.begun.lock().push(run.event.event_id);
                if !seen.under_way.lock().insert(user.clone()) {
                    *seen.overlap.lock() = Some(run.event.event_id);
                }
                let is_first = run.attempt == 1;
                let result = match run.event.event_type.as_str() {
                    "fails" if is_first => Err(HandlerError::Discard("at first".to_owned())),
                    "held" | "fails" => {
                        seen.held.acquire().await.unwrap().forget();
                        Ok(())
                    }
                    _ => Ok(()),
                };
                seen.under_way.lock().remove(&user);
                result
            }
        };
        Reaction::new(name).on("*", handler).concurrency(8)
    }

    fn begun(&self) -> Vec<Uuid> {
        self.begun.lock().clone()
    }

    async fn have_begun(&self, ids: &[Uuid]) {
        eventually(SOON, "handlers have begun", async || {
            (self.begun() == ids).then_some(())
        })
        .await;
    }
}

fn of_user(event_type: &str, user: &str) -> Event {
    Event {
        user_id: Some(user.to_owned()),
        ..typed(event_type)
    }
}

impl Place {
    async fn reopen(&self, event: &Event, order_key: Option<&str>, unique_key: Option<&str>) {
        let store = &self.store;
        let reaction = store.reactions().await.unwrap().remove(0);
        let run = ReopenedRun {
            position: store.position_of(event.event_id).await.unwrap().unwrap(),
            event: store.get(event.event_id).await.unwrap().unwrap(),
            order_key: order_key.map(str::to_owned),
            unique_key: unique_key.map(str::to_owned),
            after: Duration::ZERO,
        };
        let opened = store.reopen_runs(reaction.id, vec![run]).await.unwrap();
        assert_eq!(opened, 1);
    }

    async fn queued(&self, count: i64) {
        eventually(
            SOON,
            &format!("{count} runs are in the queue"),
            async || {
                let queued = "SELECT count(*) AS n FROM reaction_queue";
                (self.number(queued).await == count).then_some(())
            },
        )
        .await;
    }

    async fn succeeded(&self, count: usize) {
        eventually(SOON, &format!("{count} runs have succeeded"), async || {
            let runs = self.runs().await;
            let succeeded = runs.iter().filter(|run| run.state == "succeeded").count();
            (succeeded == count).then_some(())
        })
        .await;
    }
}

async fn a_run_of_an_order_key_waits_for_a_first_attempt(place: &Place) {
    let seen = Seen::new();
    let reaction = seen.reaction("ordered").order_by("userId");
    let running = start(place, Reactions::new().react(reaction)).await;
    let failed = of_user("fails", "a");
    place.write(vec![failed.clone()]).await;
    place.ended(1).await;
    let events: Vec<Event> = ["held", "quick", "quick"]
        .map(|name| of_user(name, "a"))
        .into();
    let ids: Vec<Uuid> = events.iter().map(|event| event.event_id).collect();
    place.write(events).await;
    seen.have_begun(&[failed.event_id, ids[0]]).await;
    place.reopen(&failed, Some("a"), None).await;
    // Those that have not begun follow it into the queue, also what comes now.
    place.queued(3).await;
    let last = of_user("quick", "a");
    place.write(vec![last.clone()]).await;
    place.queued(4).await;
    assert_eq!(seen.begun().len(), 2, "it waits for the one under way");
    seen.held.add_permits(1);
    let again = failed.event_id;
    seen.have_begun(&[again, ids[0], again]).await;
    seen.held.add_permits(1);
    place.succeeded(5).await;
    assert_eq!(
        seen.begun(),
        [again, ids[0], again, ids[1], ids[2], last.event_id]
    );
    assert_eq!(*seen.overlap.lock(), None);
    // What comes later is not held up.
    place.write(vec![of_user("quick", "a")]).await;
    place.succeeded(6).await;
    running.stop().await;
}

async fn a_run_of_a_unique_key_waits_for_a_first_attempt(place: &Place) {
    let seen = Seen::new();
    let reaction = seen.reaction("unique").unique("userId");
    let running = start(place, Reactions::new().react(reaction)).await;
    let (failed, other) = (of_user("fails", "a"), of_user("fails", "b"));
    for event in [&failed, &other] {
        place.write(vec![event.clone()]).await;
    }
    place.ended(2).await;
    let first = of_user("held", "a");
    place.write(vec![first.clone()]).await;
    seen.have_begun(&[failed.event_id, other.event_id, first.event_id])
        .await;
    place.reopen(&failed, None, Some("a")).await;
    place.reopen(&other, None, Some("b")).await;
    // The lane has looked at both when it has released the other.
    let mut begun = vec![
        failed.event_id,
        other.event_id,
        first.event_id,
        other.event_id,
    ];
    seen.have_begun(&begun).await;
    seen.held.add_permits(2);
    begun.push(failed.event_id);
    seen.have_begun(&begun).await;
    // A like of it is dropped.
    place.write(vec![of_user("quick", "a")]).await;
    eventually(SOON, "the like is dropped", async || {
        place
            .runs()
            .await
            .iter()
            .any(|run| run.state == "cancelled")
            .then_some(())
    })
    .await;
    seen.held.add_permits(1);
    place.succeeded(3).await;
    assert_eq!(*seen.overlap.lock(), None);
    running.stop().await;
}

/// The lane of the key is another one since the declaration has changed.
async fn a_run_waits_for_the_lane_of_the_newest_declaration(place: &Place) {
    let seen = Seen::new();
    let run = async |lanes| -> Running {
        let reaction = seen.reaction("unique").unique("userId").lanes(lanes);
        start(place, Reactions::new().react(reaction)).await
    };
    let before = run(1).await;
    let users: Vec<String> = (0..6).map(|n| format!("u{n}")).collect();
    let failed: Vec<Event> = users.iter().map(|user| of_user("fails", user)).collect();
    let without_key: Vec<Event> = (0..3).map(|n| of_user("fails", &format!("x{n}"))).collect();
    place.write(failed.clone()).await;
    place.write(without_key.clone()).await;
    place.ended(9).await;
    before.stop().await;
    let held = users.iter().take(3).map(|user| of_user("held", user));
    place.write(held.collect()).await;
    // The first lane has what was before the declaration.
    let now = run(4).await;
    let begun = async |count| {
        eventually(SOON, &format!("{count} have begun"), async || {
            (seen.begun().len() >= count).then_some(())
        })
        .await;
    };
    begun(12).await;
    for (event, user) in failed.iter().zip(&users) {
        place.reopen(event, None, Some(user)).await;
    }
    // Lanes look at the queue, and leave those with keys.
    for (n, event) in without_key.iter().enumerate() {
        place.reopen(event, None, None).await;
        begun(13 + n).await;
        assert_eq!(seen.begun().last(), Some(&event.event_id));
    }
    seen.held.add_permits(12);
    place.succeeded(12).await;
    assert_eq!(*seen.overlap.lock(), None);
    now.stop().await;
}
