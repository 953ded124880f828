//! A reaction whose lane is played by the test.

use crate::followers::Place;
use crate::harness::connect;
use crate::store_contract::event;
use eclusa::event::Event;
use eclusa::store::LeaseStore;
use eclusa::store::commit_log::{LoggedEvent, Position, Selection, Span, TypePatterns};
use eclusa::store::followers::{
    Also, Declaration, FollowerKind, FollowerRecord, LaneSpec, OnError, Start, Step, lease_name,
};
use eclusa::store::leases::{Fenced, Lease};
use eclusa::store::reactions::{
    Claim, ClaimOutcome, Claimed, ClaimedRun, Due, EndedRun, Ending, FinishedClaim, FinishedClaims,
    FirstOutcomes, MarkProcessed, QueuedRun, ReactionDeclaration, lane_name,
};
use eclusa::store::transaction::EffectError;
use std::sync::Arc;
use std::time::Duration;

pub const LONG: Duration = Duration::from_secs(600);
const COMPLETER: &str = "reactions:processed";

pub fn declaration(name: &str, types: &str, start: Start) -> ReactionDeclaration {
    ReactionDeclaration {
        name: name.to_owned(),
        types: TypePatterns::new([types]),
        start,
        spec: LaneSpec {
            lanes: 1,
            when: None,
            key: None,
            ordered: false,
            unique: false,
        },
    }
}

/// A reaction with one lane, of which this process has the lease.
pub struct Reacting<'a> {
    pub place: &'a Place,
    pub id: i32,
    pub name: String,
    pub lease: Lease,
}

impl<'a> Reacting<'a> {
    /// To `page.*`.
    pub async fn new(place: &'a Place, name: &str, start: Start) -> Self {
        Self::to(place, name, "page.*", start).await
    }

    pub async fn to(place: &'a Place, name: &str, types: &str, start: Start) -> Self {
        let declared = declaration(name, types, start);
        assert!(place.store.declare_reaction(&declared).await.unwrap());
        let lease = lease_name(&lane_name(name, 0));
        let lease = LeaseStore::acquire(&*place.store, &lease, "worker", LONG).await;
        let reaction = place.store.reaction(name).await.unwrap().unwrap();
        Self {
            place,
            id: reaction.id,
            name: name.to_owned(),
            lease: lease.unwrap().unwrap(),
        }
    }

    /// Stores outcomes in a step of the lane up to a position; where it is if that is absent.
    pub async fn step(
        &self,
        to: Option<Position>,
        ended: Vec<EndedRun>,
        queued: Vec<QueuedRun>,
    ) -> Result<Fenced<()>, EffectError> {
        let lane = self.place.record(&lane_name(&self.name, 0)).await;
        let to = to.unwrap_or(lane.position);
        self.store(lane, to, ended, queued, Vec::new()).await
    }

    async fn store(
        &self,
        lane: FollowerRecord,
        to: Position,
        ended: Vec<EndedRun>,
        queued: Vec<QueuedRun>,
        released: Vec<String>,
    ) -> Result<Fenced<()>, EffectError> {
        let step = Step {
            lease: self.lease.clone(),
            follower: lane.name,
            revision: None,
            n: lane.n,
            to,
            begun: 0,
            also: Also::Nothing,
        };
        let outcomes = FirstOutcomes {
            reaction: self.id,
            worker: Arc::from("worker"),
            ended,
            queued,
            released,
            lock_timeout: None,
        };
        self.place.store.step(step, Arc::new(outcomes)).await
    }

    pub async fn end(&self, runs: &[LoggedEvent], ending: Ending) {
        let ended = runs.iter().map(|run| ended(run, ending)).collect();
        let to = runs.last().map(|run| self.place.behind(run));
        let done = self.step(to, ended, Vec::new()).await;
        assert_eq!(done.unwrap(), Fenced::Done(()));
    }

    /// Decides everything up to a position.
    pub async fn pass(&self, to: Position) {
        let done = self.step(Some(to), Vec::new(), Vec::new()).await;
        assert_eq!(done.unwrap(), Fenced::Done(()));
    }

    pub async fn queue(&self, queued: Vec<QueuedRun>) {
        let done = self.step(None, Vec::new(), queued).await;
        assert_eq!(done.unwrap(), Fenced::Done(()));
    }

    /// Has the lane release a key.
    pub async fn release(&self, key: &str) {
        let lane = self.place.record(&lane_name(&self.name, 0)).await;
        let to = lane.position;
        let done = self.store(lane, to, Vec::new(), Vec::new(), vec![key.to_owned()]);
        assert_eq!(done.await.unwrap(), Fenced::Done(()));
    }

    pub async fn claim(&self, lease: Duration) -> Claimed {
        self.claim_as(lease, false).await
    }

    pub async fn claim_as(&self, lease: Duration, alone: bool) -> Claimed {
        let claim = Claim {
            reaction: self.id,
            alone,
            limit: 100,
            lease,
            worker: Arc::from("worker"),
        };
        self.place.store.claim(&claim).await.unwrap()
    }

    /// Returns whether it was still claimed so.
    pub async fn finish(&self, run: &ClaimedRun, outcome: ClaimOutcome) -> bool {
        let finished = FinishedClaim {
            position: run.position,
            event_id: run.event.event_id,
            token: run.token,
            attempt: run.attempts,
            took: Duration::from_millis(3),
            outcome,
        };
        let store = &self.place.store;
        let finished = FinishedClaims {
            reaction: self.id,
            worker: Arc::from("worker"),
            claims: vec![finished],
            lock_timeout: Duration::from_secs(1),
        };
        let stored = store.finish(finished).await;
        stored.unwrap() == 1
    }

    pub async fn succeed(&self, run: &ClaimedRun) -> bool {
        self.finish(run, ended_as(Ending::Succeeded)).await
    }
}

pub fn ended_as(ending: Ending) -> ClaimOutcome {
    let error = (ending != Ending::Succeeded).then(|| format!("it has {}", ending.as_str()));
    ClaimOutcome::Ended { ending, error }
}

pub fn again(after: Duration) -> ClaimOutcome {
    ClaimOutcome::Again {
        after,
        error: "not yet".to_owned(),
        unspent: false,
    }
}

pub fn ended(run: &LoggedEvent, ending: Ending) -> EndedRun {
    EndedRun {
        position: run.position,
        event_id: run.event.event_id,
        ending,
        attempts: 1,
        took: Duration::from_millis(5),
        error: (ending != Ending::Succeeded).then(|| format!("it has {}", ending.as_str())),
    }
}

pub fn queued(run: &LoggedEvent, due: Duration) -> QueuedRun {
    QueuedRun {
        position: run.position,
        event: Arc::new(run.event.clone()),
        order_key: None,
        unique_key: None,
        due: Due::After(due),
        attempts: 0,
        alone: false,
        history: Vec::new(),
    }
}

pub fn keyed(run: &LoggedEvent, key: &str) -> QueuedRun {
    QueuedRun {
        order_key: Some(key.to_owned()),
        ..queued(run, Duration::ZERO)
    }
}

impl Place {
    /// Behind the commit of an event.
    pub fn behind(&self, run: &LoggedEvent) -> Position {
        match self.url {
            Some(_) => Position(run.position.0 | 0xfff),
            None => run.position,
        }
    }

    pub async fn execute(&self, sql: &str) {
        match (&self.url, &self.folder) {
            (Some(url), _) => connect(url).await.batch_execute(sql).await.unwrap(),
            (None, folder) => {
                use diesel::Connection as _;
                use diesel::connection::SimpleConnection as _;
                let path = folder.as_ref().unwrap().path().join("eclusa.db");
                let path = path.display().to_string();
                let mut connection = diesel::SqliteConnection::establish(&path).unwrap();
                let sql = format!("PRAGMA busy_timeout = 5000; {sql}");
                connection.batch_execute(&sql).unwrap();
            }
        }
    }
}

/// Behind the last event.
pub async fn end_of(place: &Place) -> Position {
    place.store.number_commits().await.unwrap().end
}

/// Writes events and reads them back with their positions.
pub async fn written(place: &Place, events: Vec<Event>) -> Vec<LoggedEvent> {
    let mut after = end_of(place).await;
    let count = events.len();
    for batch in events.chunks(2_000) {
        place.write(batch.to_vec()).await;
    }
    let end = end_of(place).await;
    let mut read = Vec::new();
    while after < end {
        let span = Span::after(after, 5_000);
        let chunk = place.store.read_after(&Selection::default(), span).await;
        let chunk = chunk.unwrap();
        after = chunk.read_to;
        read.extend(chunk.events);
    }
    assert_eq!(read.len(), count);
    read
}

pub async fn some_events(place: &Place, count: usize) -> Vec<LoggedEvent> {
    written(place, (0..count).map(|_| event()).collect()).await
}

/// Marks all events as processed that are due up to a position, as the process does that has this follower.
pub async fn mark(place: &Place, until: Position) {
    let declaration = Declaration {
        name: COMPLETER.to_owned(),
        kind: FollowerKind::Transactional,
        types: TypePatterns::default(),
        start: Start::Beginning,
        on_error: OnError::Stop,
    };
    place.store.declare(&declaration).await.unwrap();
    let lease = LeaseStore::acquire(&*place.store, &lease_name(COMPLETER), "me", LONG).await;
    let follower = place.record(COMPLETER).await;
    let step = Step {
        lease: lease.unwrap().unwrap(),
        follower: follower.name,
        revision: None,
        n: follower.n,
        to: until,
        begun: 0,
        also: Also::Nothing,
    };
    let reached = place.store.reaction_positions().await.unwrap();
    let after = reached.iter().map(|one| one.marked_to).min();
    let stretch = MarkProcessed {
        after: after.unwrap_or(until),
        until,
    };
    let marked = place.store.step(step, Arc::new(stretch)).await;
    assert_eq!(marked.unwrap(), Fenced::Done(()));
}

pub async fn is_processed(place: &Place, run: &LoggedEvent) -> bool {
    let event = place.store.get(run.event.event_id).await.unwrap();
    event.unwrap().processed
}

pub async fn are_processed(place: &Place, runs: &[LoggedEvent]) -> Vec<bool> {
    let mut processed = Vec::new();
    for run in runs {
        processed.push(is_processed(place, run).await);
    }
    processed
}
