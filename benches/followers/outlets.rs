//! How fast an outlet sends a log that is there to RabbitMQ.

use crate::Arguments;
use crate::database::{Database, Running, connect, processor_ticks, ticks_of};
use crate::rate::{caught_up, fill};
use eclusa::config::LiveSettings;
use eclusa::config::layers::Sources;
use eclusa::followers::Followers;
use eclusa::outlets::Outlets;
use eclusa::store::Store;
use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The stream, the queue and the exchange, which a run deletes at its end.
const NAME: &str = "eclusa-bench-outlets";
/// The program of the Erlang machine in which RabbitMQ runs.
const ERLANG: &str = "beam.smp";

pub async fn run(arguments: &Arguments) {
    let broker = arguments.broker.as_deref().expect("--broker");
    let properties = ConnectionProperties::default();
    let connection = Connection::connect(broker, properties)
        .await
        .expect("RabbitMQ");
    let database = Database::create(&arguments.url).await;
    let store = database.store().await;
    fill(&*store, arguments.events, 1).await;
    let store: Arc<dyn Store> = store;
    for (name, target) in [("stream", "stream"), ("quorum queue", "exchange")] {
        let channel = connection.create_channel().await.expect("a channel");
        delete(&channel).await;
        declare(&channel, target).await;
        let text = format!(
            "outlets = [{{ name = {target:?}, types = [\"*\"], url = {broker:?}, {target} = {NAME:?}, \
             window = {}, start = \"beginning\" }}]",
            arguments.window
        );
        let settings = Sources::from_text(&text).load().expect("settings");
        let outlets = Outlets::new(&LiveSettings::new(settings)).expect("an outlet");
        let followers = outlets.add_to(Followers::new(), &store);
        let client = connect(&database.url).await;
        let before = processor(&client).await;
        let began = Instant::now();
        let running = Running::start(Arc::clone(&store), followers).await;
        caught_up(&*store, &format!("outlets.{target}")).await;
        let took = began.elapsed();
        let after = processor(&client).await;
        running.stop().await;
        until_held(&channel, arguments.events).await;
        let each = |at: usize| (after[at] - before[at]) as f64 * 1e4 / arguments.events as f64;
        println!(
            "{name}: {:.0} events/s confirmed, window {}; processor time of each event: Eclusa {:.1} us, PostgreSQL \
             {:.1} us, RabbitMQ {:.1} us",
            arguments.events as f64 / took.as_secs_f64(),
            arguments.window,
            each(0),
            each(1),
            each(2)
        );
        delete(&channel).await;
    }
    drop(store);
    database.drop().await;
}

/// Declares what the outlet does not.
async fn declare(channel: &Channel, target: &str) {
    if target == "stream" {
        return;
    }
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let none = FieldTable::default;
    let declared = channel.exchange_declare(NAME.into(), ExchangeKind::Topic, durable, none());
    declared.await.expect("an exchange");
    let durable = QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let mut quorum = none();
    let kind = AMQPValue::LongString("quorum".into());
    quorum.insert("x-queue-type".into(), kind);
    let declared = channel.queue_declare(NAME.into(), durable, quorum);
    declared.await.expect("a queue");
    let every = QueueBindOptions::default();
    let bound = channel.queue_bind(NAME.into(), NAME.into(), "#".into(), every, none());
    bound.await.expect("a binding");
}

async fn delete(channel: &Channel) {
    let queue = channel.queue_delete(NAME.into(), QueueDeleteOptions::default());
    queue.await.expect("no queue");
    let exchange = channel.exchange_delete(NAME.into(), ExchangeDeleteOptions::default());
    exchange.await.expect("no exchange");
}

/// Waits until the queue has each event: RabbitMQ counts some time after it confirms.
async fn until_held(channel: &Channel, events: usize) {
    let began = Instant::now();
    let passive = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    loop {
        let queue = channel.queue_declare(NAME.into(), passive, FieldTable::default());
        let held = queue.await.expect("the queue").message_count();
        if held as usize == events {
            return;
        }
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(60), "{held} of {events}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Ticks of processor time: of this process, of PostgreSQL, and of all Erlang machines here.
async fn processor(client: &tokio_postgres::Client) -> [u64; 3] {
    let (postgres, own) = processor_ticks(client).await;
    let names = std::fs::read_dir("/proc").expect("processes");
    let processes = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_erlang = |process: &String| {
        let name = std::fs::read_to_string(format!("/proc/{process}/comm"));
        name.is_ok_and(|name| name.trim() == ERLANG)
    };
    let erlang = processes.filter(is_erlang);
    [
        own,
        postgres,
        erlang.map(|process| ticks_of(&process)).sum(),
    ]
}
