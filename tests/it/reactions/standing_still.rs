//! A process that stands still past its lease while runs are under way: another one takes over, and what the first one
//! says when it goes on counts no more.

use super::killed::{SLOTS, hook, send};
use super::starts::Starts;
use crate::followers::{Place, SOON};
use crate::harness::{App, eventually};

async fn start(place: &Place, starts: &Starts) -> App {
    let app = place.app().set("reactions", hook(starts)).start().await;
    app.wait_ready().await;
    app
}

/// The first process is stopped while it waits for the answers to the nth starts of runs; then all are answered. Returns
/// the number of runs.
async fn stands_still(place: &Place, starts: &Starts, nth: u32) -> usize {
    starts.hold_from(nth);
    let mut first = start(place, starts).await;
    eventually(SOON, "it has the lease", async || {
        let lane = [("lease", "follower hook:0")];
        (first.metric_with("eclusa_lease_held", &lane).await == 1.0).then_some(())
    })
    .await;
    let second = start(place, starts).await;
    send(&second, 0, 20).await;
    eventually(SOON, "runs are under way", async || {
        (starts.at_least(nth) == SLOTS).then_some(())
    })
    .await;
    first.pause();
    starts.release();
    assert_eq!(place.all_succeeded().await, 20);
    let ended = place.ended_rows().await;
    first.resume();
    first.wait_for_log(SOON, "lease lost").await;
    send(&second, 20, 20).await;
    assert_eq!(place.all_succeeded().await, 40);
    assert!(
        ended.is_subset(&place.ended_rows().await),
        "an outcome was overwritten"
    );
    let queue = "SELECT count(*) AS n FROM reaction_queue";
    assert_eq!(place.number(queue).await, 0);
    place.processed(40, 0).await;
    40
}

#[actix_rt::test]
async fn first_attempts_of_a_process_that_stands_still_are_repeated() {
    let place = Place::postgres().await;
    let starts = Starts::count(|_, _| 204).await;
    let runs = stands_still(&place, &starts, 1).await;
    let repeats = starts.total() - runs;
    assert!(repeats <= SLOTS as usize, "{repeats} were started twice");
}

#[actix_rt::test]
async fn later_attempts_of_a_process_that_stands_still_are_repeated() {
    let place = Place::postgres().await;
    let starts = Starts::count(|_, nth| if nth == 1 { 500 } else { 204 }).await;
    let runs = stands_still(&place, &starts, 2).await;
    let repeats = starts.total().saturating_sub(2 * runs);
    assert!(repeats <= SLOTS as usize, "{repeats} were started twice");
}
