//! Reading the log in the order of commits: each event once, none skipped.

use super::*;
use eclusa::store::commit_log::{Position, ROUND, Selection, Span, TypePatterns};
use eclusa::store::{CommitLog, EventFilter};

/// Numbers what is committed, and reads all behind a position, `limit` at a time.
pub async fn follow(
    log: &dyn CommitLog,
    selection: &Selection,
    mut position: Position,
    limit: usize,
) -> (Vec<Uuid>, Position) {
    let end = loop {
        let numbered = log.number_commits().await.unwrap();
        if numbered.commits < ROUND {
            break numbered.end;
        }
    };
    let mut seen = Vec::new();
    let mut last = position;
    while position < end {
        let span = Span::after(position, limit);
        let chunk = log.read_after(selection, span).await.unwrap();
        assert!(chunk.events.len() <= limit);
        assert!(chunk.read_to > position, "it moves on");
        for logged in &chunk.events {
            assert!(logged.position > last && logged.position <= chunk.read_to);
            last = logged.position;
        }
        seen.extend(chunk.events.iter().map(|logged| logged.event.event_id));
        position = chunk.read_to;
    }
    (seen, position)
}

pub async fn a_reader_sees_each_event_once_in_order(store: &dyn Store) {
    let mut order = Vec::new();
    for size in [1, 40, 3, 100, 1, 1] {
        let events: Vec<_> = (0..size).map(|_| event_of(Uuid::new_v4())).collect();
        order.extend(events.iter().map(|event| event.event_id));
        write(store, events.clone()).await.unwrap();
        // A batch that came twice leaves no trace.
        write(store, events).await.unwrap();
    }
    for limit in [1, 7, 1_000] {
        let (seen, end) = follow(store, &Selection::default(), Position::START, limit).await;
        assert_eq!(seen, order, "limit {limit}");
        let (more, _) = follow(store, &Selection::default(), end, 10).await;
        assert!(more.is_empty());
    }
}

pub async fn from_the_end_on_leaves_out_what_was_before(store: &dyn Store) {
    write(store, [event(), event()]).await.unwrap();
    let end = store.number_commits().await.unwrap().end;
    let new = event();
    write(store, [new.clone()]).await.unwrap();
    let (seen, _) = follow(store, &Selection::default(), end, 10).await;
    assert_eq!(seen, [new.event_id]);
}

pub async fn a_selection_leaves_out_the_rest(store: &dyn Store) {
    let typed = |event_type: &str, user: &str| Event {
        event_type: event_type.to_owned(),
        user_id: Some(user.to_owned()),
        ..event()
    };
    let events = [
        typed("order.paid", "a"),
        typed("order.sent", "b"),
        typed("orders", "a"),
        typed("50%_off", "a"),
        typed("507xoff", "a"),
    ];
    write(store, (0..200).map(|_| event())).await.unwrap();
    write(store, events.clone()).await.unwrap();
    write(store, (0..200).map(|_| event())).await.unwrap();
    let ids = |places: &[usize]| {
        places
            .iter()
            .map(|p| events[*p].event_id)
            .collect::<Vec<_>>()
    };
    let user = |user: &str| EventFilter {
        user_id: Some(user.to_owned()),
        ..EventFilter::default()
    };
    for (types, filter, expected) in [
        (vec!["order.*"], EventFilter::default(), ids(&[0, 1])),
        (vec!["order.*"], user("b"), ids(&[1])),
        (
            vec!["orders", "*.paid"],
            EventFilter::default(),
            ids(&[0, 2]),
        ),
        (vec!["50%_off*"], EventFilter::default(), ids(&[3])),
        (vec!["nothing"], EventFilter::default(), ids(&[])),
        (vec!["*"], user("a"), ids(&[0, 2, 3, 4])),
    ] {
        let selection = Selection {
            types: TypePatterns::new(types.clone()),
            filter,
        };
        for limit in [1, 3, 1_000] {
            let (seen, _) = follow(store, &selection, Position::START, limit).await;
            assert_eq!(seen, expected, "{types:?} {limit}");
        }
    }
}

pub async fn a_read_is_bounded_in_bytes_and_misses_nothing(store: &dyn Store) {
    let large = |size: usize| Event {
        event_data: json(&format!("{{\"a\":\"{}\"}}", "x".repeat(size))),
        ..event()
    };
    let sizes = [10, 300_000, 10, 10, 200_000, 900_000, 20, 2_000, 400_000];
    let events: Vec<Event> = sizes.into_iter().map(large).collect();
    let ids: Vec<Uuid> = events.iter().map(|event| event.event_id).collect();
    write(store, events).await.unwrap();
    let end = store.number_commits().await.unwrap().end;
    let (mut position, mut seen, mut reads) = (Position::START, Vec::new(), 0);
    while position < end {
        let span = Span {
            bytes: 250_000,
            ..Span::after(position, 100)
        };
        let chunk = store.read_after(&Selection::default(), span).await.unwrap();
        let bytes: usize = chunk
            .events
            .iter()
            .map(|e| e.event.event_data.get().len())
            .sum();
        let last = chunk
            .events
            .last()
            .map_or(0, |e| e.event.event_data.get().len());
        assert!(bytes - last < 250_000, "one event may go beyond");
        seen.extend(chunk.events.iter().map(|logged| logged.event.event_id));
        position = chunk.read_to;
        reads += 1;
    }
    assert_eq!(seen, ids);
    assert!(reads >= 3, "{reads} reads");
}

pub async fn a_read_ends_where_it_is_told_to(store: &dyn Store) {
    write(store, [event(), event(), event()]).await.unwrap();
    store.number_commits().await.unwrap();
    let all = store
        .read_after(&Selection::default(), Span::after(Position::START, 10))
        .await
        .unwrap();
    let until = all.events[1].position;
    let span = Span {
        until,
        ..Span::after(Position::START, 10)
    };
    let part = store.read_after(&Selection::default(), span).await.unwrap();
    assert_eq!((part.events.len(), part.read_to), (2, until));
}

pub async fn a_backlog_is_counted(store: &dyn Store) {
    write(store, (0..7).map(|_| event())).await.unwrap();
    write(store, (0..5).map(|_| event())).await.unwrap();
    let end = store.number_commits().await.unwrap().end;
    let (events, seconds) = store.backlog(Position::START).await.unwrap();
    assert_eq!(events, 12);
    assert!((0.0..60.0).contains(&seconds));
    assert_eq!(store.backlog(end).await.unwrap(), (0, 0.0));
}
