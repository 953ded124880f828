//! `eclusa reactions`, beside a server, through the server that has the file, and on a store of its own.

use super::{Bench, Mood, SOON, in_both_modes};
use crate::harness::{eclusa, told};
use serde_json::{Value, json};

in_both_modes! {
    every_command_works_beside_a_server(),
    commands_work_without_a_server(),
}

impl Bench {
    /// Runs `eclusa reactions` on the bench's store; whether it has succeeded, and what it has said.
    pub(super) async fn command(&self, args: &[&str]) -> (bool, String) {
        let mut command = eclusa(&["reactions"]);
        command.args(args).args(["--set", &self.store]);
        let done = tokio::task::spawn_blocking(move || command.output());
        let output = done.await.unwrap().unwrap();
        (output.status.success(), told(&output))
    }

    pub(super) async fn succeed(&self, args: &[&str]) -> String {
        let (done, said) = self.command(args).await;
        assert!(done, "{args:?}: {said}");
        said
    }

    async fn refused(&self, args: &[&str], part: &str) {
        let (done, said) = self.command(args).await;
        assert!(!done && said.contains(part), "{args:?}: {said}");
        assert!(!said.contains("\"detail\""), "a sentence: {said}");
    }
}

async fn every_command_works_beside_a_server(bench: &mut Bench) {
    bench.send("order.paid", 3).await;
    bench.have("SUCCESS", 3).await;
    bench.hook.is(Mood::Fails);
    bench.send("order.sent", 7).await;
    bench.have("FAILED", 7).await;

    let list = bench.succeed(&["list"]).await;
    assert!(list.contains("hook") && list.contains("running"), "{list}");
    assert!(list.contains("3 succeeded, 7 failed"), "{list}");
    let process = format!("/{}/", bench.app.pid());
    assert!(
        list.contains("run by ") && list.contains(&process),
        "{list}"
    );
    let list: Value = serde_json::from_str(&bench.succeed(&["list", "--json"]).await).unwrap();
    assert_eq!(list["counts"]["failed"], 7);
    let shown: Value = serde_json::from_str(&bench.succeed(&["show", "hook"]).await).unwrap();
    assert_eq!(shown["types"], json!(["order.*"]));

    let runs = bench.succeed(&["runs", "hook"]).await;
    assert_eq!(runs.lines().count(), 10, "{runs}");
    let failed = bench
        .succeed(&["runs", "hook", "--status", "failed", "--json", "-n", "5"])
        .await;
    assert_eq!(failed.lines().count(), 5, "{failed}");
    let run: Value = serde_json::from_str(failed.lines().next().unwrap()).unwrap();
    let id = run["id"].as_str().unwrap();
    let shown: Value = serde_json::from_str(&bench.succeed(&["show", id]).await).unwrap();
    assert_eq!(shown, run);

    bench.hook.is(Mood::Takes);
    let reprocess = ["reprocess", "--reaction", "hook"];
    let with = |more: &[&'static str]| [&reprocess[..], more].concat();
    let dry = bench.succeed(&with(&["--dry-run"])).await;
    assert!(dry.contains("7 would be made again"), "{dry}");
    let some = bench
        .succeed(&with(&["--type", "order.sent", "-n", "2"]))
        .await;
    assert!(some.contains("2 will be made again"), "{some}");
    bench.have("SUCCESS", 5).await;
    let rest = bench.succeed(&with(&["--rate", "100"])).await;
    assert!(rest.contains("5 will be made again"), "{rest}");
    bench.have("SUCCESS", 10).await;
    let again = bench
        .succeed(&with(&["--status", "SUCCESS", "-n", "1"]))
        .await;
    assert!(again.contains("1 will be made again"), "{again}");
    bench.have("SUCCESS", 10).await;

    assert!(
        bench
            .succeed(&["pause", "hook"])
            .await
            .contains("hook paused")
    );
    bench.send("order.new", 2).await;
    let pending = bench.have("PENDING", 2).await;
    let open = bench
        .succeed(&["runs", "hook", "--status", "PENDING"])
        .await;
    assert_eq!(open.lines().count(), 2, "{open}");
    let id = pending[0]["id"].as_str().unwrap();
    assert!(bench.succeed(&["cancel", id]).await.contains("cancelled"));
    assert!(
        bench
            .succeed(&["resume", "hook"])
            .await
            .contains("hook resumed")
    );
    bench.have("SUCCESS", 11).await;

    bench.refused(&["cancel", id], "it is cancelled").await;
    bench
        .refused(&["cancel", "x"], "is not the id of a run")
        .await;
    bench
        .refused(&["pause", "absent"], "there is no reaction absent")
        .await;
    bench
        .refused(&["show", "absent"], "there is no reaction absent")
        .await;
    bench
        .refused(&["runs", "absent"], "there is no reaction absent")
        .await;
    bench
        .refused(
            &["reprocess", "--reaction", "absent"],
            "there is no reaction absent",
        )
        .await;
    bench.refused(&["reprocess"], "--reaction").await;
    bench
        .refused(&with(&["--status", "PENDING"]), "made anyway")
        .await;
    bench
        .refused(&["runs", "hook", "--state", "done"], "available, scheduled")
        .await;
    bench.refused(&["resume", "hook"], "is running").await;
    bench
        .refused(&["remove", "hook"], "runs reaction hook")
        .await;
    // Through the server that is named.
    let url = bench.app.url().to_owned();
    assert!(
        bench
            .succeed(&["pause", "hook", "--server", &url])
            .await
            .contains("paused")
    );
    assert_eq!(
        bench.app.get_json("/v1/reactions/hook").await["paused"],
        true
    );
}

async fn commands_work_without_a_server(bench: &mut Bench) {
    bench.hook.is(Mood::Fails);
    bench.send("order.sent", 3).await;
    bench.have("FAILED", 3).await;
    bench.app.sigterm();
    bench.app.wait_exit(SOON).await;
    bench.hook.is(Mood::Takes);
    let list = bench.succeed(&["list"]).await;
    assert!(list.contains("run by no process"), "{list}");
    let done = bench.succeed(&["reprocess", "--reaction", "hook"]).await;
    assert!(done.contains("3 will be made again"), "{done}");
    let open = bench
        .succeed(&["runs", "hook", "--status", "PENDING"])
        .await;
    assert_eq!(open.lines().count(), 3, "{open}");
    let id = open.split_whitespace().next().unwrap();
    bench.succeed(&["cancel", id]).await;
    bench.app.start_again().await;
    bench.app.wait_ready().await;
    bench.have("SUCCESS", 2).await;
    bench.app.sigterm();
    bench.app.wait_exit(SOON).await;
    bench.succeed(&["remove", "hook"]).await;
    let list = bench.succeed(&["list"]).await;
    assert!(list.contains("No reaction was ever declared"), "{list}");
}
