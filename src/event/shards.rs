//! Shards of `broker.order = "user"`: every user belongs to one queue, so that one consumer and one
//! writer keep the order of that user's events.

use super::Event;
use sha2::{Digest, Sha256};

/// A number of shard queues, and the prefetch of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shards {
    pub count: u16,
    /// Messages in hand per shard, equal in every replica: RabbitMQ returns messages to the front of a
    /// quorum queue in the order of their delivery only while no consumer takes fewer of them than
    /// were returned.
    pub prefetch: u16,
}

impl Shards {
    /// The shard of an event: that of its user. Events without a user spread by their id, in no order.
    pub fn of_event(self, event: &Event) -> usize {
        match &event.user_id {
            Some(user) => self.of_user(user),
            None => self.of_key(event.event_id.as_bytes()),
        }
    }

    /// The shard of a user.
    pub fn of_user(self, user: &str) -> usize {
        self.of_key(user.as_bytes())
    }

    /// The first eight bytes of the key's SHA-256 as a big-endian number, modulo the number of
    /// shards. It must never change: the queues may hold messages that were distributed by it.
    fn of_key(self, key: &[u8]) -> usize {
        let digest = Sha256::digest(key);
        let number = digest
            .iter()
            .take(8)
            .fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
        usize::try_from(number % u64::from(self.count.max(1))).unwrap_or(0)
    }

    /// The indices of all shards.
    pub fn all(self) -> std::ops::Range<usize> {
        0..usize::from(self.count)
    }

    /// The queue of a shard. The number of shards is part of the name, so that a replica with another
    /// number cannot publish to a wrong queue.
    pub fn queue(self, work_queue: &str, shard: usize) -> String {
        format!("{work_queue}.{shard}-of-{}", self.count)
    }

    /// Key of the advisory lock under which the store writes the rows of a shard.
    pub fn lane_key(self, work_queue: &str, shard: usize) -> i64 {
        let digest = Sha256::digest(self.queue(work_queue, shard));
        digest
            .iter()
            .take(8)
            .fold(0i64, |number, byte| (number << 8) | i64::from(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python: `int.from_bytes(sha256(user.encode()).digest()[:8]) % shards`.
    #[test]
    fn a_user_stays_on_its_shard_for_ever() {
        let shards = |count| Shards { count, prefetch: 1 };
        let of = |user: &str| [4, 8, 256].map(|count| shards(count).of_key(user.as_bytes()));
        assert_eq!(of("u1"), [2, 2, 186]);
        assert_eq!(of("maria@example.org"), [2, 2, 170]);
        assert_eq!(of(""), [0, 4, 20]);
    }

    #[test]
    fn users_spread_over_all_shards() {
        let shards = Shards {
            count: 4,
            prefetch: 1,
        };
        let mut users = [0; 4];
        for n in 0..4_000 {
            users[shards.of_key(format!("user-{n}").as_bytes())] += 1;
        }
        assert!(users.iter().all(|users| (800..1_200).contains(users)));
    }
}
