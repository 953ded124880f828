//! Queries: what they choose, and that pages leave nothing out.

use super::*;
use chrono::{TimeDelta, TimeZone};
use eclusa::store::{Count, CountBy, EventFilter};

/// Thirty events: users a, b and none; types x and y; sessions s0 to s4; a second apart.
async fn thirty(store: &dyn EventStore) -> Vec<Event> {
    let start = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
    let events: Vec<_> = (0..30)
        .map(|number| {
            let mut event = event();
            event.user_id = ["a", "b", ""].get(number % 3).map(ToString::to_string);
            event.user_id = event.user_id.filter(|user| !user.is_empty());
            event.event_type = if number % 2 == 0 { "x" } else { "y" }.to_owned();
            event.session_id = Some(format!("s{}", number % 5));
            let seconds = i64::try_from(number).unwrap();
            event.timestamp = Some(start + TimeDelta::seconds(seconds));
            if number < 3 {
                event.source = Source::Import;
            }
            event
        })
        .collect();
    write(store, events.clone()).await.unwrap();
    events
}

async fn listed(store: &dyn EventStore, filter: &EventFilter) -> Vec<Uuid> {
    let page = store.list(filter, None, 1_000).await.unwrap();
    assert_eq!(page.next, None);
    page.events.iter().map(|event| event.event_id).collect()
}

fn chosen(events: &[Event], keep: impl Fn(&Event) -> bool) -> Vec<Uuid> {
    let kept = events.iter().rev().filter(|event| keep(event));
    kept.map(|event| event.event_id).collect()
}

pub async fn filters_choose(store: &dyn EventStore) {
    let events = thirty(store).await;
    let text = |text: &str| Some(text.to_owned());
    let none = EventFilter::default();
    assert_eq!(listed(store, &none).await, chosen(&events, |_| true));
    let user = EventFilter {
        user_id: text("a"),
        ..none.clone()
    };
    let is_a = |event: &Event| event.user_id.as_deref() == Some("a");
    assert_eq!(listed(store, &user).await, chosen(&events, is_a));
    let of_type = EventFilter {
        event_type: text("y"),
        ..none.clone()
    };
    assert_eq!(
        listed(store, &of_type).await,
        chosen(&events, |e| e.event_type == "y")
    );
    let session = EventFilter {
        session_id: text("s3"),
        ..none.clone()
    };
    let is_s3 = |event: &Event| event.session_id.as_deref() == Some("s3");
    assert_eq!(listed(store, &session).await, chosen(&events, is_s3));
    let both = EventFilter {
        event_type: text("x"),
        ..user
    };
    let is_ax = |event: &Event| is_a(event) && event.event_type == "x";
    assert_eq!(listed(store, &both).await, chosen(&events, is_ax));
    let nobody = EventFilter {
        user_id: text("nobody' OR 1=1"),
        ..none
    };
    assert!(listed(store, &nobody).await.is_empty());
}

pub async fn from_is_inclusive_and_to_exclusive(store: &dyn EventStore) {
    let events = thirty(store).await;
    let from = events[5].timestamp.unwrap();
    let to = events[9].timestamp.unwrap();
    let mut filter = EventFilter {
        from: Some(from),
        to: Some(to),
        ..EventFilter::default()
    };
    let between = chosen(&events, |e| {
        e.timestamp >= Some(from) && e.timestamp < Some(to)
    });
    assert_eq!(between.len(), 4);
    assert_eq!(listed(store, &filter).await, between);
    // A bound finer than the store keeps moves up to the next one it can keep.
    filter.from = Some(from + TimeDelta::nanoseconds(1));
    assert_eq!(listed(store, &filter).await, between[..3]);
    filter.to = Some(to + TimeDelta::nanoseconds(1));
    assert_eq!(listed(store, &filter).await.len(), 4);
}

pub async fn pages_visit_each_event_once(store: &dyn EventStore) {
    let events = thirty(store).await;
    for filter in [
        EventFilter::default(),
        EventFilter {
            event_type: Some("x".to_owned()),
            ..EventFilter::default()
        },
        EventFilter {
            user_id: Some("b".to_owned()),
            ..EventFilter::default()
        },
    ] {
        let expected = listed(store, &filter).await;
        for limit in [1, 3, 7, 10, 30, 31] {
            let mut seen = Vec::new();
            let mut before = None;
            loop {
                let page = store.list(&filter, before, limit).await.unwrap();
                assert!(page.events.len() <= limit);
                assert!(page.events.is_sorted_by(|a, b| a.id > b.id));
                seen.extend(page.events.iter().map(|event| event.event_id));
                // What arrives meanwhile is above the cursor.
                match page.next {
                    Some(next) => before = Some(next),
                    None => break,
                }
            }
            assert_eq!(seen, expected, "limit {limit}");
        }
    }
    let beyond = store
        .list(&EventFilter::default(), Some(i64::MAX), 5)
        .await
        .unwrap();
    assert_eq!(beyond.events[0].event_id, events[29].event_id);
    let below = store
        .list(&EventFilter::default(), Some(1), 5)
        .await
        .unwrap();
    assert!(below.events.is_empty() && below.next.is_none());
    let nothing = store.list(&EventFilter::default(), None, 0).await.unwrap();
    assert!(nothing.events.is_empty());
}

pub async fn counts_by_field(store: &dyn EventStore) {
    thirty(store).await;
    let count = |key: Option<&str>, events| Count {
        key: key.map(str::to_owned),
        events,
    };
    let filter = EventFilter {
        session_id: Some("s0".to_owned()),
        ..EventFilter::default()
    };
    let types = store.count_by(CountBy::Type, &filter).await.unwrap();
    assert_eq!(types.iter().map(|count| count.events).sum::<u64>(), 6);
    let none = EventFilter::default();
    let sources = store.count_by(CountBy::Source, &none).await.unwrap();
    assert_eq!(sources, [count(Some("http"), 27), count(Some("import"), 3)]);
    let mut users = store.count_by(CountBy::User, &none).await.unwrap();
    users.sort_by(|a, b| a.key.cmp(&b.key));
    let expected = [count(None, 10), count(Some("a"), 10), count(Some("b"), 10)];
    assert_eq!(users, expected);
}

pub async fn an_unknown_event_is_none(store: &dyn EventStore) {
    assert!(store.get(Uuid::now_v7()).await.unwrap().is_none());
    assert!(store.get(Uuid::new_v4()).await.unwrap().is_none());
}
