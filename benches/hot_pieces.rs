//! The pieces every event passes, each alone: parse and check, frame and unframe, gather, hand over.
//!
//! `cargo bench` prints the time of one call and the events per second that it amounts to. What the
//! whole flow does with them is for `eclusa bench`.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use actix::{Actor, Context, Handler, Message, Supervised};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use eclusa::batch::open_batch::OpenBatch;
use eclusa::config::Sources;
use eclusa::event::item;
use eclusa::event::item::{DataRules, ItemLimits, Rules};
use eclusa::event::read_waiters::ReadWaiters;
use eclusa::event::{CallerMode, Delivery, Event, Origin, Outcome, Source, Ticket, frame, id};
use eclusa::metrics::Metrics;
use eclusa::supervision::mailbox::mailbox;
use eclusa::supervision::{
    ActorMessage, HealthBoard, Lifecycle, Mailbox, RestartPolicy, Tracked, supervise,
};
use futures::future::join_all;
use std::hint::black_box;
use std::sync::Arc;

/// An event as producers send it: 300 bytes.
const ITEM: &str = r#"{"userId":"user-12345","eventType":"page.view","sessionId":"session-000123","timestamp":"2026-01-31T09:30:00.123Z","eventData":{"path":"/products/1234567","referrer":"https://example.com/search?q=shoes","title":"Shoes and more","width":1920,"height":1080,"tags":["a","b","c"],"price":12.5,"member":true,"x":"1234"}}"#;

const LIMITS: ItemLimits = ItemLimits {
    max_depth: 32,
    max_field_bytes: 256,
    accept_days: 400,
    data: DataRules::NONE,
};

fn event() -> Event {
    let fields = item::parse(ITEM, &LIMITS, Rules::HTTP).unwrap();
    fields.into_event(id::fresh(), None, "shop".into(), Source::Http, item::now())
}

/// The limits of settings with schemas of a hundred types, and one of `event_type`.
fn limits_with_schema(event_type: &str) -> ItemLimits {
    let schema = r#"{"type":"object","required":["path","price"],"additionalProperties":false,"properties":{
        "path":{"type":"string","pattern":"^/"},"referrer":{"type":"string"},"title":{"type":"string","maxLength":200},
        "width":{"type":"integer","minimum":0},"height":{"type":"integer","minimum":0},
        "tags":{"type":"array","items":{"type":"string"}},"price":{"type":"number","minimum":0},
        "member":{"type":"boolean"},"x":{"type":"string"}}}"#;
    let entry = |name: &str| {
        format!("[[schemas]]\ntype = \"{name}\"\nversion = 1\nschema = '''{schema}'''\n")
    };
    let entries: String = (0..100).map(|n| entry(&format!("type.{n}"))).collect();
    let text = entries + &entry(event_type);
    Sources::from_text(&text).load().unwrap().item_limits()
}

fn parse_and_check(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("item");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse and check", |bencher| {
        bencher.iter(|| item::parse(black_box(ITEM), &LIMITS, Rules::HTTP).unwrap());
    });
    // The same with schemas of a hundred other types, and with one of this type.
    for (name, of_type) in [("other", "other"), ("its", "page.view")] {
        let limits = limits_with_schema(of_type);
        group.bench_function(format!("parse and check with {name} schema"), |bencher| {
            bencher.iter(|| item::parse(black_box(ITEM), &limits, Rules::HTTP).unwrap());
        });
    }
    group.bench_function("fresh id", |bencher| bencher.iter(id::fresh));
    group.finish();
}

/// Events in a frame, as they come together when 64 clients send one at a time.
const FRAMED: usize = 30;

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Elements(FRAMED as u64));
    let events: Vec<Event> = (0..FRAMED).map(|_| event()).collect();
    let encode = || {
        let mut encoder = frame::Encoder::default();
        for event in &events {
            encoder.push(event).unwrap();
        }
        encoder.finish()
    };
    let bytes = encode();
    group.bench_function("encode", |bencher| bencher.iter(encode));
    group.bench_function("decode and check", |bencher| {
        bencher.iter(|| {
            let events = frame::decode(black_box(&bytes)).unwrap();
            for event in &events {
                frame::check(event).unwrap();
            }
            events
        });
    });
    group.finish();
}

struct Nobody;

impl Origin for Nobody {
    fn settle(&self, _: u64, _: Outcome) {}
    fn caller_mode(&self) -> CallerMode {
        CallerMode::Queue
    }
}

/// Events in a batch.
const BATCH: usize = 1_000;

fn accumulator(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("accumulator");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut settings = Sources::from_text("").load().unwrap().batch;
    settings.max_events = BATCH;
    let origin = Arc::new(Nobody);
    let sample = event();
    let deliveries = || -> Vec<Delivery> {
        let deliver = |slot| Delivery::new(sample.clone(), Ticket::new(origin.clone(), slot));
        (0..BATCH as u64).map(deliver).collect()
    };
    group.bench_function("gather, cut and settle a batch", |bencher| {
        let mut open = OpenBatch::new(settings.clone(), ReadWaiters::default());
        bencher.iter_batched(
            deliveries,
            |deliveries| {
                open.push(deliveries);
                let trigger = open.due().unwrap();
                let batch = open.cut(trigger);
                for ack in batch.acks {
                    ack.ticket.settle(Outcome::Stored);
                }
                batch.events
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

struct Sink;

impl Actor for Sink {
    type Context = Context<Self>;
}
impl Supervised for Sink {}

#[derive(Message)]
#[rtype(result = "()")]
struct Ping;

impl ActorMessage for Ping {
    fn name(&self) -> &'static str {
        "ping"
    }
}

impl Handler<Tracked<Ping>> for Sink {
    type Result = ();

    fn handle(&mut self, message: Tracked<Ping>, _: &mut Self::Context) {
        black_box(message.open());
    }
}

/// Messages on their way at once.
const JOINED: usize = 256;

fn mailboxes(criterion: &mut Criterion) {
    let system = actix_rt::System::new();
    let metrics = Arc::new(Metrics::new().unwrap());
    let arbiter = actix_rt::Arbiter::new();
    let (sink, inbox) = mailbox::<Sink>("sink", 0, JOINED, &metrics, &HealthBoard::default());
    let lifecycle = Lifecycle::default();
    arbiter.spawn_fn(move || {
        supervise(inbox, Sink, RestartPolicy::default(), &metrics, &lifecycle);
    });
    let send = |sink: Mailbox<Sink>, count: usize| async move {
        join_all((0..count).map(|_| sink.send(Ping))).await
    };
    let mut group = criterion.benchmark_group("mailbox across threads");
    for count in [1, JOINED] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("send {count} and await the answers"), |bencher| {
            bencher.iter(|| system.block_on(send(sink.clone(), count)));
        });
    }
    group.finish();
}

criterion_group!(benches, parse_and_check, frames, accumulator, mailboxes);
criterion_main!(benches);
