//! What the flow owes beyond not losing: it goes on where it can, says what it holds back, and
//! parts the one bad event from the rest.

use serde_json::json;

use super::rig::{Plan, Rig, SOON};
use crate::harness::{connect, eventually};

#[tokio::test]
async fn with_rabbitmq_away_events_are_taken_into_the_store() {
    let mut rig = Plan::full().own_rabbitmq().start().await;
    rig.rabbitmq().kill9().await;
    rig.assert_taken_all_along().await;
    assert!(
        rig.app.is_ready().await,
        "it can take events, so it is ready"
    );
    rig.rabbitmq().start_again().await;
    eventually(SOON, "it publishes again", async || {
        (rig.app.metric("eclusa_broker_connected").await == 1.0).then_some(())
    })
    .await;
    rig.flows().await;
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

#[tokio::test]
async fn with_the_fallback_switched_off_they_are_refused() {
    let plan = Plan::full().own_rabbitmq().set("broker.fallback", "refuse");
    let mut rig = plan.start().await;
    rig.rabbitmq().kill9().await;
    eventually(SOON, "it is not ready", async || {
        (!rig.app.is_ready().await).then_some(())
    })
    .await;
    let event = json!({"userId": "u", "eventType": "t"});
    let response = rig.app.post("/v1/events", &event).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    rig.rabbitmq().start_again().await;
    rig.flows().await;
    rig.settle().await.assert_all_rows();
}

#[tokio::test]
async fn under_an_alarm_events_are_taken_into_the_store() {
    let plan = Plan::full().own_rabbitmq();
    let mut rig = plan.set("broker.confirm_timeout", "1s").start().await;
    let watermark = "vm_memory_monitor:set_vm_memory_high_watermark";
    rig.rabbitmq().eval(&format!("{watermark}(0.00001)")).await;
    eventually(SOON, "the alarm stands", async || {
        let alarms = rig.rabbitmq().eval("rabbit_alarm:get_alarms()").await;
        (alarms != "[]").then_some(())
    })
    .await;
    rig.assert_taken_all_along().await;
    rig.rabbitmq().eval(&format!("{watermark}(0.6)")).await;
    rig.flows().await;
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

#[tokio::test]
async fn with_rabbitmq_hanging_events_are_taken_into_the_store() {
    let plan = Plan::full().own_rabbitmq();
    let mut rig = plan.set("broker.confirm_timeout", "1s").start().await;
    rig.rabbitmq().pause();
    rig.assert_taken_all_along().await;
    rig.rabbitmq().resume();
    rig.flows().await;
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

/// The one number of a query.
async fn number(rig: &Rig, sql: &str) -> i64 {
    let postgres = rig.postgres.as_ref().expect("has one");
    postgres.query(&rig.database, sql, &[]).await[0].get(0)
}

/// 0 is closed; anything above is not.
async fn breaker(rig: &Rig, name: &str) -> f64 {
    let labels = [("breaker", name)];
    rig.app.metric_with("eclusa_breaker_state", &labels).await
}

#[tokio::test]
async fn breakers_open_behind_what_is_away_and_close_again() {
    let plan = Plan::full().own_postgres().own_rabbitmq();
    let mut rig = plan.start().await;
    assert_eq!(breaker(&rig, "store").await, 0.0);
    rig.postgres().kill9();
    eventually(SOON, "the store's breaker opens", async || {
        (breaker(&rig, "store").await > 0.0).then_some(())
    })
    .await;
    // The demand has stopped: the queue keeps the backlog, the process does not.
    rig.load.taken_more(SOON, 2_000).await;
    let consume = [("path", "consume")];
    let held = rig
        .app
        .metric_with("eclusa_events_in_flight", &consume)
        .await;
    assert!(
        held <= 500.0 * 50.0,
        "{held} events held, more than prefetch allows"
    );
    rig.postgres().start_again().await;
    eventually(SOON, "the store's breaker closes", async || {
        (breaker(&rig, "store").await == 0.0).then_some(())
    })
    .await;
    rig.rabbitmq().kill9().await;
    eventually(SOON, "the broker's breaker opens", async || {
        (breaker(&rig, "broker").await > 0.0).then_some(())
    })
    .await;
    rig.rabbitmq().start_again().await;
    eventually(SOON, "the broker's breaker closes", async || {
        (breaker(&rig, "broker").await == 0.0).then_some(())
    })
    .await;
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

/// The store refuses every event of one user; nobody else notices.
#[tokio::test]
async fn a_row_the_store_never_takes_is_put_aside_alone() {
    for plan in [Plan::full(), Plan::database()] {
        let rig = plan.start().await;
        let postgres = rig.postgres.as_ref().expect("has one");
        let sql = "ALTER TABLE user_interactions
                   ADD CONSTRAINT nobody CHECK (user_id NOT LIKE 'user-1_') NOT VALID";
        postgres.execute(&rig.database, sql).await;
        rig.load.taken_more(SOON, 3_000).await;
        let findings = rig.settle().await;
        findings.assert_clean();
        assert!(!findings.dead.is_empty());
        let wrong =
            "SELECT count(*) FROM dead_letters WHERE cause <> 'poison' OR sqlstate <> '23514'
                     OR error NOT LIKE '%nobody%' OR attempts < 1";
        assert_eq!(number(&rig, wrong).await, 0);
        assert_eq!(rig.app.metric("eclusa_events_retried_total").await, 0.0);
    }
}

#[tokio::test]
async fn killed_while_it_puts_aside_it_puts_aside_once() {
    for point in [
        "retry_supervisor.after_publish",
        "dead_letter_projector.after_commit",
    ] {
        let mut rig = Plan::full().start().await;
        let armed = rig.app.set_failpoint(point, "0:1:kill").await;
        armed.unwrap();
        // With an id: one without any may be put aside once for each time it was delivered.
        let id = Some("unreadable-1");
        crate::amqp::publish(&rig.vhost, "eclusa.events", "", b"no event", id).await;
        rig.start_again().await;
        eventually(SOON, "it is in the table", async || {
            (number(&rig, "SELECT count(*) FROM dead_letters").await > 0).then_some(())
        })
        .await;
        rig.settle().await.assert_clean();
        let letters = "SELECT count(*) FROM dead_letters";
        assert_eq!(number(&rig, letters).await, 1, "{point}");
    }
}

/// The writer panics over this type whenever it meets it.
const CRASHES: &str = "db_writer.event/crashes.always";

#[tokio::test]
async fn an_event_that_panics_every_time_is_put_aside_and_the_rest_goes_on() {
    for plan in [Plan::full(), Plan::database()] {
        let rig = plan.set("retry.max_attempts", 3).start().await;
        rig.app.set_failpoint(CRASHES, "panic").await.unwrap();
        let model = &rig.load.model;
        for number in 0..3 {
            let event = json!({
                "id": format!("crash-{number}"), "userId": "u", "eventType": "crashes.always",
                "eventData": {},
            });
            model.sending(&event, "http");
            eventually(SOON, "it is taken", async || {
                (rig.app.post("/v1/events", &event).await.status() == 202).then_some(())
            })
            .await;
            model.taken(&event);
        }
        let panics = "SELECT count(*) FROM dead_letters WHERE cause = 'panic'";
        eventually(SOON * 2, "all are put aside", async || {
            let there = "SELECT count(*) FROM pg_tables WHERE tablename = 'dead_letters'";
            assert_eq!(
                number(&rig, there).await,
                1,
                "there is no table dead_letters"
            );
            (number(&rig, panics).await == 3).then_some(())
        })
        .await;
        rig.flows().await;
        let findings = rig.settle().await;
        findings.assert_clean();
        assert_eq!(findings.dead.len(), 3);
    }
}

/// Every write runs into its time limit; that says nothing about any event.
#[tokio::test]
async fn a_lock_held_for_long_costs_no_event_its_attempts() {
    let plan = Plan::full().set("store.statement_timeout", "300ms");
    let plan = plan.set("retry.base_delay", "100ms");
    let rig = plan.set("retry.max_attempts", 3).start().await;
    let mut client = connect(&rig.database).await;
    let lock = client.transaction().await.unwrap();
    let sql = "LOCK TABLE user_interactions IN ACCESS EXCLUSIVE MODE";
    lock.batch_execute(sql).await.unwrap();
    rig.load.taken_more(SOON, 3_000).await;
    lock.rollback().await.unwrap();
    rig.flows().await;
    rig.settle().await.assert_all_rows();
    let dead = rig.app.metric("eclusa_events_dead_lettered_total").await;
    assert_eq!(dead, 0.0, "dead letters of good events");
}
