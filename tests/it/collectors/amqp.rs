//! Pix messages that come by RabbitMQ.

use super::{Api, SOON, example, fresh_ispb, start};
use crate::amqp::{bench, publish};
use crate::harness::eventually;
use reqwest::StatusCode;
use serde_json::{Value, json};

fn event(message: &Value) -> Value {
    json!({"userId": "u", "eventType": "pix.message.received", "eventData": message})
}

#[tokio::test]
async fn an_invalid_pix_message_is_a_dead_letter_with_its_reasons_and_a_valid_one_is_collected() {
    let bench = bench(&[]).await;
    let api = Api::of(&bench.app);
    let ispb = fresh_ispb();
    let mut wrong = example(&ispb);
    wrong["valor"] = json!("90.20");
    wrong["pagador"]["ispb"] = json!("3207498");
    let right = [example(&ispb), example(&ispb)];
    // Alone, and beside a valid one.
    for body in [
        event(&wrong),
        event(&right[0]),
        json!([event(&wrong), event(&right[1])]),
    ] {
        let body = body.to_string();
        publish(&bench.vhost, "eclusa.events", "", body.as_bytes(), None).await;
    }
    let letters = eventually(SOON, "both are dead letters", async || {
        let page = api.get("/v1/dead-letters").await.json();
        let letters = page["deadLetters"].as_array().unwrap().clone();
        (letters.len() == 2).then_some(letters)
    })
    .await;
    for letter in letters {
        assert_eq!(letter["cause"], "invalid", "{letter}");
        let error = letter["error"].as_str().unwrap();
        for field in ["eventData.valor", "eventData.pagador.ispb"] {
            assert!(error.contains(field), "{error}");
        }
    }
    eventually(SOON, "the valid ones wait", async || {
        (api.level(&ispb).await.0 == 2).then_some(())
    })
    .await;
    let answer = api.many(&start(&ispb)).await;
    let mut got = answer.json().as_array().unwrap().clone();
    got.sort_by_key(|message| message["endToEndId"].to_string());
    assert_eq!(got, right);
    assert_eq!(api.delete(&answer.next()).await.status, StatusCode::OK);
    assert_eq!(api.level(&ispb).await, (0, vec![]));
    assert_eq!(bench.rows().await, 2);
}
