//! The decisions about a place's calls, apart from any database.
//!
//! A session's answers are numbered from 1. Its state is the number `n` of the newest answer that had messages, and
//! those of them that are not acknowledged. A ticket with `n + 1` acknowledges them and asks for the next answer; one
//! with `n` gets the same answer again, since its collector may have lost it; any older one is spent.

use super::decision::{Answer, Decision, Returned, Verdict};
use super::holdings::{Handed, Holdings, Session};
use super::{Call, StreamRules, Ticket, Which};
use chrono::{DateTime, Utc};
use std::collections::HashSet;
use std::time::Duration;

/// Decides a call at a time. `id` is a number that no session had before.
pub fn decide(
    holdings: Holdings,
    call: &Call,
    rules: &StreamRules,
    now: DateTime<Utc>,
    id: i64,
) -> Decision {
    let mut ledger = Ledger {
        rules,
        now,
        decision: Decision {
            begun: None,
            ended: Vec::new(),
            acknowledged: Vec::new(),
            returned: Vec::new(),
            parked: Vec::new(),
            undeliverable: Vec::new(),
            taken: Vec::new(),
            released: Vec::new(),
            answer: None,
            cursor: holdings.cursor,
            verdict: Verdict::Done,
        },
        holdings,
    };
    ledger.lapse();
    ledger.decision.verdict = match call {
        Call::Start { limit } => ledger.start(id, *limit),
        Call::Next {
            ticket,
            limit,
            waiting,
        } => ledger.next(*ticket, *limit, *waiting),
        Call::GiveBack { ticket, row } => ledger.give_back(*ticket, *row),
        Call::End { ticket } => ledger.end(*ticket),
        Call::Refuse {
            ticket,
            which,
            delay,
        } => ledger.refuse(*ticket, which, *delay),
        Call::Extend { ticket, lease } => ledger.extend(*ticket, *lease),
        Call::Release { session } => ledger.release(*session),
        Call::Lapse => Verdict::Done,
    };
    ledger.release_keys();
    ledger.decision
}

pub(super) struct Ledger<'a> {
    pub(super) rules: &'a StreamRules,
    pub(super) now: DateTime<Utc>,
    pub(super) holdings: Holdings,
    pub(super) decision: Decision,
}

impl Ledger<'_> {
    fn after(&self, time: Duration) -> DateTime<Utc> {
        let time = chrono::Duration::from_std(time).unwrap_or(chrono::Duration::MAX);
        self.now
            .checked_add_signed(time)
            .unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// The place of a session among the live ones.
    fn find(&self, ticket: Ticket) -> Option<usize> {
        let sessions = &self.holdings.sessions;
        sessions.iter().position(|one| one.id == ticket.session)
    }

    /// Takes a session out, which ends it. Its messages are the caller's.
    fn take_out(&mut self, at: usize) -> Session {
        let session = self.holdings.sessions.swap_remove(at);
        self.decision.ended.push(session.id);
        session
    }

    fn lapse(&mut self) {
        while let Some(at) = self
            .holdings
            .sessions
            .iter()
            .position(|session| session.expires_at <= self.now)
        {
            let session = self.take_out(at);
            self.put_back(session.handed, Duration::ZERO);
        }
    }

    /// Messages return, but those that were handed out too often.
    fn put_back(&mut self, handed: Vec<Handed>, delay: Duration) {
        let due = self.after(delay);
        self.free_keys(&handed);
        let spent = |one: &Handed| {
            let most = self.rules.max_deliveries;
            most.is_some_and(|most| one.deliveries >= most)
        };
        let (undeliverable, handed): (Vec<_>, Vec<_>) = handed.into_iter().partition(spent);
        self.decision.undeliverable.extend(undeliverable);
        for message in handed {
            self.decision.returned.push(Returned { message, due });
        }
    }

    fn acknowledge(&mut self, handed: Vec<Handed>) {
        self.free_keys(&handed);
        let numbers = handed.into_iter().map(|one| one.number);
        self.decision.acknowledged.extend(numbers);
    }

    fn free_keys(&mut self, handed: &[Handed]) {
        let keys = handed.iter().filter_map(|one| one.order_key.clone());
        self.decision.released.extend(keys);
    }

    /// Keeps those that no session has now, once each.
    fn release_keys(&mut self) {
        let answer = self.decision.answer.as_ref();
        let others = self.holdings.sessions.iter();
        let others = others.filter(|one| answer.is_none_or(|answer| answer.session != one.id));
        let held: HashSet<&String> = others
            .flat_map(|one| &one.handed)
            .chain(answer.iter().flat_map(|answer| &answer.handed))
            .filter_map(|one| one.order_key.as_ref())
            .collect();
        let mut seen = HashSet::new();
        let released = &mut self.decision.released;
        released.retain(|key| !held.contains(key) && seen.insert(key.clone()));
    }

    fn start(&mut self, id: i64, limit: usize) -> Verdict {
        let sessions = &self.holdings.sessions;
        let taken: HashSet<u32> = sessions.iter().map(|one| one.slot).collect();
        let slots = usize::try_from(self.rules.slots).unwrap_or(usize::MAX);
        let free = (1..=self.rules.slots).find(|slot| !taken.contains(slot));
        let Some(slot) = free.filter(|_| sessions.len() < slots) else {
            // There may be more sessions than slots, since there were more slots before.
            let mut ends: Vec<DateTime<Utc>> = sessions.iter().map(|one| one.expires_at).collect();
            ends.sort_unstable();
            let first = ends.get(sessions.len().saturating_sub(slots));
            let after = first.and_then(|at| (*at - self.now).to_std().ok());
            return Verdict::Full {
                after: after.unwrap_or_default(),
            };
        };
        self.decision.begun = Some((id, slot));
        self.hand_out(id, 0, limit)
    }

    fn next(&mut self, ticket: Ticket, limit: usize, waiting: Option<i64>) -> Verdict {
        let Some(at) = self.find(ticket) else {
            return Verdict::Gone;
        };
        let Some(session) = self.holdings.sessions.get_mut(at) else {
            return Verdict::Gone;
        };
        let (id, n) = (session.id, session.n);
        if waiting.is_some_and(|row| row != session.row) {
            return Verdict::TakenOver;
        }
        if ticket.n == n && !session.handed.is_empty() {
            let handed = session.handed.clone();
            self.decision.answer = Some(Answer {
                session: id,
                n,
                handed: handed.clone(),
                expires_at: self.after(self.rules.idle),
            });
            let next = Ticket { n: n + 1, ..ticket };
            return Verdict::Messages {
                next,
                handed,
                repeated: true,
            };
        }
        if ticket.n <= n {
            return Verdict::Gone;
        }
        if ticket.n != n + 1 {
            return Verdict::Unknown;
        }
        let handed = std::mem::take(&mut session.handed);
        self.acknowledge(handed);
        self.hand_out(id, n, limit)
    }

    /// Hands out what there is to a session whose answers up to `n` are acknowledged.
    fn hand_out(&mut self, session: i64, n: i32, limit: usize) -> Verdict {
        let handed = self.pick(session, limit);
        let (n, wait) = match handed.is_empty() {
            true => (n, self.rules.wait),
            false => (n + 1, Duration::ZERO),
        };
        self.decision.answer = Some(Answer {
            session,
            n,
            handed: handed.clone(),
            expires_at: self.after(self.rules.idle.saturating_add(wait)),
        });
        let next = Ticket { session, n: n + 1 };
        match handed.is_empty() {
            true => Verdict::Waiting {
                next,
                more: self.holdings.more,
            },
            false => Verdict::Messages {
                next,
                handed,
                repeated: false,
            },
        }
    }

    fn give_back(&mut self, ticket: Ticket, row: Option<i64>) -> Verdict {
        let (now, idle) = (self.now, self.rules.idle);
        let Some(session) = self
            .find(ticket)
            .and_then(|at| self.holdings.sessions.get_mut(at))
            .filter(|session| session.n == ticket.n && !session.handed.is_empty())
            .filter(|session| row.is_none_or(|row| row == session.row))
        else {
            return Verdict::Gone;
        };
        let mut handed = std::mem::take(&mut session.handed);
        let id = session.id;
        // No collector has seen this delivery.
        for one in &mut handed {
            one.deliveries = one.deliveries.saturating_sub(1);
        }
        self.free_keys(&handed);
        let returned = handed
            .into_iter()
            .map(|message| Returned { message, due: now });
        self.decision.returned.extend(returned);
        self.decision.answer = Some(Answer {
            session: id,
            n: ticket.n - 1,
            handed: Vec::new(),
            expires_at: self.after(idle),
        });
        Verdict::Done
    }

    fn end(&mut self, ticket: Ticket) -> Verdict {
        let session = self
            .find(ticket)
            .map(|at| (at, self.holdings.sessions.get(at)));
        let Some((at, Some(session))) = session else {
            return Verdict::Gone;
        };
        match ticket.n - session.n {
            1 => {
                let session = self.take_out(at);
                self.acknowledge(session.handed);
            }
            0 if !session.handed.is_empty() => {
                let session = self.take_out(at);
                self.put_back(session.handed, Duration::ZERO);
            }
            ..=0 => return Verdict::Gone,
            _ => return Verdict::Unknown,
        }
        Verdict::Done
    }

    /// The session whose newest answer this ticket follows.
    fn answered(&mut self, ticket: Ticket) -> Result<&mut Session, Verdict> {
        let at = self.find(ticket).ok_or(Verdict::Gone)?;
        let session = self.holdings.sessions.get_mut(at).ok_or(Verdict::Gone)?;
        match ticket.n - session.n {
            1 => Ok(session),
            ..=0 => Err(Verdict::Gone),
            _ => Err(Verdict::Unknown),
        }
    }

    fn refuse(&mut self, ticket: Ticket, which: &Which, delay: Duration) -> Verdict {
        let named = std::mem::take(&mut self.holdings.named);
        let session = match self.answered(ticket) {
            Ok(session) => session,
            Err(verdict) => return verdict,
        };
        let refused = |one: &Handed| *which == Which::All || named.contains(&one.number);
        let handed = std::mem::take(&mut session.handed);
        let (refused, kept): (Vec<_>, Vec<_>) = handed.into_iter().partition(refused);
        if refused.is_empty() {
            session.handed = kept;
            return Verdict::Done;
        }
        session.handed.clone_from(&kept);
        let (id, n, expires_at) = (session.id, session.n, session.expires_at);
        self.put_back(refused, delay);
        self.decision.answer = Some(Answer {
            session: id,
            n,
            handed: kept,
            expires_at,
        });
        Verdict::Done
    }

    fn extend(&mut self, ticket: Ticket, lease: Duration) -> Verdict {
        let expires_at = self.after(lease);
        let session = match self.answered(ticket) {
            Ok(session) => session,
            Err(verdict) => return verdict,
        };
        // A new row would end the poll that may wait.
        if session.handed.is_empty() {
            return Verdict::Done;
        }
        let answer = Answer {
            session: session.id,
            n: session.n,
            handed: session.handed.clone(),
            expires_at,
        };
        self.decision.answer = Some(answer);
        Verdict::Done
    }

    fn release(&mut self, session: Option<i64>) -> Verdict {
        while let Some(at) = self
            .holdings
            .sessions
            .iter()
            .position(|one| session.is_none_or(|id| id == one.id))
        {
            let session = self.take_out(at);
            self.put_back(session.handed, Duration::ZERO);
        }
        Verdict::Done
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::store::streams) const RULES: StreamRules = StreamRules {
        slots: 2,
        idle: Duration::from_secs(60),
        wait: Duration::from_secs(8),
        max_deliveries: None,
        ordered: true,
    };

    pub(in crate::store::streams) fn session(id: i64, keys: &[(i64, &str)], lives: i64) -> Session {
        let handed = keys.iter().map(|(number, key)| Handed {
            number: *number,
            deliveries: 1,
            order_key: Some((*key).to_owned()),
        });
        Session {
            id,
            slot: u32::try_from(id).unwrap_or_default(),
            row: id,
            n: 1,
            handed: handed.collect(),
            expires_at: DateTime::UNIX_EPOCH + chrono::Duration::seconds(lives),
        }
    }

    pub(in crate::store::streams) fn place(sessions: Vec<Session>) -> Holdings {
        Holdings {
            cursor: 9,
            sessions,
            ..Holdings::default()
        }
    }

    pub(in crate::store::streams) fn decided(holdings: Holdings, call: &Call) -> Decision {
        decide(holdings, call, &RULES, DateTime::UNIX_EPOCH, 7)
    }

    #[test]
    fn a_key_is_released_when_no_session_has_it() {
        let keys = [(1, "a"), (2, "a"), (3, "b")];
        let refuse = Call::Refuse {
            ticket: Ticket { session: 1, n: 2 },
            which: Which::Events(Vec::new()),
            delay: Duration::ZERO,
        };
        let holdings = Holdings {
            named: HashSet::from([1, 3]),
            ..place(vec![session(1, &keys, 1)])
        };
        assert_eq!(decided(holdings, &refuse).released, ["b"]);
        // It goes from the session that lapses to the one that calls.
        let lapses = place(vec![session(1, &keys[..1], 0)]);
        let decision = decided(lapses, &Call::Start { limit: 1 });
        assert_eq!((decision.ended, decision.begun), (vec![1], Some((7, 1))));
        assert!(decision.released.is_empty() && decision.returned.is_empty());
        assert_eq!(decision.answer.unwrap().handed[0].deliveries, 2);
    }

    #[test]
    fn a_call_that_changes_nothing_has_no_row() {
        let holdings = || place(vec![session(1, &[(1, "a")], 1), session(2, &[], 2)]);
        let gone = Call::End {
            ticket: Ticket { session: 3, n: 1 },
        };
        for (call, verdict) in [
            (Call::Lapse, Verdict::Done),
            (gone.clone(), Verdict::Gone),
            (
                Call::Start { limit: 1 },
                Verdict::Full {
                    after: Duration::from_secs(1),
                },
            ),
        ] {
            let decision = decided(holdings(), &call);
            assert_eq!((decision.has_row(), decision.verdict), (false, verdict));
        }
        // But for the cursor, if a session has lapsed meanwhile.
        let decision = decided(place(vec![session(1, &[], 0)]), &gone);
        assert_eq!((decision.has_row(), decision.cursor), (true, 9));
    }
    #[test]
    fn a_session_begins_when_fewer_live_than_there_are_slots() {
        let live = |lives: &[(i64, i64)]| {
            let sessions = lives
                .iter()
                .map(|(slot, lives)| session(*slot, &[], *lives));
            decided(place(sessions.collect()), &Call::Start { limit: 1 })
        };
        let full = |seconds| Verdict::Full {
            after: Duration::from_secs(seconds),
        };
        // There were six slots before.
        let decision = live(&[(3, 5), (5, 2), (6, 9)]);
        assert_eq!((decision.begun, decision.verdict), (None, full(5)));
        let decision = live(&[(5, 3), (6, 9)]);
        assert_eq!((decision.begun, decision.verdict), (None, full(3)));
        assert_eq!(live(&[(6, 9)]).begun, Some((7, 1)));
        assert_eq!(live(&[(1, 9)]).begun, Some((7, 2)));
    }
}
