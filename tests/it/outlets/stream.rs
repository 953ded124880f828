//! A stream that is declared by an outlet.

use super::*;
use crate::followers::{on_both_stores, typed};
use crate::harness::RabbitMq;

on_both_stores! {
    a_stream_has_the_log_in_its_order_from_the_beginning,
    what_begins_now_has_no_past_events,
    outlets_of_one_server_share_a_connection,
}

async fn a_stream_has_the_log_in_its_order_from_the_beginning(place: &Place) {
    let url = RabbitMq::shared().await.vhost().await;
    for n in 0..4 {
        let kinds = ["order.placed", "order.paid", "user.left"];
        let events = (0..100).map(|m| typed(kinds[(n + m) % kinds.len()]));
        place.write(events.collect()).await;
    }
    let outlets = to_stream(&url, json!({"types": ["order.*"]}));
    let app = start(place, outlets).await;
    post(&app, "order.placed", 0..20).await;
    post(&app, "user.left", 20..30).await;
    post(&app, "order.shipped", 30..40).await;
    let events = logged(place, &["order.*"]).await;
    let log = logged_ids(place, &["order.*"]).await;
    assert_eq!(log.len(), 267 + 30);
    let mut reader = Reader::of_stream(&url, STREAM).await;
    reader.all_of(&log).await;
    assert_eq!(reader.ids(), log);
    caught_up(&app).await;
    let sent = app
        .metric_with("eclusa_follower_applied_total", &[("follower", FOLLOWER)])
        .await;
    assert_eq!(sent, log.len() as f64);
    for (message, logged) in reader.seen.iter().zip(&events) {
        let position = format!("1-{}", logged.position);
        assert_eq!(header(message, "eclusa-position"), position);
        assert_eq!(header(message, "eclusa-outlet"), NAME);
        let properties = &message.properties;
        let kind = properties.kind().clone().unwrap().to_string();
        assert_eq!(kind, logged.event.event_type);
        assert_eq!(*properties.delivery_mode(), Some(2));
        let content_type = properties.content_type().clone().unwrap();
        assert_eq!(content_type.as_str(), "application/json");
        let seconds = logged.event.timestamp.timestamp().unsigned_abs();
        assert_eq!(*properties.timestamp(), Some(seconds));
    }
    // As the API shows it.
    let last = reader.seen.last().unwrap();
    let shown = app.get_json(&format!("/v1/events/{}", id(last))).await;
    assert_eq!(body(last), shown);
    // Another consumer begins anew.
    let mut again = Reader::of_stream(&url, STREAM).await;
    again.all_of(&log).await;
    assert_eq!(again.ids(), log);
}

async fn what_begins_now_has_no_past_events(place: &Place) {
    let url = RabbitMq::shared().await.vhost().await;
    place.write((0..50).map(|_| typed("a")).collect()).await;
    let app = start(place, to_stream(&url, json!({"start": "now"}))).await;
    post(&app, "b", 0..10).await;
    let log = logged_ids(place, &["b"]).await;
    let mut reader = Reader::of_stream(&url, STREAM).await;
    reader.all_of(&log).await;
    assert_eq!(reader.ids(), log);
}

async fn outlets_of_one_server_share_a_connection(place: &Place) {
    let rabbitmq = RabbitMq::shared().await;
    let url = rabbitmq.vhost().await;
    let vhost = url.rsplit('/').next().unwrap();
    let (first, second) = (
        to_stream(&url, json!({})),
        to_stream(
            &url,
            json!({"name": "other", "stream": "other", "types": ["b"]}),
        ),
    );
    let outlets = json!([first[0], second[0]]);
    let app = start(place, outlets).await;
    post(&app, "a", 0..10).await;
    post(&app, "b", 10..20).await;
    for (stream, types) in [(STREAM, ["*"]), ("other", ["b"])] {
        let log = logged_ids(place, &types).await;
        let mut reader = Reader::of_stream(&url, stream).await;
        reader.all_of(&log).await;
        assert_eq!(reader.ids(), log);
    }
    let connections = format!(
        r#"length([C || C <- rabbit_networking:connection_info_all([client_properties, vhost]),
            proplists:get_value(vhost, C) =:= <<"{vhost}">>,
            lists:member({{<<"connection_name">>, longstr, <<"eclusa outlets">>}},
                         proplists:get_value(client_properties, C))])"#
    );
    assert_eq!(rabbitmq.eval(&connections).await, "1");
}
