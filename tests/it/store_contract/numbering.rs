//! The numbering of PostgreSQL's commits: beside open transactions, with looks that pass over what is known,
//! after a migration and in a restored database.

use super::following::follow;
use super::*;
use crate::harness::{connect, postgres_program};
use eclusa::store::CommitLog;
use eclusa::store::commit_log::{Horizon, Look, Position, Selection};
use std::process::Command;
use tokio_postgres::Client;

/// The events behind a position, when all commits have their number.
pub async fn all_after(store: &PostgresStore, after: Position) -> (Vec<Uuid>, Position) {
    follow(store, &Selection::default(), after, 1_000).await
}

#[tokio::test]
async fn a_reader_neither_waits_for_an_open_transaction_nor_passes_it_over() {
    let (store, url) = postgres_store().await;
    let mut client = connect(&url).await;
    let open = client.transaction().await.unwrap();
    let recorded = open
        .query_one("SELECT eclusa_record('slow', '{\"a\":1}')", &[])
        .await
        .unwrap();
    let early: Uuid = recorded.get(0);
    let late = event();
    write(&store, [late.clone()]).await.unwrap();
    let (seen, position) = all_after(&store, Position::START).await;
    assert_eq!(seen, [late.event_id], "what is committed is there at once");
    open.commit().await.unwrap();
    let (seen, _) = all_after(&store, position).await;
    assert_eq!(seen, [early], "what was committed later comes later");
}

/// A transaction that has written an event and is open.
struct Held {
    client: Client,
    event: Uuid,
    /// The number of the transaction. Those of other databases are listed beside it.
    number: i64,
}

async fn held(url: &str) -> Held {
    const RECORD: &str = "SELECT eclusa_record('held'), pg_current_xact_id()::text::bigint";
    let client = connect(url).await;
    client.batch_execute("BEGIN").await.unwrap();
    let row = client.query_one(RECORD, &[]).await.unwrap();
    Held {
        client,
        event: row.get(0),
        number: row.get(1),
    }
}

async fn written(store: &PostgresStore) -> Uuid {
    let event: Event = event();
    let id = event.event_id;
    write(store, [event]).await.unwrap();
    id
}

async fn number(store: &PostgresStore, look: &Look) -> (u32, Look) {
    let (numbered, look) = store.number_with(look.clone()).await.unwrap();
    (numbered.commits, look)
}

/// A look above a horizon that is made at once.
async fn above(store: &PostgresStore) -> Look {
    let look = Look {
        later: Some(store.horizon().await.unwrap()),
        ..Look::default()
    };
    let (_, look) = number(store, &look).await;
    Look {
        above: look.later.unwrap(),
        later: None,
    }
}

#[tokio::test]
async fn what_was_open_at_the_horizon_comes_before_what_is_written_after_its_commit() {
    let (store, url) = postgres_store().await;
    let first = written(&store).await;
    let (early, late) = (held(&url).await, held(&url).await);
    let is_open = |look: &Look, held: &Held| look.above.open.contains(&held.number);
    let look = above(&store).await;
    assert!(is_open(&look, &early) && is_open(&look, &late), "{look:?}");
    let second = written(&store).await;
    let (numbered, look) = number(&store, &look).await;
    assert_eq!(numbered, 1);
    late.client.batch_execute("COMMIT").await.unwrap();
    let third = written(&store).await;
    let (numbered, look) = number(&store, &look).await;
    assert_eq!(numbered, 2, "the one that has ended, and the new one");
    assert!(is_open(&look, &early) && !is_open(&look, &late), "{look:?}");
    early.client.batch_execute("COMMIT").await.unwrap();
    let fourth = written(&store).await;
    let (numbered, look) = number(&store, &look).await;
    assert_eq!(numbered, 2);
    assert!(!is_open(&look, &early), "{look:?}");
    let (seen, _) = all_after(&store, Position::START).await;
    let in_order = [first, second, late.event, third, early.event, fourth];
    assert_eq!(seen, in_order);
}

#[tokio::test]
async fn a_horizon_takes_the_place_of_an_earlier_one_without_a_look_at_everything() {
    let (store, url) = postgres_store().await;
    let held = held(&url).await;
    let mut look = above(&store).await;
    let below = written(&store).await;
    look.later = Some(store.horizon().await.unwrap());
    let (numbered, next) = number(&store, &look).await;
    assert_eq!(numbered, 1);
    let look = Look {
        above: next.later.unwrap(),
        later: None,
    };
    assert!(look.above.open.contains(&held.number), "{look:?}");
    assert!(look.above.block > next.above.block);
    held.client.batch_execute("ROLLBACK").await.unwrap();
    let last = written(&store).await;
    assert_eq!(number(&store, &look).await.0, 1);
    let (seen, _) = all_after(&store, Position::START).await;
    assert_eq!(seen, [below, last]);
    assert!(!seen.contains(&held.event));
}

/// Also a transaction that has a number higher than any that has ended is open.
#[tokio::test]
async fn the_newest_transaction_is_open_too() {
    let (store, url) = postgres_store().await;
    written(&store).await;
    let held = held(&url).await;
    let Horizon { block, open } = store.horizon().await.unwrap();
    assert!(open.contains(&held.number), "{open:?}");
    let last = "SELECT last_value FROM log_blocks";
    let row = held.client.query_one(last, &[]).await.unwrap();
    assert_eq!(block, row.get::<_, i64>(0));
}

/// After a recovery to an earlier time a block below the horizon may be yet to be drawn.
#[tokio::test]
async fn a_horizon_beyond_the_last_block_is_void() {
    let (store, _url) = postgres_store().await;
    written(&store).await;
    let mut look = above(&store).await;
    look.above.block += 1_000;
    written(&store).await;
    assert_eq!(number(&store, &look).await.0, 1);
}

#[tokio::test]
async fn the_wait_for_a_number_is_known() {
    let (store, _url) = postgres_store().await;
    assert_eq!(store.unnumbered().await.unwrap().seconds, 0.0);
    written(&store).await;
    assert!(store.unnumbered().await.unwrap().seconds > 0.0);
    store.number_commits().await.unwrap();
    assert_eq!(store.unnumbered().await.unwrap().seconds, 0.0);
}

/// The schema before positions, filled by hand, and then migrated.
#[tokio::test]
async fn a_filled_log_is_migrated() {
    let (store, url) = postgres_store().await;
    let events: Vec<_> = (0..5_000).map(|_| event()).collect();
    for batch in events.chunks(700) {
        write(&store, batch.to_vec()).await.unwrap();
    }
    drop(store);
    let client = connect(&url).await;
    for down in [
        include_str!("../../../migrations/postgres/2026-11-24-200000_create_captures/down.sql"),
        include_str!("../../../migrations/postgres/2026-11-24-100000_remember_deletions/down.sql"),
        include_str!("../../../migrations/postgres/2026-11-24-000000_add_schema_version/down.sql"),
        include_str!("../../../migrations/postgres/2026-11-23-000000_create_streams/down.sql"),
        include_str!("../../../migrations/postgres/2026-11-22-110000_hold_reopened_runs/down.sql"),
        include_str!("../../../migrations/postgres/2026-11-22-100000_mark_by_reaction/down.sql"),
        include_str!("../../../migrations/postgres/2026-11-22-000000_create_reactions/down.sql"),
        include_str!("../../../migrations/postgres/2026-11-21-000004_create_followers/down.sql"),
        include_str!("../../../migrations/postgres/2026-11-21-000003_number_commits/down.sql"),
    ] {
        client.batch_execute(down).await.unwrap();
    }
    client
        .batch_execute("DELETE FROM __diesel_schema_migrations WHERE version >= '20261121000003'")
        .await
        .unwrap();
    let options = PostgresOptions::new(&url);
    pg::migrate(&options).await.unwrap();
    let store = PostgresStore::connect(&options).await.unwrap();
    let new = event();
    write(&store, [new.clone()]).await.unwrap();
    let (seen, _) = all_after(&store, Position::START).await;
    let ids: Vec<Uuid> = events.iter().chain([&new]).map(|e| e.event_id).collect();
    assert_eq!(seen, ids);
}

/// The counters of another cluster or of a dump do not stand where the data does.
#[tokio::test]
async fn a_restored_log_goes_on_in_another_generation() {
    let (store, url) = postgres_store().await;
    write(&store, [event()]).await.unwrap();
    let (_, end) = all_after(&store, Position::START).await;
    assert_eq!(store.generation().await.unwrap(), 1);
    assert_eq!(store.generation().await.unwrap(), 1);
    let client = connect(&url).await;
    client
        .batch_execute(
            "UPDATE log_generation SET system_identifier = 1; \
             SELECT setval('log_blocks', 1, false); SELECT setval('log_commits_seq', 1, false)",
        )
        .await
        .unwrap();
    assert_eq!(store.generation().await.unwrap(), 2);
    let later = event();
    write(&store, [later.clone()]).await.unwrap();
    let (seen, _) = all_after(&store, end).await;
    assert_eq!(seen, [later.event_id]);
    assert_eq!(store.new_generation().await.unwrap(), 3);
}

/// What `pg_dump` has written, loaded into another database.
#[tokio::test]
async fn a_restored_dump_goes_on() {
    let (store, url) = postgres_store().await;
    for _ in 0..3 {
        write(&store, [event(), event()]).await.unwrap();
    }
    let (before, end) = all_after(&store, Position::START).await;
    let unnumbered = written(&store).await;
    let generation = store.generation().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump.sql");
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(postgres_program(program));
        let output = command.args(arguments).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {told}");
    };
    let file = file.display().to_string();
    run("pg_dump", &["--no-owner", "--file", &file, &url]);
    drop(store);
    let url = fresh_postgres().await;
    let stop_at_errors = ["-v", "ON_ERROR_STOP=1", "-q"];
    run(
        "psql",
        &[&stop_at_errors[..], &["-f", &file, &url]].concat(),
    );

    let options = PostgresOptions::new(&url);
    pg::migrate(&options).await.unwrap();
    let restored = PostgresStore::connect(&options).await.unwrap();
    assert_eq!(restored.generation().await.unwrap(), generation + 1);
    let new = written(&restored).await;
    let (seen, _) = all_after(&restored, Position::START).await;
    assert_eq!(seen, [before, vec![unnumbered, new]].concat());
    let (seen, _) = all_after(&restored, end).await;
    assert_eq!(seen, [unnumbered, new]);
}
