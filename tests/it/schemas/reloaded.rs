//! Schemas that change while the process runs.

use super::*;
use crate::followers::Place;
use crate::harness::eventually;

#[actix_rt::test]
async fn a_reload_takes_new_versions_and_old_ones_are_accepted_still() {
    let place = Place::sqlite().await;
    let mut app = place.app().start().await;
    app.wait_ready().await;
    assert_eq!(post(&app, &order("any", json!({"x": 1}))).await.0, 202);
    assert_eq!(stored(&app, "any").await.get("schemaVersion"), None);

    std::fs::create_dir(app.folder().join("schemas")).unwrap();
    let file = app.folder().join("schemas/order-1.json");
    std::fs::write(&file, first().to_string()).unwrap();
    let from_file = json!({"type": "order.placed", "version": 1, "file": "schemas/order-1.json"});
    app.rewrite_config("schemas", json!([from_file]));
    newest(&app, 1).await;
    assert_eq!(post(&app, &order("a", json!({"x": 1}))).await.0, 400);
    assert_eq!(post(&app, &order("a", json!({"total": 1}))).await.0, 202);

    let both = json!([from_file, two_versions()[1]]);
    app.rewrite_config("schemas", both.clone());
    newest(&app, 2).await;
    assert_eq!(post(&app, &order("b", json!({"total": 1}))).await.0, 202);
    assert_eq!(
        post(
            &app,
            &order_of(2, "c", json!({"amount": 1, "currency": "BRL"}))
        )
        .await
        .0,
        202
    );

    // What is invalid changes nothing.
    app.rewrite_config("schemas", json!([entry(1, &json!({"type": "nonsense"}))]));
    app.wait_for_log(SOON, "the new settings are invalid").await;
    app.wait_for_log(SOON, "schemas[0].schema").await;
    assert_eq!(post(&app, &order("d", json!({"total": -1}))).await.0, 400);
    assert_eq!(
        post(
            &app,
            &order_of(2, "d", json!({"amount": 1, "currency": "BRL"}))
        )
        .await
        .0,
        202
    );

    // A changed file is read on SIGHUP, which finds the last valid settings here.
    app.rewrite_config("schemas", both);
    std::fs::write(&file, json!({"required": ["sum"]}).to_string()).unwrap();
    app.sighup();
    eventually(SOON, "the changed file is in effect", async || {
        (post(&app, &order("e", json!({"sum": 1}))).await.0 == 202).then_some(())
    })
    .await;
}

async fn newest(app: &App, version: u32) {
    eventually(SOON, "the version is in effect", async || {
        let list = app.get_json("/v1/schemas").await;
        (list["schemas"][0]["newest"] == version).then_some(())
    })
    .await;
}
