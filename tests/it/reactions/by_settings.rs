//! Reactions of the settings: one event reaches a webhook, a mailbox, an exchange and the log.

use super::smtp_server::{SmtpServer, has_aiosmtpd, header};
use super::starts::{SECRET, Starts};
use super::webhook::hmac;
use crate::followers::{Place, SOON, on_both_stores};
use crate::harness::{RabbitMq, confirming, eventually};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapin::ExchangeKind;
use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use serde_json::{Value, json};

on_both_stores! {
    one_event_reaches_all,
}

async fn one_event_reaches_all(place: &Place) {
    if !has_aiosmtpd() {
        return;
    }
    let (starts, smtp) = (
        Starts::count(|_, _| 204).await,
        SmtpServer::start(json!({})).await,
    );
    let broker = RabbitMq::shared().await.vhost().await;
    let channel = confirming(&broker).await;
    let (exchange, queue) = ("signups", "crm");
    let topic = ExchangeKind::Topic;
    let options = ExchangeDeclareOptions::default();
    let declared = channel.exchange_declare(exchange.into(), topic, options, Default::default());
    declared.await.unwrap();
    let options = QueueDeclareOptions::default();
    let declared = channel.queue_declare(queue.into(), options, Default::default());
    declared.await.unwrap();
    let (options, key) = (QueueBindOptions::default(), "user.*");
    let bound = channel.queue_bind(
        queue.into(),
        exchange.into(),
        key.into(),
        options,
        Default::default(),
    );
    bound.await.unwrap();
    let reactions = json!([
        {"name": "hook", "on": ["user.signed_up"], "webhook": starts.webhook()},
        {"name": "mail", "on": ["user.*"], "when": "eventData.plan == 'pro'", "email": {
            "host": "127.0.0.1", "port": smtp.port, "tls": "none", "from": "shop@example.org",
            "to": "{{ eventData.email }}", "allowed_domains": ["example.org"],
            "subject": "Welcome", "text": "Hello",
        }},
        {"name": "forward", "on": ["*"], "amqp": {"url": broker, "exchange": exchange}},
        {"name": "line", "on": ["user.signed_up"], "log": {}},
        {"name": "other", "on": ["order.*"], "log": {}},
    ]);
    let app = place.app().set("reactions", reactions).start().await;
    app.wait_ready().await;
    let event = json!({
        "userId": "u1", "eventType": "user.signed_up",
        "eventData": {"plan": "pro", "email": "ada@example.org"},
    });
    let answer = app.post("/v1/events", &event).await.text().await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let id = answer["id"].as_str().unwrap();
    let runs = place.ended(4).await;
    assert!(runs.iter().all(|run| run.state == "succeeded"), "{runs:?}");
    place.processed(1, 0).await;

    let request = starts.receiver.received.lock().pop().unwrap();
    assert_eq!(request.headers["webhook-id"], format!("{id}.hook"));
    let timestamp = &request.headers["webhook-timestamp"];
    let signed = format!("{id}.hook.{timestamp}.{}", request.body);
    let key = STANDARD
        .decode(SECRET.trim_start_matches("whsec_"))
        .unwrap();
    let signature = hmac(&key, signed.as_bytes());
    assert_eq!(
        request.headers["webhook-signature"],
        format!("v1,{signature}")
    );
    let body: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(
        (&body["id"], &body["data"]),
        (&json!(id), &event["eventData"])
    );

    let mail = &smtp.messages(1).await[0];
    assert_eq!(mail["recipients"], json!(["ada@example.org"]));
    assert_eq!(
        header(mail, "message-id"),
        format!("<{id}.mail@example.org>")
    );

    let options = BasicGetOptions { no_ack: true };
    let message = channel.basic_get(queue.into(), options).await.unwrap();
    let message = message.unwrap().delivery;
    assert_eq!(message.routing_key.as_str(), "user.signed_up");
    let body: Value = serde_json::from_slice(&message.data).unwrap();
    assert_eq!(
        (&body["id"], &body["eventData"]),
        (&json!(id), &event["eventData"])
    );

    let run = format!("{id}.line");
    eventually(SOON, "the log has a line", async || {
        app.logs()
            .iter()
            .any(|line| line.contains(&run))
            .then_some(())
    })
    .await;
    assert!(!app.logs().iter().any(|line| line.contains(".other")));
}
