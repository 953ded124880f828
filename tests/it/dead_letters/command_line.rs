//! `eclusa dlq`, on a store of its own and beside a server that has the file.

use super::direct_modes::{allow, forbid};
use super::*;
use crate::harness::temp_dir;
use std::process::{Command, Output};

async fn run(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eclusa"));
    let own = ["PATH", "HOME", "TMPDIR"];
    command.env_clear().arg("dlq").args(args);
    command.envs(
        own.into_iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?))),
    );
    let done = tokio::task::spawn_blocking(move || command.output());
    done.await.unwrap().unwrap()
}

fn told(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

async fn succeed(args: &[&str]) -> String {
    let output = run(args).await;
    assert!(output.status.success(), "{args:?}: {}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Every command on ten letters of the type `bad`; `mend` removes their cause.
async fn every_command(setting: &str, mend: impl AsyncFnOnce()) {
    let set = ["--set", setting];
    let with = |args: &[&'static str]| -> Vec<String> {
        let args = [args, &set].concat();
        args.into_iter().map(str::to_owned).collect()
    };
    let go = async |args: &[&'static str]| {
        let args = with(args);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        succeed(&args).await
    };
    let list = go(&["list"]).await;
    assert!(
        list.contains("poison") && list.contains("10 of 10"),
        "{list}"
    );
    let lines = go(&["list", "--json", "-n", "3", "--cause", "poison"]).await;
    assert_eq!(lines.lines().count(), 3);
    let one: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let id = one["id"].as_str().unwrap().to_owned();

    let shown = succeed(&["show", &id, set[0], set[1]]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["eventType"], "bad");
    let raw = succeed(&["show", &id, "--raw", set[0], set[1]]).await;
    assert_eq!(shown["body"], raw);

    let dry = go(&["replay", "--dry-run"]).await;
    assert!(dry.contains("10 would be replayed, 0 failed"), "{dry}");
    let output = run(&["replay", &id, set[0], set[1]]).await;
    assert!(!output.status.success(), "it fails again");
    assert!(
        told(&output).contains("0 replayed, 1 failed"),
        "{}",
        told(&output)
    );

    mend().await;
    let limited = go(&["replay", "-n", "4", "--rate", "100"]).await;
    assert!(limited.contains("4 replayed, 0 failed"), "{limited}");
    let rest = go(&["replay", "--type", "bad", "--rate", "0"]).await;
    assert!(rest.contains("6 replayed, 0 failed"), "{rest}");

    let export = go(&["export", "--state", "replayed"]).await;
    let exported: Vec<Value> = export
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(exported.len(), 10);
    assert!(exported.iter().all(|letter| letter["body"].is_string()));
    let again = exported.iter().find(|letter| letter["id"] == id.as_str());
    assert_eq!(again.unwrap()["history"].as_array().unwrap().len(), 1);

    for (args, word) in [
        (&["purge"][..], "--all"),
        (&["purge", "--all"], "--yes"),
        (&["purge", "--cause", "nonsense", "--yes"], "poison"),
    ] {
        let output = run(&[args, &set].concat()).await;
        assert!(!output.status.success());
        assert!(told(&output).contains(word), "{}", told(&output));
    }
    let dry = go(&["purge", "--all", "--dry-run"]).await;
    assert!(dry.contains("10 would be deleted"), "{dry}");
    let some = go(&["purge", "--state", "replayed", "-n", "3", "--yes"]).await;
    assert!(some.contains("3 deleted"), "{some}");
    assert!(go(&["purge", "--all", "--yes"]).await.contains("7 deleted"));
    assert!(go(&["list"]).await.contains("0 of 0"));
}

#[tokio::test]
async fn on_postgres_beside_a_server() {
    let bench = Bench::full(|builder| builder).await;
    bench.sql(FORBID).await;
    bench.post("bad", 0, 10).await;
    wait_dead(&bench.app, 10).await;
    let setting = format!("store.url={}", bench.database);
    every_command(&setting, async || bench.sql(ALLOW).await).await;
    assert_eq!(bench.count("user_interactions").await, 10);
}

#[tokio::test]
async fn on_sqlite_through_the_server_that_has_the_file() {
    let dir = temp_dir("letters-");
    let app = App::builder().embedded(dir.path()).start().await;
    app.wait_ready().await;
    forbid(dir.path());
    post(&app, "bad", 0, 10).await;
    let setting = format!("data_dir={}", dir.path().display());
    every_command(&setting, async || allow(dir.path())).await;
    assert_eq!(app.metric("eclusa_dead_letters_replayed_total").await, 10.0);
}

#[tokio::test]
async fn on_sqlite_while_nothing_runs() {
    let dir = temp_dir("letters-");
    let mut app = App::builder().embedded(dir.path()).start().await;
    app.wait_ready().await;
    forbid(dir.path());
    post(&app, "bad", 0, 10).await;
    app.sigterm();
    app.wait_exit(SOON).await;
    let setting = format!("data_dir={}", dir.path().display());
    every_command(&setting, async || allow(dir.path())).await;
}

#[tokio::test]
async fn an_import_says_what_was_put_aside() {
    let bench = Bench::database(|builder| builder).await;
    bench.sql(FORBID).await;
    let file = bench.app.folder().join("events.ndjson");
    let lines = "{\"eventType\":\"good\"}\n{\"eventType\":\"bad\"}\n";
    std::fs::write(&file, lines).unwrap();
    let setting = format!("store.url={}", bench.database);
    let mut command = Command::new(env!("CARGO_BIN_EXE_eclusa"));
    command.env_clear();
    command.args([
        "events",
        "import",
        file.to_str().unwrap(),
        "--set",
        &setting,
    ]);
    let done = tokio::task::spawn_blocking(move || command.output());
    let output = done.await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = told(&output);
    assert!(
        told.contains("1 stored") && told.contains("1 refused by the store"),
        "{told}"
    );
    bench.wait_count("dead_letters", 1).await;
}
