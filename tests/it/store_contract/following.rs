//! Tails: each event once, none skipped.

use super::*;
use eclusa::store::{EventFilter, TailPosition};
use std::time::{Duration, Instant};

pub const START: TailPosition = TailPosition {
    transaction: 0,
    id: 0,
};

/// Follows until `count` events have come. Patient, since an open transaction anywhere on a shared
/// server holds followers back.
pub async fn follow(
    store: &dyn EventStore,
    filter: &EventFilter,
    mut position: TailPosition,
    count: usize,
    limit: usize,
) -> (Vec<Uuid>, TailPosition) {
    let begun = Instant::now();
    let mut seen = Vec::new();
    while seen.len() < count {
        let (events, next) = store.tail(filter, position, limit).await.unwrap();
        assert!(events.len() <= limit);
        if events.is_empty() {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "nothing comes any more"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        seen.extend(events.iter().map(|event| event.event_id));
        position = next;
    }
    (seen, position)
}

pub async fn a_follower_sees_each_event_once_in_order(store: &dyn EventStore) {
    let mut order = Vec::new();
    for size in [1, 40, 3, 100, 1, 1] {
        let events: Vec<_> = (0..size).map(|_| event_of(Uuid::new_v4())).collect();
        order.extend(events.iter().map(|event| event.event_id));
        write(store, events).await.unwrap();
    }
    for limit in [1, 7, 1_000] {
        let (seen, end) = follow(store, &EventFilter::default(), START, order.len(), limit).await;
        assert_eq!(seen, order, "limit {limit}");
        let (more, _) = store.tail(&EventFilter::default(), end, 10).await.unwrap();
        assert!(more.is_empty());
    }
}

pub async fn from_now_on_leaves_out_what_was_before(store: &dyn EventStore) {
    let none = EventFilter::default();
    write(store, [event(), event()]).await.unwrap();
    // Until a follower could have read them, they count as still under way.
    follow(store, &none, START, 2, 10).await;
    let now = store.tail_from_now().await.unwrap();
    let new = event();
    write(store, [new.clone()]).await.unwrap();
    let (seen, _) = follow(store, &none, now, 1, 10).await;
    assert_eq!(seen, [new.event_id]);
}

pub async fn a_filtered_follower_moves_on_over_the_rest(store: &dyn EventStore) {
    let mut wanted = event();
    wanted.event_type = "wanted".to_owned();
    let filter = EventFilter {
        event_type: Some("wanted".to_owned()),
        ..EventFilter::default()
    };
    write(store, (0..20).map(|_| event())).await.unwrap();
    follow(store, &EventFilter::default(), START, 20, 100).await;
    let (nothing, position) = store.tail(&filter, START, 5).await.unwrap();
    assert!(nothing.is_empty());
    assert_ne!(position, START);
    write(store, [event(), wanted.clone(), event()])
        .await
        .unwrap();
    let (seen, _) = follow(store, &filter, position, 1, 5).await;
    assert_eq!(seen, [wanted.event_id]);
}
