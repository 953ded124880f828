//! Followers whose effect lies outside the database.

use super::*;
use eclusa::followers::SendError;
use eclusa::supervision::failpoint;
use parking_lot::Mutex;

on_both_stores! {
    what_cannot_be_sent_now_is_sent_later,
    what_was_sent_before_a_crash_is_sent_again,
    a_refused_event_stops_the_outlet,
    what_is_confirmed_before_a_failure_is_not_sent_again,
}

/// A receiver that refuses what it is told to.
#[derive(Clone, Default)]
struct Receiver {
    name: Option<&'static str>,
    away: Arc<AtomicBool>,
    /// It takes what is before a bad event, and says so.
    is_exact: bool,
    tried: Arc<AtomicBool>,
    received: Arc<Mutex<Vec<Uuid>>>,
}

#[async_trait]
impl Outlet for Receiver {
    fn name(&self) -> &str {
        self.name.unwrap_or(NAME)
    }

    fn subscription(&self) -> Subscription {
        Subscription::all()
    }

    async fn send(&self, events: &[LoggedEvent]) -> Result<(), SendError> {
        self.tried.store(true, Ordering::SeqCst);
        if self.away.load(Ordering::SeqCst) {
            return Err(SendError::Unavailable("it does not answer".to_owned()));
        }
        let is_bad = |logged: &LoggedEvent| logged.event.event_type == "bad";
        let bad = events.iter().position(is_bad);
        if bad.is_some() && !self.is_exact {
            return Err(SendError::Refused("it is bad".to_owned()));
        }
        let taken = &events[..bad.unwrap_or(events.len())];
        let ids = taken.iter().map(|logged| logged.event.event_id);
        self.received.lock().extend(ids);
        match bad {
            None => Ok(()),
            Some(sent) => {
                let error = Box::new(SendError::Refused("it is bad".to_owned()));
                Err(SendError::At { sent, error })
            }
        }
    }
}

async fn what_cannot_be_sent_now_is_sent_later(place: &Place) {
    let receiver = Receiver::default();
    receiver.away.store(true, Ordering::SeqCst);
    let running = Running::start(place, Followers::new().send(receiver.clone())).await;
    place.write((0..30).map(|_| event()).collect()).await;
    eventually(SOON, "it was tried", async || {
        receiver.tried.load(Ordering::SeqCst).then_some(())
    })
    .await;
    assert_eq!(place.record(NAME).await.position.0, 0);
    receiver.away.store(false, Ordering::SeqCst);
    place.caught_up(NAME).await;
    let log = place.log().await;
    assert_eq!(*receiver.received.lock(), log);
    assert_eq!(place.record(NAME).await.state, FollowerState::Running);
    running.stop().await;
}

/// Between the receiver's confirmation and the stored position.
async fn what_was_sent_before_a_crash_is_sent_again(place: &Place) {
    // Failpoints are those of the whole process.
    let name = match &place.url {
        Some(_) => "crashes-on-postgres",
        None => "crashes-on-sqlite",
    };
    let receiver = Receiver {
        name: Some(name),
        ..Receiver::default()
    };
    failpoint::set(&format!("follower.sent/{name}"), "0:1:panic").unwrap();
    place.write((0..5).map(|_| event()).collect()).await;
    let running = Running::start(place, Followers::new().send(receiver.clone())).await;
    place.caught_up(name).await;
    let log = place.log().await;
    assert_eq!(*receiver.received.lock(), [log.clone(), log].concat());
    running.stop().await;
}

async fn a_refused_event_stops_the_outlet(place: &Place) {
    let receiver = Receiver::default();
    place
        .write(vec![event(), event(), typed("bad"), event()])
        .await;
    let running = Running::start(place, Followers::new().send(receiver.clone())).await;
    let broken = place.state(NAME, FollowerState::Broken).await;
    assert!(broken.reason.unwrap().contains("it is bad"));
    let log = place.log().await;
    assert_eq!(*receiver.received.lock(), log[..2]);
    running.stop().await;
}

async fn what_is_confirmed_before_a_failure_is_not_sent_again(place: &Place) {
    let receiver = Receiver {
        is_exact: true,
        ..Receiver::default()
    };
    let mut events: Vec<_> = (0..300).map(|_| event()).collect();
    events[100] = typed("bad");
    place.write(events).await;
    let running = Running::start(place, Followers::new().send(receiver.clone())).await;
    let broken = place.state(NAME, FollowerState::Broken).await;
    let log = place.log().await;
    assert!(broken.reason.unwrap().contains(&log[100].to_string()));
    // Each once, where a chunk that is halved has the first half sent again and again.
    assert_eq!(*receiver.received.lock(), log[..100]);
    running.stop().await;
}
