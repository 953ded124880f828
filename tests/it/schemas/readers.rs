//! Readers that ask for the newest version.

use super::*;
use crate::followers::{Place, on_both_stores};
use crate::harness::{RabbitMq, eclusa, eventually};
use crate::outlets::{Reader, body};
use crate::reactions::starts::Starts;
use crate::topics::{Ask, Events, subscribers};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

on_both_stores! {
    readers_see_the_newest_version_and_the_log_keeps_what_was_sent,
    a_reaction_gets_the_newest_version,
    each_subscriber_gets_the_version_that_it_asks_for,
    an_outlet_sends_the_newest_version,
}

async fn readers_see_the_newest_version_and_the_log_keeps_what_was_sent(place: &Place) {
    let mut app = place.app().start().await;
    app.wait_ready().await;
    // Before there was a schema: it counts as of the oldest version.
    assert_eq!(
        post(&app, &order("before", json!({"total": 12.50, "n": 1})))
            .await
            .0,
        202
    );
    stored(&app, "before").await;
    app.rewrite_config("schemas", two_versions());
    app.wait_for_log(SOON, "settings reloaded").await;
    assert_eq!(post(&app, &order("old", json!({"total": 7}))).await.0, 202);
    assert_eq!(
        post(
            &app,
            &order_of(2, "new", json!({"amount": 8, "currency": "EUR"}))
        )
        .await
        .0,
        202
    );
    let other =
        json!({"id": "other", "userId": "u", "eventType": "other", "eventData": {"total": 1}});
    assert_eq!(post(&app, &other).await.0, 202);
    for id in ["old", "new", "other"] {
        stored(&app, id).await;
    }
    let seen = async |id: &str, view: &str| {
        let event = app.get_json(&format!("/v1/events/{id}{view}")).await;
        (event["eventData"].clone(), event["schemaVersion"].clone())
    };
    let upcast = |amount: Value| json!({"amount": amount, "currency": "BRL"});
    assert_eq!(seen("old", "").await, (json!({"total": 7}), json!(1)));
    assert_eq!(
        seen("old", "?schema=sent").await,
        (json!({"total": 7}), json!(1))
    );
    assert_eq!(
        seen("old", "?schema=latest").await,
        (upcast(json!(7)), json!(2))
    );
    assert_eq!(
        seen("before", "?schema=latest").await,
        (
            json!({"amount": 12.50, "n": 1, "currency": "BRL"}),
            json!(2)
        )
    );
    let new = (json!({"amount": 8, "currency": "EUR"}), json!(2));
    assert_eq!(seen("new", "?schema=latest").await, new);
    assert_eq!(
        seen("other", "?schema=latest").await,
        (json!({"total": 1}), Value::Null)
    );
    let page = app
        .get_json("/v1/events?eventType=order.placed&schema=latest")
        .await;
    for event in page["events"].as_array().unwrap() {
        assert_eq!(event["schemaVersion"], 2);
        assert!(event["eventData"]["amount"].is_number(), "{event}");
    }
    let sent = app.get_json("/v1/events?eventType=order.placed").await;
    assert!(sent.to_string().contains("total"));
    assert_eq!(app.get("/v1/events/old?schema=newest").await.status(), 400);
}

async fn a_reaction_gets_the_newest_version(place: &Place) {
    let starts = Starts::count(|_, _| 204).await;
    let reactions = json!([
        // Conditions see what was sent.
        {"name": "newest", "on": ["order.placed"], "schema": "latest", "when": "eventData.total > 3",
         "webhook": starts.webhook()},
        {"name": "sent", "on": ["order.placed"], "webhook": starts.webhook()},
    ]);
    let app = place
        .app()
        .set("schemas", two_versions())
        .set("reactions", reactions)
        .start()
        .await;
    app.wait_ready().await;
    assert_eq!(post(&app, &order("a", json!({"total": 5}))).await.0, 202);
    eventually(SOON, "both have run", async || {
        (starts.receiver.received.lock().len() == 2).then_some(())
    })
    .await;
    let received = starts.receiver.received.lock();
    let data = |name: &str| -> Value {
        let request = received
            .iter()
            .find(|one| one.headers["webhook-id"].ends_with(name))
            .unwrap();
        let body: Value = serde_json::from_str(&request.body).unwrap();
        body["data"].clone()
    };
    assert_eq!(data(".newest"), json!({"amount": 5, "currency": "BRL"}));
    assert_eq!(data(".sent"), json!({"total": 5}));
}

async fn each_subscriber_gets_the_version_that_it_asks_for(place: &Place) {
    let app = place.app().set("schemas", two_versions()).start().await;
    app.wait_ready().await;
    let sent = order("behind", json!({"total": 7.50}));
    assert_eq!(post(&app, &sent).await.0, 202);
    stored(&app, "behind").await;
    let ask = |schema: &str| Ask {
        schema: Some(schema.to_owned()),
        ..Ask::from("beginning").of("order.*")
    };
    let in_version_1 = |total: Value| (json!({"total": total}), json!(1));
    let in_version_2 = |amount: Value| (json!({"amount": amount, "currency": "BRL"}), json!(2));
    // One that wants no form reads before the others join, and what it reads is for all of them.
    let mut any = Ask::from("beginning").of("order.*").open(&app).await;
    assert_eq!(next_of(&mut any).await, in_version_1(json!(7.50)));
    subscribers(&app, "newest", 1).await;
    let mut latest = ask("latest").open(&app).await;
    let mut as_sent = ask("sent").open(&app).await;
    assert_eq!(next_of(&mut latest).await, in_version_2(json!(7.50)));
    assert_eq!(next_of(&mut as_sent).await, in_version_1(json!(7.50)));
    subscribers(&app, "newest", 3).await;
    assert_eq!(post(&app, &order("new", json!({"total": 8}))).await.0, 202);
    assert_eq!(next_of(&mut latest).await, in_version_2(json!(8)));
    assert_eq!(next_of(&mut as_sent).await, in_version_1(json!(8)));
    assert_eq!(next_of(&mut any).await, in_version_1(json!(8)));
    ask("newest").refused(&app, StatusCode::BAD_REQUEST).await;

    let tail = |more: &[&str]| {
        let mut command = eclusa(&[&["events", "tail", "--schema", "latest"], more].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    let url = app.url().to_owned();
    let line = tokio::task::spawn_blocking(move || {
        tail(&["--from", "beginning", "--type", "order.*", "--server", &url])
    });
    let shown = &line.await.unwrap()["event"];
    assert_eq!(
        shown["eventData"],
        json!({"amount": 7.50, "currency": "BRL"})
    );
}

/// Payload and version of the next event.
async fn next_of(stream: &mut Events) -> (Value, Value) {
    let event = stream.event().await.data.unwrap();
    (event["eventData"].clone(), event["schemaVersion"].clone())
}

async fn an_outlet_sends_the_newest_version(place: &Place) {
    let url = RabbitMq::shared().await.vhost().await;
    let outlet = |name: &str| json!({"name": name, "types": ["*"], "url": url, "stream": name, "start": "beginning"});
    let mut newest = outlet("newest");
    newest["schema"] = "latest".into();
    let app = place
        .app()
        .set("schemas", two_versions())
        .set("outlets", json!([newest, outlet("sent")]))
        .start()
        .await;
    app.wait_ready().await;
    assert_eq!(post(&app, &order("a", json!({"total": 5}))).await.0, 202);
    for (stream, expected) in [
        ("newest", json!({"amount": 5, "currency": "BRL"})),
        ("sent", json!({"total": 5})),
    ] {
        let mut reader = Reader::of_stream(&url, stream).await;
        let sent = body(&reader.messages(1).await[0]);
        assert_eq!(sent["eventData"], expected, "{stream}");
    }
}
