//! The command line: import that may be broken off and repeated, counting, following, settings.

use crate::harness::{App, Postgres, eclusa, eventually, temp_dir, told};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const LINES: usize = 5_000;

fn run(args: &[&str]) -> Output {
    eclusa(args).output().unwrap()
}

fn succeed(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Lines without ids, in two types, some of them equal.
fn sample(folder: &Path) -> String {
    let path = folder.join("sample.ndjson");
    let mut file = std::fs::File::create(&path).unwrap();
    for n in 0..LINES {
        let kind = if n % 5 == 0 {
            "flight.cancelled"
        } else {
            "flight.departed"
        };
        let data = json!({"carrier": "UA", "delay": n % 7});
        let line = json!({"userId": "EWR", "eventType": kind, "eventData": data});
        writeln!(file, "{line}").unwrap();
    }
    path.display().to_string()
}

fn counts(settings: &[&str]) -> Value {
    let args = [&["events", "count", "--by", "type", "--json"], settings].concat();
    succeed(&args)
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            (
                line["type"].as_str().unwrap().to_owned(),
                line["events"].clone(),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Imports, breaks an import off, and repeats it, on whatever store the settings name.
fn import_is_repeatable(settings: &[&str], folder: &Path) {
    let file = sample(folder);
    let expected = json!({"flight.departed": LINES / 5 * 4, "flight.cancelled": LINES / 5});
    let import = [&["events", "import", &file], settings].concat();
    // Killed behind its first commit, before the result is known.
    let output = eclusa(&import)
        .env("ECLUSA_FAILPOINTS", "db_writer.after_commit=0:1:kill")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let partial = counts(settings);
    assert!(partial["flight.departed"].as_u64().unwrap() < LINES as u64 / 5 * 4);
    assert!(succeed(&import).contains("already there"));
    assert_eq!(counts(settings), expected);
    let again = succeed(&import);
    assert!(
        again.contains(&format!("0 stored, {LINES} already there")),
        "{again}"
    );
    assert_eq!(counts(settings), expected);
}

#[test]
fn an_import_into_sqlite_is_repeatable_even_when_killed() {
    let dir = temp_dir("import-");
    let data = format!("data_dir={}", dir.path().join("data").display());
    import_is_repeatable(&["--set", &data], dir.path());
}

#[tokio::test]
async fn an_import_into_postgres_is_repeatable_even_when_killed() {
    let dir = temp_dir("import-");
    let url = format!("store.url={}", Postgres::shared().await.database().await);
    let migrated = succeed(&["migrate", "--set", &url]);
    assert!(migrated.contains("Applied"), "{migrated}");
    assert!(succeed(&["migrate", "--set", &url]).contains("up to date"));
    tokio::task::spawn_blocking(move || import_is_repeatable(&["--set", &url], dir.path()))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_import_goes_through_the_server_that_has_the_file() {
    let dir = temp_dir("import-");
    let data = dir.path().join("data");
    let app = App::builder().embedded(&data).start().await;
    app.wait_ready().await;
    let file = sample(dir.path());
    let setting = format!("data_dir={}", data.display());
    let import = ["events", "import", &file, "--set", &setting].map(str::to_owned);
    for expected in ["5000 stored, 0 already", "0 stored, 5000 already"] {
        let import = import.clone();
        let output = tokio::task::spawn_blocking(move || {
            run(&import.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .await
        .unwrap();
        let told = told(&output);
        assert!(output.status.success() && told.contains(expected), "{told}");
        assert!(told.contains("The server at http://127.0.0.1:"), "{told}");
    }
    assert_eq!(app.metric("eclusa_events_stored_total").await, LINES as f64);
    // Without the server the same lines are the same events.
    drop(app);
    let told = tokio::task::spawn_blocking(move || {
        succeed(&import.iter().map(String::as_str).collect::<Vec<_>>())
    })
    .await
    .unwrap();
    assert!(told.contains("0 stored, 5000 already"), "{told}");
}

#[test]
fn an_option_of_serve_before_another_command_is_refused() {
    let dir = temp_dir("ignored-");
    let folder = dir.path().display().to_string();
    for option in [["--data-dir", &folder], ["--port", "1"], ["--bind", "::1"]] {
        let output = run(&[option[0], option[1], "config", "check"]);
        let told = told(&output);
        assert!(
            !output.status.success() && told.contains(option[0]),
            "{told}"
        );
        assert!(told.contains("--set data_dir=DIR"), "{told}");
    }
}

#[test]
fn bad_lines_are_told_kept_and_do_not_stop_the_rest() {
    let dir = temp_dir("import-");
    let data = format!("data_dir={}", dir.path().join("data").display());
    let rejects = dir.path().join("rejects").display().to_string();
    let mut child = eclusa(&[
        "events",
        "import",
        "-",
        "--source",
        "test",
        "--rejects",
        &rejects,
        "--set",
        &data,
    ])
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(b"{\"eventType\":\"a\"}\nnonsense\n{\"eventType\":5}\n{\"eventType\":\"a\"}")
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("2 stored, 0 already there, 2 bad lines"),
        "{told}"
    );
    assert!(told.contains("line 2: must be a JSON object"), "{told}");
    assert!(
        told.contains("line 3: eventType must be a string"),
        "{told}"
    );
    assert_eq!(
        std::fs::read_to_string(rejects).unwrap(),
        "nonsense\n{\"eventType\":5}\n"
    );
}

/// A child that is killed whatever becomes of the test.
struct Tail(Child);

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn tail_follows_with_filters() {
    let dir = temp_dir("tail-");
    let app = App::builder().embedded(dir.path()).start().await;
    app.wait_ready().await;
    let post = async |kind: &str, n: usize| {
        let event = json!({"userId": "u", "eventType": kind, "eventData": {"n": n}});
        assert_eq!(app.post("/v1/events", &event).await.status(), 202);
    };
    for n in 0..3 {
        post("a", n).await;
        post("b", n).await;
    }
    let setting = format!("data_dir={}", dir.path().display());
    let args = [
        "events", "tail", "-f", "-n", "2", "--type", "a", "--set", &setting,
    ];
    let mut child = Tail(eclusa(&args).stdout(Stdio::piped()).spawn().unwrap());
    let stdout = child.0.stdout.take().unwrap();
    let (sender, lines) = std::sync::mpsc::sync_channel(100);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let next = async || eventually(SOON, "a line of tail", async || lines.try_recv().ok()).await;
    for n in [1, 2] {
        let line: Value = serde_json::from_str(&next().await).unwrap();
        assert_eq!(
            (&line["eventType"], &line["eventData"]["n"]),
            (&json!("a"), &json!(n))
        );
    }
    for n in 3..6 {
        post("b", n).await;
        post("a", n).await;
        let line: Value = serde_json::from_str(&next().await).unwrap();
        assert_eq!(
            (&line["eventType"], &line["eventData"]["n"]),
            (&json!("a"), &json!(n))
        );
    }
}

#[tokio::test]
async fn reactions_are_made_when_they_are_checked_and_at_the_start() {
    let dir = temp_dir("config-");
    let file = dir.path().join("eclusa.toml");
    let check = |lines: &str| {
        let text = format!("[[reactions]]\nname = \"r\"\non = [\"*\"]\n{lines}");
        std::fs::write(&file, text).unwrap();
        run(&["config", "check", "--config", file.to_str().unwrap()])
    };
    let mail = |text: &str| {
        format!(
            "email = {{ host = \"smtp.example.org\", from = \"a@example.org\", \
             to = \"b@example.org\", subject = \"s\", text = {text:?} }}"
        )
    };
    let good = check(&mail("Hello {{ userId }}"));
    assert!(good.status.success(), "{}", told(&good));
    for (lines, key) in [
        (mail("{{ userId"), "reactions[0].email.text"),
        (
            "webhook = { url = \"https://example.org\", secret_file = \"missing\" }".to_owned(),
            "reactions[0].webhook.secret_file",
        ),
        (
            format!("when = \"plan == 'pro'\"\n{}", mail("t")),
            "reactions[0].when",
        ),
        (mail("t").replace("host", "hots"), "hots"),
    ] {
        let output = check(&lines);
        let said = told(&output);
        assert!(!output.status.success() && said.contains(key), "{said}");
    }
    let reaction = json!({
        "name": "r", "on": ["*"],
        "webhook": {"url": "http://127.0.0.1/", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
    });
    let app = App::builder().embedded(dir.path());
    let (status, said) = app.set("reactions", json!([reaction])).refused().await;
    assert!(!status.success());
    assert!(said.contains("reactions[0].webhook.url"), "{said}");
}

#[test]
fn captures_that_cannot_connect_are_found_by_the_check() {
    for (url, key, words) in [
        ("url = 'postgres://:s3cret@h/d'", "url", "names no user"),
        ("url = 'mysql://u:s3cret@h/d'", "url", "postgres://"),
        ("url_file = '/nope'", "url_file", "cannot be read"),
    ] {
        let captures = format!("captures=[{{ name = 'c', tables = ['public.t'], {url} }}]");
        for command in [["config", "check"].as_slice(), &["serve"]] {
            let output = run(&[command, &["--set", &captures]].concat());
            let told = told(&output);
            assert!(!output.status.success(), "{told}");
            let key = format!("captures[0].{key} ");
            assert!(told.contains(&key) && told.contains(words), "{told}");
            assert!(!told.contains("s3cret"), "{told}");
        }
    }
}

#[test]
fn settings_are_checked_shown_and_explained() {
    let dir = temp_dir("config-");
    assert!(succeed(&["config", "check"]).contains("in order; mode embedded"));
    assert!(succeed(&["config", "default"]).contains("[batch]"));
    let shown = succeed(&[
        "config",
        "show",
        "--set",
        "store.url=postgres://u:s3cret@h/d",
    ]);
    assert!(
        shown.contains("u:***@h") && !shown.contains("s3cret"),
        "{shown}"
    );

    let file = dir.path().join("eclusa.toml");
    std::fs::write(&file, "[batch]\nmax_event = 5\n").unwrap();
    let output = run(&["config", "check", "--config", file.to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(
        told(&output).contains("did you mean batch.max_events?"),
        "{}",
        told(&output)
    );

    let key = succeed(&[
        "config", "new-key", "shop", "--scope", "ingest", "--scope", "read",
    ]);
    let entry = key.lines().find(|line| line.contains("hash = ")).unwrap();
    std::fs::write(&file, format!("[auth]\nkeys = [\n{entry}\n]\n")).unwrap();
    succeed(&["config", "check", "--config", file.to_str().unwrap()]);
    assert!(succeed(&["completions", "bash"]).contains("eclusa"));
    assert!(succeed(&["--help"]).contains("completions"));
}
