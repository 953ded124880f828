//! Followers: declarations, steps, commands and what retention leaves them.

use super::*;
use eclusa::event::{Cause, id};
use eclusa::store::LeaseStore;
use eclusa::store::commit_log::{Position, TypePatterns};
use eclusa::store::dead_letters::{
    DeadLetter, DeadLetterFailure, DeadLetterFilter, DeadLetterState, Replayed,
};
use eclusa::store::followers::{
    Also, Commanded, Declaration, FollowerCommand, FollowerKind, FollowerRecord, FollowerState,
    OnError, Start, Step, lease_name,
};
use eclusa::store::leases::{Fenced, Lease};
use eclusa::store::transaction::{Effect, EffectError, NoEffect, Transaction};
use std::time::Duration;

const NAME: &str = "counts";

fn declaration(types: &str, start: Start) -> Declaration {
    Declaration {
        name: NAME.to_owned(),
        kind: FollowerKind::Transactional,
        types: TypePatterns::new([types]),
        start,
        on_error: OnError::Stop,
    }
}

async fn declared(store: &dyn Store, start: Start) -> (Lease, FollowerRecord) {
    assert!(store.declare(&declaration("*", start)).await.unwrap());
    let lease = LeaseStore::acquire(store, &lease_name(NAME), "tests", Duration::from_secs(60))
        .await
        .unwrap()
        .unwrap();
    (lease, record(store).await)
}

async fn record(store: &dyn Store) -> FollowerRecord {
    store.follower(NAME).await.unwrap().unwrap()
}

fn step(lease: &Lease, record: &FollowerRecord, to: i64) -> Step {
    Step {
        lease: lease.clone(),
        follower: NAME.to_owned(),
        revision: Some(record.revision),
        n: record.n,
        to: Position(to),
        begun: 0,
        also: Also::Nothing,
    }
}

/// Records an event, and then refuses if asked to.
struct Recording {
    refuse: bool,
}

#[async_trait::async_trait]
impl Effect for Recording {
    async fn run(&self, transaction: &mut Transaction<'_>) -> Result<(), EffectError> {
        let event = eclusa::store::record::RecordedEvent::new("made", &serde_json::json!({}));
        let event = event.unwrap();
        match transaction {
            Transaction::Postgres(connection) => pg::record(connection, &event).await?,
            Transaction::Sqlite(connection) => lite::record(connection, &event)?,
        };
        match self.refuse {
            true => Err(EffectError::Refused("not this one".to_owned())),
            false => Ok(()),
        }
    }
}

async fn events(store: &dyn Store) -> usize {
    let page = store.list(&Default::default(), None, 100).await.unwrap();
    page.events.len()
}

pub async fn a_step_stores_its_effect_and_its_position_together(store: &dyn Store) {
    let (lease, before) = declared(store, Start::Beginning).await;
    assert_eq!((before.position, before.n), (Position::START, 0));
    let refused = store
        .step(
            step(&lease, &before, 5),
            Arc::new(Recording { refuse: true }),
        )
        .await;
    assert!(
        matches!(refused, Err(EffectError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(
        (events(store).await, record(store).await.position),
        (0, Position(0))
    );
    let taken = step(&lease, &before, 5);
    let done = store
        .step(taken.clone(), Arc::new(Recording { refuse: false }))
        .await;
    assert_eq!(done.unwrap(), Fenced::Done(()));
    assert_eq!(
        (events(store).await, record(store).await.position),
        (1, Position(5))
    );
    // The same number a second time.
    let again = store
        .step(taken, Arc::new(Recording { refuse: false }))
        .await;
    assert_eq!(again.unwrap(), Fenced::Lost);
    assert_eq!(events(store).await, 1);
    let mut current = record(store).await;
    for to in 6..300 {
        let done = store
            .step(step(&lease, &current, to), Arc::new(NoEffect))
            .await;
        assert_eq!(done.unwrap(), Fenced::Done(()));
        current.n += 1;
    }
    assert_eq!(record(store).await.position, Position(299));
}

pub async fn a_step_without_the_lease_does_nothing(store: &dyn Store) {
    let (lease, before) = declared(store, Start::Beginning).await;
    LeaseStore::release(store, &lease).await.unwrap();
    let done = store
        .step(
            step(&lease, &before, 5),
            Arc::new(Recording { refuse: false }),
        )
        .await;
    assert_eq!(done.unwrap(), Fenced::Lost);
    assert_eq!(
        (events(store).await, record(store).await.position),
        (0, Position(0))
    );
}

pub async fn a_declaration_that_changes_takes_effect_at_the_end_of_the_log(store: &dyn Store) {
    write(store, [event(), event()]).await.unwrap();
    let (lease, before) = declared(store, Start::Now).await;
    let end = store.number_commits().await.unwrap().end;
    assert_eq!((before.position, before.until), (end, Position::MAX));
    assert!(
        !store
            .declare(&declaration("*", Start::Beginning))
            .await
            .unwrap()
    );
    write(store, [event()]).await.unwrap();
    assert!(
        store
            .declare(&declaration("order.*", Start::Now))
            .await
            .unwrap()
    );
    let changed = record(store).await;
    assert!(
        changed.types.is_all(),
        "the part before is finished as it was declared"
    );
    assert!(changed.until > end && changed.until < Position::MAX);
    let stale = store
        .step(step(&lease, &before, end.0 + 1), Arc::new(NoEffect))
        .await;
    assert_eq!(stale.unwrap(), Fenced::Lost, "a reader must know of it");
    let to = changed.until.0;
    let done = store
        .step(step(&lease, &changed, to), Arc::new(NoEffect))
        .await;
    assert_eq!(done.unwrap(), Fenced::Done(()));
    let after = record(store).await;
    assert_eq!(after.types.to_vec(), ["order.*"]);
    assert_eq!(after.until, Position::MAX);
}

pub async fn commands_do_what_they_say_or_say_why_not(store: &dyn Store) {
    let command = async |command| store.command(NAME, command).await.unwrap();
    assert_eq!(command(FollowerCommand::Pause).await, Commanded::Unknown);
    write(store, (0..20).map(|_| event())).await.unwrap();
    store.number_commits().await.unwrap();
    let (lease, before) = declared(store, Start::Beginning).await;
    let refused = async |given| match store.command(NAME, given).await.unwrap() {
        Commanded::Refused(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert!(
        refused(FollowerCommand::Resume)
            .await
            .contains("is running")
    );
    assert_eq!(command(FollowerCommand::Pause).await, Commanded::Done);
    assert!(refused(FollowerCommand::Pause).await.contains("paused"));
    let paused = record(store).await;
    assert_eq!(paused.state, FollowerState::Paused);
    for stale in [&before, &paused] {
        let done = store.step(step(&lease, stale, 5), Arc::new(NoEffect)).await;
        assert_eq!(done.unwrap(), Fenced::Lost, "a paused one stands");
    }
    assert_eq!(command(FollowerCommand::Resume).await, Commanded::Done);
    assert_eq!(
        command(FollowerCommand::Skip(Position(9))).await,
        Commanded::Done
    );
    assert_eq!(record(store).await.position, Position(9));
    assert!(
        refused(FollowerCommand::Skip(Position(8)))
            .await
            .contains("forward")
    );
    let beyond = FollowerCommand::Skip(Position(1 << 40));
    assert!(refused(beyond).await.contains("the log ends"));
    // A rebuild is under what it subscribes to today.
    assert!(
        store
            .declare(&declaration("order.*", Start::Now))
            .await
            .unwrap()
    );
    let rebuild = FollowerCommand::Rebuild {
        accept_truncated: false,
    };
    assert_eq!(command(rebuild).await, Commanded::Done);
    let asked = record(store).await;
    assert!(asked.rebuild);
    let begun = Step {
        begun: 0,
        also: Also::Rebuild,
        ..step(&lease, &asked, 0)
    };
    assert_eq!(
        store.step(begun, Arc::new(NoEffect)).await.unwrap(),
        Fenced::Done(())
    );
    let rebuilding = record(store).await;
    assert_eq!(
        (rebuilding.position, rebuilding.rebuild),
        (Position(0), false)
    );
    assert_eq!(rebuilding.types.to_vec(), ["order.*"]);
    assert_eq!(rebuilding.until, Position::MAX);
    let stop = async |revision| {
        let (state, reason) = (FollowerState::Broken, "it cannot go on");
        let stopped = store.stop_follower(&lease, NAME, revision, state, reason);
        stopped.await.unwrap()
    };
    assert!(!stop(asked.revision).await, "what it read has changed");
    assert_eq!(record(store).await.state, FollowerState::Running);
    assert!(stop(rebuilding.revision).await);
    let broken = record(store).await;
    assert_eq!(
        (broken.state, broken.reason.as_deref()),
        (FollowerState::Broken, Some("it cannot go on"))
    );
    assert!(
        refused(FollowerCommand::Remove)
            .await
            .contains("tests runs follower")
    );
    LeaseStore::release(store, &lease).await.unwrap();
    assert_eq!(command(FollowerCommand::Remove).await, Commanded::Done);
    assert!(store.follower(NAME).await.unwrap().is_none());
}

pub async fn a_dead_letter_of_a_follower_goes_to_it_again_once(store: &dyn Store) {
    let (lease, _) = declared(store, Start::Beginning).await;
    let failed = event();
    write(store, [failed.clone()]).await.unwrap();
    let stored = store.get(failed.event_id).await.unwrap().unwrap();
    let failure = |at| DeadLetterFailure {
        at,
        cause: Cause::Follower.as_str().to_owned(),
        error: "it cannot".to_owned(),
        sqlstate: None,
        attempts: 1,
    };
    let letter = |at| {
        let id = id::of_follower_letter(NAME, failed.event_id);
        let body = serde_json::to_vec(&stored).unwrap();
        let mut letter = DeadLetter::new(id, failure(at), NAME, body);
        letter.headers.insert("position".to_owned(), "77".into());
        letter
    };
    let current = record(store).await;
    let dead = Step {
        begun: 0,
        also: Also::DeadLetter(Box::new(letter(now()))),
        ..step(&lease, &current, 78)
    };
    assert_eq!(
        store.step(dead, Arc::new(NoEffect)).await.unwrap(),
        Fenced::Done(())
    );
    let only = async || {
        let filter = DeadLetterFilter::default();
        let order = eclusa::store::dead_letters::DeadLetterOrder::Oldest;
        let found = store.list_letters(&filter, order, None, 10).await.unwrap();
        assert_eq!(found.len(), 1);
        found.into_iter().next().unwrap()
    };
    let found = only().await;
    let sent = Replayed {
        id: found.id,
        failed_at: found.failure.at,
    };
    assert_eq!(store.request_replays(&[sent]).await.unwrap(), [found.id]);
    assert_eq!(only().await.state, DeadLetterState::Replayed);
    assert!(
        store.request_replays(&[sent]).await.unwrap().is_empty(),
        "not twice"
    );
    let pending = store.pending_replays(NAME, 10).await.unwrap();
    assert_eq!(pending.len(), 1);
    assert_eq!(
        (pending[0].position, pending[0].event.event_id),
        (Position(77), failed.event_id)
    );
    assert_eq!(
        pending[0].event.event_data.get().replace(' ', ""),
        failed.event_data.get()
    );
    let current = record(store).await;
    assert_eq!(current.replays, 1);
    let again = Step {
        begun: 0,
        also: Also::ReplayFailed(Box::new(letter(now()))),
        ..step(&lease, &current, 78)
    };
    assert_eq!(
        store.step(again, Arc::new(NoEffect)).await.unwrap(),
        Fenced::Done(())
    );
    let found = only().await;
    assert_eq!(found.state, DeadLetterState::Dead);
    assert_eq!(record(store).await.replays, 0);
    let sent = Replayed {
        id: found.id,
        failed_at: found.failure.at,
    };
    assert_eq!(store.request_replays(&[sent]).await.unwrap(), [found.id]);
    let done = Step {
        begun: 0,
        also: Also::Replayed(found.id),
        ..step(&lease, &record(store).await, 78)
    };
    assert_eq!(
        store.step(done, Arc::new(NoEffect)).await.unwrap(),
        Fenced::Done(())
    );
    assert_eq!(record(store).await.replays, 0);
    assert_eq!(only().await.state, DeadLetterState::Replayed);
}

/// What a rebuild does not bring back stays a dead letter.
pub async fn a_rebuild_keeps_the_letters_of_events_that_are_gone(store: &dyn Store) {
    let (lease, _) = declared(store, Start::Beginning).await;
    let (logged, gone) = (event(), event());
    write(store, [logged.clone()]).await.unwrap();
    for failed in [&logged, &gone] {
        let failure = DeadLetterFailure {
            at: now(),
            cause: Cause::Follower.as_str().to_owned(),
            error: "it cannot".to_owned(),
            sqlstate: None,
            attempts: 1,
        };
        let id = id::of_follower_letter(NAME, failed.event_id);
        let mut letter = DeadLetter::new(id, failure, NAME, b"{}".to_vec());
        letter.event_id = Some(failed.event_id);
        let dead = Step {
            begun: 0,
            also: Also::DeadLetter(Box::new(letter)),
            ..step(&lease, &record(store).await, 5)
        };
        let done = store.step(dead, Arc::new(NoEffect)).await;
        assert_eq!(done.unwrap(), Fenced::Done(()));
    }
    let rebuild = FollowerCommand::Rebuild {
        accept_truncated: false,
    };
    store.command(NAME, rebuild).await.unwrap();
    let begun = Step {
        begun: 0,
        also: Also::Rebuild,
        ..step(&lease, &record(store).await, 0)
    };
    let done = store.step(begun, Arc::new(NoEffect)).await;
    assert_eq!(done.unwrap(), Fenced::Done(()));
    let order = eclusa::store::dead_letters::DeadLetterOrder::Oldest;
    let filter = DeadLetterFilter::default();
    let left = store.list_letters(&filter, order, None, 10).await.unwrap();
    let left: Vec<_> = left.iter().map(|letter| letter.event_id).collect();
    assert_eq!(left, [Some(gone.event_id)]);
}

pub async fn what_a_follower_has_not_read_stays(store: &dyn Store) {
    let (lease, before) = declared(store, Start::Beginning).await;
    let marks = Declaration {
        name: "reactions:processed".to_owned(),
        ..declaration("*", Start::Beginning)
    };
    store.declare(&marks).await.unwrap();
    let old = || Event {
        received_at: now() - chrono::Duration::days(20),
        ..event_of(Uuid::new_v4())
    };
    write(store, [old(), old()]).await.unwrap();
    write(store, [event()]).await.unwrap();
    let end = store.number_commits().await.unwrap().end;
    let retention = LeaseStore::acquire(store, "retention", "tests", Duration::from_secs(60))
        .await
        .unwrap()
        .unwrap();
    let trim = async |keep, unread| match store.trim(&retention, keep, unread, 0, 100).await {
        Ok(Fenced::Done(slice)) => slice.deleted,
        other => panic!("{other:?}"),
    };
    assert_eq!(trim(10, false).await, 0, "unread");
    assert_eq!(store.complete_since().await.unwrap(), None);
    assert_eq!(trim(15, true).await, 2, "held for long enough");
    let gapped = record(store).await;
    assert_eq!(gapped.state, FollowerState::Gapped, "{:?}", gapped.reason);
    let marks = store.follower(&marks.name).await.unwrap().unwrap();
    assert_eq!(marks.state, FollowerState::Running, "it reads no event");
    let since = store.complete_since().await.unwrap().unwrap();
    assert!(since < now().date_naive());
    let refused = store
        .command(
            NAME,
            FollowerCommand::Rebuild {
                accept_truncated: false,
            },
        )
        .await
        .unwrap();
    assert!(matches!(refused, Commanded::Refused(reason) if reason.contains("--accept-truncated")));
    let resumed = store.command(NAME, FollowerCommand::Resume).await.unwrap();
    assert_eq!(resumed, Commanded::Done);
    assert!(record(store).await.revision > before.revision);
    let current = record(store).await;
    let done = store
        .step(step(&lease, &current, end.0), Arc::new(NoEffect))
        .await;
    assert_eq!(done.unwrap(), Fenced::Done(()));
    write(store, [old()]).await.unwrap();
    let end = store.number_commits().await.unwrap().end;
    write(store, [event()]).await.unwrap();
    store.number_commits().await.unwrap();
    let current = record(store).await;
    let done = store
        .step(step(&lease, &current, end.0), Arc::new(NoEffect))
        .await;
    assert_eq!(done.unwrap(), Fenced::Done(()));
    let last = store.number_commits().await.unwrap().end;
    let current = record(store).await;
    let done = store
        .step(step(&lease, &current, last.0), Arc::new(NoEffect))
        .await;
    assert_eq!(done.unwrap(), Fenced::Done(()));
    let rebuild = FollowerCommand::Rebuild {
        accept_truncated: true,
    };
    assert_eq!(store.command(NAME, rebuild).await.unwrap(), Commanded::Done);
    assert_eq!(trim(10, false).await, 0, "to be read again");
    let begun = Step {
        begun: 0,
        also: Also::Rebuild,
        ..step(&lease, &record(store).await, 0)
    };
    let done = store.step(begun, Arc::new(NoEffect)).await;
    assert_eq!(done.unwrap(), Fenced::Done(()));
    let current = record(store).await;
    let done = store
        .step(step(&lease, &current, last.0), Arc::new(NoEffect))
        .await;
    assert_eq!(done.unwrap(), Fenced::Done(()));
    assert_eq!(trim(10, false).await, 1, "read");
    assert_eq!(record(store).await.state, FollowerState::Running);
}
