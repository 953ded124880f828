//! Dead letters that are replayed when the schema, or the producer's version, has been corrected.

use super::*;
use crate::amqp::{bench, publish};
use crate::followers::{Place, on_both_stores};
use crate::harness::eventually;

on_both_stores! {
    a_quarantined_event_is_stored_once_its_schema_is_corrected,
}

async fn replay(app: &App) -> Value {
    let response = app
        .post("/v1/dead-letters/replay", &json!({"cause": "schema"}))
        .await;
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

fn any_total() -> Value {
    let mut entry = entry(1, &json!({"required": ["total"]}));
    entry["on_invalid"] = "quarantine".into();
    json!([entry])
}

async fn a_quarantined_event_is_stored_once_its_schema_is_corrected(place: &Place) {
    let mut app = place
        .app()
        .set("schemas", one_version("quarantine"))
        .start()
        .await;
    app.wait_ready().await;
    let batch = json!([
        order("a", json!({"total": "5"})),
        order("b", json!({"sum": 5}))
    ]);
    let (status, answer) = post(&app, &batch).await;
    assert_eq!(status, 202);
    // It is checked again, and nothing has changed.
    let report = replay(&app).await;
    assert_eq!(
        (&report["replayed"], &report["failed"]),
        (&json!(0), &json!(2)),
        "{report}"
    );
    assert!(
        report["failures"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("schema of order.placed"),
        "{report}"
    );
    assert_eq!(letters(&app, "cause=schema&state=dead").await.len(), 2);

    app.rewrite_config("schemas", any_total());
    app.wait_for_log(SOON, "settings reloaded").await;
    let report = replay(&app).await;
    assert_eq!(
        (&report["replayed"], &report["failed"]),
        (&json!(1), &json!(1)),
        "{report}"
    );
    let event = stored(&app, "a").await;
    assert_eq!(event["id"], answer["items"][0]["id"]);
    assert_eq!(
        (&event["eventData"], &event["source"]),
        (&json!({"total": "5"}), &json!("http"))
    );
    assert_eq!(letters(&app, "cause=schema&state=dead").await.len(), 1);
    // The other one stays for as long as it breaks the schema.
    app.rewrite_config("schemas", json!([]));
    eventually(SOON, "no schema is left", async || {
        (app.get_json("/v1/schemas").await == json!({"schemas": []})).then_some(())
    })
    .await;
    assert_eq!(replay(&app).await["replayed"], 1);
    stored(&app, "b").await;
}

#[tokio::test]
async fn a_message_is_stored_once_its_schema_is_corrected() {
    let mut bench = bench(&[("schemas", one_version("refuse"))]).await;
    let items = json!([
        order("a", json!({"total": 1})),
        order("b", json!({"total": "5"}))
    ])
    .to_string();
    publish(
        &bench.vhost,
        "eclusa.events",
        "",
        items.as_bytes(),
        Some("m"),
    )
    .await;
    eventually(SOON, "the dead letter", async || {
        (letters(&bench.app, "cause=schema").await.len() == 1).then_some(())
    })
    .await;
    assert_eq!(replay(&bench.app).await["failed"], 1);
    bench.app.rewrite_config("schemas", any_total());
    bench.app.wait_for_log(SOON, "settings reloaded").await;
    assert_eq!(replay(&bench.app).await["replayed"], 1);
    eventually(SOON, "both rows", async || {
        (bench.rows().await == 2).then_some(())
    })
    .await;
    assert_eq!(stored(&bench.app, "b").await["schemaVersion"], 1);
}
