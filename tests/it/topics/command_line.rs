//! `eclusa events tail --from`

use super::{Ask, SOON, log_of, post};
use crate::collectors::on;
use crate::followers::{Place, on_both_stores};
use crate::harness::{eclusa, eventually, free_port, told};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use uuid::Uuid;

on_both_stores! {
    tail_goes_on_by_itself_when_the_server_is_killed,
    tail_reads_the_store_where_there_is_no_server,
    tail_says_why_it_cannot_begin,
}

/// A running `tail`, and the lines that it has printed.
struct Tail {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Tail {
    fn start(arguments: &[&str]) -> Self {
        let command = [&["events", "tail"], arguments].concat();
        let mut command = eclusa(&command);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, printed) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap();
                printed.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    async fn ids(&self, number: usize) -> Vec<Uuid> {
        eventually(SOON, "tail has printed so many", async || {
            let lines = self.lines.lock().unwrap();
            let id = |line: &Value| line["event"]["id"].as_str().unwrap().parse().unwrap();
            (lines.len() >= number).then(|| lines.iter().map(id).collect())
        })
        .await
    }

    fn last_position(&self) -> String {
        let lines = self.lines.lock().unwrap();
        lines.last().unwrap()["position"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn setting(place: &Place) -> String {
    match (&place.url, &place.folder) {
        (Some(url), _) => format!("store.url={url}"),
        (None, folder) => format!("data_dir={}", folder.as_ref().unwrap().path().display()),
    }
}

async fn tail_goes_on_by_itself_when_the_server_is_killed(place: &Place) {
    let mut app = on(place).set("http.port", free_port()).start().await;
    let first = post(&app, &["a", "b"], 40).await;
    let url = app.url().to_owned();
    let all = Tail::start(&["--from", "beginning", "--server", &url]);
    let some = Tail::start(&["--from", "beginning", "--type", "a*", "--server", &url]);
    assert_eq!(all.ids(40).await, first);
    app.kill9();
    app.start_again().await;
    post(&app, &["a", "b"], 40).await;
    let log = log_of(place, 80).await;
    assert_eq!(all.ids(80).await, log);
    assert_eq!(some.ids(40).await.len(), 40);
    let position = all.last_position();
    let third = post(&app, &["a"], 3).await;
    let behind = Tail::start(&["--from", &position, "--server", &url]);
    assert_eq!(behind.ids(3).await, third);
    let mut stream = Ask::behind(&position).open(&app).await;
    assert_eq!(stream.ids(3).await, third);
}

async fn tail_reads_the_store_where_there_is_no_server(place: &Place) {
    let written: Vec<_> = (0..5).map(|_| crate::store_contract::event()).collect();
    place.write(written).await;
    let log = log_of(place, 5).await;
    let setting = setting(place);
    let tail = Tail::start(&["--from", "beginning", "--set", &setting]);
    assert_eq!(tail.ids(5).await, log);
    place.write(vec![crate::store_contract::event()]).await;
    assert_eq!(tail.ids(6).await, log_of(place, 6).await);
}

async fn tail_says_why_it_cannot_begin(place: &Place) {
    let app = on(place).start().await;
    post(&app, &["t"], 1).await;
    let setting = setting(place);
    for (arguments, words) in [
        (
            vec!["--from", "7-1", "--server", app.url()],
            "another generation",
        ),
        (vec!["--from", "7-1", "--set", &setting], "generation"),
        (vec!["--from", "soon"], "must be beginning, now"),
        (vec!["--from", "now", "--follow"], "cannot be used with"),
        (vec!["--server", app.url()], "--from"),
    ] {
        let mut command = eclusa(&[&["events", "tail"][..], &arguments].concat());
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = output.await.unwrap().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        let said = told(&output);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}
