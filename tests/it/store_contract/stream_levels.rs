//! What is asked about the places of streams, and that they are apart.

use super::collecting::{Collecting, RULES, message, messages};
use super::reacting::LONG;
use crate::followers::{Place, on_both_stores};
use eclusa::store::followers::Also;
use eclusa::store::streams::{Call, PlaceRecord, Reply, StreamRules};
use uuid::Uuid;

on_both_stores! {
    keys_and_streams_are_apart,
    levels_say_what_waits_and_what_is_leased,
}

async fn keys_and_streams_are_apart(place: &Place) {
    let stream = Collecting::new(place, "s", RULES).await;
    let second = Collecting::new(place, "t", RULES).await;
    assert_eq!(place.store.declare_stream("s").await.unwrap(), stream.id);
    let names = place.store.streams().await.unwrap();
    let names: Vec<_> = names.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["s", "t"]);
    let (a, b) = (Uuid::now_v7(), Uuid::now_v7());
    let both = vec![message("a", a), message("b", b), message("a", b)];
    stream.step(both, Also::Nothing).await;
    second.deliver("a", 1).await;
    let start = Call::Start { limit: 9 };
    let (ticket, got) = messages(stream.call("a", start.clone()).await);
    assert_eq!(got, [a, b]);
    assert_eq!(messages(stream.call("b", start).await).1, [b]);
    // With the ticket of another key.
    let end = stream.call("b", Call::End { ticket }).await;
    assert_eq!(end, Reply::Gone);
    assert_eq!(second.call("a", Call::End { ticket }).await, Reply::Gone);
    assert_eq!(stream.level("a").await, (0, vec![2]));
}

async fn levels_say_what_waits_and_what_is_leased(place: &Place) {
    let rules = StreamRules { slots: 2, ..RULES };
    let stream = Collecting::new(place, "s", rules).await;
    let none = place.store.stream_level(stream.id).await.unwrap();
    assert_eq!((none.waiting, none.leased, none.sessions), (0, 0, 0));
    assert_eq!(none.oldest_waiting, None);
    for key in ["a", "b", "c", "d"] {
        stream.deliver(key, 3).await;
    }
    let start = |limit| Call::Start { limit };
    let (ticket, _) = messages(stream.call("a", start(2)).await);
    // All of `c` is gone, and `d` has a session only.
    let (all, _) = messages(stream.call("c", start(3)).await);
    stream.call("c", Call::End { ticket: all }).await;
    let (all, _) = messages(stream.call("d", start(3)).await);
    let limit = 1;
    let waiting = None;
    let next = Call::Next {
        ticket: all,
        limit,
        waiting,
    };
    stream.call("d", next).await;
    let level = place.store.stream_level(stream.id).await.unwrap();
    assert_eq!((level.waiting, level.leased, level.sessions), (4, 2, 2));
    assert!(level.oldest_waiting.is_some_and(|time| time < LONG));
    let keys = async |after: Option<&str>, limit| {
        let places = place.store.places(stream.id, after, limit).await.unwrap();
        let place = |one: &PlaceRecord| (one.key.clone(), one.waiting, one.sessions.len());
        places.iter().map(place).collect::<Vec<_>>()
    };
    let expected = [("a", 1, 1), ("b", 3, 0), ("d", 0, 1)];
    let expected = expected.map(|(key, waiting, live)| (key.to_owned(), waiting, live));
    assert_eq!(keys(None, 9).await, expected);
    assert_eq!(keys(None, 2).await, expected[..2]);
    assert_eq!(keys(Some("a"), 9).await, expected[1..]);
    assert!(keys(Some("d"), 9).await.is_empty());
    assert_eq!(stream.ready(&["a", "b", "c", "d", "e"]).await, ["a", "b"]);
    stream.call("a", Call::End { ticket }).await;
    assert_eq!(stream.level("a").await, (1, vec![]));
    assert_eq!(stream.level("unknown").await, (0, vec![]));
    let secret = place.store.stream_secret().await.unwrap();
    assert_eq!(place.store.stream_secret().await.unwrap(), secret);
    assert_ne!(secret, [0; 32]);
}
