//! `DbWriter`: writes one batch at a time to the store, and asks the accumulator for the next.

use super::batch_write::BatchWrite;
use super::messages::AccumulatorMessage;
use super::writer_params::DbWriterParams;
use crate::event::Batch;
use crate::supervision::{ActorMessage, Handling, Tracked, failpoint};
use actix::{
    Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, Supervised, WrapFuture,
};
use std::collections::VecDeque;
use std::time::Duration;

/// Writes one batch at a time.
pub struct DbWriter {
    params: DbWriterParams,
    busy: bool,
    /// Batches that arrived while it was busy. An accumulator that was restarted has every idle
    /// writer ask, also one that had asked already: then it is given two.
    waiting: VecDeque<(Batch, Handling)>,
    /// Rows that could not be written, since it asked last.
    bad_rows: usize,
}

/// A batch to write.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WriteBatch(pub Batch);

/// The accumulator has forgotten who is idle.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AskReady;

impl ActorMessage for WriteBatch {
    fn name(&self) -> &'static str {
        "write_batch"
    }
}
impl ActorMessage for AskReady {
    fn name(&self) -> &'static str {
        "ask_ready"
    }
}

impl DbWriter {
    pub fn new(params: DbWriterParams) -> Self {
        Self {
            params,
            busy: false,
            waiting: VecDeque::new(),
            bad_rows: 0,
        }
    }

    /// Writes a batch, then those that wait behind it, and asks for more when there are none. Never
    /// two at once: the later one could overtake, and within a lane nothing may.
    fn write(&mut self, batch: Batch, handling: Handling, ctx: &mut Context<Self>) {
        self.busy = true;
        let params = self.params.clone();
        ctx.spawn(
            async move {
                let _handling = handling;
                BatchWrite::new(params, batch).run().await
            }
            .into_actor(self)
            .map(|bad_rows, writer, ctx| {
                writer.bad_rows += bad_rows;
                match writer.waiting.pop_front() {
                    Some((batch, handling)) => writer.write(batch, handling, ctx),
                    None => {
                        writer.busy = false;
                        writer.ask(ctx);
                    }
                }
            }),
        );
    }

    /// Asks for work, again until the accumulator has handled it: a request that got lost would
    /// idle this writer for good. While the store is away it does not ask, so that the demand stops
    /// at the source.
    fn ask(&mut self, ctx: &mut Context<Self>) {
        let accumulator = self.params.accumulator.clone();
        let breaker = self.params.breaker.clone();
        let index = self.params.index;
        let bad_rows = std::mem::take(&mut self.bad_rows);
        ctx.spawn(
            async move {
                breaker.closed().await;
                let ready = || AccumulatorMessage::WriterReady { index, bad_rows };
                while accumulator.send(ready()).await.is_err() {
                    // The accumulator crashed over this very message and restarts.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            .into_actor(self),
        );
    }
}

impl Actor for DbWriter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.ask(ctx);
    }
}

impl Supervised for DbWriter {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.busy = false;
        // Dropped with their tickets: these events return, as those of the batch in hand do.
        self.waiting.clear();
    }
}

impl Handler<Tracked<AskReady>> for DbWriter {
    type Result = ();

    fn handle(&mut self, message: Tracked<AskReady>, ctx: &mut Self::Context) {
        let _handling = message.open();
        if !self.busy {
            self.ask(ctx);
        }
    }
}

impl Handler<Tracked<WriteBatch>> for DbWriter {
    type Result = ();

    fn handle(&mut self, message: Tracked<WriteBatch>, ctx: &mut Self::Context) {
        let (WriteBatch(batch), handling) = message.open();
        failpoint::hit("db_writer.write_batch");
        if self.busy {
            self.waiting.push_back((batch, handling));
        } else {
            self.write(batch, handling, ctx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchAccumulator;
    use crate::config::retry::RetrySettings;
    use crate::event::read_waiters::ReadWaiters;
    use crate::event::{CallerMode, Delivery, Event, Origin, Outcome, Rows, StoredEvent, Ticket};
    use crate::event::{Trigger, frame};
    use crate::followers::CommitSignal;
    use crate::metrics::Metrics;
    use crate::retry::breaker::Breaker;
    use crate::store::EventStore;
    use crate::store::{Count, CountBy, EventFilter, Page, RowOutcome, StoreError};
    use crate::supervision::mailbox::mailbox;
    use crate::supervision::{HealthBoard, Lifecycle, RestartPolicy, supervise};
    use async_trait::async_trait;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;
    use uuid::Uuid;

    /// Takes a while for each write, and counts those that run at once.
    #[derive(Default)]
    struct Slow {
        running: AtomicUsize,
        most: AtomicUsize,
    }

    #[async_trait]
    impl EventStore for Slow {
        async fn write(&self, rows: Rows) -> Result<Vec<RowOutcome>, StoreError> {
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(running, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.running.fetch_sub(1, Ordering::SeqCst);
            Ok(rows.iter().map(|_| RowOutcome::Stored).collect())
        }
        async fn get(&self, _: Uuid) -> Result<Option<StoredEvent>, StoreError> {
            Ok(None)
        }
        async fn list(
            &self,
            _: &EventFilter,
            _: Option<i64>,
            _: usize,
        ) -> Result<Page, StoreError> {
            Ok(Page::default())
        }
        async fn count_by(&self, _: CountBy, _: &EventFilter) -> Result<Vec<Count>, StoreError> {
            Ok(Vec::new())
        }
        async fn ping(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    /// Says in which order its events were settled.
    struct WaitingCaller(tokio::sync::mpsc::Sender<(u64, Outcome)>);

    impl Origin for WaitingCaller {
        fn settle(&self, slot: u64, outcome: Outcome) {
            self.0.try_send((slot, outcome)).unwrap();
        }
        fn caller_mode(&self) -> CallerMode {
            CallerMode::Queue
        }
    }

    fn event() -> Event {
        let frame =
            br#"[{"id":"8c5d6a44-9d5c-4b7e-9a43-0f7a3f1f9d11","producer":"p","eventType":"t",
            "eventData":{},"receivedAt":"2026-01-01T00:00:00Z","source":"http"}]"#;
        frame::decode(frame).unwrap().remove(0)
    }

    #[actix::test]
    async fn batches_that_come_at_once_are_written_one_after_the_other() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let health = HealthBoard::default();
        let store = Arc::new(Slow::default());
        let (accumulator, _accumulator) =
            mailbox::<BatchAccumulator>("batch_accumulator", 0, 8, &metrics, &health);
        let (retry, _retry) = mailbox("retry_supervisor", 0, 8, &metrics, &health);
        let (writer, inbox) = mailbox("db_writer", 0, 8, &metrics, &health);
        let params = DbWriterParams {
            index: 0,
            store: store.clone(),
            breaker: Breaker::new("store", &metrics),
            accumulator: accumulator.sender(),
            turns: Arc::new(Semaphore::new(4)),
            retry,
            attempts: RetrySettings {
                max_attempts: 1,
                base_delay: Duration::from_millis(1),
                max_delay: Duration::from_millis(1),
            },
            ingest_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            release_after: Duration::from_secs(60),
            read_waiters: ReadWaiters::default(),
            commits: CommitSignal::default(),
            metrics: Arc::clone(&metrics),
        };
        let lifecycle = Lifecycle::default();
        let actor = DbWriter::new(params);
        supervise(inbox, actor, RestartPolicy::default(), &metrics, &lifecycle);

        let (settled, mut outcomes) = tokio::sync::mpsc::channel(8);
        let caller = Arc::new(WaitingCaller(settled));
        for slot in 0..3 {
            let delivery = Delivery::new(event(), Ticket::new(caller.clone(), slot));
            let batch = Batch::new([delivery], Trigger::Size);
            assert!(writer.try_send(WriteBatch(batch)).is_ok());
        }
        for slot in 0..3 {
            let settled = tokio::time::timeout(Duration::from_secs(60), outcomes.recv()).await;
            assert_eq!(settled.unwrap(), Some((slot, Outcome::Stored)));
        }
        assert_eq!(store.most.load(Ordering::SeqCst), 1, "writes at once");
    }
}
