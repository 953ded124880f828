//! An operator locks the log or changes its columns under load: however long that lasts, no event
//! spends an attempt.

use std::time::Duration;

use super::rig::{Plan, Rig, SOON};
use crate::harness::{connect, eventually};

/// How long a lock is held. `ECLUSA_TEST_LOCK_SECONDS=60` makes it as long as what is promised.
fn held() -> Duration {
    let seconds = std::env::var("ECLUSA_TEST_LOCK_SECONDS");
    Duration::from_secs(seconds.map_or(8, |seconds| seconds.parse().expect("a number")))
}

/// Ends the connections of Eclusa, whose next ones have this setting.
async fn set_for_role(rig: &Rig, setting: &str) {
    let database = rig.database.rsplit('/').next().expect("has a name");
    let sql = format!("ALTER ROLE postgres IN DATABASE {database} SET {setting}");
    execute(rig, &sql).await;
    assert!(rig.store_net().reset() > 0);
    rig.flows().await;
}

async fn execute(rig: &Rig, sql: &str) {
    let postgres = rig.postgres.as_ref().expect("has one");
    postgres.execute(&rig.database, sql).await;
}

/// Locks a table for a time that many writes run into.
async fn lock(rig: &Rig, table: &str) {
    let mut client = connect(&rig.database).await;
    // Its own wait for the lock has no limit.
    client.batch_execute("SET lock_timeout = 0").await.unwrap();
    let lock = client.transaction().await.unwrap();
    let sql = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    lock.batch_execute(&sql).await.unwrap();
    rig.app.wait_for_log(SOON, "55P03").await;
    // The length of the fault itself.
    tokio::time::sleep(held()).await;
    lock.rollback().await.unwrap();
}

/// Nothing was retried or dead-lettered, and no failed write had another consequence than a pause,
/// a repetition or an answer 503. The metrics do not show the attempts of the modes without queues.
async fn assert_no_attempt_spent(rig: &Rig) {
    rig.assert_no_attempt_spent().await;
    for line in rig.app.logs() {
        let Some((_, action)) = line.split_once("\"action\":\"") else {
            continue;
        };
        let harmless = ["Pause", "TryAgain", "Refuse"];
        assert!(
            harmless.iter().any(|word| action.starts_with(word)),
            "{line}"
        );
    }
}

/// Every statement that waits for the lock ends with SQLSTATE 55P03.
#[tokio::test]
async fn a_locked_log_and_a_lock_timeout_cost_no_event_an_attempt() {
    for plan in [Plan::full(), Plan::database()] {
        let plan = plan.set("retry.base_delay", "100ms");
        let rig = plan.set("retry.max_attempts", 2).start().await;
        let limit = if held() < Duration::from_secs(60) {
            "500ms"
        } else {
            "2s"
        };
        set_for_role(&rig, &format!("lock_timeout = '{limit}'")).await;
        lock(&rig, "user_interactions").await;
        rig.flows().await;
        rig.settle().await.assert_all_rows();
        assert_no_attempt_spent(&rig).await;
    }
}

/// The other partitions can be written: only a probe of the same one shows the lock.
#[tokio::test]
async fn a_locked_day_and_a_lock_timeout_cost_no_event_an_attempt() {
    let plan = Plan::full().set("retry.base_delay", "100ms");
    let rig = plan.set("retry.max_attempts", 2).start().await;
    set_for_role(&rig, "lock_timeout = '300ms'").await;
    let today = chrono::Utc::now().format("user_interactions_%Y%m%d");
    lock(&rig, &today.to_string()).await;
    rig.flows().await;
    rig.settle().await.assert_all_rows();
    assert_no_attempt_spent(&rig).await;
}

/// Inserts fail with 42804 (another type), 428C9 (a generated column) and 23502 (a new column that must
/// have a value).
#[tokio::test]
async fn a_changed_column_pauses_the_work_and_costs_no_event_an_attempt() {
    const CHANGES: [(&str, &str, &str); 3] = [
        (
            "ALTER TABLE user_interactions ALTER source TYPE bytea USING convert_to(source, 'UTF8')",
            "42804",
            "ALTER TABLE user_interactions ALTER source TYPE text USING convert_from(source, 'UTF8')",
        ),
        (
            "ALTER TABLE user_interactions DROP processed;
             ALTER TABLE user_interactions ADD processed boolean GENERATED ALWAYS AS (true) STORED",
            "428C9",
            "ALTER TABLE user_interactions ALTER processed DROP EXPRESSION;
             ALTER TABLE user_interactions ALTER processed SET DEFAULT false",
        ),
        (
            "ALTER TABLE user_interactions ADD tenant text NOT NULL DEFAULT '';
             ALTER TABLE user_interactions ALTER tenant DROP DEFAULT",
            "23502",
            "ALTER TABLE user_interactions ALTER tenant SET DEFAULT ''",
        ),
    ];
    for plan in [Plan::full(), Plan::database()] {
        let plan = plan.set("retry.base_delay", "100ms");
        let rig = plan.set("retry.max_attempts", 2).start().await;
        for (change, code, undo) in CHANGES {
            execute(&rig, change).await;
            let line = rig
                .app
                .wait_for_log(SOON, &format!("\"sqlstate\":\"{code}\""))
                .await;
            assert!(line.contains("\"kind\":\"operator\""), "{line}");
            // Long enough for two attempts, if they were spent.
            let last = || {
                let logs = rig.app.logs().into_iter();
                logs.rev().find(|line| line.contains("probe failed"))
            };
            for _ in 0..2 {
                let before = last();
                eventually(SOON, "the store is probed", async || {
                    (last() != before).then_some(())
                })
                .await;
            }
            execute(&rig, undo).await;
            eventually(SOON, "the store's breaker closes", async || {
                let store = [("breaker", "store")];
                let state = rig.app.metric_with("eclusa_breaker_state", &store);
                (state.await == 0.0).then_some(())
            })
            .await;
        }
        rig.settle().await.assert_all_rows();
        assert_no_attempt_spent(&rig).await;
    }
}
