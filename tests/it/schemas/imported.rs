//! `eclusa events import`, and schedules.

use super::*;
use crate::harness::{eclusa, eventually, run, temp_dir, told};

#[tokio::test]
async fn an_import_names_the_lines_that_break_their_schema_and_stores_the_rest() {
    let folder = temp_dir("schemas-");
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let entries = one_version("quarantine");
    let schema = entries[0]["schema"].as_str().unwrap();
    let settings = format!(
        "data_dir = {:?}\n[[schemas]]\ntype = \"order.placed\"\nversion = 1\nschema = '{schema}'\n",
        at("data")
    );
    std::fs::write(at("eclusa.toml"), settings).unwrap();
    let lines = [
        order("a", json!({"total": 1})),
        order("b", json!({"total": []})),
        order("c", json!({"total": 2})),
    ];
    std::fs::write(
        at("events.ndjson"),
        lines.map(|line| line.to_string()).join("\n"),
    )
    .unwrap();
    let (config, events, rejects) = (at("eclusa.toml"), at("events.ndjson"), at("rejects"));
    let arguments = [
        "--config",
        &config,
        "events",
        "import",
        &events,
        "--rejects",
        &rejects,
    ];
    let output = run(eclusa(&arguments)).await;
    let said = told(&output);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("2 stored") && said.contains("1 bad lines"),
        "{said}"
    );
    assert!(
        said.contains("line 2:")
            && said.contains("\"/total\"")
            && said.contains("/properties/total/type"),
        "{said}"
    );
    assert!(std::fs::read_to_string(&rejects).unwrap().contains("\"b\""));
}

#[tokio::test]
async fn a_schedule_emits_events_of_its_version_and_one_that_breaks_it_is_refused() {
    let folder = temp_dir("schemas-");
    let schedule = |data: Value| {
        json!([{"name": "tick", "cron": "* * * * * *", "event_type": "order.placed", "schema_version": 2,
            "event_data": data}])
    };
    let builder = || {
        App::builder()
            .embedded(folder.path())
            .set("schemas", two_versions())
    };
    let (status, said) = builder()
        .set("schedules", schedule(json!({"amount": 1})))
        .refused()
        .await;
    assert!(!status.success());
    assert!(
        said.contains("schedules[0].event_data") && said.contains("/required"),
        "{said}"
    );
    let good = schedule(json!({"amount": 1, "currency": "BRL"}));
    let app = builder().set("schedules", good).start().await;
    let event = eventually(SOON, "an event of the schedule", async || {
        let page = app.get_json("/v1/events?eventType=order.placed").await;
        page["events"].get(0).cloned()
    })
    .await;
    assert_eq!(event["schemaVersion"], 2);
}
