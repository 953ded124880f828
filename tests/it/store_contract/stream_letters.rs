//! Messages that were handed out too often.

use super::collecting::{Collecting, KEY, RULES, before, delivered, done, ids, message, waiting};
use crate::followers::{Place, on_both_stores};
use crate::store_contract::event;
use eclusa::event::{Cause, StoredEvent};
use eclusa::store::dead_letters::{DeadLetter, DeadLetterFilter, DeadLetterState, Replayed};
use eclusa::store::followers::Also;
use eclusa::store::streams::{Call, StreamRules, Which};
use std::time::Duration;

const TWICE: StreamRules = StreamRules {
    max_deliveries: Some(2),
    ..RULES
};

on_both_stores! {
    a_message_that_was_handed_out_too_often_is_a_dead_letter,
    a_replayed_letter_goes_back_into_its_stream,
    a_letter_without_its_event_is_not_handed_over,
}

async fn letters(place: &Place) -> Vec<DeadLetter> {
    let filter = DeadLetterFilter::default();
    let order = eclusa::store::dead_letters::DeadLetterOrder::Oldest;
    let found = place.store.list_letters(&filter, order, None, 10).await;
    let mut letters = Vec::new();
    for summary in found.unwrap() {
        letters.push(place.store.get_letter(summary.id).await.unwrap().unwrap());
    }
    letters
}

async fn request(place: &Place, letter: &DeadLetter) -> usize {
    let sent = Replayed {
        id: letter.id,
        failed_at: letter.failure.at,
    };
    place.store.request_replays(&[sent]).await.unwrap().len()
}

async fn a_message_that_was_handed_out_too_often_is_a_dead_letter(place: &Place) {
    let stream = Collecting::new(place, "s", TWICE).await;
    let all = stream.deliver_logged(KEY, vec![event(), event()]).await;
    let (ticket, _) = stream.started(1).await;
    // A delivery that was not seen does not count.
    stream.give_back(before(ticket)).await;
    let (ticket, _) = delivered(stream.next(before(ticket), 1).await);
    stream.expire(ticket.session).await;
    assert_eq!(stream.call(KEY, Call::Lapse).await, done(0, 1));
    assert!(letters(place).await.is_empty());
    let (ticket, got) = delivered(stream.start(2).await);
    assert_eq!((got[0].deliveries, got[1].deliveries), (2, 1));
    let refused = stream.refuse(ticket, Which::All, Duration::ZERO).await;
    assert_eq!(refused, done(0, 1), "the other one returns");
    let (_, rest) = delivered(stream.next(ticket, 9).await);
    assert_eq!(ids(&rest), [all[1].event.event_id]);
    let found = letters(place).await;
    assert_eq!(found.len(), 1);
    let letter = &found[0];
    assert_eq!(letter.failure.cause, Cause::Undeliverable.as_str());
    assert_eq!(letter.failure.attempts, 2);
    assert_eq!(letter.origin, "streams.s");
    assert_eq!(letter.event_id, Some(all[0].event.event_id));
    assert_eq!(letter.event_type.as_deref(), Some("page.view"));
    let body: StoredEvent = serde_json::from_slice(&letter.body).unwrap();
    assert_eq!(body.event_id, all[0].event.event_id);
    let position = letter.headers["position"].as_str().unwrap();
    assert_eq!(position, all[0].position.to_string());
    assert_eq!(stream.level(KEY).await, (0, vec![1]));
}

async fn a_replayed_letter_goes_back_into_its_stream(place: &Place) {
    let rules = StreamRules {
        max_deliveries: Some(1),
        ..RULES
    };
    let stream = Collecting::new(place, "s", rules).await;
    let logged = stream.deliver_logged(KEY, vec![event()]).await;
    let id = logged[0].event.event_id;
    for round in 1..=2 {
        let (ticket, got) = delivered(stream.start(1).await);
        assert_eq!((ids(&got), got[0].deliveries), (vec![id], 1));
        assert_eq!(stream.end(before(ticket)).await, done(0, 0));
        let letter = letters(place).await.remove(0);
        assert_eq!(letter.state, DeadLetterState::Dead);
        assert_eq!(letter.history.failures.len(), round - 1);
        assert_eq!(request(place, &letter).await, 1);
        assert_eq!(request(place, &letter).await, 0, "not twice");
        let pending = place.store.pending_replays(&stream.follower, 10).await;
        let pending = pending.unwrap();
        assert_eq!(pending.len(), 1);
        let event = &pending[0].event;
        assert_eq!(
            (pending[0].position, event.event_id),
            (logged[0].position, id)
        );
        let again = vec![message(KEY, event.event_id)];
        stream.step(again, Also::Replayed(letter.id)).await;
        let letter = letters(place).await.remove(0);
        assert_eq!(letter.state, DeadLetterState::Replayed);
    }
    let (ticket, _) = delivered(stream.start(1).await);
    assert_eq!(stream.end(ticket).await, done(1, 0));
    waiting(stream.start(1).await);
}

async fn a_letter_without_its_event_is_not_handed_over(place: &Place) {
    let rules = StreamRules {
        max_deliveries: Some(1),
        ..RULES
    };
    let stream = Collecting::new(place, "s", rules).await;
    // The log has no such event any more.
    let gone = stream.deliver(KEY, 1).await;
    let (ticket, _) = stream.started(1).await;
    stream.expire(ticket.session).await;
    assert_eq!(stream.call(KEY, Call::Lapse).await, done(0, 0));
    let letter = letters(place).await.remove(0);
    assert_eq!(letter.event_id, Some(gone[0]));
    let body = format!("{{\"id\":\"{}\"}}", gone[0]);
    assert_eq!(String::from_utf8_lossy(&letter.body), body);
    assert!(!letter.headers.contains_key("position"));
    assert_eq!(request(place, &letter).await, 0);
    assert_eq!(letters(place).await[0].state, DeadLetterState::Dead);
}
