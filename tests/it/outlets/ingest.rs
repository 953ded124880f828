//! An outlet whose messages come back to the log by way of RabbitMQ.

use super::*;
use crate::amqp::bench;

#[tokio::test]
async fn an_event_that_comes_back_is_a_duplicate_whatever_its_id() {
    let outlet = json!([{
        "name": NAME, "types": ["*"], "exchange": "eclusa.events", "start": "beginning",
    }]);
    let bench = bench(&[("outlets", outlet)]).await;
    // Ids of the caller, ids that are derived from others, and new ones.
    let events: Value = (0..60)
        .map(|n| {
            let mut event = json!({"userId": "u", "eventType": "a", "eventData": {"n": n}});
            match n % 3 {
                0 => event["id"] = uuid::Uuid::new_v4().to_string().into(),
                1 => event["id"] = format!("order-{n}").into(),
                _ => {}
            }
            event
        })
        .collect();
    let app = &bench.app;
    assert!(app.post("/v1/events", &events).await.status().is_success());
    eventually(SOON, "all have come back", async || {
        (app.metric("eclusa_events_duplicate_total").await >= 60.0).then_some(())
    })
    .await;
    caught_up(app).await;
    bench.wait_settled().await;
    assert_eq!(bench.rows().await, 60);
    assert_eq!(app.metric("eclusa_events_conflicting_total").await, 0.0);
    let sent = app
        .metric_with("eclusa_follower_applied_total", &[("follower", FOLLOWER)])
        .await;
    assert_eq!(sent, 60.0, "none goes round");
    let letters = app.get_json("/v1/dead-letters").await;
    assert_eq!(letters["deadLetters"], json!([]));
}

#[tokio::test]
async fn another_log_takes_the_events_of_an_outlet_with_their_ids() {
    let to = bench(&[]).await;
    let outlet = json!([{
        "name": NAME, "types": ["*"], "exchange": "eclusa.events", "url": to.vhost,
        "start": "beginning",
    }]);
    let place = Place::sqlite().await;
    let app = start(&place, outlet).await;
    post(&app, "a", 0..30).await;
    to.wait_rows(30).await;
    for logged in logged(&place, &["*"]).await {
        let event = &logged.event;
        let shown = to
            .app
            .get_json(&format!("/v1/events/{}", event.event_id))
            .await;
        assert_eq!(shown["originalId"], json!(event.original_id));
        assert_eq!(shown["eventData"].to_string(), event.event_data.get());
        assert_eq!(shown["producer"], event.producer.as_str());
    }
}
