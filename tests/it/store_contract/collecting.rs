//! A stream whose follower is played by the test, and its collectors.

use super::reacting::{LONG, written};
use crate::followers::Place as Database;
use crate::harness::connect;
use eclusa::event::Event;
use eclusa::event::pix::PixMessage;
use eclusa::store::LeaseStore;
use eclusa::store::commit_log::{LoggedEvent, Position, TypePatterns};
use eclusa::store::followers::{Also, Declaration, FollowerKind, OnError, Start, Step, lease_name};
use eclusa::store::leases::{Fenced, Lease};
use eclusa::store::streams::{
    Call, Deliver, Delivered, NewMessage, Place, Reply, StreamRules, Ticket, Which, follower_name,
};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Nothing lapses of itself while a test runs.
pub const RULES: StreamRules = StreamRules {
    slots: 6,
    idle: LONG,
    wait: Duration::from_secs(8),
    max_deliveries: None,
    ordered: false,
};

pub const KEY: &str = "00000000";

/// A declared stream, of whose follower this process has the lease.
pub struct Collecting<'a> {
    pub database: &'a Database,
    pub id: i32,
    pub follower: String,
    pub rules: StreamRules,
    lease: Lease,
}

impl<'a> Collecting<'a> {
    pub async fn new(database: &'a Database, name: &str, rules: StreamRules) -> Self {
        let store = &database.store;
        let id = store.declare_stream(name).await.unwrap();
        let follower = follower_name(name);
        let declaration = Declaration {
            name: follower.clone(),
            kind: FollowerKind::Transactional,
            types: TypePatterns::default(),
            start: Start::Now,
            on_error: OnError::DeadLetter,
        };
        store.declare(&declaration).await.unwrap();
        let lease = LeaseStore::acquire(&**store, &lease_name(&follower), "me", LONG).await;
        Self {
            database,
            id,
            follower,
            rules,
            lease: lease.unwrap().unwrap(),
        }
    }

    pub fn place(&self, key: &str) -> Place {
        let key = key.to_owned();
        Place {
            stream: self.id,
            key,
        }
    }

    /// A step of the follower with these messages.
    pub async fn step(&self, messages: Vec<NewMessage>, also: Also) {
        let follower = self.database.record(&self.follower).await;
        let step = Step {
            lease: self.lease.clone(),
            follower: follower.name,
            revision: None,
            n: follower.n,
            to: follower.position,
            begun: 0,
            also,
        };
        let stream = self.id;
        let deliver = Arc::new(Deliver { stream, messages });
        let done = self.database.store.step(step, deliver).await;
        assert_eq!(done.unwrap(), Fenced::Done(()));
    }

    /// Delivers messages without an event in the log, and returns the ids of their events.
    pub async fn deliver(&self, key: &str, count: usize) -> Vec<Uuid> {
        self.deliver_ordered(key, &vec![None; count]).await
    }

    /// The same with an order key each.
    pub async fn deliver_ordered(&self, key: &str, order_keys: &[Option<&str>]) -> Vec<Uuid> {
        let message = |order_key: &Option<&str>| NewMessage {
            order_key: order_key.map(str::to_owned),
            ..message(key, Uuid::now_v7())
        };
        let messages: Vec<NewMessage> = order_keys.iter().map(message).collect();
        let ids = messages.iter().map(|message| message.event_id).collect();
        self.step(messages, Also::Nothing).await;
        ids
    }

    /// Delivers messages whose events are in the log.
    pub async fn deliver_logged(&self, key: &str, events: Vec<Event>) -> Vec<LoggedEvent> {
        let logged = written(self.database, events).await;
        let messages = logged.iter().map(|logged| NewMessage {
            position: logged.position,
            ..message(key, logged.event.event_id)
        });
        self.step(messages.collect(), Also::Nothing).await;
        logged
    }

    pub async fn call(&self, key: &str, call: Call) -> Reply {
        let (place, store) = (self.place(key), &self.database.store);
        store.call(&place, &call, &self.rules).await.unwrap().reply
    }

    pub async fn start(&self, limit: usize) -> Reply {
        self.call(KEY, Call::Start { limit }).await
    }

    pub async fn next(&self, ticket: Ticket, limit: usize) -> Reply {
        let waiting = None;
        let call = Call::Next {
            ticket,
            limit,
            waiting,
        };
        self.call(KEY, call).await
    }

    pub async fn end(&self, ticket: Ticket) -> Reply {
        self.call(KEY, Call::End { ticket }).await
    }

    pub async fn give_back(&self, ticket: Ticket) -> Reply {
        self.call(KEY, Call::GiveBack { ticket, row: None }).await
    }

    pub async fn refuse(&self, ticket: Ticket, which: Which, delay: Duration) -> Reply {
        let call = Call::Refuse {
            ticket,
            which,
            delay,
        };
        self.call(KEY, call).await
    }

    /// A session that got these many messages: the ticket that follows, and their events.
    pub async fn started(&self, limit: usize) -> (Ticket, Vec<Uuid>) {
        messages(self.start(limit).await)
    }

    /// The time of a session is over.
    pub async fn expire(&self, session: i64) {
        let past = self.database.past();
        let sql =
            format!("UPDATE stream_answers SET expires_at = {past} WHERE session = {session}");
        self.database.execute(&sql).await;
    }

    /// What was delayed is due.
    pub async fn delays_pass(&self) {
        let (past, id) = (self.database.past(), self.id);
        let sql = format!("UPDATE stream_returned SET due = {past} WHERE stream = {id}");
        self.database.execute(&sql).await;
    }

    /// How many messages wait at a key, and how many each session has, by slot.
    pub async fn level(&self, key: &str) -> (u64, Vec<u32>) {
        let record = self.database.store.place(&self.place(key)).await.unwrap();
        let leased = record.sessions.iter().map(|one| one.leased).collect();
        (record.waiting, leased)
    }

    /// Those of these polls that another call has ended.
    pub async fn ended(&self, polls: &[i64]) -> Vec<i64> {
        self.database.store.ended_polls(polls).await.unwrap()
    }

    /// Those of these keys that have something to hand out.
    pub async fn ready(&self, keys: &[&str]) -> Vec<String> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let mut ready = self
            .database
            .store
            .ready_keys(self.id, &keys)
            .await
            .unwrap();
        ready.sort();
        ready
    }
}

#[derive(diesel::QueryableByName)]
struct Word {
    #[diesel(sql_type = diesel::sql_types::Text)]
    word: String,
}

impl Database {
    /// The column `word`, a text, of what a query finds.
    pub async fn words(&self, sql: &str) -> Vec<String> {
        match (&self.url, &self.folder) {
            (Some(url), _) => {
                let rows = connect(url).await.query(sql, &[]).await.unwrap();
                rows.iter().map(|row| row.get("word")).collect()
            }
            (None, folder) => {
                use diesel::{Connection as _, RunQueryDsl as _};
                let path = folder.as_ref().unwrap().path().join("eclusa.db");
                let path = path.display().to_string();
                let mut connection = diesel::SqliteConnection::establish(&path).unwrap();
                let rows: Vec<Word> = diesel::sql_query(sql).load(&mut connection).unwrap();
                rows.into_iter().map(|row| row.word).collect()
            }
        }
    }

    fn past(&self) -> &'static str {
        match self.url {
            Some(_) => "'2020-01-01 00:00:00Z'",
            None => "1577836800000000",
        }
    }
}

pub fn message(key: &str, event_id: Uuid) -> NewMessage {
    NewMessage {
        key: key.to_owned(),
        order_key: None,
        event_id,
        position: Position::START,
        body: format!("{{\"id\":\"{event_id}\"}}"),
        pix: None,
    }
}

pub fn pix_message(event_id: Uuid, pix: PixMessage) -> NewMessage {
    NewMessage {
        body: pix.to_json(),
        key: pix.receiver.ispb.clone(),
        pix: Some(pix),
        ..message("", event_id)
    }
}

pub fn ids(messages: &[Delivered]) -> Vec<Uuid> {
    messages.iter().map(|message| message.event_id).collect()
}

/// The ticket behind an answer with messages, and the events of these.
pub fn messages(reply: Reply) -> (Ticket, Vec<Uuid>) {
    let (next, messages) = delivered(reply);
    (next, ids(&messages))
}

pub fn delivered(reply: Reply) -> (Ticket, Vec<Delivered>) {
    match reply {
        Reply::Messages { next, messages, .. } => (next, messages),
        other => panic!("no messages: {other:?}"),
    }
}

/// The ticket behind an answer without messages, and who waits.
pub fn waiting(reply: Reply) -> (Ticket, i64) {
    match reply {
        Reply::Waiting { next, poll, .. } => (next, poll),
        other => panic!("it does not wait: {other:?}"),
    }
}

pub fn done(acknowledged: u32, returned: u32) -> Reply {
    Reply::Done {
        acknowledged,
        returned,
    }
}

/// The ticket before.
pub fn before(ticket: Ticket) -> Ticket {
    Ticket {
        n: ticket.n - 1,
        ..ticket
    }
}
