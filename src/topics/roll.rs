//! The subscribers of the process: how many there are, whose they are, and which of them end.

use super::excerpt::OwnExcerpt;
use crate::metrics::Metrics;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The client took nothing for too long.
    Slow,
    /// The API key may not read any more.
    Revoked,
    /// The log has become another one.
    Generation,
    /// The retention has deleted what was to be sent.
    Deleted,
    /// The process stops.
    Stopping,
    /// The end was reached that was asked for.
    Finished,
    /// The client has closed the connection.
    Left,
}

impl EndReason {
    /// Those that drop a subscriber.
    pub const DROPS: [Self; 5] = [
        Self::Slow,
        Self::Revoked,
        Self::Generation,
        Self::Deleted,
        Self::Stopping,
    ];

    /// The word in streams and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Revoked => "revoked",
            Self::Generation => "generation",
            Self::Deleted => "deleted",
            Self::Stopping => "stopping",
            Self::Finished => "finished",
            Self::Left => "left",
        }
    }

    /// What the client is told.
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::Slow => {
                "nothing of this stream was taken for topics.patience; go on with Last-Event-ID, and read faster"
            }
            Self::Revoked => "the API key was revoked, or lacks the scope \"read\" now",
            Self::Generation => {
                "the database was restored or replaced, so positions mean other events; begin again with from=beginning \
                 or a time"
            }
            Self::Deleted => {
                "the retention has deleted events that were not sent yet; from=beginning begins with the first that is left"
            }
            Self::Stopping => "the server is stopping; go on with Last-Event-ID",
            Self::Finished => "the end of the log is reached",
            Self::Left => "the connection is closed",
        }
    }

    /// Whether it is an error for the client.
    pub(super) fn is_failure(self) -> bool {
        !matches!(self, Self::Stopping | Self::Finished | Self::Left)
    }
}

/// Whose a stream is.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The name of the API key, or that of all callers without one.
    pub name: Arc<str>,
    /// The digest of the key's text.
    pub digest: Option<[u8; 32]>,
}

/// The connection of a client.
pub trait StreamClient: Send + Sync {
    /// Whether the client has closed it.
    fn is_gone(&self) -> bool;

    /// Closes it, whatever is under way.
    fn cut(&self);
}

/// A subscriber as the process knows it.
pub(super) struct Seat {
    pub(super) holder: Holder,
    pub(super) client: Option<Box<dyn StreamClient>>,
    /// The generation of the positions that the client gets; 0 while it is not known.
    generation: AtomicI64,
    /// What it has read by itself and not sent.
    own: Mutex<Option<OwnExcerpt>>,
    ending: watch::Sender<Option<EndReason>>,
    epoch: Instant,
    /// Milliseconds since the epoch at which the client was given something that it has not taken; 0 if there is none.
    given_at: AtomicU64,
    /// The same of the end.
    ended_at: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Seat {
    fn now(&self) -> u64 {
        let since = self.epoch.elapsed().as_millis();
        u64::try_from(since).unwrap_or(u64::MAX).max(1)
    }

    fn since(&self, at: &AtomicU64) -> Option<Duration> {
        match at.load(Ordering::Acquire) {
            0 => None,
            at => Some(Duration::from_millis(self.now().saturating_sub(at))),
        }
    }

    pub(super) fn set_generation(&self, generation: i64) {
        self.generation.store(generation, Ordering::Release);
    }

    /// Whether its positions belong to another generation than this.
    pub(super) fn is_of_another(&self, generation: i64) -> bool {
        let own = self.generation.load(Ordering::Acquire);
        own != 0 && own != generation
    }

    /// What it has read by itself, if that was not taken from it.
    pub(super) fn take_own(&self) -> Option<OwnExcerpt> {
        self.own.lock().take()
    }

    pub(super) fn keep_own(&self, own: OwnExcerpt) {
        *self.own.lock() = Some(own);
    }

    /// The client has been given something.
    pub(super) fn given(&self) {
        self.given_at.store(self.now(), Ordering::Release);
    }

    /// The client asks for more.
    pub(super) fn asked(&self) {
        self.given_at.store(0, Ordering::Release);
    }

    /// For how long the client has not taken what it was given.
    pub(super) fn stalled(&self) -> Option<Duration> {
        self.since(&self.given_at)
    }

    /// For how long it has been ending.
    pub(super) fn ending_for(&self) -> Option<Duration> {
        self.since(&self.ended_at)
    }

    pub(super) fn watch_end(&self) -> watch::Receiver<Option<EndReason>> {
        self.ending.subscribe()
    }

    /// Ends the stream. The first reason stays.
    pub(super) fn end(&self, reason: EndReason) {
        let is_first = self.ending.send_if_modified(|ending| {
            let is_first = ending.is_none();
            if is_first {
                *ending = Some(reason);
                self.ended_at.store(self.now(), Ordering::Release);
                // Counted before the client can know.
                if EndReason::DROPS.contains(&reason) {
                    let labels = [reason.as_str()];
                    self.metrics.topic_dropped.with_label_values(&labels).inc();
                }
            }
            is_first
        });
        if !is_first {
            return;
        }
        match reason.is_failure() {
            true => tracing::warn!(
                key = &*self.holder.name,
                reason = reason.as_str(),
                "subscriber dropped: {}",
                reason.detail()
            ),
            false => tracing::debug!(
                key = &*self.holder.name,
                reason = reason.as_str(),
                "stream ends"
            ),
        }
    }
}

/// Why a stream is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSeat {
    /// As many streams are open as may be.
    Full(usize),
    /// The holder has as many.
    HolderFull(usize),
    Stopping,
}

#[derive(Default)]
struct Seats {
    seats: BTreeMap<u64, Arc<Seat>>,
    next: u64,
    is_stopping: bool,
}

/// All subscribers of the process.
pub(super) struct Roll {
    seats: Mutex<Seats>,
    joined: Notify,
    epoch: Instant,
    metrics: Arc<Metrics>,
}

impl Roll {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            seats: Mutex::default(),
            joined: Notify::new(),
            epoch: Instant::now(),
            metrics,
        }
    }

    /// Takes a seat, of which there are at most so many, and so many for one holder.
    pub(super) fn take(
        self: &Arc<Self>,
        holder: Holder,
        client: Option<Box<dyn StreamClient>>,
        most: usize,
        most_of_holder: usize,
    ) -> Result<Seated, NoSeat> {
        let mut seats = self.seats.lock();
        if seats.is_stopping {
            return Err(NoSeat::Stopping);
        }
        if seats.seats.len() >= most {
            return Err(NoSeat::Full(most));
        }
        let is_same = |seat: &&Arc<Seat>| seat.holder.name == holder.name;
        if seats.seats.values().filter(is_same).count() >= most_of_holder {
            return Err(NoSeat::HolderFull(most_of_holder));
        }
        let seat = Arc::new(Seat {
            holder,
            client,
            generation: AtomicI64::new(0),
            own: Mutex::default(),
            ending: watch::Sender::new(None),
            epoch: self.epoch,
            given_at: AtomicU64::new(0),
            ended_at: AtomicU64::new(0),
            metrics: Arc::clone(&self.metrics),
        });
        let id = seats.next;
        seats.next += 1;
        seats.seats.insert(id, Arc::clone(&seat));
        drop(seats);
        self.joined.notify_one();
        Ok(Seated {
            seat,
            id,
            roll: Arc::clone(self),
        })
    }

    pub(super) fn all(&self) -> Vec<Arc<Seat>> {
        self.seats.lock().seats.values().cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seats.lock().seats.is_empty()
    }

    /// Waits until a seat was taken since the last wait.
    pub(super) async fn joined(&self) {
        self.joined.notified().await;
    }

    /// Ends all streams, and opens none from now on.
    pub(super) fn stop(&self) {
        self.seats.lock().is_stopping = true;
        for seat in self.all() {
            seat.end(EndReason::Stopping);
        }
    }
}

/// A seat, until dropped.
pub(super) struct Seated {
    pub(super) seat: Arc<Seat>,
    id: u64,
    roll: Arc<Roll>,
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.roll.seats.lock().seats.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(name: &str) -> Holder {
        Holder {
            name: name.into(),
            digest: None,
        }
    }

    fn roll() -> Arc<Roll> {
        Arc::new(Roll::new(Arc::new(Metrics::new().unwrap())))
    }

    #[test]
    fn seats_are_bounded_in_all_and_for_each_holder() {
        let roll = roll();
        let take = |name: &str| roll.take(holder(name), None, 3, 2);
        let first = take("a").unwrap_or_else(|_| panic!("there is room"));
        let second = take("a");
        assert_eq!(take("a").err(), Some(NoSeat::HolderFull(2)));
        let third = take("b");
        assert!(second.is_ok() && third.is_ok());
        assert_eq!(take("c").err(), Some(NoSeat::Full(3)));
        drop(first);
        assert!(take("a").is_ok());
    }

    #[test]
    fn the_first_reason_stays_and_counts() {
        let roll = roll();
        let Ok(seated) = roll.take(holder("a"), None, 1, 1) else {
            panic!("there is room");
        };
        let ending = seated.seat.watch_end();
        assert_eq!((*ending.borrow(), seated.seat.stalled()), (None, None));
        seated.seat.given();
        assert!(seated.seat.stalled().is_some());
        seated.seat.asked();
        assert_eq!(seated.seat.stalled(), None);
        seated.seat.end(EndReason::Slow);
        roll.stop();
        assert_eq!(*ending.borrow(), Some(EndReason::Slow));
        let dropped = |reason: &str| {
            roll.metrics
                .topic_dropped
                .with_label_values(&[reason])
                .get()
        };
        assert_eq!((dropped("slow"), dropped("stopping")), (1, 0));
        assert_eq!(
            roll.take(holder("b"), None, 9, 9).err(),
            Some(NoSeat::Stopping)
        );
    }
}
