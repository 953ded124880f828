//! Retention: what is old goes, under the lease, and nothing else; on PostgreSQL without holding up
//! events.

use super::*;
use crate::harness::connect;
use chrono::{Days, NaiveDate, TimeDelta};
use eclusa::store::leases::{Fenced, Lease};
use eclusa::store::retention::Unread;
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
        let Fenced::Done(slice) = store.trim(lease, KEEP, false, after, limit).await.unwrap()
        else {
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
    let again = store.trim(&lease, KEEP, false, after, 10).await.unwrap();
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
    assert_eq!(
        store.trim(&lost, KEEP, false, 0, 10).await.unwrap(),
        Fenced::Lost
    );
    assert_eq!(ids(store).await.len(), 1);
    let _ = store.trim(&held, KEEP, false, 0, 10).await.unwrap();
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

/// Who is behind a day, when all commits have their number.
async fn looked_at(store: &dyn Store, day: NaiveDate) -> Unread {
    store.number_commits().await.unwrap();
    store.followers_behind(day).await.unwrap()
}

/// Drops every day that is due.
async fn drop_all(store: &dyn Store, lease: &Lease) -> Vec<NaiveDate> {
    let days = store.due_days(KEEP).await.unwrap();
    for day in &days {
        let behind = looked_at(store, *day).await;
        let dropped = store.drop_day(lease, *day, &behind).await.unwrap();
        assert_eq!(dropped, Fenced::Done(()));
    }
    assert_eq!(store.due_days(KEEP).await.unwrap(), []);
    days
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
    assert_eq!(drop_all(store, &lease).await, [30, 12, 11].map(day));
    assert_eq!(ids(store).await, kept.map(|event| event.event_id));
    assert!(!exists(&url, &table(day(11))).await);
    assert!(exists(&url, &table(day(10))).await);
    // A straggler's day is made again, and goes the next time.
    write(store, [on(day(11))]).await.unwrap();
    assert_eq!(drop_all(store, &lease).await, [day(11)]);
}

/// An insert that the server ends when it waits for a lock for more than 150 ms, and that is undone:
/// whether it went through.
pub async fn insert_at_once(client: &mut tokio_postgres::Client) -> bool {
    let transaction = client.transaction().await.unwrap();
    let insert = "SET LOCAL lock_timeout = '150ms'; \
        INSERT INTO user_interactions (id, event_id, bucket, source, producer, event_type) \
        VALUES (0, gen_random_uuid(), '0001-01-01', 'http', 'tests', 't')";
    transaction.batch_execute(insert).await.is_ok()
}

/// Tries to drop a day while another transaction is in the way: it fails each time, and no insert
/// waits for longer than a try. On a busy machine a try may itself take longer than its 100 ms, so
/// up to half of the tries may be late; one that waited without a limit would be late each time.
async fn fails_without_holding_up_events(store: &dyn Store, lease: &Lease, url: &str) {
    const TRIES: usize = 10;
    let mut client = connect(url).await;
    let mut late = 0;
    let behind = looked_at(store, day(30)).await;
    for _ in 0..TRIES {
        let mut dropping = Box::pin(store.drop_day(lease, day(30), &behind));
        let error = loop {
            tokio::select! {
                dropped = &mut dropping => break dropped.unwrap_err(),
                at_once = insert_at_once(&mut client) => late += usize::from(!at_once),
            }
        };
        assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
        assert!(error.to_string().contains("is not dropped yet"), "{error}");
    }
    assert!(late <= TRIES / 2, "{late} of {TRIES}");
}

#[tokio::test]
async fn the_log_says_up_to_where_it_lacks_what_was_dropped() {
    let (store, url) = postgres_store().await;
    let store: &dyn Store = &store;
    // A commit for each; the second one has an event of a day that goes, and came late.
    for day in [day(1), day(30), day(2)] {
        write(store, [on(day)]).await.unwrap();
    }
    store.number_commits().await.unwrap();
    let bounds = store.log_bounds().await.unwrap();
    assert_eq!(bounds.deleted_to.0, 0);
    let lease = lease(store, "me").await;
    assert_eq!(drop_all(store, &lease).await, [day(30)]);
    let client = connect(&url).await;
    let seq = "SELECT seq FROM log_commits ORDER BY seq OFFSET 1 LIMIT 1";
    let seq: i64 = client.query_one(seq, &[]).await.unwrap().get(0);
    let bounds = store.log_bounds().await.unwrap();
    assert_eq!(bounds.deleted_to.0, seq << 12 | 4_095);
    assert!(bounds.deleted_to < bounds.end);
}

/// A query that takes long holds up the drop and no event. The day is part of the log until then.
#[tokio::test]
async fn a_long_read_holds_up_the_drop_alone() {
    let (store, url) = postgres_store().await;
    let store: &dyn Store = &store;
    let old = on(day(30));
    write(store, [old.clone()]).await.unwrap();
    let lease = lease(store, "me").await;
    let mut reader = connect(&url).await;

    let open = reader.transaction().await.unwrap();
    let count = "SELECT count(*) FROM user_interactions";
    open.query_one(count, &[]).await.unwrap();
    fails_without_holding_up_events(store, &lease, &url).await;
    open.commit().await.unwrap();

    // Of the partition alone: the drop does not wait for it with a lock on the whole log.
    let open = reader.transaction().await.unwrap();
    let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", table(day(30)));
    open.batch_execute(&lock).await.unwrap();
    fails_without_holding_up_events(store, &lease, &url).await;
    assert!(store.get(old.event_id).await.unwrap().is_some());
    write(store, [on(day(30))]).await.unwrap();
    open.commit().await.unwrap();

    assert_eq!(drop_all(store, &lease).await, [day(30)]);
    write(store, [on(day(30))]).await.unwrap();
}

/// The lease is checked under the lock, without waiting for it there.
#[tokio::test]
async fn no_day_is_dropped_under_a_lost_lease() {
    let (store, url) = postgres_store().await;
    let store: &dyn Store = &store;
    write(store, [on(day(30))]).await.unwrap();
    let first = lease(store, "me").await;
    let mut client = connect(&url).await;
    let taking = client.transaction().await.unwrap();
    let take = "UPDATE leases SET token = token + 1";
    taking.batch_execute(take).await.unwrap();
    fails_without_holding_up_events(store, &first, &url).await;
    taking.commit().await.unwrap();
    let behind = looked_at(store, day(30)).await;
    assert_eq!(
        store.drop_day(&first, day(30), &behind).await.unwrap(),
        Fenced::Lost
    );
    assert!(exists(&url, &table(day(30))).await);
    store.release(&first).await.unwrap();
    let second = store.acquire("retention", "me", TTL).await.unwrap();
    assert_eq!(drop_all(store, &second.unwrap()).await, [day(30)]);
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
    assert_eq!(drop_all(store, &lease).await, [day(31)]);
    assert!(exists(&url, &name).await);
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
