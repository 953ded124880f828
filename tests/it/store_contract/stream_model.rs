//! What a place of a stream does, in few words: the reference for random calls.

use super::collecting::ids;
use eclusa::store::streams::{Delivered, Reply, Ticket};
use std::collections::BTreeMap;
use uuid::Uuid;

#[derive(Debug, Clone)]
struct Waits {
    event: Uuid,
    order_key: Option<String>,
    deliveries: u32,
    delayed: bool,
}

#[derive(Debug, Default)]
struct Live {
    n: i32,
    handed: BTreeMap<u64, Waits>,
    expired: bool,
    /// The call that waits.
    poll: Option<i64>,
}

/// A place: what waits by its order of arrival, and who has the rest.
#[derive(Debug, Default)]
pub struct Model {
    arrived: u64,
    waits: BTreeMap<u64, Waits>,
    live: BTreeMap<i64, Live>,
    pub buried: Vec<Uuid>,
    acknowledged: Vec<Uuid>,
    slots: usize,
    most: u32,
    ordered: bool,
}

/// What a reply must be.
#[derive(Debug)]
pub enum Expected {
    Exactly(Reply),
    Full,
    Started,
    /// The session's next answer, with so many messages acknowledged.
    Answer(i64, u32),
}

impl Model {
    pub fn new(slots: u32, most: u32, ordered: bool) -> Self {
        Self {
            slots: slots as usize,
            most,
            ordered,
            ..Self::default()
        }
    }

    pub fn arrive(&mut self, event: Uuid, order_key: Option<&str>) {
        self.arrived += 1;
        let one = Waits {
            event,
            order_key: order_key.map(str::to_owned),
            deliveries: 0,
            delayed: false,
        };
        self.waits.insert(self.arrived, one);
    }

    /// How many wait, and what each session has.
    pub fn level(&self) -> (u64, Vec<u32>) {
        let mut leased: Vec<u32> = self
            .live
            .values()
            .map(|one| one.handed.len() as u32)
            .collect();
        leased.sort_unstable();
        (self.waits.len() as u64, leased)
    }

    pub fn n(&self, session: i64) -> Option<i32> {
        self.live.get(&session).map(|one| one.n)
    }

    pub fn events(&self, session: i64) -> Vec<Uuid> {
        let handed = self.live.get(&session).map(|one| one.handed.values());
        handed.into_iter().flatten().map(|one| one.event).collect()
    }

    pub fn expire(&mut self, session: i64) {
        if let Some(live) = self.live.get_mut(&session) {
            live.expired = true;
        }
    }

    pub fn delays_pass(&mut self) {
        self.waits.values_mut().for_each(|one| one.delayed = false);
    }

    /// Messages return, and those that came back too often are buried. Returns how many return.
    fn put_back(&mut self, handed: BTreeMap<u64, Waits>, delayed: bool) -> u32 {
        let before = self.waits.len();
        for (n, one) in handed {
            match one.deliveries >= self.most {
                true => self.buried.push(one.event),
                false => drop(self.waits.insert(n, Waits { delayed, ..one })),
            }
        }
        (self.waits.len() - before) as u32
    }

    /// Each call ends the sessions whose time is over first. Returns how many messages return.
    pub fn lapse(&mut self) -> u32 {
        self.end_where(|_, live| live.expired)
    }

    fn end_where(&mut self, mut ends: impl FnMut(i64, &Live) -> bool) -> u32 {
        let over = self.live.iter().filter(|(id, live)| ends(**id, live));
        let over: Vec<i64> = over.map(|(id, _)| *id).collect();
        let over: Vec<Live> = over.iter().filter_map(|id| self.live.remove(id)).collect();
        over.into_iter()
            .map(|live| self.put_back(live.handed, false))
            .sum()
    }

    /// What a session may have now, oldest first.
    fn available(&self, session: i64) -> Vec<u64> {
        let others = self.live.iter().filter(|(id, _)| **id != session);
        let mut held: Vec<String> = others
            .flat_map(|(_, live)| live.handed.values())
            .filter_map(|one| one.order_key.clone())
            .collect();
        let mut found = Vec::new();
        for (n, one) in &self.waits {
            let key = one.order_key.as_ref().filter(|_| self.ordered);
            match key {
                Some(key) if held.contains(key) => {}
                _ if !one.delayed => found.push(*n),
                Some(key) => held.push(key.clone()),
                None => {}
            }
        }
        found
    }

    pub fn start(&mut self) -> Expected {
        self.lapse();
        match self.live.len() < self.slots {
            true => Expected::Started,
            false => Expected::Full,
        }
    }

    pub fn started(&mut self, session: i64) {
        self.live.insert(session, Live::default());
    }

    pub fn next(&mut self, ticket: Ticket, waiting: Option<i64>) -> Expected {
        self.lapse();
        let Some(live) = self.live.get_mut(&ticket.session) else {
            return Expected::Exactly(Reply::Gone);
        };
        if waiting.is_some() && waiting != live.poll {
            return Expected::Exactly(Reply::TakenOver);
        }
        match ticket.n - live.n {
            0 if !live.handed.is_empty() => Expected::Exactly(Reply::Messages {
                next: after(ticket),
                messages: live.handed.values().map(delivered).collect(),
                acknowledged: 0,
                row: None,
            }),
            ..=0 => Expected::Exactly(Reply::Gone),
            1 => {
                let handed = std::mem::take(&mut live.handed);
                self.acknowledged
                    .extend(handed.values().map(|one| one.event));
                Expected::Answer(ticket.session, handed.len() as u32)
            }
            _ => Expected::Exactly(Reply::Unknown),
        }
    }

    /// Takes in what a session was handed. What an unordered stream hands out has no choice; an ordered one may leave
    /// out what waits behind others of its key, but no key's first ones. Whether it must be asked again.
    pub fn answered(&mut self, session: i64, limit: usize, reply: &Reply) -> bool {
        let available = self.available(session);
        let exact = available.len().min(limit);
        let n = self.live[&session].n;
        let (next, messages) = match reply {
            Reply::Waiting { next, poll, .. } => {
                assert!(
                    self.ordered || exact == 0,
                    "these can be had: {available:?}"
                );
                self.live.get_mut(&session).unwrap().poll = Some(*poll);
                assert_eq!((next.session, next.n), (session, n + 1));
                return exact > 0;
            }
            Reply::Messages { next, messages, .. } => (next, messages),
            reply => panic!("{reply:?}"),
        };
        assert_eq!((next.session, next.n), (session, n + 2));
        let mut handed = BTreeMap::new();
        let (mut skipped, mut left) = (Vec::new(), messages.iter().peekable());
        for n in available {
            let one = &self.waits[&n];
            if left.peek().is_some_and(|next| next.event_id == one.event) {
                let key = one.order_key.as_ref();
                assert!(
                    key.is_none_or(|key| !skipped.contains(key)),
                    "{key:?} in order"
                );
                let mut one = self.waits.remove(&n).unwrap();
                one.deliveries += 1;
                assert_eq!(left.next(), Some(&delivered(&one)));
                handed.insert(n, one);
            } else {
                skipped.extend(one.order_key.clone());
            }
        }
        assert_eq!(left.next(), None, "not available, or not in order");
        assert!(messages.len() <= limit);
        if !self.ordered {
            assert_eq!(handed.len(), exact);
            let last = handed.keys().last().copied();
            let waits = self.waits.iter().filter(|(_, one)| !one.delayed);
            assert!(
                waits.map(|(n, _)| *n).min().is_none_or(|n| Some(n) > last),
                "the oldest ones first"
            );
        }
        for id in ids(messages) {
            assert!(!self.acknowledged.contains(&id), "acknowledged");
            assert!(
                self.live.keys().all(|one| !self.events(*one).contains(&id)),
                "two sessions"
            );
        }
        let live = self.live.get_mut(&session).unwrap();
        (live.n, live.handed, live.poll) = (n + 1, handed, None);
        false
    }

    pub fn give_back(&mut self, ticket: Ticket) -> Reply {
        let lapsed = self.lapse();
        let live = self.live.get_mut(&ticket.session);
        let Some(live) = live.filter(|live| live.n == ticket.n && !live.handed.is_empty()) else {
            return Reply::Gone;
        };
        live.n -= 1;
        let mut handed = std::mem::take(&mut live.handed);
        let returned = handed.len() as u32;
        handed.values_mut().for_each(|one| one.deliveries -= 1);
        self.waits.append(&mut handed);
        done(0, lapsed + returned)
    }

    pub fn end(&mut self, ticket: Ticket) -> Reply {
        let lapsed = self.lapse();
        let Some(live) = self.live.get(&ticket.session) else {
            return Reply::Gone;
        };
        match ticket.n - live.n {
            0 if !live.handed.is_empty() => {}
            ..=0 => return Reply::Gone,
            2.. => return Reply::Unknown,
            _ => {}
        }
        let acknowledges = ticket.n > live.n;
        let live = self.live.remove(&ticket.session).unwrap();
        if acknowledges {
            self.acknowledged
                .extend(live.handed.values().map(|one| one.event));
            return done(live.handed.len() as u32, lapsed);
        }
        let returned = self.put_back(live.handed, false);
        done(0, lapsed + returned)
    }

    fn answer_behind(&self, ticket: Ticket) -> Result<(), Reply> {
        match self.n(ticket.session).map(|n| ticket.n - n) {
            Some(1) => Ok(()),
            Some(2..) => Err(Reply::Unknown),
            _ => Err(Reply::Gone),
        }
    }

    pub fn refuse(&mut self, ticket: Ticket, which: Option<&[Uuid]>, delayed: bool) -> Reply {
        let lapsed = self.lapse();
        if let Err(reply) = self.answer_behind(ticket) {
            return reply;
        }
        let live = self.live.get_mut(&ticket.session).unwrap();
        let named = |one: &Waits| which.is_none_or(|ids| ids.contains(&one.event));
        let handed = std::mem::take(&mut live.handed);
        let (refused, kept) = handed.into_iter().partition(|(_, one)| named(one));
        live.handed = kept;
        let returned = self.put_back(refused, delayed);
        done(0, lapsed + returned)
    }

    pub fn extend(&mut self, ticket: Ticket) -> Reply {
        let lapsed = self.lapse();
        match self.answer_behind(ticket) {
            Ok(()) => done(0, lapsed),
            Err(reply) => reply,
        }
    }

    pub fn release(&mut self, session: Option<i64>) -> Reply {
        let lapsed = self.lapse();
        let returned = self.end_where(|id, _| session.is_none_or(|one| one == id));
        done(0, lapsed + returned)
    }
}

fn done(acknowledged: u32, returned: u32) -> Reply {
    Reply::Done {
        acknowledged,
        returned,
    }
}

fn after(ticket: Ticket) -> Ticket {
    Ticket {
        n: ticket.n + 1,
        ..ticket
    }
}

fn delivered(one: &Waits) -> Delivered {
    Delivered {
        event_id: one.event,
        deliveries: one.deliveries,
        body: format!("{{\"id\":\"{}\"}}", one.event),
    }
}
