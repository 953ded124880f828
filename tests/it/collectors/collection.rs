//! The request collection in `docs/collection`, run by Bruno's command line against a server.

use super::{Api, on};
use crate::followers::{Place, on_both_stores};
use crate::harness::{has_node, npm_packages, run, temp_dir, told};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

on_both_stores! {
    each_request_of_the_collection_gets_what_it_asserts_and_each_route_has_one,
}

/// Bruno's command line.
async fn bruno() -> Option<PathBuf> {
    if !has_node() {
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/collectors/bruno");
    let folder = npm_packages(&source, "bruno").await?;
    Some(folder.join("node_modules/.bin/bru"))
}

/// Operations of the document, such as `GET /v1/streams/{stream}`, that the collection is to have.
fn operations(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let is_ours = ["/api/pix/", "/api/util/", "/v1/streams"];
        if is_ours.iter().any(|prefix| path.starts_with(prefix)) {
            let methods = operations.as_object().unwrap().keys();
            let methods = methods.filter(|name| ["get", "post", "delete"].contains(&name.as_str()));
            found.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
        }
    }
    found
}

/// The operation that a request is: of those that fit, the one that names the most of it.
fn operation<'a>(operations: &'a BTreeSet<String>, request: &str) -> Option<&'a String> {
    let parts: Vec<&str> = request.split(['/', ' ']).collect();
    let literal = |operation: &&String| -> Option<usize> {
        let wanted: Vec<&str> = operation.split(['/', ' ']).collect();
        let fits = |(wanted, part): (&&str, &&str)| wanted.starts_with('{') || wanted == part;
        (wanted.len() == parts.len() && wanted.iter().zip(&parts).all(fits))
            .then(|| wanted.iter().filter(|part| !part.starts_with('{')).count())
    };
    let fitting = operations.iter().filter(|one| literal(one).is_some());
    fitting.max_by_key(|one| literal(one))
}

fn requests_in(folder: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count += requests_in(&path);
        } else if path.extension().is_some_and(|kind| kind == "bru") {
            let text = fs::read_to_string(&path).unwrap();
            count += usize::from(text.contains("type: http"));
        }
    }
    count
}

async fn each_request_of_the_collection_gets_what_it_asserts_and_each_route_has_one(place: &Place) {
    let Some(bru) = bruno().await else {
        return;
    };
    let app = on(place).set("pix.wait", "2s").start().await;
    let collection = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/collection");
    let folder = temp_dir("collection-");
    let report = folder.path().join("report.json");
    let mut command = Command::new(bru);
    command
        .args(["run", "-r", "--env", "local", "--env-var"])
        .arg(format!("baseUrl={}", app.url()))
        .arg("--reporter-json")
        .arg(&report)
        .current_dir(&collection)
        .env("NO_PROXY", "*");
    let output = run(command).await;
    assert!(output.status.success(), "{}", told(&output));
    let report: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    let results = report[0]["results"].as_array().unwrap();
    assert_eq!(results.len(), requests_in(&collection), "each is sent");

    let document = app.get_json("/openapi.json").await;
    let mut missing = operations(&document);
    assert!(missing.len() > 10, "{missing:?}");
    let all = missing.clone();
    for result in results {
        let asserted = result["assertionResults"].as_array().unwrap();
        assert!(!asserted.is_empty(), "{result}");
        assert!(
            asserted.iter().all(|one| one["status"] == "pass"),
            "{result}"
        );
        let url = result["request"]["url"].as_str().unwrap();
        let path = url.strip_prefix(app.url()).unwrap();
        let path = path.split('?').next().unwrap();
        let method = result["request"]["method"].as_str().unwrap();
        if let Some(done) = operation(&all, &format!("{method} {path}")) {
            missing.remove(done);
        }
    }
    assert_eq!(missing, BTreeSet::new(), "without a request");
    // It leaves nothing behind, so that it can be run again.
    let level = Api::of(&app).level("12345678").await;
    assert_eq!(level, (0, vec![]));
}
