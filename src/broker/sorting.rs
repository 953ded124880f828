//! Events of messages, in their order, as frames for the shards they belong to.

use super::shards::Shards;
use crate::event::{Event, frame};
use uuid::Uuid;

/// An event on its way to its shard, with what its reader wants to have with it.
pub struct Outgoing<T> {
    /// The event.
    pub event: Event,
    /// The dead letter it was, if it comes from a replay.
    pub letter: Option<Uuid>,
    /// How often it has failed so far.
    pub attempts: u32,
    /// Its ticket, for example.
    pub with: T,
}

/// A message for a shard.
pub struct Frame<T> {
    /// Its body.
    pub body: Vec<u8>,
    /// The dead letter its event was.
    pub letter: Option<Uuid>,
    /// How often each of its events has failed so far.
    pub attempts: u32,
    /// What came with its events.
    pub with: Vec<T>,
}

/// How large a frame may be.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most events.
    pub events: usize,
    /// Most bytes, unless a single event is larger.
    pub bytes: usize,
}

/// Frames by shard, those of a shard in the order of its events. An event that was a dead letter has
/// a frame of its own, since the letter is named in the frame's headers, and so are the attempts, which
/// the events of a frame have in common. An event that cannot be written as JSON, which does not occur, is left out and what came with it dropped.
pub fn frames<T>(
    events: impl IntoIterator<Item = Outgoing<T>>,
    shards: Shards,
    bounds: Bounds,
) -> Vec<Vec<Frame<T>>> {
    let mut sorted: Vec<Vec<Open<T>>> = shards.all().map(|_| Vec::new()).collect();
    for outgoing in events {
        let weight = outgoing.event.weight();
        let Some(of_shard) = sorted.get_mut(shards.of_event(&outgoing.event)) else {
            continue;
        };
        let has_room = of_shard.last().is_some_and(|open| {
            open.letter.is_none()
                && outgoing.letter.is_none()
                && open.attempts == outgoing.attempts
                && open.with.len() < bounds.events
                && open.bytes + weight <= bounds.bytes
        });
        if !has_room {
            of_shard.push(Open {
                encoder: frame::Encoder::default(),
                letter: outgoing.letter,
                attempts: outgoing.attempts,
                bytes: 0,
                with: Vec::new(),
            });
        }
        if let Some(open) = of_shard.last_mut() {
            match open.encoder.push(&outgoing.event) {
                Ok(()) => {
                    open.bytes += weight;
                    open.with.push(outgoing.with);
                }
                Err(error) => tracing::error!(%error, "cannot write an event as JSON"),
            }
        }
    }
    let finish = |open: Open<T>| Frame {
        body: open.encoder.finish(),
        letter: open.letter,
        attempts: open.attempts,
        with: open.with,
    };
    sorted
        .into_iter()
        .map(|of_shard| of_shard.into_iter().map(finish).collect())
        .collect()
}

/// A frame that is being filled.
struct Open<T> {
    encoder: frame::Encoder,
    letter: Option<Uuid>,
    attempts: u32,
    bytes: usize,
    with: Vec<T>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{fixture, id};

    fn event(user: &str) -> Event {
        Event {
            user_id: Some(user.to_owned()),
            ..fixture::event()
        }
    }

    #[test]
    fn each_user_has_one_shard_and_keeps_the_order_there() {
        let shards = Shards {
            count: 4,
            prefetch: 1,
        };
        let bounds = Bounds {
            events: 3,
            bytes: 1_000_000,
        };
        let letter = id::fresh();
        let outgoing = (0..40).map(|n| Outgoing {
            event: event(&format!("u{}", n % 7)),
            letter: (n == 20).then_some(letter),
            attempts: u32::from(n == 30),
            with: n,
        });
        let sorted = frames(outgoing, shards, bounds);
        let mut seen = 0;
        for of_shard in &sorted {
            let order: Vec<i32> = of_shard.iter().flat_map(|f| f.with.clone()).collect();
            assert!(order.is_sorted());
            seen += order.len();
            for frame in of_shard {
                assert!((1..=3).contains(&frame.with.len()));
                assert_eq!(frame.letter.is_some(), frame.with == [20]);
                assert_eq!(frame.attempts == 1, frame.with == [30]);
                let events = frame::decode(&frame.body).unwrap();
                assert_eq!(events.len(), frame.with.len());
            }
        }
        assert_eq!(seen, 40);
        for n in 0..7 {
            let user = format!("u{n}");
            let with_user = |of_shard: &&Vec<Frame<i32>>| {
                let mut all = of_shard.iter().flat_map(|f| &f.with);
                all.any(|with| with % 7 == n)
            };
            assert_eq!(sorted.iter().filter(with_user).count(), 1, "{user}");
        }
    }
}
