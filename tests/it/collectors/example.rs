//! The example `collector`: it drains a stream to NDJSON, and nothing is lost when it is killed.

use super::{Api, SOON, fresh_ispb, on};
use crate::followers::{Place, on_both_stores};
use crate::harness::{eventually, temp_dir};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The example, running. Killed when dropped.
pub struct Drain {
    child: Child,
    file: PathBuf,
}

impl Drain {
    pub fn start(api: &Api, ispb: &str, until_empty: bool, to: &Path) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_eclusa"));
        let mut command = Command::new(binary.with_file_name("examples").join("collector"));
        if until_empty {
            command.arg("--until-empty");
        }
        command
            .arg(format!("{}{}", api.url, super::start(ispb)))
            .stdout(File::create(to).unwrap())
            .stderr(Stdio::null());
        Self {
            child: command.spawn().unwrap(),
            file: to.to_owned(),
        }
    }

    /// What it has written whole.
    pub fn ids(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.file).unwrap();
        let id = |line: &str| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(message["endToEndId"].as_str()?.to_owned())
        };
        text.lines().filter_map(id).collect()
    }

    /// Ends it as `kill -9` does. Returns what it has written.
    pub fn kill(mut self) -> Vec<String> {
        self.end();
        self.ids()
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.end();
    }
}

on_both_stores! {
    a_stream_is_drained_also_after_a_kill,
}

async fn a_stream_is_drained_also_after_a_kill(place: &Place) {
    let out = temp_dir("collector-");
    let app = on(place).set("pix.idle", "1s").start().await;
    let api = Api::of(&app);
    let ispb = fresh_ispb();
    api.make(&ispb, 500).await;
    let killed = Drain::start(&api, &ispb, false, &out.path().join("first"));
    eventually(SOON, "some are written", async || {
        (killed.ids().len() >= 50).then_some(())
    })
    .await;
    let first = killed.kill();
    let mut rest = Drain::start(&api, &ispb, true, &out.path().join("second"));
    let status = eventually(SOON * 3, "the rest is written", async || {
        rest.child.try_wait().unwrap()
    })
    .await;
    assert!(status.success(), "{status}");
    let second = rest.ids();
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
