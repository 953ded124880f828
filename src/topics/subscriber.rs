//! `Subscriber`: one stream of events, made part by part as its client takes them.

use super::excerpt::{Excerpt, OwnExcerpt};
use super::format::{Mark, StreamFormat};
use super::own_read::{MOST_BYTES, MOST_EVENTS};
use super::roll::{EndReason, Seated};
use super::shared::Shared;
use super::tail::{Found, TailMember};
use crate::event::budget::Permit;
use crate::event::schemas::SchemaView;
use crate::store::StoreError;
use crate::store::commit_log::{Position, Span, TypePatterns};
use crate::supervision::{Backoff, failpoint};
use actix_web::web::Bytes;
use futures::future::BoxFuture;
use prometheus::IntGauge;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

/// A part is given when it has this many bytes. The connection copies it.
const PART: usize = 16 * 1024;
/// A client that gets nothing else gets a sign of life this often.
const ALIVE: Duration = Duration::from_secs(15);
/// First and longest pause after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What a subscriber is made of.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) seated: Seated,
    pub(super) types: TypePatterns,
    pub(super) schema: SchemaView,
    pub(super) format: StreamFormat,
    pub(super) generation: i64,
    /// It has everything up to here.
    pub(super) cursor: Position,
    /// Where it ends; `None` for one that goes on.
    pub(super) until: Option<Position>,
    /// What was deleted before it began, which it does without.
    pub(super) deleted_to: Position,
    /// The bytes of its connection.
    pub(super) _permit: Permit,
}

/// Whether it shares the reads at the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whereabouts {
    Newest,
    Behind,
}

/// Counts a subscriber, until dropped.
struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Counted {
    fn new(shared: &Shared, at: Whereabouts) -> Self {
        let state = match at {
            Whereabouts::Newest => "newest",
            Whereabouts::Behind => "behind",
        };
        let gauge = shared.metrics.topic_subscribers.with_label_values(&[state]);
        gauge.inc();
        Self(gauge)
    }
}

type Reading = BoxFuture<'static, Result<OwnExcerpt, StoreError>>;

/// A stream of events for one client.
pub struct Subscriber {
    parts: Parts,
    ending: watch::Receiver<Option<EndReason>>,
    /// It has not said where it begins. One that does without deleted events says nothing: their positions are gone.
    is_new: bool,
    has_ended: bool,
    reading: Option<Reading>,
    member: Option<TailMember>,
    /// What is left of a part that was too large.
    rest: (Bytes, Option<Permit>),
    alive: Pin<Box<Sleep>>,
    backoff: Backoff,
    /// Events of the next own read.
    events: usize,
    counted: (Whereabouts, Counted),
}

impl Subscriber {
    pub(super) fn new(parts: Parts) -> Self {
        let behind = Whereabouts::Behind;
        Self {
            ending: parts.seated.seat.watch_end(),
            is_new: true,
            has_ended: false,
            reading: None,
            member: None,
            rest: (Bytes::new(), None),
            alive: Box::pin(tokio::time::sleep(ALIVE)),
            backoff: Backoff::new(AGAIN.0, AGAIN.1),
            events: MOST_EVENTS,
            counted: (behind, Counted::new(&parts.shared, behind)),
            parts,
        }
    }

    /// The next part of the stream; `None` when it has ended.
    pub async fn next_part(&mut self) -> Option<Bytes> {
        self.parts.seated.seat.asked();
        let part = self.part().await;
        if part.is_some() {
            self.parts.seated.seat.given();
            self.alive.as_mut().reset(Instant::now() + ALIVE);
        }
        part
    }

    async fn part(&mut self) -> Option<Bytes> {
        let (rest, permit) = &mut self.rest;
        if !rest.is_empty() {
            let part = rest.split_to(rest.len().min(PART));
            if rest.is_empty() {
                *permit = None;
            }
            return Some(part);
        }
        if self.has_ended {
            return None;
        }
        if std::mem::take(&mut self.is_new) && self.parts.cursor >= self.parts.deleted_to {
            return Some(self.parts.format.opening(self.mark()).into());
        }
        loop {
            // The guard of the channel must not be held across what follows.
            let ending = *self.ending.borrow_and_update();
            if let Some(reason) = ending {
                return self.last_words(reason);
            }
            if let Some(own) = self.parts.seated.seat.take_own() {
                let part = self.render(&own.excerpt);
                if self.parts.cursor < own.excerpt.end {
                    self.parts.seated.seat.keep_own(own);
                }
                match part {
                    Some(part) => return Some(part),
                    None => continue,
                }
            }
            if self
                .parts
                .until
                .is_some_and(|until| self.parts.cursor >= until)
            {
                return self.end(EndReason::Finished);
            }
            let found = self.member.as_mut().map(|one| one.find(self.parts.cursor));
            match found {
                Some(Found::Excerpt(excerpt)) => {
                    self.is_at(Whereabouts::Newest);
                    if let Some(part) = self.render(&excerpt) {
                        return Some(part);
                    }
                }
                Some(Found::Nothing(end)) => {
                    self.is_at(Whereabouts::Newest);
                    self.parts.cursor = end;
                    if self.news().await {
                        self.pass();
                        return Some(self.parts.format.alive(self.mark()).into());
                    }
                }
                Some(Found::Behind) | None => match self.read().await {
                    Read::Done => {}
                    Read::Deleted => return self.end(EndReason::Deleted),
                    Read::StillReading => {
                        return Some(self.parts.format.alive(self.mark()).into());
                    }
                },
            }
        }
    }

    fn mark(&self) -> Mark {
        Mark {
            generation: self.parts.generation,
            position: self.parts.cursor,
        }
    }

    /// Writes the next events of an excerpt, and moves the cursor over them.
    fn render(&mut self, excerpt: &Excerpt) -> Option<Bytes> {
        let parts = &mut self.parts;
        let mut out = Vec::new();
        let (mut events, mut is_full) = (0, false);
        for line in excerpt.lines_behind(parts.cursor, parts.schema) {
            if out.len() >= PART {
                is_full = true;
                break;
            }
            parts.cursor = line.position;
            if parts.types.matches(line.event_type) {
                parts.format.event(&mut out, parts.generation, line);
                events += 1;
            }
        }
        if !is_full {
            parts.cursor = excerpt.end;
        }
        if events == 0 {
            return None;
        }
        failpoint::hit("topics.send");
        parts.shared.metrics.topic_events.inc_by(events);
        let mut bytes = Bytes::from(out);
        if bytes.len() <= 2 * PART {
            return Some(bytes);
        }
        // Large events go piece by piece, so that the connection does not hold them a second time.
        let part = bytes.split_to(PART);
        let permit = parts.shared.budget.take(bytes.len());
        self.rest = (bytes, Some(permit));
        Some(part)
    }

    /// Moves the cursor over what is known to have nothing for it.
    fn pass(&mut self) {
        if let Some(member) = &mut self.member
            && let Found::Nothing(end) = member.find(self.parts.cursor)
        {
            self.parts.cursor = end;
        }
    }

    /// Waits at the end of the log; `true` when a sign of life is due.
    async fn news(&mut self) -> bool {
        let Some(member) = &mut self.member else {
            return false;
        };
        tokio::select! {
            biased;
            _ = self.ending.changed() => false,
            () = member.moved() => false,
            () = &mut self.alive => true,
        }
    }

    /// Reads behind the cursor. The read goes on while signs of life are sent.
    async fn read(&mut self) -> Read {
        self.is_at(Whereabouts::Behind);
        let parts = &self.parts;
        let after = parts.cursor;
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => self.begin(Duration::ZERO),
        };
        let done = tokio::select! {
            biased;
            _ = self.ending.changed() => {
                // What is under way is given up with the stream.
                return Read::Done;
            }
            done = &mut reading => done,
            () = &mut self.alive => {
                self.reading = Some(reading);
                return Read::StillReading;
            }
        };
        match done {
            Ok(mut own) => {
                self.backoff.reset();
                self.events = MOST_EVENTS;
                if own.deleted_to > self.parts.deleted_to.max(after) {
                    return Read::Deleted;
                }
                self.follow_on(&mut own);
                self.parts.seated.seat.keep_own(own);
            }
            Err(error) => {
                // It may be the size of what was asked for.
                self.events = (self.events / 2).max(1);
                let pause = self.backoff.next_pause();
                tracing::warn!(
                    kind = error.kind().as_str(),
                    %error,
                    again_in_ms = pause.as_millis() as u64,
                    "the log cannot be read for a subscriber"
                );
                self.reading = Some(self.begin(pause));
            }
        }
        Read::Done
    }

    /// Takes part at the end of the log, or no longer.
    fn follow_on(&mut self, own: &mut OwnExcerpt) {
        if let Some(until) = self.parts.until {
            if own.is_newest {
                // What was there when it began may be deleted by now.
                own.excerpt.end = own.excerpt.end.max(until);
            }
        } else if !own.is_newest {
            self.member = None;
        } else if self.member.is_none() {
            let parts = &self.parts;
            let tail = &parts.shared.tail;
            self.member = Some(tail.join(parts.types.clone(), parts.schema, own.excerpt.end));
        }
    }

    fn begin(&self, pause: Duration) -> Reading {
        let parts = &self.parts;
        let span = Span {
            after: parts.cursor,
            until: parts.until.unwrap_or(Position::MAX),
            events: self.events,
            bytes: MOST_BYTES,
        };
        let shared = Arc::clone(&parts.shared);
        Box::pin(shared.read_own(parts.types.clone(), parts.schema, span, pause))
    }

    fn is_at(&mut self, at: Whereabouts) {
        if self.counted.0 != at {
            self.counted = (at, Counted::new(&self.parts.shared, at));
        }
    }

    fn end(&mut self, reason: EndReason) -> Option<Bytes> {
        self.parts.seated.seat.end(reason);
        self.last_words(reason)
    }

    fn last_words(&mut self, reason: EndReason) -> Option<Bytes> {
        self.has_ended = true;
        (self.reading, self.member) = (None, None);
        drop(self.parts.seated.seat.take_own());
        Some(self.parts.format.last_words(self.mark(), reason).into())
    }
}

/// What became of a read.
enum Read {
    Done,
    /// Events behind the cursor are deleted.
    Deleted,
    /// A sign of life is due meanwhile.
    StillReading,
}
