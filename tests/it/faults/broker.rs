//! RabbitMQ is away, hangs, loses the network, closes the channel, or raises an alarm.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::rig::{Plan, Rig, SOON};
use crate::harness::{Direction, Moment, eventually};

#[tokio::test]
async fn rabbitmq_killed_and_slow_to_return() {
    let mut rig = Plan::full().own_rabbitmq().start().await;
    for _ in 0..2 {
        rig.rabbitmq().kill9().await;
        eventually(SOON, "it has noticed", async || {
            (rig.app.metric("eclusa_broker_connected").await == 0.0).then_some(())
        })
        .await;
        rig.rabbitmq().start_again().await;
        rig.flows().await;
    }
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

#[tokio::test]
async fn rabbitmq_stopped_under_load() {
    let plan = Plan::full().own_rabbitmq();
    let plan = plan.set("broker.confirm_timeout", "1s");
    let mut rig = plan.set("broker.heartbeat", "2s").start().await;
    rig.rabbitmq().pause();
    // Longer than two heartbeats: it is given up for dead.
    eventually(SOON, "it has noticed", async || {
        (rig.app.metric("eclusa_broker_connected").await == 0.0).then_some(())
    })
    .await;
    rig.rabbitmq().resume();
    rig.flows().await;
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

#[tokio::test]
async fn the_connection_cut_half_way_through_a_publish_or_a_delivery() {
    let rig = Plan::full().start().await;
    let net = rig.broker_net();
    let cuts = [
        (Direction::Up, Moment::Answered),
        (Direction::Up, Moment::Before),
        (Direction::Down, Moment::Before),
        (Direction::Down, Moment::Answered),
    ];
    for (round, (way, moment)) in (1..).zip(cuts) {
        net.cut_when(way, b"chaos.type-3", moment);
        eventually(SOON, "the cut", async || {
            (net.sprung() == round).then_some(())
        })
        .await;
        rig.flows().await;
    }
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

#[tokio::test]
async fn a_bad_network_to_rabbitmq() {
    let plan = Plan::full().set("broker.confirm_timeout", "2s");
    let rig = plan.set("broker.heartbeat", "2s").start().await;
    let net = rig.broker_net();
    // Events are taken into the store meanwhile, so that they flow says nothing of the connection.
    let connected = async || {
        eventually(SOON, "it is connected", async || {
            let connected = rig.app.metric("eclusa_broker_connected").await == 1.0;
            (connected && net.open() > 0).then_some(())
        })
        .await;
        rig.flows().await;
    };
    for _ in 0..5 {
        connected().await;
        assert!(net.reset() > 0);
        connected().await;
        assert!(net.cut() > 0);
    }
    net.delay(Duration::from_millis(30));
    rig.flows().await;
    net.heal();
    for way in [Direction::Up, Direction::Down] {
        connected().await;
        net.drop_silently(way);
        eventually(SOON, "it has noticed", async || {
            (rig.app.metric("eclusa_broker_connected").await == 0.0).then_some(())
        })
        .await;
        net.heal();
        rig.flows().await;
    }
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

/// The broker takes a channel away whose consumer holds a message for too long.
#[tokio::test]
async fn the_consumer_timeout_costs_nothing() {
    let plan = Plan::full().own_rabbitmq().own_postgres();
    let mut rig = plan.start().await;
    for setting in ["consumer_timeout, 1000", "channel_tick_interval, 500"] {
        let expression = format!("application:set_env(rabbit, {setting})");
        rig.rabbitmq().eval(&expression).await;
    }
    // A channel reads both when it is opened.
    rig.broker_net().cut();
    rig.flows().await;
    rig.postgres().pause();
    rig.app
        .wait_for_log(SOON, "consuming was interrupted")
        .await;
    eventually(SOON, "the broker closes the channel", async || {
        let logs = rig.app.logs();
        logs.iter()
            .any(|line| line.contains("PRECONDITION"))
            .then_some(())
    })
    .await;
    rig.postgres().resume();
    rig.rabbitmq()
        .eval("application:set_env(rabbit, consumer_timeout, 1800000)")
        .await;
    rig.flows().await;
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}

/// While an alarm stands, RabbitMQ reads nothing from a connection that has published.
#[tokio::test]
async fn an_alarm_of_memory_or_disk_ends_and_nothing_is_lost() {
    let plan = Plan::full().own_rabbitmq();
    let mut rig = plan.set("broker.confirm_timeout", "1s").start().await;
    for (alarm, end) in [
        (
            "vm_memory_monitor:set_vm_memory_high_watermark(0.00001)",
            "vm_memory_monitor:set_vm_memory_high_watermark(0.6)",
        ),
        (
            "rabbit_disk_monitor:set_disk_free_limit(1000000000000000)",
            "rabbit_disk_monitor:set_disk_free_limit(\"50MB\")",
        ),
    ] {
        rig.rabbitmq().eval(alarm).await;
        let refused = async |rig: &Rig| rig.load.counts.refused.load(Ordering::SeqCst);
        let before = (refused(&rig).await, rig.load.taken());
        eventually(SOON, "it is felt, or got round", async || {
            let alarms = rig.rabbitmq().eval("rabbit_alarm:get_alarms()").await;
            let felt = refused(&rig).await > before.0 || rig.load.taken() > before.1 + 1_000;
            (alarms != "[]" && felt).then_some(())
        })
        .await;
        rig.rabbitmq().eval(end).await;
        rig.flows().await;
    }
    rig.settle().await.assert_all_rows();
    rig.assert_no_attempt_spent().await;
}
