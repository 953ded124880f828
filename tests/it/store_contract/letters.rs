//! Dead letters: kept once, with every failure, listed, marked and purged.

use super::now;
use chrono::{DateTime, TimeDelta, Utc};
use eclusa::store::dead_letters::{
    DeadLetter, DeadLetterFailure, DeadLetterFilter, DeadLetterOrder, DeadLetterState, Replayed,
};
use eclusa::store::{DeadLetterStore, ErrorKind};
use serde_json::json;
use uuid::Uuid;

fn failure(at: DateTime<Utc>, cause: &str) -> DeadLetterFailure {
    DeadLetterFailure {
        at,
        cause: cause.to_owned(),
        error: format!("{cause} it is"),
        sqlstate: Some("23514".to_owned()),
        attempts: 3,
    }
}

fn letter(at: DateTime<Utc>, cause: &str) -> DeadLetter {
    DeadLetter::new(Uuid::now_v7(), failure(at, cause), "direct", b"{}".to_vec())
}

async fn get(store: &dyn DeadLetterStore, id: Uuid) -> DeadLetter {
    store.get_letter(id).await.unwrap().expect("is there")
}

fn sent(letter: &DeadLetter) -> Replayed {
    Replayed {
        id: letter.id,
        failed_at: letter.failure.at,
    }
}

pub async fn a_letter_comes_back_whole(store: &dyn DeadLetterStore) {
    let mut plain = letter(now(), "malformed");
    plain.body = (0..=255).collect();
    let mut full = letter(now(), "poison");
    full.event_id = Some(Uuid::new_v4());
    full.event_type = Some("order \"placed\"".to_owned());
    full.content_type = Some("application/json".to_owned());
    full.message_id = Some("№ 1".to_owned());
    full.frame = true;
    full.headers = json!({"a": [1, 2.5, null], "b": {"c": "ü"}})
        .as_object()
        .cloned()
        .unwrap();
    let kept = store
        .insert(vec![full.clone(), plain.clone()])
        .await
        .unwrap();
    assert_eq!(kept, 2);
    assert_eq!(get(store, plain.id).await, plain);
    assert_eq!(get(store, full.id).await, full);
    assert!(store.get_letter(Uuid::new_v4()).await.unwrap().is_none());
    assert_eq!(store.insert(Vec::new()).await.unwrap(), 0);
}

pub async fn texts_no_store_takes_are_mended_and_bytes_are_not(store: &dyn DeadLetterStore) {
    let mut bad = letter(now(), "invalid");
    bad.failure.error = "a\0b".to_owned();
    bad.headers = json!({"x": "\0"}).as_object().cloned().unwrap();
    bad.body = b"\0".to_vec();
    store.insert(vec![bad.clone()]).await.unwrap();
    let kept = get(store, bad.id).await;
    assert_eq!(kept.body, b"\0");
    assert_eq!(kept.failure.error, "a\u{fffd}b");
}

pub async fn the_same_failure_is_kept_once_and_another_is_history(store: &dyn DeadLetterStore) {
    let first = letter(now(), "poison");
    let mut again = first.clone();
    again.failure = failure(now() + TimeDelta::seconds(5), "retries_exhausted");
    again.body = b"another form of it".to_vec();
    let together = vec![first.clone(), first.clone()];
    assert_eq!(store.insert(together).await.unwrap(), 1);
    assert_eq!(store.insert(vec![first.clone()]).await.unwrap(), 0);
    store.mark_replayed(vec![sent(&first)]).await.unwrap();
    let replayed = get(store, first.id).await;
    assert_eq!(replayed.state, DeadLetterState::Replayed);
    assert_eq!(replayed.replays, 1);
    assert!(replayed.replayed_at.is_some());
    // A late redelivery of the failure that is known does not raise it from the replayed.
    assert_eq!(store.insert(vec![first.clone()]).await.unwrap(), 0);
    assert_eq!(get(store, first.id).await.state, DeadLetterState::Replayed);

    assert_eq!(store.insert(vec![again.clone()]).await.unwrap(), 1);
    assert_eq!(
        store
            .insert(vec![first.clone(), again.clone()])
            .await
            .unwrap(),
        0
    );
    let back = get(store, first.id).await;
    assert_eq!((back.state, back.replays), (DeadLetterState::Dead, 1));
    assert_eq!(back.failure, again.failure);
    assert_eq!(back.history.failures, std::slice::from_ref(&first.failure));
    assert_eq!(back.history.omitted, 0);
    assert_eq!(back.created_at, first.created_at);
    assert_eq!(back.body, first.body, "the bytes as they came first");
}

/// The first failure and the newest ones are kept.
pub async fn the_history_is_bounded(store: &dyn DeadLetterStore) {
    let start = now();
    let nth = |n: i64| failure(start + TimeDelta::seconds(n), "poison");
    let first = letter(start, "poison");
    store.insert(vec![first.clone()]).await.unwrap();
    for n in 1..60 {
        let mut again = first.clone();
        again.failure = nth(n);
        assert_eq!(store.insert(vec![again]).await.unwrap(), 1);
    }
    let back = get(store, first.id).await;
    assert_eq!(back.failure, nth(59));
    let history = back.history;
    assert_eq!((history.failures.len(), history.omitted), (20, 39));
    assert_eq!(history.failures[0], first.failure);
    assert_eq!(history.failures[1], nth(40));
    assert_eq!(history.failures[19], nth(58));
}

pub async fn one_that_failed_again_meanwhile_stays_dead(store: &dyn DeadLetterStore) {
    let first = letter(now(), "poison");
    store.insert(vec![first.clone()]).await.unwrap();
    let mut again = first.clone();
    // By a clock that is behind.
    again.failure = failure(now() - TimeDelta::seconds(5), "poison");
    store.insert(vec![again.clone()]).await.unwrap();
    store.mark_replayed(vec![sent(&first)]).await.unwrap();
    let back = get(store, first.id).await;
    assert_eq!((back.state, back.replays), (DeadLetterState::Dead, 1));
    store.mark_replayed(vec![sent(&again)]).await.unwrap();
    let back = get(store, first.id).await;
    assert_eq!((back.state, back.replays), (DeadLetterState::Replayed, 2));
    store.mark_replayed(Vec::new()).await.unwrap();
}

/// Twenty letters in ten moments: causes a and b, types x and none.
async fn twenty(store: &dyn DeadLetterStore) -> Vec<DeadLetter> {
    let start = now();
    let mut letters: Vec<_> = (0..20)
        .map(|n: i64| {
            let at = start + TimeDelta::seconds(n / 2);
            let mut letter = letter(at, if n % 2 == 0 { "a" } else { "b" });
            letter.event_type = (n % 4 == 0).then(|| "x".to_owned());
            // In no order within a moment.
            letter.id = Uuid::new_v4();
            letter
        })
        .collect();
    letters.sort_by_key(|letter| (letter.created_at, letter.id));
    store.insert(letters.clone()).await.unwrap();
    letters
}

pub async fn pages_visit_each_letter_once(store: &dyn DeadLetterStore) {
    let letters = twenty(store).await;
    let filter = DeadLetterFilter::default();
    for order in [DeadLetterOrder::Oldest, DeadLetterOrder::Newest] {
        let mut expected: Vec<_> = letters.iter().map(|letter| letter.id).collect();
        if order == DeadLetterOrder::Newest {
            expected.reverse();
        }
        for limit in [1, 3, 20, 21] {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = store.list_letters(&filter, order, after, limit).await;
                let page = page.unwrap();
                after = page.last().map(|last| last.position());
                seen.extend(page.iter().map(|letter| letter.id));
                if page.len() < limit {
                    break;
                }
            }
            assert_eq!(seen, expected, "{order:?} by {limit}");
        }
    }
    let all = store.list_letters(&filter, DeadLetterOrder::Oldest, None, 100);
    let first = &all.await.unwrap()[0];
    assert_eq!(first.failure, letters[0].failure);
    assert_eq!(first.body_bytes, 2);
}

pub async fn letters_are_chosen_counted_and_purged(store: &dyn DeadLetterStore) {
    let letters = twenty(store).await;
    let replayed: Vec<_> = letters[..5].iter().map(sent).collect();
    store.mark_replayed(replayed).await.unwrap();
    let all = DeadLetterFilter::default();
    let dead = DeadLetterFilter {
        state: Some(DeadLetterState::Dead),
        ..all.clone()
    };
    let a = DeadLetterFilter {
        cause: Some("a".to_owned()),
        ..all.clone()
    };
    let x = DeadLetterFilter {
        event_type: Some("x".to_owned()),
        ..all.clone()
    };
    let between = DeadLetterFilter {
        from: Some(letters[4].failure.at),
        to: Some(letters[8].failure.at),
        ..all.clone()
    };
    let named = DeadLetterFilter {
        ids: Some(vec![letters[0].id, letters[7].id, Uuid::new_v4()]),
        ..all.clone()
    };
    let none = DeadLetterFilter {
        ids: Some(Vec::new()),
        ..all.clone()
    };
    for (filter, count) in [
        (&all, 20),
        (&dead, 15),
        (&a, 10),
        (&x, 5),
        (&between, 4),
        (&named, 2),
        (&none, 0),
    ] {
        assert_eq!(store.count_letters(filter).await.unwrap(), count);
        let listed = store.list_letters(filter, DeadLetterOrder::Newest, None, 100);
        assert_eq!(listed.await.unwrap().len() as u64, count);
    }
    assert_eq!(store.purge_letters(&none, 100).await.unwrap(), 0);
    assert_eq!(store.purge_letters(&a, 4).await.unwrap(), 4);
    assert_eq!(store.count_letters(&a).await.unwrap(), 6);
    assert_eq!(store.purge_letters(&between, 100).await.unwrap(), 2);
    assert_eq!(store.purge_letters(&all, 100).await.unwrap(), 14);
    assert_eq!(store.count_letters(&all).await.unwrap(), 0);
}

pub async fn burials_at_once_agree(store: &dyn DeadLetterStore) {
    let letters: Vec<_> = (0..40).map(|_| letter(now(), "poison")).collect();
    let burials = (0..8).map(|task| {
        let mut mine = letters.clone();
        mine.rotate_left(task * 5);
        store.insert(mine)
    });
    let mut kept = 0;
    for result in futures::future::join_all(burials).await {
        match result {
            Ok(count) => kept += count,
            Err(error) => assert_ne!(error.kind(), ErrorKind::Poison, "{error}"),
        }
    }
    assert_eq!(kept, 40);
    let all = DeadLetterFilter::default();
    assert_eq!(store.count_letters(&all).await.unwrap(), 40);
}
