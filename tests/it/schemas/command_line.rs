//! `eclusa schemas`.

use super::*;
use crate::harness::{eclusa, temp_dir, told};
use std::process::Output;

/// Runs a command under settings with these entries.
fn run(entries: &str, arguments: &[&str]) -> (bool, String) {
    let folder = temp_dir("schemas-");
    let file = folder.path().join("eclusa.toml");
    std::fs::write(&file, entries).unwrap();
    let config = ["--config", file.to_str().unwrap(), "schemas"];
    let output: Output = eclusa(&[&config, arguments].concat()).output().unwrap();
    (output.status.success(), told(&output))
}

fn toml(version: u32, schema: &Value, more: &str) -> String {
    format!(
        "[[schemas]]\ntype = \"order.placed\"\nversion = {version}\nschema = '{schema}'\n{more}\n"
    )
}

#[test]
fn versions_are_listed_and_compared() {
    let (fine, said) = run("", &["list"]);
    assert!(fine && said.contains("No event type"), "{said}");
    let object =
        |name: &str, kind: &str| json!({"type": "object", "properties": {name: {"type": kind}}});
    let compatible = [
        toml(1, &object("a", "integer"), ""),
        toml(2, &object("a", "number"), ""),
    ]
    .concat();
    let (fine, said) = run(&compatible, &["list"]);
    assert!(
        fine && said.contains("order.placed  versions 1 to 2, on_invalid refuse"),
        "{said}"
    );
    let (fine, said) = run(&compatible, &["check"]);
    assert!(
        fine && said.contains("order.placed version 1 to 2: compatible"),
        "{said}"
    );
    for mode in ["forward", "full"] {
        let (fine, said) = run(&compatible, &["check", "--mode", mode]);
        assert!(
            !fine && said.contains("at \"/a\", rule type: forward"),
            "{mode}: {said}"
        );
    }
    let (fine, said) = run(&compatible, &["check", "--type", "other"]);
    assert!(!fine && said.contains("has no schema"), "{said}");
}

#[test]
fn what_is_incompatible_is_named_unless_it_is_declared() {
    let required =
        json!({"type": "object", "required": ["b"], "properties": {"b": {"type": "string"}}});
    let any = json!({"type": "object"});
    let broken = [toml(1, &any, ""), toml(2, &required, "")].concat();
    let (fine, said) = run(&broken, &["check"]);
    assert!(
        !fine
            && said.contains("version 1 to 2: not compatible")
            && said.contains("at \"/b\", rule required"),
        "{said}"
    );
    let declared = [
        toml(1, &any, ""),
        toml(2, &required, "compatible = \"declared\""),
    ]
    .concat();
    let (fine, said) = run(&declared, &["check"]);
    assert!(fine && said.contains("declared compatible"), "{said}");
    // The steps of an upcast count: with them the newer readers find what they need.
    let upcast = "upcast = [{ default = { path = \"b\", value = \"x\" } }]";
    let (fine, said) = run(
        &[toml(1, &any, ""), toml(2, &required, upcast)].concat(),
        &["check"],
    );
    assert!(fine, "{said}");
    let wrong = upcast.replace("\"x\"", "5");
    let (fine, said) = run(
        &[toml(1, &any, ""), toml(2, &required, &wrong)].concat(),
        &["check"],
    );
    assert!(!fine && said.contains("at \"/b\""), "{said}");
    // An added, optional member: compatible, and in the strict sense not.
    let optional = json!({"type": "object", "properties": {"b": {"type": "string"}}});
    let added = [toml(1, &any, ""), toml(2, &optional, "")].concat();
    assert!(run(&added, &["check"]).0);
    let (fine, said) = run(&added, &["check", "--strict"]);
    assert!(!fine && said.contains("at \"/b\", rule type"), "{said}");
}

#[test]
fn examples_are_checked_as_they_are_and_upcast() {
    let first = json!({"type": "object", "required": ["a"], "examples": [{"a": 1}]});
    let second =
        json!({"type": "object", "required": ["b"], "properties": {"b": {"type": "string"}}});
    let upcast = "upcast = [{ rename = [\"a\", \"b\"] }]\ncompatible = \"declared\"";
    let (fine, said) = run(
        &[toml(1, &first, ""), toml(2, &second, upcast)].concat(),
        &["check"],
    );
    assert!(
        !fine && said.contains("version 1: examples/0: upcast to version 2"),
        "{said}"
    );
    let wrong = json!({"type": "object", "required": ["a"], "examples": [{"b": 1}]});
    let (fine, said) = run(&toml(1, &wrong, ""), &["check"]);
    assert!(!fine && said.contains("examples/0"), "{said}");
}

#[tokio::test]
async fn versions_that_are_not_compatible_are_a_warning_at_the_start() {
    let folder = temp_dir("schemas-");
    let mut entries = two_versions();
    entries[1]["upcast"] = json!([]);
    let app = App::builder()
        .embedded(folder.path())
        .set("schemas", entries)
        .start()
        .await;
    app.wait_for_log(SOON, "two versions of a schema are not compatible")
        .await;
    app.wait_ready().await;
}
