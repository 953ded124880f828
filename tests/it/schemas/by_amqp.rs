//! Messages of other publishers, and events that pass through the broker.

use super::*;
use crate::amqp::{bench, publish};
use crate::harness::eventually;

const QUEUE: &str = "eclusa.events";

#[tokio::test]
async fn a_message_that_breaks_its_schema_is_a_dead_letter_with_the_rule() {
    // What is refused over HTTP has no caller here.
    for on_invalid in ["refuse", "quarantine"] {
        let bench = bench(&[("schemas", one_version(on_invalid))]).await;
        let good = |id| order(id, json!({"total": 1})).to_string();
        let mut extra = order("e", json!({"total": 1}));
        extra["traceId"] = "t".into();
        let items = json!([
            order("b", json!({"total": 1})),
            order("c", json!({"total": -5})),
            order("d", json!({"total": 3}))
        ]);
        for body in [
            good("a"),
            items.to_string(),
            order("x", json!({})).to_string(),
            extra.to_string(),
        ] {
            publish(&bench.vhost, QUEUE, "", body.as_bytes(), None).await;
        }
        eventually(SOON, "four rows", async || {
            (bench.rows().await == 4).then_some(())
        })
        .await;
        let dead = eventually(SOON, "two dead letters", async || {
            let dead = letters(&bench.app, "cause=schema").await;
            (dead.len() == 2).then_some(dead)
        })
        .await;
        let errors: Vec<&str> = dead
            .iter()
            .map(|letter| letter["error"].as_str().unwrap())
            .collect();
        assert!(
            errors.iter().any(|error| error.contains("item 1")
                && error.contains("\"/total\"")
                && error.contains("/properties/total/minimum")),
            "{errors:?}"
        );
        assert!(
            errors.iter().any(|error| error.contains("rule /required")),
            "{errors:?}"
        );
        assert!(
            dead.iter()
                .all(|letter| letter["eventType"] == "order.placed"),
            "{dead:?}"
        );
        assert_eq!(counted(&bench.app, "dead_lettered").await, 2.0);
        bench.wait_settled().await;
        // The field that no event has is beside the payload, and the schema does not see it.
        assert_eq!(
            stored(&bench.app, "e").await["eventData"]["_extra"],
            json!({"traceId": "t"})
        );
    }
}

#[tokio::test]
async fn a_quarantined_event_of_http_goes_to_the_dead_letters_past_the_work_queue() {
    let bench = bench(&[("schemas", one_version("quarantine"))]).await;
    let batch = json!([
        order("a", json!({"total": 1})),
        order("b", json!({"total": true}))
    ]);
    let (status, answer) = post(&bench.app, &batch).await;
    assert_eq!(status, 202);
    assert_eq!(answer["items"][0]["status"], "queued");
    assert_eq!(answer["items"][1]["status"], "deadLettered");
    assert_eq!(stored(&bench.app, "a").await["schemaVersion"], 1);
    eventually(SOON, "the dead letter", async || {
        (letters(&bench.app, "cause=schema").await.len() == 1).then_some(())
    })
    .await;
    assert_eq!(bench.rows().await, 1);
}

#[tokio::test]
async fn a_version_travels_in_frames_and_a_foreign_field_of_that_name_is_kept() {
    let bench = bench(&[("schemas", two_versions())]).await;
    let (status, _) = post(
        &bench.app,
        &order_of(2, "n", json!({"amount": 1, "currency": "BRL"})),
    )
    .await;
    assert_eq!(status, 202);
    assert_eq!(stored(&bench.app, "n").await["schemaVersion"], 2);
    let foreign = json!({"id": "f", "eventType": "other", "eventData": {}, "schemaVersion": "v7"});
    publish(
        &bench.vhost,
        QUEUE,
        "",
        foreign.to_string().as_bytes(),
        None,
    )
    .await;
    let event = stored(&bench.app, "f").await;
    assert_eq!(
        event["eventData"],
        json!({"_extra": {"schemaVersion": "v7"}})
    );
    assert_eq!(event.get("schemaVersion"), None);
}
