//! The mark `processed` where reactions do not keep pace with each other.

use super::reacting::{
    LONG, Reacting, are_processed, declaration, end_of, is_processed, mark, queued, written,
};
use crate::followers::{Place, on_both_stores, typed};
use eclusa::store::LeaseStore;
use eclusa::store::commit_log::LoggedEvent;
use eclusa::store::followers::{Commanded, Start};
use eclusa::store::leases::Fenced;
use eclusa::store::postgres::{self as pg, PostgresOptions};
use eclusa::store::reactions::Ending;
use eclusa::store::sqlite as lite;
use std::time::Duration;

/// Of the reactions that [`two`] declares, the first reacts to the first, the second to the second, and both to the
/// third.
const TYPES: [&str; 3] = ["page.view", "order.paid", "page.paid"];

async fn two(place: &Place) -> (Reacting<'_>, Reacting<'_>) {
    let pages = Reacting::to(place, "pages", "page.*", Start::Now).await;
    let paid = Reacting::to(place, "paid", "*.paid", Start::Now).await;
    (pages, paid)
}

async fn some(place: &Place, types: &[&str]) -> Vec<LoggedEvent> {
    written(place, types.iter().map(|one| typed(one)).collect()).await
}

on_both_stores! {
    a_paused_reaction_holds_back_its_own_events,
    a_commit_is_marked_in_the_stretches_of_its_reactions,
    one_that_begins_with_the_first_event_holds_back_no_other,
    a_removed_reaction_holds_back_nothing,
    a_run_that_ends_waits_for_the_other_reactions,
    a_run_that_ends_last_marks_its_event,
    a_new_type_holds_back_no_former_event,
    a_type_that_was_replaced_at_once_holds_back_nothing,
    marks_go_on_where_those_of_all_reactions_were,
}

async fn a_paused_reaction_holds_back_its_own_events(place: &Place) {
    let (pages, paid) = two(place).await;
    let paused = place.store.pause_reaction("paid", true).await.unwrap();
    assert_eq!(paused, Commanded::Done);
    for _ in 0..2 {
        let runs = some(place, &TYPES).await;
        pages.end(&[runs[0].clone()], Ending::Succeeded).await;
        pages.end(&[runs[2].clone()], Ending::Succeeded).await;
        mark(place, end_of(place).await).await;
        assert_eq!(are_processed(place, &runs).await, [true, false, false]);
    }
    let runs = some(place, &TYPES).await;
    let resumed = place.store.pause_reaction("paid", false).await.unwrap();
    assert_eq!(resumed, Commanded::Done);
    // It has come through, and the other has not.
    paid.pass(end_of(place).await).await;
    mark(place, end_of(place).await).await;
    assert_eq!(are_processed(place, &runs).await, [false, true, false]);
    pages.pass(end_of(place).await).await;
    mark(place, end_of(place).await).await;
    let all = "SELECT count(*) AS n FROM user_interactions WHERE NOT processed";
    assert_eq!(place.number(all).await, 0);
}

async fn a_commit_is_marked_in_the_stretches_of_its_reactions(place: &Place) {
    let (pages, paid) = two(place).await;
    let types = ["page.paid", "order.paid", "page.paid", "page.view"];
    let runs = some(place, &types).await;
    let end = end_of(place).await;
    pages.pass(runs[1].position).await;
    paid.pass(end).await;
    mark(place, runs[1].position).await;
    pages.pass(runs[2].position).await;
    mark(place, end).await;
    assert_eq!(are_processed(place, &runs).await, [true, true, true, false]);
    pages.pass(end).await;
    mark(place, end).await;
    assert!(is_processed(place, &runs[3]).await);
}

async fn one_that_begins_with_the_first_event_holds_back_no_other(place: &Place) {
    let pages = Reacting::to(place, "pages", "page.*", Start::Now).await;
    let before = some(place, &TYPES).await;
    pages.end(&before, Ending::Succeeded).await;
    mark(place, end_of(place).await).await;
    let late = Reacting::to(place, "late", "*.paid", Start::Beginning).await;
    let runs = some(place, &TYPES).await;
    pages.end(&runs, Ending::Succeeded).await;
    mark(place, end_of(place).await).await;
    assert_eq!(are_processed(place, &before).await, [true; 3], "they were");
    assert_eq!(are_processed(place, &runs).await, [true, false, false]);
    late.pass(end_of(place).await).await;
    mark(place, end_of(place).await).await;
    assert_eq!(are_processed(place, &runs).await, [true; 3]);
}

async fn remove(place: &Place, reacting: &Reacting<'_>) {
    let released = LeaseStore::release(&*place.store, &reacting.lease).await;
    released.unwrap();
    let removed = place.store.remove_reaction(&reacting.name).await.unwrap();
    assert_eq!(removed, Commanded::Done);
}

async fn a_removed_reaction_holds_back_nothing(place: &Place) {
    let (pages, paid) = two(place).await;
    let runs = some(place, &TYPES).await;
    let end = end_of(place).await;
    pages.end(&runs, Ending::Succeeded).await;
    mark(place, end).await;
    assert_eq!(are_processed(place, &runs).await, [true, false, false]);
    remove(place, &paid).await;
    mark(place, end).await;
    assert_eq!(are_processed(place, &runs).await, [true; 3]);
    // Then it is forgotten: on PostgreSQL when no writer is left that knows it.
    if place.url.is_some() {
        let aged = "UPDATE removed_reactions SET removed_at = removed_at - interval '2 days'";
        place.execute(aged).await;
        let lease = LeaseStore::acquire(&*place.store, "retention", "me", LONG).await;
        let lease = lease.unwrap().unwrap();
        let expired = place.store.expire_runs(&lease, None).await.unwrap();
        assert!(matches!(expired, Fenced::Done(_)));
    }
    let left = "SELECT count(*) AS n FROM reaction_marks";
    assert_eq!(place.number(left).await, 1);
}

async fn a_run_that_ends_waits_for_the_other_reactions(place: &Place) {
    let (pages, paid) = two(place).await;
    let runs = some(place, &TYPES).await;
    let end = end_of(place).await;
    let open = [&runs[0], &runs[2]].map(|run| queued(run, Duration::ZERO));
    pages.queue(open.to_vec()).await;
    pages.pass(end).await;
    mark(place, end).await;
    for run in pages.claim(LONG).await.runs {
        assert!(pages.succeed(&run).await);
    }
    assert_eq!(are_processed(place, &runs).await, [true, false, false]);
    paid.end(&runs[1..], Ending::Succeeded).await;
    assert!(!is_processed(place, &runs[2]).await, "not yet");
    mark(place, end).await;
    assert_eq!(are_processed(place, &runs).await, [true; 3]);
}

async fn a_run_that_ends_last_marks_its_event(place: &Place) {
    let (pages, paid) = two(place).await;
    let runs = some(place, &TYPES).await;
    let end = end_of(place).await;
    pages.queue(vec![queued(&runs[2], Duration::ZERO)]).await;
    pages.pass(end).await;
    mark(place, end).await;
    paid.end(&runs, Ending::Succeeded).await;
    mark(place, end).await;
    assert_eq!(are_processed(place, &runs).await, [true, true, false]);
    let run = pages.claim(LONG).await.runs.remove(0);
    assert!(pages.succeed(&run).await);
    assert!(is_processed(place, &runs[2]).await);
}

async fn a_new_type_holds_back_no_former_event(place: &Place) {
    let (pages, orders) = (
        Reacting::to(place, "pages", "page.*", Start::Now).await,
        Reacting::to(place, "orders", "order.*", Start::Now).await,
    );
    let before = some(place, &TYPES).await;
    let both = declaration("orders", "*.paid", Start::Now);
    assert!(place.store.declare_reaction(&both).await.unwrap());
    let behind = some(place, &TYPES).await;
    let end = end_of(place).await;
    pages.pass(end).await;
    mark(place, end).await;
    assert_eq!(are_processed(place, &before).await, [true, false, true]);
    assert_eq!(are_processed(place, &behind).await, [true, false, false]);
    orders.pass(end).await;
    mark(place, end).await;
    assert_eq!(are_processed(place, &before).await, [true; 3]);
    assert_eq!(are_processed(place, &behind).await, [true; 3]);
}

async fn a_type_that_was_replaced_at_once_holds_back_nothing(place: &Place) {
    let reacting = Reacting::to(place, "r", "page.*", Start::Now).await;
    let other = declaration("r", "order.*", Start::Now);
    assert!(place.store.declare_reaction(&other).await.unwrap());
    let runs = some(place, &["page.view"]).await;
    // By a writer whose transaction began under the first declaration.
    let unprocessed = "UPDATE user_interactions SET processed = false";
    place.execute(unprocessed).await;
    reacting.pass(end_of(place).await).await;
    mark(place, end_of(place).await).await;
    assert!(is_processed(place, &runs[0]).await);
}

/// The schema as it was when all reactions were marked up to one position.
async fn before(place: &Place) {
    let down = match place.url {
        Some(_) => {
            include_str!("../../../migrations/postgres/2026-11-22-100000_mark_by_reaction/down.sql")
        }
        None => {
            include_str!("../../../migrations/sqlite/2026-11-22-100000_mark_by_reaction/down.sql")
        }
    };
    let forget = "DELETE FROM __diesel_schema_migrations WHERE version = '20261122100000'";
    place.execute(&format!("{down}; {forget}")).await;
}

async fn migrate(place: &Place) {
    match (&place.url, &place.folder) {
        (Some(url), _) => pg::migrate(&PostgresOptions::new(url)).await.map(|_| ()),
        (None, folder) => {
            let path = folder.as_ref().unwrap().path().join("eclusa.db");
            lite::migrate(&path).await.map(|_| ())
        }
    }
    .unwrap();
}

async fn marks_go_on_where_those_of_all_reactions_were(place: &Place) {
    let (pages, paid) = two(place).await;
    let runs = some(place, &TYPES).await;
    let marked = end_of(place).await;
    pages.end(&runs, Ending::Succeeded).await;
    paid.end(&runs, Ending::Succeeded).await;
    mark(place, marked).await;
    let runs = some(place, &TYPES).await;
    pages.end(&runs, Ending::Succeeded).await;
    before(place).await;
    migrate(place).await;
    let reached = place.store.reaction_positions().await.unwrap();
    assert!(reached.iter().all(|one| one.marked_to == marked));
    mark(place, end_of(place).await).await;
    assert_eq!(are_processed(place, &runs).await, [true, false, false]);
    // A reaction that was removed before leaves its events to be marked.
    remove(place, &paid).await;
    remove(place, &pages).await;
    let position = format!("UPDATE follower_positions SET position = {marked}");
    place.execute(&position).await;
    before(place).await;
    migrate(place).await;
    mark(place, end_of(place).await).await;
    assert_eq!(are_processed(place, &runs).await, [true; 3]);
}
