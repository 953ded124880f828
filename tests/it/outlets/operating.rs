//! The commands of followers, carried out on an outlet.

use super::*;
use crate::followers::on_both_stores;
use crate::harness::RabbitMq;

on_both_stores! {
    an_outlet_is_paused_resumed_skipped_and_rebuilt,
    an_outlet_that_left_the_settings_is_removed_by_command,
}

async fn an_outlet_is_paused_resumed_skipped_and_rebuilt(place: &Place) {
    let url = RabbitMq::shared().await.vhost().await;
    let app = start(place, to_stream(&url, json!({}))).await;
    post(&app, "a", 0..30).await;
    caught_up(&app).await;
    assert_eq!(follower(&app).await["kind"], "external");

    assert_eq!(command(&app, "pause", json!({})).await.0, 200);
    let paused = follower(&app).await["position"].clone();
    post(&app, "a", 30..60).await;
    let shown = eventually(SOON, "the log has grown", async || {
        let shown = follower(&app).await;
        (shown["behind"]["events"] == 30).then_some(shown)
    })
    .await;
    assert_eq!(
        (&shown["state"], &shown["position"]),
        (&json!("paused"), &paused)
    );
    assert_eq!(command(&app, "resume", json!({})).await.0, 200);
    caught_up(&app).await;
    let before = logged_ids(place, &["*"]).await;
    let mut reader = Reader::of_stream(&url, STREAM).await;
    reader.all_of(&before).await;
    assert_eq!(reader.ids(), before);

    assert_eq!(command(&app, "pause", json!({})).await.0, 200);
    post(&app, "skipped", 60..70).await;
    logged_ids(place, &["*"]).await;
    let end = app.get_json("/v1/followers").await["log"]["end"].clone();
    assert_eq!(command(&app, "skip", json!({"to": end})).await.0, 200);
    assert_eq!(command(&app, "resume", json!({})).await.0, 200);
    post(&app, "a", 70..80).await;
    let sent = logged_ids(place, &["a"]).await;
    reader.all_of(&sent).await;
    assert_eq!(reader.ids(), sent);

    assert_eq!(command(&app, "rebuild", json!({})).await.0, 200);
    let log = logged_ids(place, &["*"]).await;
    reader.messages(sent.len() + log.len()).await;
    assert_eq!(reader.ids(), [sent, log].concat());
}

async fn an_outlet_that_left_the_settings_is_removed_by_command(place: &Place) {
    let url = RabbitMq::shared().await.vhost().await;
    let mut app = start(place, to_stream(&url, json!({}))).await;
    post(&app, "a", 0..10).await;
    caught_up(&app).await;
    let (status, problem) = command(&app, "remove", json!({})).await;
    assert_eq!(status, 409, "a process runs it: {problem}");
    app.rewrite_config("outlets", json!([]));
    app.sigterm();
    app.wait_exit(SOON).await;
    app.start_again().await;
    app.wait_for_log(SOON, "outlets are declared that this process does not run")
        .await;
    let shown = follower(&app).await;
    assert_eq!(
        (&shown["state"], &shown["runBy"]),
        (&json!("running"), &json!(null))
    );
    assert_eq!(command(&app, "remove", json!({})).await.0, 204);
    let gone = app.get(&format!("/v1/followers/{FOLLOWER}")).await;
    assert_eq!(gone.status().as_u16(), 404);
    // Under the same name it is a new one.
    app.rewrite_config("outlets", to_stream(&url, json!({})));
    app.sigterm();
    app.wait_exit(SOON).await;
    app.start_again().await;
    let log = logged_ids(place, &["*"]).await;
    let mut reader = Reader::of_stream(&url, STREAM).await;
    reader.messages(2 * log.len()).await;
    assert_eq!(reader.ids(), [log.clone(), log].concat());
}
