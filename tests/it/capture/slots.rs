//! The slot: its state, and what is wrong with it.

use super::Bench;
use crate::harness::{Postgres, eventually};
use eclusa::capture::catalog::slot::{self, WalStatus};
use eclusa::capture::{CaptureError, CaptureFault, ReplicationStream};
use eclusa::store::ErrorKind;

const T: &str = "CREATE TABLE t (id int PRIMARY KEY, body text)";

fn refused(opened: Result<ReplicationStream, CaptureError>) -> CaptureError {
    opened.map(|_| ()).unwrap_err()
}

#[tokio::test]
async fn a_slot_shows_what_is_kept_for_it() {
    let bench = Bench::start(T, &["public.t"]).await;
    let state = slot::find(&bench.client, &bench.slot)
        .await
        .unwrap()
        .unwrap();
    let database = bench.database.name().unwrap();
    state.check(&bench.slot, database).unwrap();
    assert!(state.check(&bench.slot, "another").is_err());
    assert_eq!(
        (state.wal_status, state.active_pid),
        (WalStatus::Reserved, None)
    );
    bench
        .execute("INSERT INTO public.t SELECT n, md5(n::text) FROM generate_series(1, 20000) n")
        .await;
    let grown = slot::find(&bench.client, &bench.slot)
        .await
        .unwrap()
        .unwrap();
    assert!(grown.lag_bytes > state.lag_bytes + 1_000_000, "{grown:?}");
    assert!(grown.kept_bytes >= grown.lag_bytes, "{grown:?}");
    let stream = bench.open().await;
    let active = slot::find(&bench.client, &bench.slot)
        .await
        .unwrap()
        .unwrap();
    assert!(active.active_pid.is_some());
    stream.close().await;
}

#[tokio::test]
async fn a_slot_that_is_read_elsewhere_is_named() {
    let bench = Bench::start(T, &["public.t"]).await;
    let stream = bench.open().await;
    let error = refused(bench.database.open(&bench.slot, "captured", None).await);
    assert_eq!(error.fault(), CaptureFault::SlotInUse, "{error}");
    assert_eq!(error.kind(), ErrorKind::Transient);
    let error = slot::drop_slot(&bench.client, &bench.slot)
        .await
        .unwrap_err();
    assert_eq!(error.fault(), CaptureFault::SlotInUse, "{error}");
    drop(stream);
    // The server notices the end of the connection.
    eventually(super::SOON, "the slot is free", async || {
        bench
            .database
            .open(&bench.slot, "captured", None)
            .await
            .ok()
    })
    .await;
}

#[tokio::test]
async fn a_missing_slot_is_named() {
    let bench = Bench::start(T, &["public.t"]).await;
    assert!(slot::drop_slot(&bench.client, &bench.slot).await.unwrap());
    assert!(!slot::drop_slot(&bench.client, &bench.slot).await.unwrap());
    assert_eq!(slot::find(&bench.client, &bench.slot).await.unwrap(), None);
    let error = refused(bench.database.open(&bench.slot, "captured", None).await);
    assert_eq!(error.fault(), CaptureFault::SlotMissing, "{error}");
    assert_eq!(error.kind(), ErrorKind::Operator);
    let shown = error.to_string();
    assert!(
        shown.contains("snapshot") && shown.contains(&bench.slot),
        "{shown}"
    );
}

#[tokio::test]
async fn a_slot_whose_log_was_removed_is_named() {
    let mut postgres = Postgres::start().await;
    postgres.stop().await;
    let settings = ["max_slot_wal_keep_size=1MB", "max_wal_size=32MB"];
    postgres.start_again_with(&settings).await;
    let bench = Bench::start_on(&postgres, T, &["public.t"]).await;
    eventually(super::SOON, "the slot is lost", async || {
        bench
            .execute(
                "INSERT INTO public.t SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 20000) n; \
                 TRUNCATE public.t; SELECT pg_switch_wal(); CHECKPOINT",
            )
            .await;
        let state = slot::find(&bench.client, &bench.slot).await.unwrap().unwrap();
        (state.wal_status == WalStatus::Lost).then_some(())
    })
    .await;
    let state = slot::find(&bench.client, &bench.slot)
        .await
        .unwrap()
        .unwrap();
    let database = bench.database.name().unwrap();
    let checked = state.check(&bench.slot, database).unwrap_err();
    let opened = refused(bench.database.open(&bench.slot, "captured", None).await);
    for error in [checked, opened] {
        assert_eq!(error.fault(), CaptureFault::SlotLost, "{error}");
        assert!(error.to_string().contains("new snapshot"), "{error}");
    }
}
