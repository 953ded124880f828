//! Sessions of collectors: their slots, their tickets, and what they are handed.

use super::collecting::{Collecting, KEY, RULES, before, delivered, done, ids, messages, waiting};
use super::reacting::LONG;
use crate::followers::{Place, on_both_stores};
use eclusa::store::streams::{Call, Reply, Ticket, Which};
use std::time::Duration;
use uuid::Uuid;

on_both_stores! {
    messages_are_handed_out_in_order_and_acknowledged_by_the_next_call,
    a_call_without_messages_waits_and_the_last_one_of_a_ticket_wins,
    an_answer_is_repeated_until_its_successor_is_used,
    slots_are_counted_and_become_free,
    lapsed_places_are_found_beside_those_of_other_streams,
    what_a_lapsed_session_had_comes_first_and_counts_its_deliveries,
    the_end_of_a_session_acknowledges_or_returns,
    what_was_not_answered_is_given_back,
    refused_messages_return_when_they_are_due,
    a_lease_is_extended,
    sessions_are_released,
    numbers_go_on_when_everything_is_acknowledged,
}

async fn messages_are_handed_out_in_order_and_acknowledged_by_the_next_call(place: &Place) {
    let stream = Collecting::new(place, "s", RULES).await;
    let mut all = stream.deliver(KEY, 3).await;
    all.extend(stream.deliver(KEY, 4).await);
    let (ticket, first) = stream.started(5).await;
    assert_eq!(first, all[..5]);
    let reply = stream.next(ticket, 5).await;
    let Reply::Messages {
        next,
        messages,
        acknowledged,
        row,
    } = reply
    else {
        panic!("{reply:?}");
    };
    assert_eq!((acknowledged, ids(&messages)), (5, all[5..].to_vec()));
    assert_eq!(messages[0].body, format!("{{\"id\":\"{}\"}}", all[5]));
    assert!(messages.iter().all(|message| message.deliveries == 1));
    // A later call has had the same answer, so its collector may have it.
    let ticket = Ticket {
        n: next.n - 1,
        ..next
    };
    let again = stream
        .call(
            KEY,
            Call::Next {
                ticket,
                limit: 5,
                waiting: None,
            },
        )
        .await;
    assert!(
        matches!(again, Reply::Messages { row: None, .. }),
        "{again:?}"
    );
    assert_eq!(
        stream.call(KEY, Call::GiveBack { ticket, row }).await,
        Reply::Gone
    );
    assert_eq!(stream.level(KEY).await, (0, vec![2]));
    assert_eq!(stream.end(next).await, done(2, 0));
    assert_eq!(stream.level(KEY).await, (0, vec![]));
    waiting(stream.start(5).await);
}

async fn a_call_without_messages_waits_and_the_last_one_of_a_ticket_wins(place: &Place) {
    let stream = Collecting::new(place, "s", RULES).await;
    let (ticket, poll) = waiting(stream.start(1).await);
    let again = |poll| Call::Next {
        ticket,
        limit: 1,
        waiting: Some(poll),
    };
    let (same, poll) = waiting(stream.call(KEY, again(poll)).await);
    assert_eq!(same, ticket, "a ticket is not spent without messages");
    assert!(stream.ended(&[poll]).await.is_empty());
    // Another call with the same ticket.
    let (_, newer) = waiting(stream.next(ticket, 1).await);
    assert_eq!(stream.ended(&[poll, newer]).await, [poll]);
    stream.deliver(KEY, 1).await;
    let reply = stream.call(KEY, again(poll)).await;
    assert_eq!(reply, Reply::TakenOver);
    // Neither has anything to do with what waits.
    let extend = Call::Extend {
        ticket,
        lease: LONG,
    };
    assert_eq!(stream.call(KEY, extend).await, done(0, 0));
    let refused = stream.refuse(ticket, Which::All, Duration::ZERO).await;
    assert_eq!(refused, done(0, 0));
    messages(stream.call(KEY, again(newer)).await);
}

async fn an_answer_is_repeated_until_its_successor_is_used(place: &Place) {
    let stream = Collecting::new(place, "s", RULES).await;
    let all = stream.deliver(KEY, 4).await;
    let (first, _) = stream.started(2).await;
    // The answer was lost, and the collector asks for more now.
    let repeated = delivered(stream.next(before(first), 10).await);
    assert_eq!((repeated.0, ids(&repeated.1)), (first, all[..2].to_vec()));
    assert_eq!(repeated.1[0].deliveries, 1);
    let (second, rest) = messages(stream.next(first, 10).await);
    assert_eq!(rest, all[2..]);
    assert_eq!(stream.next(before(first), 10).await, Reply::Gone);
    let unknown = Ticket {
        n: second.n + 1,
        ..second
    };
    assert_eq!(stream.next(unknown, 10).await, Reply::Unknown);
    assert_eq!(stream.end(unknown).await, Reply::Unknown);
    assert_eq!(messages(stream.next(first, 10).await), (second, rest));
    // Behind the last answer, before the first one with messages of its own.
    let (third, _) = waiting(stream.next(second, 10).await);
    assert_eq!(third, second);
    assert_eq!(stream.next(first, 10).await, Reply::Gone);
    assert_eq!(stream.end(first).await, Reply::Gone);
    assert_eq!(stream.end(third).await, done(0, 0));
    assert_eq!(stream.next(third, 10).await, Reply::Gone);
    assert_eq!(stream.end(third).await, Reply::Gone);
}

async fn lapsed(
    place: &Place,
    streams: &[i32],
    limit: usize,
) -> Vec<eclusa::store::streams::Place> {
    place.store.lapsed_places(streams, limit).await.unwrap()
}

async fn slots_are_counted_and_become_free(place: &Place) {
    let stream = Collecting::new(place, "s", RULES).await;
    let mut tickets = Vec::new();
    for _ in 0..6 {
        tickets.push(waiting(stream.start(1).await).0);
    }
    let full = stream.start(1).await;
    let Reply::Full { after } = full else {
        panic!("{full:?}");
    };
    assert!(after > LONG / 2 && after <= LONG + RULES.wait, "{after:?}");
    assert_eq!(stream.end(tickets[2]).await, done(0, 0));
    let third = waiting(stream.start(1).await).0;
    assert!(matches!(stream.start(1).await, Reply::Full { .. }));
    let record = place.store.place(&stream.place(KEY)).await.unwrap();
    let slots: Vec<_> = record.sessions.iter().map(|one| one.slot).collect();
    assert_eq!(slots, [1, 2, 3, 4, 5, 6]);
    assert_eq!(record.sessions[2].id, third.session);
    assert!(lapsed(place, &[stream.id], 10).await.is_empty());
    stream.expire(tickets[4].session).await;
    let found = lapsed(place, &[stream.id], 10).await;
    assert_eq!(found, [stream.place(KEY)]);
    let fifth = waiting(stream.start(1).await).0;
    assert_eq!(stream.next(tickets[4], 1).await, Reply::Gone);
    assert!(matches!(stream.start(1).await, Reply::Full { .. }));
    // Of another key the slots are free.
    let other = stream.call("other", Call::Start { limit: 1 }).await;
    waiting(other);
    stream.expire(fifth.session).await;
    assert_eq!(stream.call(KEY, Call::Lapse).await, done(0, 0));
    assert!(lapsed(place, &[stream.id], 10).await.is_empty());
    assert_eq!(stream.level(KEY).await.1.len(), 5);
}

async fn lapsed_places_are_found_beside_those_of_other_streams(place: &Place) {
    let other = Collecting::new(place, "other", RULES).await;
    let stream = Collecting::new(place, "s", RULES).await;
    for of in [&other, &stream] {
        for key in ["a", "b"] {
            let (ticket, _) = waiting(of.call(key, Call::Start { limit: 1 }).await);
            of.expire(ticket.session).await;
        }
    }
    let own = [stream.place("a"), stream.place("b")];
    let found = lapsed(place, &[stream.id], 1).await;
    assert!(found.len() == 1 && own.contains(&found[0]), "{found:?}");
    assert_eq!(lapsed(place, &[stream.id], 10).await.len(), 2);
    assert_eq!(lapsed(place, &[stream.id, other.id], 10).await.len(), 4);
    assert!(lapsed(place, &[], 10).await.is_empty());
}

async fn what_a_lapsed_session_had_comes_first_and_counts_its_deliveries(place: &Place) {
    let stream = Collecting::new(place, "s", RULES).await;
    let all = stream.deliver(KEY, 6).await;
    let (lost, _) = stream.started(2).await;
    let (kept, _) = stream.started(2).await;
    stream.expire(lost.session).await;
    let (next, got) = delivered(stream.next(kept, 4).await);
    assert_eq!(ids(&got), [all[0], all[1], all[4], all[5]]);
    let deliveries: Vec<u32> = got.iter().map(|one| one.deliveries).collect();
    assert_eq!(deliveries, [2, 2, 1, 1]);
    stream.expire(next.session).await;
    assert_eq!(stream.call(KEY, Call::Lapse).await, done(0, 4));
    assert_eq!(stream.level(KEY).await, (4, vec![]));
    assert_eq!(stream.ready(&[KEY]).await, [KEY]);
    let (_, got) = delivered(stream.start(3).await);
    let deliveries: Vec<u32> = got.iter().map(|one| one.deliveries).collect();
    assert_eq!((ids(&got)[2], deliveries), (all[4], vec![3, 3, 2]));
    // Neither the lost one nor what was acknowledged comes again.
    assert_eq!(stream.next(lost, 9).await, Reply::Gone);
    assert_eq!(stream.started(9).await.1, [all[5]]);
}

async fn the_end_of_a_session_acknowledges_or_returns(place: &Place) {
    let stream = Collecting::new(place, "s", RULES).await;
    let all = stream.deliver(KEY, 4).await;
    let (ticket, _) = stream.started(2).await;
    assert_eq!(stream.end(ticket).await, done(2, 0));
    let (ticket, _) = stream.started(2).await;
    // Its collector has not got the answer.
    assert_eq!(stream.end(before(ticket)).await, done(0, 2));
    let (ticket, got) = stream.started(9).await;
    assert_eq!(got, all[2..]);
    assert_eq!(stream.end(ticket).await, done(2, 0));
    assert_eq!(stream.level(KEY).await, (0, vec![]));
}

async fn what_was_not_answered_is_given_back(place: &Place) {
    let stream = Collecting::new(place, "s", RULES).await;
    let all = stream.deliver(KEY, 3).await;
    let (next, _) = stream.started(2).await;
    let ticket = before(next);
    assert_eq!(stream.give_back(next).await, Reply::Gone);
    assert_eq!(stream.give_back(ticket).await, done(0, 2));
    assert_eq!(stream.give_back(ticket).await, Reply::Gone);
    assert_eq!(stream.level(KEY).await, (3, vec![0]));
    // No collector has seen that delivery, and the ticket is as good as before.
    let (other, got) = delivered(stream.start(1).await);
    assert_eq!((ids(&got), got[0].deliveries), (all[..1].to_vec(), 1));
    let (again, rest) = messages(stream.next(ticket, 9).await);
    assert_eq!((again, rest), (next, all[1..].to_vec()));
    assert_eq!(stream.end(again).await, done(2, 0));
    assert_eq!(stream.end(other).await, done(1, 0));
}

async fn refused_messages_return_when_they_are_due(place: &Place) {
    let stream = Collecting::new(place, "s", RULES).await;
    let all = stream.deliver(KEY, 4).await;
    let (ticket, _) = stream.started(3).await;
    let named = |id: Uuid| Which::Events(vec![id, Uuid::now_v7()]);
    let refuse = async |which, delay| stream.refuse(ticket, which, delay).await;
    assert_eq!(refuse(named(all[0]), LONG).await, done(0, 1));
    assert_eq!(refuse(named(all[0]), LONG).await, done(0, 0), "once");
    let not_its = refuse(named(all[3]), Duration::ZERO).await;
    assert_eq!(not_its, done(0, 0), "it does not have this one");
    assert_eq!(refuse(named(all[1]), Duration::ZERO).await, done(0, 1));
    assert_eq!(stream.level(KEY).await, (3, vec![1]));
    // The rest is acknowledged, and what was delayed does not come.
    let (ticket, got) = delivered(stream.next(ticket, 9).await);
    assert_eq!(ids(&got), [all[1], all[3]]);
    assert_eq!((got[0].deliveries, got[1].deliveries), (2, 1));
    assert_eq!(stream.end(ticket).await, done(2, 0));
    let (ticket, _) = waiting(stream.start(9).await);
    assert!(stream.ready(&[KEY]).await.is_empty());
    stream.delays_pass().await;
    assert_eq!(stream.ready(&[KEY]).await, [KEY]);
    let (ticket, got) = delivered(stream.next(ticket, 9).await);
    assert_eq!((ids(&got), got[0].deliveries), (all[..1].to_vec(), 2));
    let spent = stream.refuse(before(ticket), Which::All, LONG).await;
    assert_eq!(spent, Reply::Gone);
    let refused = stream.refuse(ticket, Which::All, Duration::ZERO).await;
    assert_eq!(refused, done(0, 1));
    let (_, got) = delivered(stream.next(ticket, 9).await);
    assert_eq!((ids(&got), got[0].deliveries), (all[..1].to_vec(), 3));
}

async fn a_lease_is_extended(place: &Place) {
    let stream = Collecting::new(place, "s", RULES).await;
    stream.deliver(KEY, 1).await;
    let (ticket, _) = stream.started(1).await;
    let expires_at = async || {
        let record = place.store.place(&stream.place(KEY)).await.unwrap();
        record.sessions[0].expires_at
    };
    let before_it = expires_at().await;
    let lease = LONG * 2;
    let extend = |ticket| Call::Extend { ticket, lease };
    let reply = stream.call(KEY, extend(before(ticket))).await;
    assert_eq!(reply, Reply::Gone);
    assert_eq!(stream.call(KEY, extend(ticket)).await, done(0, 0));
    let longer = expires_at().await - before_it;
    assert!(longer.to_std().unwrap() > LONG / 2, "{longer}");
    assert_eq!(stream.level(KEY).await, (0, vec![1]));
    assert_eq!(stream.end(ticket).await, done(1, 0));
    assert_eq!(stream.call(KEY, extend(ticket)).await, Reply::Gone);
}

async fn sessions_are_released(place: &Place) {
    let stream = Collecting::new(place, "s", RULES).await;
    let all = stream.deliver(KEY, 6).await;
    let mut tickets = Vec::new();
    for _ in 0..3 {
        tickets.push(stream.started(2).await.0);
    }
    let session = Some(tickets[1].session);
    let one = stream.call(KEY, Call::Release { session }).await;
    assert_eq!(one, done(0, 2));
    let again = stream.call(KEY, Call::Release { session }).await;
    assert_eq!(again, done(0, 0));
    let session = None;
    assert_eq!(
        stream.call(KEY, Call::Release { session }).await,
        done(0, 4)
    );
    assert_eq!(stream.level(KEY).await, (6, vec![]));
    assert_eq!(stream.next(tickets[0], 1).await, Reply::Gone);
    assert_eq!(stream.started(9).await.1, all);
}

async fn numbers_go_on_when_everything_is_acknowledged(place: &Place) {
    let stream = Collecting::new(place, "s", RULES).await;
    // In turn as the newest session, one of several, and one that ends while others go on.
    let (other, _) = waiting(stream.start(1).await);
    let mut ticket = waiting(stream.start(1).await).0;
    for round in 0..6 {
        let new = stream.deliver(KEY, 2).await;
        let got;
        (ticket, got) = messages(stream.next(ticket, 9).await);
        assert_eq!(got, new, "round {round}");
        if round % 2 == 0 {
            ticket = waiting(stream.next(ticket, 9).await).0;
        } else {
            assert_eq!(stream.end(ticket).await, done(2, 0));
            ticket = waiting(stream.start(9).await).0;
        }
        if round == 3 {
            waiting(stream.next(other, 9).await);
        }
    }
    // Also without any session.
    let session = None;
    stream.call(KEY, Call::Release { session }).await;
    let new = stream.deliver(KEY, 1).await;
    let (ticket, got) = stream.started(9).await;
    assert_eq!(got, new);
    stream.end(ticket).await;
    let new = stream.deliver(KEY, 2).await;
    assert_eq!(stream.started(9).await.1, new);
}
