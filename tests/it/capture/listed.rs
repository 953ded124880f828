//! What operators see of captures.

use super::SOON;
use crate::harness::{App, Postgres, eclusa, eventually, temp_dir, told};
use serde_json::{Value, json};

#[actix_rt::test]
async fn a_capture_that_cannot_begin_says_why() {
    let postgres = Postgres::shared().await;
    let url = postgres.database().await;
    let name = url.rsplit('/').next().unwrap().to_owned();
    let capture = json!({"name": name, "url": url, "tables": ["public.nothing"]});
    let folder = temp_dir("capture-");
    let app = App::builder()
        .embedded(folder.path())
        .set("captures", json!([capture]))
        .start()
        .await;
    let path = format!("/v1/captures/{name}");
    let shown = eventually(SOON, "the capture fails", async || {
        let shown = app.get_json(&path).await;
        (shown["state"] == "failing").then_some(shown)
    })
    .await;
    let reason = shown["reason"].as_str().unwrap();
    assert!(reason.contains("public.nothing"), "{reason}");
    assert_eq!(
        (&shown["slot"], &shown["storedAt"]),
        (&Value::Null, &Value::Null)
    );
    let list = app.get_json("/v1/captures").await;
    assert_eq!(list["captures"].as_array().unwrap().len(), 1);
    let command = app.post(&format!("{path}/drop-slot"), &json!({})).await;
    assert_eq!(command.status(), 409);
    assert_eq!(app.get("/v1/captures/other").await.status(), 404);
    let mut status = eclusa(&["capture", "status", "--server", app.url()]);
    let output = tokio::task::spawn_blocking(move || status.output());
    let said = told(&output.await.unwrap().unwrap());
    let reason = reason.split(';').next().unwrap();
    assert!(said.contains("failing") && said.contains(reason), "{said}");
}
