//! Foreign publishers who send what is no event, among others who do.

use super::rig::{Plan, SOON};
use crate::harness::{event, eventually};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

const GOOD: usize = 3_000;
const POISON: usize = 50;

/// No two of the same kind in a row.
fn poison(number: usize) -> (Vec<u8>, &'static str) {
    match number % 6 {
        0 => (
            b"{\"userId\": \"u\", \"eventType\"".to_vec(),
            "application/json",
        ),
        1 => (
            br#"{"userId": 7, "eventType": ["t"]}"#.to_vec(),
            "application/json",
        ),
        2 => (
            br#"{"userId": "u", "eventType": "t", "eventData": {"a": "\u0000"}}"#.to_vec(),
            "application/json",
        ),
        3 => (vec![0, 159, 146, 150, 255], "application/x-protobuf"),
        4 => (Vec::new(), "text/plain"),
        _ => (
            br#"{"userId": "u", "eventType": "t", "eventData": {"n": 1e200000}}"#.to_vec(),
            "application/json",
        ),
    }
}

#[tokio::test]
async fn fifty_poison_messages_among_three_thousand_harm_nobody() {
    let rig = Plan::full().start().await;
    let connection = Connection::connect(&rig.vhost, ConnectionProperties::default());
    let channel = connection.await.unwrap().create_channel().await.unwrap();
    let options = ConfirmSelectOptions::default();
    channel.confirm_select(options).await.unwrap();
    let mut random = StdRng::seed_from_u64(11);
    let mut confirms = Vec::new();
    for number in 0..GOOD + POISON {
        let (body, kind) = if number % (GOOD / POISON + 1) == 7 {
            poison(number)
        } else {
            let event = event(&mut random, number);
            rig.load.model.sending(&event, "amqp");
            rig.load.model.taken(&event);
            (event.to_string().into_bytes(), "application/json")
        };
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type(kind.into());
        let options = BasicPublishOptions::default();
        let confirm = channel.basic_publish(
            "".into(),
            "eclusa.events".into(),
            options,
            &body,
            properties,
        );
        confirms.push(confirm.await.unwrap());
    }
    for confirm in confirms {
        assert!(confirm.await.unwrap().is_ack());
    }
    rig.settle().await.assert_clean();
    eventually(SOON, "each is dead-lettered", async || {
        let dead = rig.app.metric("eclusa_events_dead_lettered_total").await;
        assert!(dead <= POISON as f64, "{dead} dead letters");
        (dead == POISON as f64).then_some(())
    })
    .await;
    assert_eq!(rig.app.metric("eclusa_events_retried_total").await, 0.0);
}

/// The dead letter is confirmed and its message is not acknowledged yet: it comes again.
#[tokio::test]
async fn killed_between_a_dead_letter_and_its_acknowledgement() {
    let mut rig = Plan::full().start().await;
    let point = "retry_supervisor.after_publish";
    rig.app.set_failpoint(point, "0:1:kill").await.unwrap();
    crate::amqp::publish(&rig.vhost, "eclusa.events", "", b"no event", None).await;
    rig.start_again().await;
    eventually(SOON, "it is dead-lettered all the same", async || {
        let dead = rig.app.metric("eclusa_events_dead_lettered_total").await;
        (dead == 1.0).then_some(())
    })
    .await;
    rig.settle().await.assert_clean();
}
