use super::*;
use crate::event::{Delivery, Event, Origin, Outcome, Patience, Rows, StoredEvent, Ticket};
use crate::event::{Trigger, frame};
use crate::store::{Count, CountBy, EventFilter, Page, RowOutcome, StoreError, TailPosition};
use crate::supervision::mailbox::mailbox;
use crate::supervision::{HealthBoard, Lifecycle, RestartPolicy, supervise};
use async_trait::async_trait;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    async fn list(&self, _: &EventFilter, _: Option<i64>, _: usize) -> Result<Page, StoreError> {
        Ok(Page::default())
    }
    async fn tail_from_now(&self) -> Result<TailPosition, StoreError> {
        Ok(TailPosition {
            transaction: 0,
            id: 0,
        })
    }
    async fn tail(
        &self,
        _: &EventFilter,
        after: TailPosition,
        _: usize,
    ) -> Result<(Vec<StoredEvent>, TailPosition), StoreError> {
        Ok((Vec::new(), after))
    }
    async fn count_by(&self, _: CountBy, _: &EventFilter) -> Result<Vec<Count>, StoreError> {
        Ok(Vec::new())
    }
    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Says in which order its events were settled.
struct Caller(tokio::sync::mpsc::Sender<(u64, Outcome)>);

impl Origin for Caller {
    fn settle(&self, slot: u64, outcome: Outcome) {
        self.0.try_send((slot, outcome)).unwrap();
    }
    fn patience(&self) -> Patience {
        Patience::Queue
    }
}

fn event() -> Event {
    let frame = br#"[{"id":"8c5d6a44-9d5c-4b7e-9a43-0f7a3f1f9d11","producer":"p","eventType":"t",
        "eventData":{},"receivedAt":"2026-01-01T00:00:00Z","source":"http"}]"#;
    frame::decode(frame).unwrap().remove(0)
}

#[actix::test]
async fn batches_that_come_at_once_are_written_one_after_the_other() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let health = HealthBoard::default();
    let store = Arc::new(Slow::default());
    let (accumulator, _accumulator) = mailbox("batch_accumulator", 0, 8, &metrics, &health);
    let (retry, _retry) = mailbox("retry_supervisor", 0, 8, &metrics, &health);
    let (writer, inbox) = mailbox("db_writer", 0, 8, &metrics, &health);
    let wiring = Wiring {
        index: 0,
        store: store.clone(),
        breaker: Breaker::new("store", &metrics),
        accumulator,
        lane: Some(1),
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
        awaited: Awaited::default(),
        metrics: Arc::clone(&metrics),
    };
    let lifecycle = Lifecycle::default();
    let actor = DbWriter::new(wiring);
    supervise(inbox, actor, RestartPolicy::default(), &metrics, &lifecycle);

    let (settled, mut outcomes) = tokio::sync::mpsc::channel(8);
    let caller = Arc::new(Caller(settled));
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
