//! Events that break the schema of their type do not get past where they enter, and nothing is lost by it.

mod by_amqp;
mod by_http;
mod command_line;
mod hostile;
mod imported;
mod readers;
mod reloaded;
mod replayed;

use crate::harness::App;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Version 1: `total` is a number of at least 0; version 2 calls it `amount` and has a currency.
fn first() -> Value {
    json!({"type": "object", "required": ["total"], "properties": {"total": {"type": "number", "minimum": 0}},
        "additionalProperties": false})
}

fn second() -> Value {
    json!({"type": "object", "required": ["amount", "currency"], "additionalProperties": false, "properties": {
        "amount": {"type": "number", "minimum": 0}, "currency": {"enum": ["BRL", "EUR"]}}})
}

/// One entry of the settings.
fn entry(version: u32, schema: &Value) -> Value {
    json!({"type": "order.placed", "version": version, "schema": schema.to_string()})
}

fn one_version(on_invalid: &str) -> Value {
    let mut entry = entry(1, &first());
    entry["on_invalid"] = on_invalid.into();
    json!([entry])
}

fn two_versions() -> Value {
    let mut newer = entry(2, &second());
    newer["upcast"] = json!([
        {"rename": ["total", "amount"]},
        {"set": {"path": "currency", "value": "BRL"}},
    ]);
    json!([entry(1, &first()), newer])
}

fn order(id: &str, data: Value) -> Value {
    json!({"id": id, "userId": "u", "eventType": "order.placed", "eventData": data})
}

fn order_of(version: u32, id: &str, data: Value) -> Value {
    let mut order = order(id, data);
    order["schemaVersion"] = version.into();
    order
}

async fn post(app: &App, body: &Value) -> (StatusCode, Value) {
    let response = app.post("/v1/events", body).await;
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap())
}

/// The event, once it is readable.
async fn stored(app: &App, id: &str) -> Value {
    app.get_json(&format!("/v1/events/{id}?wait=30s")).await
}

async fn is_missing(app: &App, id: &str) -> bool {
    app.get(&format!("/v1/events/{id}")).await.status() == StatusCode::NOT_FOUND
}

async fn letters(app: &App, query: &str) -> Vec<Value> {
    let page = app.get_json(&format!("/v1/dead-letters?{query}")).await;
    page["deadLetters"].as_array().unwrap().clone()
}

async fn counted(app: &App, action: &str) -> f64 {
    let labels = [("event_type", "order.placed"), ("action", action)];
    app.metric_with("eclusa_events_schema_invalid_total", &labels)
        .await
}
