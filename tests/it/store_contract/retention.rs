//! Retention: what is old goes, under the lease, and nothing else; on PostgreSQL without standing in
//! anybody's way.

use super::*;
use crate::harness::connect;
use chrono::{Days, NaiveDate, TimeDelta};
use eclusa::store::leases::{Fenced, Lease};
use eclusa::store::retention::DayStep;
use eclusa::store::{ErrorKind, EventFilter};
use std::time::Duration;

const TTL: Duration = Duration::from_secs(600);
const KEEP: u32 = 10;

async fn lease(store: &dyn Store, holder: &str) -> Lease {
    let lease = store.acquire("retention", holder, TTL).await.unwrap();
    lease.expect("nobody has it")
}

/// An event without a day of its own, received so long ago.
fn received(days: i64) -> Event {
    let mut event = event_of(Uuid::new_v4());
    event.received_at = now() - TimeDelta::days(days);
    event
}

async fn ids(store: &dyn Store) -> Vec<Uuid> {
    let page = store
        .list(&EventFilter::default(), None, 10_000)
        .await
        .unwrap();
    let mut ids: Vec<Uuid> = page.events.iter().map(|event| event.event_id).collect();
    ids.reverse();
    ids
}

/// Trims from the front until there is no next slice: what each deleted, and behind which row the
/// last one began.
async fn trim_all(store: &dyn Store, lease: &Lease, limit: u32) -> (Vec<u64>, i64) {
    let mut after = 0;
    let mut slices = Vec::new();
    loop {
        let Fenced::Done(slice) = store.trim(lease, KEEP, after, limit).await.unwrap() else {
            panic!("the lease is held");
        };
        slices.push(slice.deleted);
        assert!(slices.len() < 10, "{slices:?}");
        match slice.next {
            Some(next) => after = next,
            None => return (slices, after),
        }
    }
}

pub async fn old_rows_go_in_slices_and_no_others(store: &dyn Store) {
    let old: Vec<Event> = (0..25).map(|_| received(11)).collect();
    // Behind one that is to stay, an old one stays until that goes.
    let kept = [received(9), received(11), received(0)];
    write(store, old).await.unwrap();
    write(store, kept.clone()).await.unwrap();
    let lease = lease(store, "me").await;
    let (slices, after) = trim_all(store, &lease, 10).await;
    // The last slice has five old ones, then one to keep, then an old one again.
    assert_eq!(slices, [10, 10, 6]);
    assert_eq!(ids(store).await, [kept[0].event_id, kept[2].event_id]);
    let again = store.trim(&lease, KEEP, after, 10).await.unwrap();
    assert!(matches!(again, Fenced::Done(slice) if slice.deleted == 0 && slice.next.is_none()));
}

/// They stay until their time has come, and hold up nothing behind them for so long.
pub async fn rows_from_a_clock_that_was_ahead_are_not_in_the_way(store: &dyn Store) {
    let ages = [
        vec![-400; 12],
        vec![11; 5],
        // One to keep among old ones ends nothing either.
        vec![9],
        vec![11; 6],
        // From here on they are to be kept, and the old one behind them stays.
        vec![9; 20],
        vec![11],
    ];
    let events: Vec<Event> = ages.concat().into_iter().map(received).collect();
    write(store, events.clone()).await.unwrap();
    let lease = lease(store, "me").await;
    let (slices, _) = trim_all(store, &lease, 10).await;
    assert_eq!(slices, [0, 7, 4, 0]);
    let (front, rest) = events.split_at(12);
    let kept = front.iter().chain(&rest[5..6]).chain(&rest[12..]);
    let kept: Vec<Uuid> = kept.map(|event| event.event_id).collect();
    assert_eq!(ids(store).await, kept);
}

pub async fn nothing_goes_under_a_lost_lease(store: &dyn Store) {
    write(store, [received(11)]).await.unwrap();
    let lost = lease(store, "me").await;
    store.release(&lost).await.unwrap();
    let held = lease(store, "you").await;
    assert_eq!(store.trim(&lost, KEEP, 0, 10).await.unwrap(), Fenced::Lost);
    assert_eq!(ids(store).await.len(), 1);
    let _ = store.trim(&held, KEEP, 0, 10).await.unwrap();
    assert_eq!(ids(store).await.len(), 0);
}

fn day(back: u64) -> NaiveDate {
    (Utc::now() - Days::new(back)).date_naive()
}

fn on(day: NaiveDate) -> Event {
    let noon = day.and_hms_opt(12, 0, 0).unwrap().and_utc();
    let millis = u64::try_from(noon.timestamp_millis()).unwrap();
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid();
    event_of(id)
}

fn table(day: NaiveDate) -> String {
    format!("user_interactions_{}", day.format("%Y%m%d"))
}

/// Drops until nothing is left to drop.
async fn drop_all(store: &dyn Store, lease: &Lease, keep: Option<u32>) -> Vec<DayStep> {
    let mut steps = Vec::new();
    while let Fenced::Done(Some(step)) = store.drop_next_day(lease, keep).await.unwrap() {
        steps.push(step);
        assert!(steps.len() < 50, "{steps:?}");
    }
    steps
}

async fn exists(url: &str, table: &str) -> bool {
    let sql = "SELECT to_regclass($1) IS NOT NULL";
    let row = connect(url).await.query_one(sql, &[&table]).await.unwrap();
    row.get(0)
}

#[tokio::test]
async fn days_go_oldest_first_and_those_to_keep_stay() {
    let (store, url) = postgres_store().await;
    let store: &dyn Store = &store;
    let kept = [on(day(0)), on(day(9)), on(day(10)), received(400)];
    write(store, [on(day(30)), on(day(11)), on(day(12))])
        .await
        .unwrap();
    write(store, kept.clone()).await.unwrap();
    let lease = lease(store, "me").await;
    let steps = drop_all(store, &lease, Some(KEEP)).await;
    let expected: Vec<DayStep> = [30, 12, 11].map(|back| DayStep::Dropped(day(back))).into();
    assert_eq!(steps, expected);
    assert_eq!(ids(store).await, kept.map(|event| event.event_id));
    assert!(!exists(&url, &table(day(11))).await);
    assert!(exists(&url, &table(day(10))).await);
    // A straggler's day is made again, and goes the next time.
    write(store, [on(day(11))]).await.unwrap();
    assert_eq!(
        drop_all(store, &lease, Some(KEEP)).await,
        [DayStep::Dropped(day(11))]
    );
}

#[tokio::test]
async fn no_day_goes_under_a_lost_lease() {
    let (store, _url) = postgres_store().await;
    let store: &dyn Store = &store;
    write(store, [on(day(30))]).await.unwrap();
    let lost = lease(store, "me").await;
    store.release(&lost).await.unwrap();
    let _held = lease(store, "you").await;
    let step = store.drop_next_day(&lost, Some(KEEP)).await.unwrap();
    assert_eq!(step, Fenced::Lost);
    assert_eq!(ids(store).await.len(), 1);
}

/// What a query that takes long does to the retention, and the retention to everybody else:
/// nothing.
#[tokio::test]
async fn a_long_read_holds_up_the_drop_and_nobody_else() {
    let (_, url) = postgres_store().await;
    let mut options = PostgresOptions::new(&url);
    options.statement_timeout = Duration::from_secs(1);
    let store = PostgresStore::connect(&options).await.unwrap();
    let store: &dyn Store = &store;
    let (old, other) = (on(day(30)), on(day(31)));
    write(store, [old.clone(), other]).await.unwrap();
    let lease = lease(store, "me").await;

    let mut reader = connect(&url).await;
    let open = reader.transaction().await.unwrap();
    let count = "SELECT count(*) FROM user_interactions";
    assert_eq!(
        open.query_one(count, &[]).await.unwrap().get::<_, i64>(0),
        2
    );

    // While the drop waits, events are written and read, each within a second or it would fail;
    // also such of a day that has no partition yet.
    let dropping = store.drop_next_day(&lease, Some(KEEP));
    let using = async {
        let mut written = 0;
        for back in 0..8 {
            write(store, [event(), on(day(back))]).await.unwrap();
            written += 2;
        }
        written
    };
    let (dropped, written) = futures::future::join(dropping, using).await;
    let error = dropped.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(error.to_string().contains("may still read it"), "{error}");

    // The day is on its way out: gone for new queries, and finished as soon as the reader has.
    assert_eq!(ids(store).await.len(), 1 + written);
    let error = write(store, [on(day(31))]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    assert!(error.to_string().contains("is being dropped"), "{error}");
    assert!(store.drop_next_day(&lease, Some(KEEP)).await.is_err());
    write(store, [event(), on(day(9))]).await.unwrap();
    open.commit().await.unwrap();
    assert_eq!(
        drop_all(store, &lease, Some(KEEP)).await,
        [DayStep::Dropped(day(31)), DayStep::Dropped(day(30))]
    );
    write(store, [on(day(31))]).await.unwrap();
}

/// A partition that an operator has taken out of the log is the operator's.
#[tokio::test]
async fn a_table_that_somebody_else_detached_stays() {
    let (store, url) = postgres_store().await;
    let store: &dyn Store = &store;
    write(store, [on(day(30)), on(day(31))]).await.unwrap();
    let name = table(day(30));
    let sql = format!("ALTER TABLE user_interactions DETACH PARTITION {name}");
    connect(&url).await.batch_execute(&sql).await.unwrap();
    let lease = lease(store, "me").await;
    assert_eq!(
        drop_all(store, &lease, Some(KEEP)).await,
        [DayStep::Dropped(day(31))]
    );
    assert!(exists(&url, &name).await);
}

/// The retention is made longer, or given up, after a drop was interrupted.
#[tokio::test]
async fn an_interrupted_drop_of_a_day_to_keep_is_undone() {
    let (store, url) = postgres_store().await;
    let store: &dyn Store = &store;
    let client = connect(&url).await;
    let lease = lease(store, "me").await;
    for keep in [Some(40), None] {
        let event = on(day(30));
        write(store, [event.clone()]).await.unwrap();
        let name = table(day(30));
        let halfway = format!("COMMENT ON TABLE {name} IS 'eclusa: dropped by store.retention'");
        client.batch_execute(&halfway).await.unwrap();
        let detach = format!("ALTER TABLE user_interactions DETACH PARTITION {name} CONCURRENTLY");
        client.batch_execute(&detach).await.unwrap();
        assert!(store.get(event.event_id).await.unwrap().is_none());
        assert_eq!(
            drop_all(store, &lease, keep).await,
            [DayStep::Restored(day(30))]
        );
        assert!(store.get(event.event_id).await.unwrap().is_some());
    }
    // It is no longer marked: if somebody takes it out now, it is theirs.
    let detach = format!(
        "ALTER TABLE user_interactions DETACH PARTITION {}",
        table(day(30))
    );
    client.batch_execute(&detach).await.unwrap();
    assert_eq!(drop_all(store, &lease, Some(KEEP)).await, []);
    assert!(exists(&url, &table(day(30))).await);
}

/// Between two looks of the retention somebody takes the table for themselves: it stays, and is not
/// said to be dropped.
#[tokio::test]
async fn a_table_that_is_taken_out_of_its_hand_is_not_counted_as_dropped() {
    let (store, url) = postgres_store().await;
    let store: &dyn Store = &store;
    let (mut client, watcher) = (connect(&url).await, connect(&url).await);
    write(store, [on(day(30))]).await.unwrap();
    let lease = lease(store, "me").await;
    let name = table(day(30));
    let sql = format!("ALTER TABLE user_interactions DETACH PARTITION {name}");
    client.batch_execute(&sql).await.unwrap();
    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
    loop {
        let mark = format!("COMMENT ON TABLE {name} IS 'eclusa: dropped by store.retention'");
        client.batch_execute(&mark).await.unwrap();
        let taking = client.transaction().await.unwrap();
        // The lock under which partitions come and go.
        let lock = "SELECT pg_advisory_xact_lock(x'65636c7573610002'::bigint)";
        taking.batch_execute(lock).await.unwrap();
        let take = async {
            crate::harness::eventually(Duration::from_secs(20), "it waits", async || {
                let row = watcher.query_one(waits, &[]).await.unwrap();
                row.get::<_, bool>(0).then_some(())
            })
            .await;
            let unmark = format!("COMMENT ON TABLE {name} IS NULL");
            taking.batch_execute(&unmark).await.unwrap();
            taking.commit().await.unwrap();
        };
        match tokio::join!(store.drop_next_day(&lease, Some(KEEP)), take).0 {
            Ok(step) => break assert_eq!(step, Fenced::Done(Some(DayStep::Changed(day(30))))),
            // It waits for two seconds; on a slow machine that is over before we are done.
            Err(error) => assert_eq!(error.kind(), ErrorKind::Transient, "{error}"),
        }
    }
    assert_eq!(drop_all(store, &lease, Some(KEEP)).await, []);
    assert!(exists(&url, &name).await);
}

/// A drop that came no further than the mark, of a day that is to be kept after all: a table that
/// an operator takes out later is the operator's.
#[tokio::test]
async fn a_mark_goes_when_its_day_is_to_be_kept() {
    let (store, url) = postgres_store().await;
    let store: &dyn Store = &store;
    let client = connect(&url).await;
    let held = lease(store, "me").await;
    let event = on(day(30));
    write(store, [event.clone(), on(day(50))]).await.unwrap();
    let name = table(day(30));
    let mark = format!("COMMENT ON TABLE {name} IS 'eclusa: dropped by store.retention'");
    client.batch_execute(&mark).await.unwrap();
    store.release(&held).await.unwrap();
    let lease = lease(store, "you").await;
    // Not by the hand of one that has lost its lease.
    let lost = store.drop_next_day(&held, Some(40)).await.unwrap();
    assert_eq!(lost, Fenced::Lost);
    assert_eq!(
        drop_all(store, &lease, Some(40)).await,
        [DayStep::Restored(day(30)), DayStep::Dropped(day(50))]
    );
    assert!(store.get(event.event_id).await.unwrap().is_some());
    let detach = format!("ALTER TABLE user_interactions DETACH PARTITION {name}");
    client.batch_execute(&detach).await.unwrap();
    for keep in [Some(40), Some(KEEP), None] {
        assert_eq!(drop_all(store, &lease, keep).await, []);
    }
    assert!(exists(&url, &name).await);
}

/// A leader that stands still between the mark and the detaching, and the one after it keeps the day:
/// the mark stays until the first cannot detach any more, so no day leaves the log without a mark.
#[tokio::test]
async fn no_day_is_detached_whose_mark_is_gone() {
    let (store, url) = postgres_store().await;
    let store: &dyn Store = &store;
    let (client, other) = (connect(&url).await, connect(&url).await);
    let event = on(day(30));
    write(store, [event.clone()]).await.unwrap();
    let lease = lease(store, "me").await;
    let name = table(day(30));
    let lock = |function| format!("SELECT {function}(x'65636c7573610003'::bigint)");

    // It stands before its last look at the mark, and the mark goes.
    let exclusive = lock("pg_advisory_lock");
    client.batch_execute(&exclusive).await.unwrap();
    let unmark = async {
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
        crate::harness::eventually(Duration::from_secs(20), "it waits", async || {
            let row = other.query_one(waits, &[]).await.unwrap();
            row.get::<_, bool>(0).then_some(())
        })
        .await;
        let unmark = format!("COMMENT ON TABLE {name} IS NULL");
        client.batch_execute(&unmark).await.unwrap();
        let unlock = lock("pg_advisory_unlock");
        client.batch_execute(&unlock).await.unwrap();
    };
    let (step, ()) = tokio::join!(store.drop_next_day(&lease, Some(KEEP)), unmark);
    assert_eq!(step.unwrap(), Fenced::Done(Some(DayStep::Changed(day(30)))));
    assert!(store.get(event.event_id).await.unwrap().is_some());

    // It stands behind that look, and the mark does not go.
    let mark = format!("COMMENT ON TABLE {name} IS 'eclusa: dropped by store.retention'");
    client.batch_execute(&mark).await.unwrap();
    let shared = lock("pg_advisory_lock_shared");
    client.batch_execute(&shared).await.unwrap();
    let error = store.drop_next_day(&lease, Some(40)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    let unlock = lock("pg_advisory_unlock_shared");
    client.batch_execute(&unlock).await.unwrap();
    assert_eq!(
        drop_all(store, &lease, Some(40)).await,
        [DayStep::Restored(day(30))]
    );
    assert_eq!(
        drop_all(store, &lease, Some(KEEP)).await,
        [DayStep::Dropped(day(30))]
    );
    // The lock is not left behind.
    let free = lock("pg_try_advisory_lock");
    let free: bool = client.query_one(&free, &[]).await.unwrap().get(0);
    assert!(free);
}

/// While a fenced write is under way nobody takes the lease, and its holder can renew it.
#[tokio::test]
async fn a_write_under_the_lease_keeps_it() {
    let (store, url) = postgres_store().await;
    let store: &dyn Store = &store;
    let short = Duration::from_millis(50);
    let lease = store.acquire("a", "me", short).await.unwrap().unwrap();
    let mut client = connect(&url).await;
    let write = client.transaction().await.unwrap();
    let fence = "SELECT FROM leases WHERE name = 'a' AND token = $1 FOR KEY SHARE";
    assert_eq!(write.query(fence, &[&lease.token]).await.unwrap().len(), 1);
    let patience = Duration::from_secs(20);
    let mut taking = Box::pin(crate::harness::eventually(
        patience,
        "it is taken",
        async || store.acquire("a", "you", TTL).await.unwrap(),
    ));
    let blocked = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let watcher = connect(&url).await;
    let waits = crate::harness::eventually(patience, "it waits", async || {
        let waiting: i64 = watcher.query_one(blocked, &[]).await.unwrap().get(0);
        (waiting > 0).then_some(())
    });
    tokio::select! {
        taken = &mut taking => panic!("taken during the write: {taken:?}"),
        () = waits => {}
    }
    write.commit().await.unwrap();
    let taken = taking.await;
    assert!(taken.token > lease.token);
}
