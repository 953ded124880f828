//! Pix messages that are imported while no server runs.

use super::{Api, SOON, example, fresh_ispb, start};
use crate::harness::{App, Postgres, eclusa, eventually, run, temp_dir, told};
use serde_json::json;

#[tokio::test]
async fn an_import_leaves_the_followers_of_streams_to_the_server() {
    let url = Postgres::shared().await.database().await;
    let (folder, ispb) = (temp_dir("imported-"), fresh_ispb());
    let message = example(&ispb);
    let event = json!({"userId": "u", "eventType": "pix.message.received", "eventData": message});
    let file = folder.path().join("events.ndjson");
    std::fs::write(&file, format!("{event}\n")).unwrap();
    let (file, store) = (file.to_str().unwrap(), format!("store.url={url}"));
    for arguments in [
        ["migrate", "--set", &store].as_slice(),
        &["events", "import", file, "--set", &store],
    ] {
        let output = run(eclusa(arguments)).await;
        assert!(output.status.success(), "{}", told(&output));
    }
    // A lease that the import held would keep the server waiting until it is over.
    let sql = "SELECT count(*) FROM leases WHERE name LIKE 'follower streams.%'";
    let leases = Postgres::shared().await.query(&url, sql, &[]).await;
    assert_eq!(leases[0].get::<_, i64>(0), 0);

    let app = App::builder().postgres(&url).start().await;
    let api = Api::of(&app);
    eventually(SOON, "it can be collected", async || {
        (api.level(&ispb).await.0 == 1).then_some(())
    })
    .await;
    let answer = api.get(&start(&ispb)).await;
    assert_eq!(answer.json(), message);
}
