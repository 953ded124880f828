//! Writes: once, in order, and nothing lost or changed.

use super::*;
use chrono::TimeZone;
use eclusa::store::{ErrorKind, EventFilter};
use std::collections::BTreeSet;

async fn all_ids(store: &dyn EventStore) -> Vec<Uuid> {
    let page = store
        .list(&EventFilter::default(), None, 100_000)
        .await
        .unwrap();
    page.events.iter().map(|event| event.event_id).collect()
}

pub async fn writing_twice_stores_once(store: &dyn EventStore) {
    let events: Vec<_> = (0..50).map(|_| event()).collect();
    let first = write(store, events.clone()).await.unwrap();
    assert_eq!(first, vec![RowOutcome::Stored; 50]);
    let mut more = events.clone();
    let fresh = event();
    more.insert(25, fresh.clone());
    let second = write(store, more).await.unwrap();
    for (place, outcome) in second.iter().enumerate() {
        let expected = if place == 25 {
            RowOutcome::Stored
        } else {
            DUPLICATE
        };
        assert_eq!(*outcome, expected, "row {place}");
    }
    assert_eq!(all_ids(store).await.len(), 51);
    store.ping().await.unwrap();
}

pub async fn ids_follow_the_order_of_the_rows(store: &dyn EventStore) {
    let mut order = Vec::new();
    for batch in 0..3 {
        // Random ids, so that the order of ids is not that of the batch.
        let events: Vec<_> = (0..100 + batch).map(|_| event_of(Uuid::new_v4())).collect();
        order.extend(events.iter().map(|event| event.event_id));
        write(store, events).await.unwrap();
    }
    let mut listed = all_ids(store).await;
    listed.reverse();
    assert_eq!(listed, order);
}

pub async fn the_first_of_equal_ids_in_a_batch_wins(store: &dyn EventStore) {
    let first = event();
    let mut other = event_of(first.event_id);
    other.event_type = "other".to_owned();
    let same = event_of(first.event_id);
    let batch = vec![event(), first.clone(), other, event(), same];
    let outcomes = write(store, batch).await.unwrap();
    let expected = [
        RowOutcome::Stored,
        RowOutcome::Stored,
        CONFLICT,
        RowOutcome::Stored,
        DUPLICATE,
    ];
    assert_eq!(outcomes, expected);
    let stored = store.get(first.event_id).await.unwrap().unwrap();
    assert_eq!(stored.event_type, "page.view");
}

pub async fn other_content_is_a_conflict_and_other_spelling_is_not(store: &dyn EventStore) {
    let mut first = event();
    first.event_data =
        json(r#"{"a":1,"b":[1.50,{"c":null}],"big":123456789012345678901234567890}"#);
    first.timestamp = Some(Utc.with_ymd_and_hms(2026, 5, 1, 12, 0, 0).unwrap());
    write(store, [first.clone()]).await.unwrap();
    let check = async |expected, change: fn(&mut Event)| {
        let mut again = first.clone();
        again.received_at = now();
        change(&mut again);
        let outcomes = write(store, [again]).await.unwrap();
        assert_eq!(outcomes, [expected]);
    };
    check(DUPLICATE, |_| {}).await;
    check(DUPLICATE, |event| event.timestamp = None).await;
    check(DUPLICATE, |event| {
        event.event_data =
            json(r#"{ "big":123456789012345678901234567890,"b":[1.5,{"c":null}], "a":1.0 }"#);
    })
    .await;
    check(CONFLICT, |event| {
        event.event_data =
            json(r#"{"a":1,"b":[1.50,{"c":null}],"big":123456789012345678901234567891}"#);
    })
    .await;
    check(CONFLICT, |event| event.user_id = None).await;
    check(CONFLICT, |event| event.session_id = Some("s".to_owned())).await;
    check(CONFLICT, |event| event.event_type.push('x')).await;
    check(CONFLICT, |event| event.timestamp = Some(now())).await;
}

/// The same pairs, whichever store compares them: PostgreSQL by `jsonb`, SQLite by Eclusa itself.
pub async fn payloads_are_compared_as_json(store: &dyn EventStore) {
    let long = format!("1{}", "0".repeat(300));
    let (deep, spaced) = (
        format!("{}1{}", "[".repeat(90), "]".repeat(90)),
        format!("{} 1.0{}", "[".repeat(90), "]".repeat(90)),
    );
    let pairs = [
        (
            DUPLICATE,
            r#"{"a":1,"b":[true,null]}"#,
            r#"{ "b" : [true, null], "a": 1.0 }"#,
        ),
        (DUPLICATE, "1000", "1e3"),
        (DUPLICATE, "0.001", "10E-4"),
        (DUPLICATE, "-0", "0.00"),
        (DUPLICATE, r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        (DUPLICATE, r#""\u00e9\/""#, "\"\u{e9}/\""),
        (DUPLICATE, r#"{"\u0061":{}}"#, r#"{"a":{}}"#),
        (DUPLICATE, "1e300", &long),
        (DUPLICATE, &deep, &spaced),
        (CONFLICT, "1", "2"),
        (CONFLICT, "1", "-1"),
        (CONFLICT, "1", "\"1\""),
        (CONFLICT, "true", "false"),
        (CONFLICT, "null", "0"),
        (CONFLICT, "[1,2]", "[2,1]"),
        (CONFLICT, "[1]", "[1,1]"),
        (CONFLICT, r#"{"a":1}"#, r#"{"b":1}"#),
        (CONFLICT, r#"{"a":1}"#, r#"{"a":1,"b":1}"#),
        (CONFLICT, "0.1", "0.10000000000000000001"),
        (CONFLICT, "\"a\"", "\"A\""),
    ];
    let events = |pick: fn(&(RowOutcome, &str, &str)) -> String, ids: &[Uuid]| -> Vec<Event> {
        ids.iter()
            .zip(&pairs)
            .map(|(id, pair)| {
                let mut event = event_of(*id);
                event.event_data = json(&format!(r#"{{"v":{}}}"#, pick(pair)));
                event
            })
            .collect()
    };
    let ids: Vec<Uuid> = pairs.iter().map(|_| Uuid::new_v4()).collect();
    let left = events(|pair| pair.1.to_owned(), &ids);
    assert_eq!(
        write(store, left).await.unwrap(),
        vec![RowOutcome::Stored; pairs.len()]
    );
    let outcomes = write(store, events(|pair| pair.2.to_owned(), &ids))
        .await
        .unwrap();
    for (outcome, (expected, left, right)) in outcomes.iter().zip(&pairs) {
        assert_eq!(outcome, expected, "{left} {right}");
    }
}

pub async fn every_field_comes_back(store: &dyn EventStore) {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let payloads = [
        "{}".to_owned(),
        r#"{"unicode":"čaña 🛶 \u0001","quotes":"it's \"x\" \\ $1 {}","empty":""}"#.to_owned(),
        r#"{"big":123456789012345678901234567890,"tiny":1e-300,"huge":1e300,"neg":-0.1}"#
            .to_owned(),
        format!(r#"{{"deep":{deep}}}"#),
        r#"{"null":null,"list":[true,false,{}],"nested":{"a":{"b":{"c":[]}}}}"#.to_owned(),
    ];
    let sources = [Source::Http, Source::Amqp, Source::Import];
    for (number, payload) in payloads.iter().enumerate() {
        let mut sent = event();
        sent.event_data = json(payload);
        sent.producer = Arc::from("shop \u{1F6F6} '\";--");
        sent.source = sources[number % 3];
        sent.event_type = "typ\"e' %_\\".to_owned();
        if number % 2 == 0 {
            sent.original_id = Some("№ 42".to_owned());
            sent.user_id = Some("usér\n\t".to_owned());
            sent.session_id = Some(String::new());
            // Finer than the store keeps, and before 1970.
            sent.timestamp = Some(Utc.timestamp_opt(-1_000_000, 123_456_789).unwrap());
        } else {
            sent.user_id = None;
        }
        write(store, [sent.clone()]).await.unwrap();
        let got = store.get(sent.event_id).await.unwrap().unwrap();
        assert!(got.id > 0);
        assert_eq!(got.event_id, sent.event_id);
        assert_eq!(got.original_id, sent.original_id);
        assert_eq!(got.producer, &*sent.producer);
        assert_eq!(got.user_id, sent.user_id);
        assert_eq!(got.session_id, sent.session_id);
        assert_eq!(got.event_type, sent.event_type);
        assert_eq!(got.received_at, sent.received_at);
        assert_eq!(got.source, sent.source.as_str());
        assert!(got.processed);
        assert!(
            eclusa::store::content::same_json(&got.event_data, &sent.event_data),
            "{} {}",
            got.event_data,
            sent.event_data
        );
        let kept = sent.occurred_at().timestamp_micros();
        assert_eq!(got.timestamp.timestamp_micros(), kept);
        // The same event again is no conflict, down to the microsecond.
        assert_eq!(write(store, [sent]).await.unwrap(), [DUPLICATE]);
    }
}

/// A UUIDv7 of this moment.
fn v7_at(time: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(time.timestamp_millis()).unwrap();
    let random = Uuid::new_v4();
    uuid::Builder::from_unix_timestamp_millis(millis, random.as_bytes()[6..].try_into().unwrap())
        .into_uuid()
}

pub async fn ids_of_any_day_are_taken(store: &dyn EventStore) {
    let days = [
        Utc.with_ymd_and_hms(1970, 1, 1, 0, 0, 0).unwrap(),
        Utc.with_ymd_and_hms(2020, 2, 29, 23, 59, 59).unwrap(),
        Utc::now() + chrono::Days::new(40),
    ];
    let mut events: Vec<_> = days.iter().map(|day| event_of(v7_at(*day))).collect();
    events.push(event_of(Uuid::new_v4()));
    events.push(event_of(Uuid::nil()));
    events.push(event_of(Uuid::max()));
    let outcomes = write(store, events.clone()).await.unwrap();
    assert_eq!(outcomes, vec![RowOutcome::Stored; events.len()]);
    for event in &events {
        assert!(store.get(event.event_id).await.unwrap().is_some());
    }
    let again = write(store, events.clone()).await.unwrap();
    assert_eq!(again, vec![DUPLICATE; events.len()]);
}

pub async fn nul_is_poison_and_harms_nothing_else(store: &dyn EventStore) {
    let mut in_text = event();
    in_text.user_id = Some("a\0b".to_owned());
    let mut in_json = event();
    in_json.event_data = json(r#"{"secret":"\u0000"}"#);
    for bad in [in_text, in_json] {
        let good = event();
        let error = write(store, [good.clone(), bad]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poison, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("secret"), "{shown}");
        // The whole batch is undone; without the bad row it goes through.
        assert!(store.get(good.event_id).await.unwrap().is_none());
        let outcomes = write(store, [good]).await.unwrap();
        assert_eq!(outcomes, [RowOutcome::Stored]);
    }
}

pub async fn overlapping_batches_in_opposite_orders(store: &dyn EventStore) {
    let mut written = BTreeSet::new();
    for _ in 0..5 {
        let events: Vec<_> = (0..400)
            .map(|n| {
                if n % 2 == 0 {
                    event()
                } else {
                    event_of(Uuid::new_v4())
                }
            })
            .collect();
        written.extend(events.iter().map(|event| event.event_id));
        let writes = (0..8).map(|task| {
            let mut mine = events.clone();
            mine.rotate_left(task * 50);
            if task % 2 == 1 {
                mine.reverse();
            }
            write(store, mine)
        });
        let mut stored = 0;
        for outcomes in futures::future::join_all(writes).await {
            for outcome in outcomes.expect("no deadlock") {
                match outcome {
                    RowOutcome::Stored => stored += 1,
                    other => assert_eq!(other, DUPLICATE),
                }
            }
        }
        assert_eq!(stored, events.len());
    }
    let ids = all_ids(store).await;
    assert_eq!(ids.len(), written.len());
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), written);
}

pub async fn an_empty_batch_is_nothing(store: &dyn EventStore) {
    assert_eq!(write(store, []).await.unwrap(), []);
}
