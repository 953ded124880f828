//! Streams with order keys.

use super::collecting::{Collecting, KEY, RULES, before, done, messages, waiting};
use super::reacting::LONG;
use crate::followers::{Place, on_both_stores};
use eclusa::store::streams::{Call, Reply, StreamRules, Ticket, Which};
use std::time::Duration;
use uuid::Uuid;

const ORDERED: StreamRules = StreamRules {
    ordered: true,
    ..RULES
};

on_both_stores! {
    an_order_key_is_with_one_session_at_a_time,
    an_order_key_comes_in_order_when_a_session_lapses,
    a_delayed_message_holds_its_order_key_back,
    a_delayed_message_holds_back_what_lapses_in_the_same_call,
    many_that_wait_behind_one_come_in_order,
    what_is_behind_more_than_one_call_looks_at_is_found_by_the_next,
    held_keys_do_not_hide_others,
    an_undeliverable_message_lets_its_order_key_go_on,
}

async fn an_order_key_is_with_one_session_at_a_time(place: &Place) {
    let stream = Collecting::new(place, "s", ORDERED).await;
    let keys = [Some("a"), Some("a"), Some("b"), None, Some("a"), None];
    let all = stream.deliver_ordered(KEY, &keys).await;
    let (first, got) = stream.started(1).await;
    assert_eq!(got, all[..1]);
    let (second, got) = stream.started(9).await;
    assert_eq!(got, [all[2], all[3], all[5]]);
    // Those of `a` wait, and no collector looks for them.
    assert!(stream.ready(&[KEY]).await.is_empty());
    let (third, _) = waiting(stream.start(9).await);
    assert_eq!(stream.end(second).await, done(3, 0));
    waiting(stream.next(third, 9).await);
    assert_eq!(stream.level(KEY).await, (2, vec![1, 0]));
    assert_eq!(stream.end(first).await, done(1, 0));
    assert_eq!(stream.ready(&[KEY]).await, [KEY]);
    let (third, got) = messages(stream.next(third, 9).await);
    assert_eq!(got, [all[1], all[4]]);
    // What arrives now waits too, and comes to the session that has the key.
    let more = stream.deliver_ordered(KEY, &[Some("a"), Some("b")]).await;
    let (fourth, got) = stream.started(9).await;
    assert_eq!(got, more[1..]);
    let (next, _) = waiting(stream.next(third, 9).await);
    let (_, got) = messages(stream.next(next, 9).await);
    assert_eq!(got, more[..1]);
    assert_eq!(stream.end(fourth).await, done(1, 0));
}

async fn an_order_key_comes_in_order_when_a_session_lapses(place: &Place) {
    let stream = Collecting::new(place, "s", ORDERED).await;
    let all = stream.deliver_ordered(KEY, &[Some("a"); 6]).await;
    let (lost, _) = stream.started(2).await;
    let (other, _) = waiting(stream.start(2).await);
    stream.expire(lost.session).await;
    // The first ones first, and to this session alone.
    let (other, got) = messages(stream.next(other, 1).await);
    waiting(stream.start(9).await);
    assert_eq!(stream.level(KEY).await, (5, vec![0, 1]));
    assert_eq!(got, all[..1]);
    assert_eq!(rest(&stream, other, 2, 5).await, all[1..]);
}

async fn a_delayed_message_holds_its_order_key_back(place: &Place) {
    let stream = Collecting::new(place, "s", ORDERED).await;
    let keys = [Some("a"), Some("a"), Some("b"), Some("a")];
    let all = stream.deliver_ordered(KEY, &keys).await;
    let (ticket, _) = stream.started(1).await;
    waiting_behind(&stream).await;
    assert_eq!(stream.refuse(ticket, Which::All, LONG).await, done(0, 1));
    assert!(stream.ready(&[KEY]).await.is_empty(), "all of `a` waits");
    let (other, _) = waiting(stream.start(9).await);
    // Also what arrives now.
    let later = stream.deliver_ordered(KEY, &[Some("a")]).await;
    waiting(stream.next(other, 9).await);
    waiting(stream.next(ticket, 9).await);
    stream.delays_pass().await;
    assert_eq!(stream.ready(&[KEY]).await, [KEY]);
    let (ticket, mut seen) = messages(stream.next(ticket, 9).await);
    assert_eq!(seen[0], all[0]);
    waiting(stream.next(other, 9).await);
    let left = 4 - seen.len();
    seen.extend(rest(&stream, ticket, 9, left).await);
    assert_eq!(seen, [all[0], all[1], all[3], later[0]]);
}

async fn a_delayed_message_holds_back_what_lapses_in_the_same_call(place: &Place) {
    let stream = Collecting::new(place, "s", ORDERED).await;
    let keys = [Some("a"), Some("a"), Some("b"), Some("a")];
    let all = stream.deliver_ordered(KEY, &keys).await;
    let (lost, got) = stream.started(3).await;
    assert_eq!(got, all[..3]);
    let first = Which::Events(vec![all[0]]);
    assert_eq!(stream.refuse(lost, first, LONG).await, done(0, 1));
    stream.expire(lost.session).await;
    let (ticket, got) = stream.started(9).await;
    assert_eq!(got, all[2..3], "what is not of `a`");
    assert_eq!(stream.end(ticket).await, done(1, 0));
    stream.delays_pass().await;
    let (ticket, mut seen) = stream.started(1).await;
    seen.extend(rest(&stream, ticket, 9, 2).await);
    assert_eq!(seen, [all[0], all[1], all[3]]);
}

/// So many more messages of a session, which may have to ask again for each answer.
async fn rest(stream: &Collecting<'_>, from: Ticket, limit: usize, count: usize) -> Vec<Uuid> {
    let (mut ticket, mut seen) = (from, Vec::new());
    for _ in 0..=2 * count {
        if seen.len() >= count {
            break;
        }
        match stream.next(ticket, limit).await {
            Reply::Messages { next, messages, .. } => {
                ticket = next;
                seen.extend(messages.iter().map(|one| one.event_id));
            }
            reply => ticket = waiting(reply).0,
        }
    }
    seen
}

/// Another session has come by, so that what waits behind the first one is known to wait.
async fn waiting_behind(stream: &Collecting<'_>) {
    let (ticket, got) = stream.started(9).await;
    assert_eq!(got.len(), 1, "that of `b`");
    assert_eq!(stream.end(ticket).await, done(1, 0));
}

async fn many_that_wait_behind_one_come_in_order(place: &Place) {
    let stream = Collecting::new(place, "s", ORDERED).await;
    let mut keys = vec![Some("a"); 130];
    keys.push(Some("b"));
    let all = stream.deliver_ordered(KEY, &keys).await;
    let (ticket, first) = stream.started(1).await;
    // What is behind all of `a` is found at once.
    assert_eq!(stream.started(9).await.1, all[130..]);
    assert_eq!(first, all[..1]);
    assert_eq!(rest(&stream, ticket, 50, 129).await, all[1..130]);
}

async fn what_is_behind_more_than_one_call_looks_at_is_found_by_the_next(place: &Place) {
    let stream = Collecting::new(place, "s", ORDERED).await;
    let mut keys = vec![Some("a"); 1_030];
    keys.push(Some("b"));
    let all = stream.deliver_ordered(KEY, &keys).await;
    let (ticket, _) = stream.started(1).await;
    let reply = stream.start(9).await;
    let Reply::Waiting { next, more, .. } = reply else {
        panic!("{reply:?}");
    };
    assert!(more, "{reply:?}");
    assert_eq!(messages(stream.next(next, 9).await).1, all[1_030..]);
    let reply = stream.start(9).await;
    assert!(
        matches!(reply, Reply::Waiting { more: false, .. }),
        "{reply:?}"
    );
    assert_eq!(rest(&stream, ticket, 100, 1_029).await, all[1..1_030]);
}

async fn held_keys_do_not_hide_others(place: &Place) {
    let stream = Collecting::new(place, "s", ORDERED).await;
    let names: Vec<String> = (0..8).map(|n| format!("k{n}")).collect();
    let keys = names.iter().flat_map(|name| vec![Some(name.as_str()); 12]);
    let keys: Vec<Option<&str>> = keys.chain([Some("last")]).collect();
    let all = stream.deliver_ordered(KEY, &keys).await;
    let (ticket, got) = stream.started(100).await;
    assert_eq!(got, all);
    // Everything returns, and five sessions have the first one of a key each: 55 others are due and cannot be had.
    assert_eq!(stream.end(before(ticket)).await, done(0, 97));
    for key in 0..5 {
        assert_eq!(stream.started(1).await.1, all[key * 12..][..1]);
    }
    assert_eq!(stream.started(40).await.1, all[60..]);
}

async fn an_undeliverable_message_lets_its_order_key_go_on(place: &Place) {
    let rules = StreamRules {
        max_deliveries: Some(1),
        ..ORDERED
    };
    let stream = Collecting::new(place, "s", rules).await;
    let all = stream.deliver_ordered(KEY, &[Some("a"), Some("a")]).await;
    let (lost, _) = stream.started(1).await;
    let (other, _) = waiting(stream.start(1).await);
    stream.expire(lost.session).await;
    let reply = stream.call(KEY, Call::Lapse).await;
    assert_eq!(reply, done(0, 0));
    assert_eq!(stream.ready(&[KEY]).await, [KEY]);
    let (ticket, got) = messages(stream.next(other, 1).await);
    assert_eq!(got, all[1..]);
    let refused = stream.refuse(ticket, Which::All, Duration::ZERO).await;
    assert_eq!(refused, done(0, 0));
    assert_eq!(stream.level(KEY).await, (0, vec![0]));
}
