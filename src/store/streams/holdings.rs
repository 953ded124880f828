//! What a place holds when it is called.

use super::Call;
use chrono::{DateTime, Utc};
use std::collections::{HashMap, HashSet};

/// Messages behind the cursor that are looked at first for one call of an ordered stream, since some may have to wait,
/// and at most, as long as all of them do.
pub const AHEAD: usize = 50;
const FARTHEST: usize = 1_000;

/// A message that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    pub number: i64,
    /// How often it was handed out, with this one.
    pub deliveries: u32,
    pub order_key: Option<String>,
}

/// A live session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub id: i64,
    pub slot: u32,
    /// Of the row that says this; a later one was written by a later call.
    pub row: i64,
    /// The newest answer that had messages; 0 before the first one.
    pub n: i32,
    /// Of that answer, what is not acknowledged.
    pub handed: Vec<Handed>,
    pub expires_at: DateTime<Utc>,
}

/// A message that may be handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub number: i64,
    /// How often it was handed out before; 0 for one behind the cursor.
    pub deliveries: u32,
    pub order_key: Option<String>,
}

impl Candidate {
    /// The same with one delivery more.
    pub(super) fn handed_out(self) -> Handed {
        Handed {
            number: self.number,
            deliveries: self.deliveries + 1,
            order_key: self.order_key,
        }
    }
}

/// What a place holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Everything up to this number was handed out or set aside.
    pub cursor: i64,
    pub sessions: Vec<Session>,
    /// What has returned and is due, by number.
    pub returned: Vec<Candidate>,
    /// What follows the cursor, by number.
    pub fresh: Vec<Candidate>,
    /// Whether all of it has to wait, and more follows it.
    pub more: bool,
    /// Of the order keys behind the cursor, those of which something has returned, due or not, or is parked.
    pub returned_keys: HashSet<String>,
    /// Of the order keys of sessions whose time is over, the number of the first message that has returned and is not
    /// due.
    pub delayed: HashMap<String, i64>,
    /// The numbers of the events that the call names.
    pub named: HashSet<i64>,
}

impl Holdings {
    /// The order keys of what the sessions hold that stay, other than the one that calls.
    pub fn held_by_others(&self, call: &Call, now: DateTime<Utc>) -> HashSet<String> {
        let calling = match call {
            Call::Next { ticket, .. } => Some(ticket.session),
            _ => None,
        };
        let stays = |one: &&Session| one.expires_at > now && Some(one.id) != calling;
        let handed = self
            .sessions
            .iter()
            .filter(stays)
            .flat_map(|one| &one.handed);
        handed.filter_map(|one| one.order_key.clone()).collect()
    }

    /// The number behind which nothing was looked at.
    pub fn seen(&self) -> i64 {
        self.fresh.last().map_or(self.cursor, |one| one.number)
    }

    /// Takes in what follows the cursor, found in a look at `wanted` messages, with its `returned_keys`. At how many
    /// more to look: none if something may be handed out. `held` are the order keys of other sessions.
    pub fn found(
        &mut self,
        fresh: Vec<Candidate>,
        wanted: usize,
        held: &HashSet<String>,
    ) -> Option<usize> {
        let waits = |key: &String| held.contains(key) || self.returned_keys.contains(key);
        let all_wait = fresh.len() >= wanted
            && self.returned.is_empty()
            && fresh
                .iter()
                .all(|one| one.order_key.as_ref().is_some_and(waits));
        self.fresh.extend(fresh);
        let left = FARTHEST.saturating_sub(self.fresh.len());
        self.more = all_wait && left == 0;
        (all_wait && left > 0).then(|| wanted.saturating_mul(2).min(left))
    }

    /// The order keys of what the sessions had whose time is over.
    pub fn lapsing_keys(&self, now: DateTime<Utc>) -> HashSet<String> {
        let sessions = self.sessions.iter();
        let lapsing = sessions.filter(|one| one.expires_at <= now);
        let handed = lapsing.flat_map(|one| &one.handed);
        handed.filter_map(|one| one.order_key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::streams::Ticket;

    #[test]
    fn the_keys_of_others_are_those_of_sessions_that_stay() {
        let session = |(id, key, lives): (i64, &str, i64)| Session {
            id,
            slot: 1,
            row: id,
            n: 1,
            handed: vec![Handed {
                number: id,
                deliveries: 1,
                order_key: Some(key.to_owned()),
            }],
            expires_at: DateTime::UNIX_EPOCH + chrono::Duration::seconds(lives),
        };
        let holdings = Holdings {
            sessions: [(1, "a", 1), (2, "b", 1), (3, "c", 0)]
                .map(session)
                .to_vec(),
            ..Holdings::default()
        };
        let next = Call::Next {
            ticket: Ticket { session: 1, n: 2 },
            limit: 1,
            waiting: None,
        };
        let now = DateTime::UNIX_EPOCH;
        let keys = |keys: &[&str]| -> HashSet<String> {
            keys.iter().map(|key| (*key).to_owned()).collect()
        };
        assert_eq!(holdings.held_by_others(&next, now), keys(&["b"]));
        let start = Call::Start { limit: 1 };
        assert_eq!(holdings.held_by_others(&start, now), keys(&["a", "b"]));
        assert_eq!(holdings.lapsing_keys(now), keys(&["c"]));
    }

    #[test]
    fn one_looks_on_as_long_as_all_have_to_wait_and_not_farther_than_allowed() {
        let look = |from: i64, count: usize, last: Option<&str>| {
            let candidate = |number| Candidate {
                number,
                deliveries: 0,
                order_key: Some("a".to_owned()),
            };
            let mut found: Vec<_> = (from..).take(count).map(candidate).collect();
            found[count - 1].order_key = last.map(str::to_owned);
            found
        };
        let held = HashSet::from(["a".to_owned()]);
        for last in [None, Some("b")] {
            let mut holdings = Holdings::default();
            assert_eq!(holdings.found(look(1, 50, last), 50, &held), None);
            assert_eq!((holdings.seen(), holdings.more), (50, false));
        }
        let mut holdings = Holdings {
            returned_keys: HashSet::from(["b".to_owned()]),
            ..Holdings::default()
        };
        let (mut from, mut wanted, mut looks) = (1, 50, vec![50]);
        while let Some(more) = holdings.found(look(from, wanted, Some("b")), wanted, &held) {
            (from, wanted) = (holdings.seen() + 1, more);
            looks.push(more);
        }
        assert_eq!(looks, [50, 100, 200, 400, 250]);
        assert_eq!((holdings.seen(), holdings.more), (1_000, true));
        // There are no others.
        let mut holdings = Holdings::default();
        assert_eq!(holdings.found(look(1, 49, Some("a")), 50, &held), None);
        assert!(!holdings.more);
    }
}
