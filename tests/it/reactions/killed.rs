//! A process that dies at each step of a run: the run ends once, and is started once more at most.

use super::starts::Starts;
use crate::followers::{Place, SOON};
use crate::harness::{App, AppBuilder, eventually};
use diesel::sql_types::{BigInt, Text};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Attempts at a time.
pub const SLOTS: u32 = 4;
/// The steps of a run at which a process can die.
const POINTS: [&str; 3] = [
    "reaction.started/hook",
    "reaction.recorded",
    "reaction.stored",
];

#[actix_rt::test]
async fn no_run_is_lost_and_none_ends_twice() {
    // On both stores at once: most of the time passes with waiting.
    let (postgres, sqlite) = (Place::postgres().await, Place::sqlite().await);
    futures::join!(dies_at_each_step(&postgres), dies_at_each_step(&sqlite));
}

/// An ended run, whose row never changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, diesel::QueryableByName)]
pub struct EndedRow {
    #[diesel(sql_type = BigInt)]
    pub position: i64,
    #[diesel(sql_type = Text)]
    pub state: String,
    #[diesel(sql_type = Text)]
    pub finished: String,
    #[diesel(sql_type = Text)]
    pub worker: String,
}

impl Place {
    /// The binary on this database.
    pub fn app(&self) -> AppBuilder {
        let builder = App::builder().set("store.lease_ttl", "1s");
        match (&self.url, &self.folder) {
            (Some(url), _) => builder.postgres(url),
            (None, folder) => builder.embedded(folder.as_ref().unwrap().path()),
        }
    }

    pub async fn ended_rows(&self) -> HashSet<EndedRow> {
        let sql = "SELECT position, state, CAST(finished_at AS TEXT) AS finished, worker \
                   FROM reaction_runs WHERE state <> 'open'";
        self.query(sql).await.into_iter().collect()
    }

    /// Waits until each event has a run that has succeeded.
    pub async fn all_succeeded(&self) -> usize {
        eventually(SOON, "each run has succeeded", async || {
            let runs = self.runs().await;
            let events = "SELECT count(*) AS n FROM user_interactions";
            let all = runs.len() as i64 == self.number(events).await;
            assert!(runs.iter().all(|run| run.state != "failed"), "{runs:?}");
            (all && runs.iter().all(|run| run.state == "succeeded")).then_some(runs.len())
        })
        .await
    }
}

/// A reaction to all events that sends them to `starts`.
pub fn hook(starts: &Starts) -> Value {
    json!([{
        "name": "hook",
        "on": ["*"],
        "webhook": starts.webhook(),
        "concurrency": SLOTS,
        "timeout": "1s",
        "backoff": {"base": "10ms", "max": "1s"},
    }])
}

/// Events with these numbers. The process may be gone.
pub async fn send(app: &App, from: usize, count: usize) {
    let events: Value = (from..from + count)
        .map(|n| json!({"id": format!("e{n}"), "userId": "u", "eventType": "t"}))
        .collect();
    let _ = app
        .try_post("/v1/events", "application/json", events.to_string())
        .await;
}

async fn dies_at_each_step(place: &Place) {
    // One of four is refused at first, and so goes through the queue.
    let fails = |id: &str| id.starts_with(['0', '4', '8', 'c']);
    let starts = Starts::count(move |id, nth| match nth {
        1 if fails(id) => 500,
        _ => 204,
    });
    let starts = starts.await;
    let mut app = place.app().set("reactions", hook(&starts)).start().await;
    let mut sent = 0;
    for point in POINTS {
        app.wait_ready().await;
        // The answer may be lost with the process.
        let _ = app.set_failpoint(point, "6:1:kill").await;
        eventually(SOON, &format!("it dies at {point}"), async || {
            send(&app, sent, 20).await;
            sent += 20;
            app.has_exited().then_some(())
        })
        .await;
        let ended = place.ended_rows().await;
        app.start_again().await;
        app.wait_ready().await;
        send(&app, sent, 20).await;
        sent += 20;
        eventually(SOON, "runs end again", async || {
            let now = place.ended_rows().await;
            assert!(ended.is_subset(&now), "an outcome was overwritten");
            (now.len() > ended.len()).then_some(())
        })
        .await;
    }
    let ended = place.ended_rows().await;
    let runs = place.all_succeeded().await;
    assert!(ended.is_subset(&place.ended_rows().await));
    place.processed(runs as i64, 0).await;
    let counts = starts.all();
    assert_eq!(counts.len(), runs);
    assert!(counts.keys().any(|id| fails(id)));
    let expected = |id: &str| if fails(id) { 2 } else { 1 };
    let repeats: u32 = counts
        .iter()
        .map(|(id, starts)| starts.saturating_sub(expected(id)))
        .sum();
    let most = SLOTS * POINTS.len() as u32;
    assert!(repeats <= most, "{repeats} of {runs} were started twice");
}
