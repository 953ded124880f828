//! `POST /v1/events`.

use super::*;
use crate::followers::{Place, on_both_stores};

on_both_stores! {
    a_request_with_a_broken_rule_is_refused_with_its_place,
    a_quarantined_event_is_a_dead_letter_and_its_neighbours_are_stored,
    a_version_is_kept_with_the_event,
}

async fn a_request_with_a_broken_rule_is_refused_with_its_place(place: &Place) {
    let app = place
        .app()
        .set("schemas", one_version("refuse"))
        .start()
        .await;
    app.wait_ready().await;
    let other = json!({"userId": "u", "eventType": "order.cancelled", "eventData": {"total": "x"}});
    let batch = json!([
        order("a", json!({"total": 1})),
        order("b", json!({"total": -1})),
        other,
        order("c", json!({"total": 1, "x": {"secret": "s3cret"}})),
    ]);
    let (status, problem) = post(&app, &batch).await;
    assert_eq!(status, 400, "{problem}");
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "{problem}");
    assert_eq!(
        (&errors[0]["index"], &errors[0]["field"]),
        (&json!(1), &json!("eventData"))
    );
    let broken = &errors[0]["schema"];
    assert_eq!(broken["type"], "order.placed");
    assert_eq!(broken["version"], 1);
    assert_eq!(broken["pointer"], "/total");
    assert_eq!(broken["rule"], "/properties/total/minimum");
    let broken = &errors[1]["schema"];
    assert_eq!(
        (&broken["pointer"], &broken["rule"]),
        (&json!(""), &json!("/additionalProperties"))
    );
    assert!(!problem.to_string().contains("s3cret"), "{problem}");
    assert_eq!(counted(&app, "refused").await, 2.0);
    // None was taken, and none is lost: the corrected request is stored.
    assert!(is_missing(&app, "a").await);
    let (status, _) = post(
        &app,
        &json!([
            order("a", json!({"total": 1})),
            order("b", json!({"total": 1}))
        ]),
    )
    .await;
    assert_eq!(status, 202);
    assert_eq!(stored(&app, "b").await["schemaVersion"], 1);
    assert_eq!(app.metric("eclusa_dead_letters").await, 0.0);
}

async fn a_quarantined_event_is_a_dead_letter_and_its_neighbours_are_stored(place: &Place) {
    let app = place
        .app()
        .set("schemas", one_version("quarantine"))
        .start()
        .await;
    app.wait_ready().await;
    let batch = json!([
        order("a", json!({"total": 1})),
        order("b", json!({"total": "much"})),
        order("c", json!({"total": 2})),
    ]);
    let (status, answer) = post(&app, &batch).await;
    assert_eq!(status, 202, "{answer}");
    let statuses: Vec<&Value> = answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["status"])
        .collect();
    assert_eq!(statuses, ["stored", "deadLettered", "stored"]);
    for id in ["a", "c"] {
        stored(&app, id).await;
    }
    assert!(is_missing(&app, "b").await);
    let dead = letters(&app, "cause=schema&eventType=order.placed").await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0]["eventId"], answer["items"][1]["id"]);
    let error = dead[0]["error"].as_str().unwrap();
    assert!(
        error.contains("\"/total\"") && error.contains("/properties/total/type"),
        "{error}"
    );
    assert!(!error.contains("much"), "{error}");
    // A repeat of the event is the same dead letter.
    let (status, again) = post(&app, &order("b", json!({"total": "much"}))).await;
    assert_eq!(
        (status.as_u16(), &again["status"]),
        (202, &json!("deadLettered"))
    );
    assert_eq!(letters(&app, "cause=schema").await.len(), 1);
    assert_eq!(counted(&app, "dead_lettered").await, 2.0);
    let outcomes = [("path", "ingest"), ("outcome", "dead_lettered")];
    assert_eq!(
        app.metric_with("eclusa_accounted_events_total", &outcomes)
            .await,
        2.0
    );
    assert_eq!(app.metric("eclusa_events_in_flight").await, 0.0);
}

async fn a_version_is_kept_with_the_event(place: &Place) {
    let app = place.app().set("schemas", two_versions()).start().await;
    app.wait_ready().await;
    // Without a version: the oldest one, so that a producer that knows of none goes on.
    let (status, answer) = post(&app, &order("old", json!({"total": 5}))).await;
    assert_eq!(status, 202, "{answer}");
    let (status, _) = post(
        &app,
        &order_of(2, "new", json!({"amount": 5, "currency": "EUR"})),
    )
    .await;
    assert_eq!(status, 202);
    assert_eq!(stored(&app, "old").await["schemaVersion"], 1);
    assert_eq!(stored(&app, "new").await["schemaVersion"], 2);
    let (status, problem) = post(&app, &order("x", json!({"amount": 5, "currency": "EUR"}))).await;
    assert_eq!(status, 400);
    let reason = problem["errors"][0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("oldest version, 1; the newest is 2"),
        "{reason}"
    );
    let (status, problem) = post(&app, &order_of(3, "x", json!({}))).await;
    assert_eq!(status, 400);
    assert_eq!(problem["errors"][0]["schema"]["rule"], "schemaVersion");
    for wrong in [json!(0), json!(1.5), json!("1"), json!(40_000)] {
        let mut order = order("x", json!({"total": 1}));
        order["schemaVersion"] = wrong;
        let (status, problem) = post(&app, &order).await;
        assert_eq!(status, 400, "{order}");
        assert_eq!(problem["errors"][0]["field"], "schemaVersion");
    }
    // A type without a schema: the producer's own numbers.
    let other = json!({"id": "o", "userId": "u", "eventType": "other", "schemaVersion": 7});
    assert_eq!(post(&app, &other).await.0, 202);
    assert_eq!(stored(&app, "o").await["schemaVersion"], 7);

    let list = app.get_json("/v1/schemas").await;
    assert_eq!(
        list,
        json!({"schemas": [
        {"type": "order.placed", "onInvalid": "refuse", "oldest": 1, "newest": 2}]})
    );
    let one = app.get_json("/v1/schemas/order.placed").await;
    assert_eq!(one["versions"][1]["schema"], second());
    assert_eq!(one["versions"][1]["hasUpcast"], true);
    assert_eq!(app.get_json("/v1/schemas/order.placed/1").await, first());
    assert_eq!(
        app.get_json("/v1/schemas/order.placed/latest").await,
        second()
    );
    for missing in [
        "/v1/schemas/other",
        "/v1/schemas/order.placed/3",
        "/v1/schemas/order.placed/x",
    ] {
        assert_eq!(app.get(missing).await.status(), 404, "{missing}");
    }
}

/// Killed between the dead letter and the answer, and before it: the repeat makes it one dead letter.
#[actix_rt::test]
async fn a_crash_while_quarantining_loses_and_doubles_nothing() {
    for point in [
        "retry_supervisor.unreadable",
        "retry_supervisor.after_insert",
    ] {
        let place = Place::postgres().await;
        let mut app = place
            .app()
            .set("schemas", one_version("quarantine"))
            .start()
            .await;
        app.wait_ready().await;
        app.set_failpoint(point, "kill").await.unwrap();
        let batch = json!([order("a", json!({"total": 1})), order("b", json!({}))]).to_string();
        let sent = app
            .try_post("/v1/events", "application/json", batch.clone())
            .await;
        assert!(sent.is_err(), "{point}: it is killed before it answers");
        app.wait_exit(SOON).await;
        app.start_again().await;
        app.wait_ready().await;
        let sent = app
            .try_post("/v1/events", "application/json", batch)
            .await
            .unwrap();
        assert_eq!(sent.status(), 202, "{point}");
        stored(&app, "a").await;
        assert_eq!(letters(&app, "cause=schema").await.len(), 1, "{point}");
    }
}
