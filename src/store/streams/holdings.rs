//! What a place holds when it is called.

use super::Call;
use chrono::{DateTime, Utc};
use std::collections::{HashMap, HashSet};

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
    /// What lies behind the cursor, by number.
    pub fresh: Vec<Candidate>,
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
    pub fn held_by_others(&self, call: &Call, now: DateTime<Utc>) -> Vec<String> {
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
        assert_eq!(holdings.held_by_others(&next, now), ["b"]);
        let start = Call::Start { limit: 1 };
        assert_eq!(holdings.held_by_others(&start, now), ["a", "b"]);
        assert_eq!(holdings.lapsing_keys(now), HashSet::from(["c".to_owned()]));
    }
}
