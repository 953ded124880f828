//! The states of captures: rows that are appended one behind the other.

use super::*;
use chrono::{DateTime, Utc};
use eclusa::store::captures::CaptureRow;

fn row(n: i64, token: i64) -> CaptureRow {
    CaptureRow {
        name: "shop".to_owned(),
        n,
        token,
        state: format!("{{\"n\":{n}}}"),
        stored_at: DateTime::UNIX_EPOCH,
    }
}

pub async fn a_state_follows_the_newest_one_only(store: &dyn Store) {
    let before = Utc::now();
    assert_eq!(store.capture("shop").await.unwrap(), None);
    assert!(
        !store.store_capture(&row(2, 1)).await.unwrap(),
        "there is no first one"
    );
    assert!(store.store_capture(&row(1, 1)).await.unwrap());
    assert!(
        !store.store_capture(&row(1, 1)).await.unwrap(),
        "it is taken"
    );
    assert!(
        !store.store_capture(&row(3, 1)).await.unwrap(),
        "one is left out"
    );
    assert!(store.store_capture(&row(2, 5)).await.unwrap());
    assert!(
        !store.store_capture(&row(3, 4)).await.unwrap(),
        "of an earlier lease"
    );
    assert!(store.store_capture(&row(3, 5)).await.unwrap());
    let newest = store.capture("shop").await.unwrap().unwrap();
    assert!(
        (newest.stored_at - before).num_seconds().abs() < 600,
        "{newest:?}"
    );
    let stored_at = newest.stored_at;
    assert_eq!(
        newest,
        CaptureRow {
            stored_at,
            ..row(3, 5)
        }
    );
    let other = CaptureRow {
        name: "another".to_owned(),
        ..row(1, 1)
    };
    assert!(store.store_capture(&other).await.unwrap());
    let names =
        |rows: Vec<CaptureRow>| Vec::from_iter(rows.into_iter().map(|row| (row.name, row.n)));
    let all = [("another".to_owned(), 1), ("shop".to_owned(), 3)];
    assert_eq!(names(store.captures().await.unwrap()), all);
}
