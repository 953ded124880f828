//! The consumer of docs/OUTLETS.md.

use super::*;
use crate::harness::{RabbitMq, precondition, program, run, temp_dir, told};
use std::process::Command;

/// The system's Python: another one that comes first in PATH does not see Debian's packages.
const PYTHON: &str = "/usr/bin/python3";
const PAGE: &str = include_str!("../../../docs/OUTLETS.md");

#[actix_rt::test]
async fn the_consumer_of_the_documentation_reads_a_stream_from_its_beginning() {
    let pika = program(PYTHON, &["-c", "import pika"]);
    if precondition("python3-pika", pika).is_none() {
        return;
    }
    let place = Place::sqlite().await;
    let url = RabbitMq::shared().await.vhost().await;
    let app = start(&place, to_stream(&url, json!({"stream": "events"}))).await;
    post(&app, "a", 0..30).await;
    caught_up(&app).await;
    // It sends all once more.
    assert_eq!(command(&app, "rebuild", json!({})).await.0, 200);
    let log = logged(&place, &["*"]).await;
    let mut reader = Reader::of_stream(&url, "events").await;
    reader.messages(60).await;
    let (_, rest) = PAGE.split_once("```python\n").unwrap();
    let (script, _) = rest.split_once("```").unwrap();
    // As a service it would wait for more.
    let script = script.replace(
        "channel.start_consuming()",
        "while len(seen) < 30: connection.process_data_events(1)",
    );
    let script = script.replace("amqp://guest:guest@localhost:5672/%2f", &url);
    let folder = temp_dir("python-");
    let file = folder.path().join("consume.py");
    std::fs::write(&file, script).unwrap();
    let mut command = Command::new(PYTHON);
    command.arg(&file);
    let output = run(command).await;
    assert!(output.status.success(), "{}", told(&output));
    let printed = String::from_utf8(output.stdout).unwrap();
    let expected: Vec<String> = log
        .iter()
        .map(|logged| format!("1-{} {} a", logged.position, logged.event.event_id))
        .collect();
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}
