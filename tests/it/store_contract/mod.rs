//! What every store promises, run against each of them.

mod collecting;
mod duplicates;
mod followers;
mod following;
mod captures;
mod leases;
mod letters;
mod listing;
mod marking;
mod numbering;
mod pix_messages;
mod postgres;
mod reacting;
mod reactions;
mod recording;
pub mod retention;
mod run_commands;
mod run_retention;
mod runs;
mod sqlite;
mod stream_letters;
mod stream_levels;
mod stream_model;
mod stream_order;
mod stream_random;
mod stream_reads;
mod stream_rivals;
mod streams;
mod writing;

pub use following::follow;

use crate::harness::Postgres;
use chrono::{DateTime, Utc};
use eclusa::event::{Event, Rows, Source};
use eclusa::store::postgres as pg;
use eclusa::store::postgres::{PostgresOptions, PostgresStore};
use eclusa::store::sqlite as lite;
use eclusa::store::sqlite::{SqliteOptions, SqliteStore};
use eclusa::store::{EventStore, RowOutcome, Store, StoreError};
use serde_json::value::RawValue;
use std::sync::Arc;
use uuid::Uuid;

const DUPLICATE: RowOutcome = RowOutcome::Duplicate { conflicting: false };
const CONFLICT: RowOutcome = RowOutcome::Duplicate { conflicting: true };

/// A PostgreSQL database of its own, without tables.
pub async fn fresh_postgres() -> String {
    Postgres::shared().await.database().await
}

/// A store in PostgreSQL with its tables, and where it is.
pub async fn postgres_store() -> (PostgresStore, String) {
    let url = fresh_postgres().await;
    let mut options = PostgresOptions::new(&url);
    // More than its default, so that writes meet each other.
    options.write_connections = 8;
    pg::migrate(&options).await.expect("migrates");
    let store = PostgresStore::connect(&options).await.expect("connects");
    (store, url)
}

/// A store in an SQLite file with its tables, and the folder it is in.
pub async fn sqlite_store() -> (SqliteStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eclusa.db");
    lite::migrate(&path).await.expect("migrates");
    let store = SqliteStore::open(&SqliteOptions::new(&path))
        .await
        .expect("opens");
    (store, folder)
}

/// The time, as fine as stores keep it.
pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).unwrap()
}

pub fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// An event with this id and nothing remarkable.
pub fn event_of(event_id: Uuid) -> Event {
    Event {
        event_id,
        original_id: None,
        producer: Arc::from("tests"),
        user_id: Some("u1".to_owned()),
        event_type: "page.view".to_owned(),
        event_data: json(r#"{"path":"/"}"#),
        schema_version: None,
        session_id: None,
        timestamp: None,
        received_at: now(),
        source: Source::Http,
    }
}

pub fn event() -> Event {
    event_of(Uuid::now_v7())
}

pub fn rows(events: Vec<Event>) -> Rows {
    Rows::all(Arc::new(events))
}

pub async fn write(
    store: &dyn EventStore,
    events: impl IntoIterator<Item = Event>,
) -> Result<Vec<RowOutcome>, StoreError> {
    store.write(rows(events.into_iter().collect())).await
}

macro_rules! contract {
    ($($module:ident :: $case:ident),+ $(,)?) => {
        mod on_postgres {
            $(#[tokio::test]
            async fn $case() {
                let (store, _url) = super::postgres_store().await;
                super::$module::$case(&store).await;
            })+
        }
        mod on_sqlite {
            $(#[tokio::test]
            async fn $case() {
                let (store, _folder) = super::sqlite_store().await;
                super::$module::$case(&store).await;
            })+
        }
    };
}

contract! {
    writing::writing_twice_stores_once,
    writing::ids_follow_the_order_of_the_rows,
    writing::the_first_of_equal_ids_in_a_batch_wins,
    writing::other_content_is_a_conflict_and_other_spelling_is_not,
    writing::payloads_are_compared_as_json,
    writing::every_field_comes_back,
    writing::ids_of_any_day_are_taken,
    writing::nul_is_poison_and_harms_nothing_else,
    writing::overlapping_batches_in_opposite_orders,
    writing::an_empty_batch_is_nothing,
    listing::filters_choose,
    listing::from_is_inclusive_and_to_exclusive,
    listing::pages_visit_each_event_once,
    listing::counts_by_field,
    listing::an_unknown_event_is_none,
    following::a_reader_sees_each_event_once_in_order,
    following::from_the_end_on_leaves_out_what_was_before,
    following::a_selection_leaves_out_the_rest,
    following::a_read_is_bounded_in_bytes_and_misses_nothing,
    following::a_read_ends_where_it_is_told_to,
    following::a_backlog_is_counted,
    followers::a_step_stores_its_effect_and_its_position_together,
    followers::a_step_without_the_lease_does_nothing,
    followers::a_declaration_that_changes_takes_effect_at_the_end_of_the_log,
    followers::commands_do_what_they_say_or_say_why_not,
    followers::a_dead_letter_of_a_follower_goes_to_it_again_once,
    followers::a_rebuild_keeps_the_letters_of_events_that_are_gone,
    followers::what_a_follower_has_not_read_stays,
    letters::a_letter_comes_back_whole,
    letters::texts_no_store_takes_are_mended_and_bytes_are_not,
    letters::the_same_failure_is_kept_once_and_another_is_history,
    letters::the_history_is_bounded,
    letters::one_that_failed_again_meanwhile_stays_dead,
    letters::pages_visit_each_letter_once,
    letters::letters_are_chosen_counted_and_purged,
    letters::burials_at_once_agree,
    captures::a_state_follows_the_newest_one_only,
    leases::one_holder_at_a_time,
    leases::a_token_is_never_given_twice,
    leases::a_lease_that_ran_out_is_taken_and_lost_to_its_holder,
    leases::many_ask_and_one_gets_it,
    retention::old_rows_go_in_slices_and_no_others,
    retention::rows_from_a_clock_that_was_ahead_are_not_in_the_way,
    retention::nothing_goes_under_a_lost_lease,
}
