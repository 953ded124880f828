//! The example `collector`: it drains a stream to NDJSON, and nothing is lost when it is killed.

use super::{Api, SOON, fresh_ispb};
use crate::harness::{App, eventually, temp_dir};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn drain(api: &Api, ispb: &str, until_empty: bool, to: &Path) -> Child {
    let binary = Path::new(env!("CARGO_BIN_EXE_eclusa"));
    let mut command = Command::new(binary.with_file_name("examples").join("collector"));
    if until_empty {
        command.arg("--until-empty");
    }
    command
        .arg(format!("{}{}", api.url, super::start(ispb)))
        .stdout(File::create(to).unwrap())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

fn ids(of: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(of).unwrap();
    let id = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(message["endToEndId"].as_str()?.to_owned())
    };
    text.lines().filter_map(id).collect()
}

#[tokio::test]
async fn a_stream_is_drained_also_after_a_kill() {
    let (data, out) = (tempfile::tempdir().unwrap(), temp_dir("collector-"));
    let app = App::builder()
        .embedded(data.path())
        .set("pix.idle", "1s")
        .start()
        .await;
    let api = Api::of(&app);
    let ispb = fresh_ispb();
    api.make(&ispb, 500).await;
    let (first, second) = (out.path().join("first"), out.path().join("second"));
    let mut killed = drain(&api, &ispb, false, &first);
    eventually(SOON, "some are written", async || {
        (ids(&first).len() >= 50).then_some(())
    })
    .await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    let mut rest = drain(&api, &ispb, true, &second);
    let status = eventually(SOON * 3, "the rest is written", async || {
        rest.try_wait().unwrap()
    })
    .await;
    assert!(status.success(), "{status}");
    let (first, second) = (ids(&first), ids(&second));
    let all: BTreeSet<&String> = first.iter().chain(&second).collect();
    assert_eq!(all.len(), 500);
    // What the first one had written and not acknowledged came again.
    assert!(
        first.len() + second.len() <= 510,
        "{} and {}",
        first.len(),
        second.len()
    );
    assert_eq!(api.level(&ispb).await, (0, vec![]));
}
