//! Clients that behave badly, by mistake or on purpose, beside others that don't.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::{Plan, Rig, SOON};
use crate::harness::{eventually, memory_of};

async fn connection(rig: &Rig) -> TcpStream {
    let address = rig.app.url().strip_prefix("http://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// Reads until Eclusa ends the connection.
async fn ended_by_eclusa(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    // An aborted connection has ended too.
    let _ = ended.expect("Eclusa ends the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn half_a_body_that_stalls_is_not_waited_for_and_stores_nothing() {
    let plan = Plan::embedded().set("http.request_timeout", "1s");
    let rig = plan.start().await;
    let mut stalled = Vec::new();
    for _ in 0..100 {
        let mut stream = connection(&rig).await;
        let head = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                    content-length: 1000\r\n\r\n";
        let half = r#"[{"userId": "half", "eventType": "half"},"#;
        stream
            .write_all(format!("{head}{half}").as_bytes())
            .await
            .unwrap();
        stalled.push(stream);
    }
    rig.flows().await;
    for stream in stalled {
        let answer = ended_by_eclusa(stream).await;
        assert!(answer.is_empty() || answer.contains(" 408 "), "{answer}");
    }
    rig.settle().await.assert_all_rows();
    assert_eq!(rig.app.metric("eclusa_in_flight_bytes").await, 0.0);
}

#[tokio::test]
async fn five_hundred_idle_connections_are_borne_and_closed() {
    let plan = Plan::embedded().set("http.keep_alive", "2s");
    let rig = plan.set("http.request_timeout", "2s").start().await;
    let before = memory_of(rig.app.pid()).unwrap();
    let mut idle = Vec::new();
    for number in 0..500 {
        let mut stream = connection(&rig).await;
        // Half of them have had an answer, half never asked.
        if number % 2 == 0 {
            let request = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";
            stream.write_all(request).await.unwrap();
        }
        idle.push(stream);
    }
    rig.flows().await;
    let grown = memory_of(rig.app.pid()).unwrap().saturating_sub(before);
    assert!(grown < 50 << 20, "{grown} bytes for 500 idle connections");
    for stream in idle {
        ended_by_eclusa(stream).await;
    }
    rig.settle().await.assert_all_rows();
}

/// Slow-loris: a header that never ends, a byte at a time.
#[tokio::test]
async fn clients_that_dribble_are_cut_off() {
    let plan = Plan::embedded().set("http.request_timeout", "2s");
    let rig = plan.start().await;
    let mut dribbling = Vec::new();
    for _ in 0..200 {
        let mut stream = connection(&rig).await;
        stream
            .write_all(b"POST /v1/events HTTP/1.1\r\n")
            .await
            .unwrap();
        dribbling.push(stream);
    }
    eventually(SOON, "all are cut off", async || {
        let mut left = Vec::new();
        for mut stream in dribbling.drain(..) {
            let more = stream.write_all(b"x").await.is_ok();
            // Eclusa's answer or its end of the connection.
            let told = stream.try_read(&mut [0; 64]);
            if more && told.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock) {
                left.push(stream);
            }
        }
        dribbling = left;
        dribbling.is_empty().then_some(())
    })
    .await;
    rig.flows().await;
    rig.settle().await.assert_all_rows();
}
