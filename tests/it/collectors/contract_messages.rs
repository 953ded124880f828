//! The contract's section on the message.

use super::{Api, SOON, example, fresh_ispb, on_both_servers, start};
use crate::harness::eventually;
use reqwest::StatusCode;
use serde_json::{Value, json};

on_both_servers! {
    a_message_comes_as_it_was_sent_with_two_decimals,
    an_amount_is_exact_from_the_wire_and_back,
    the_same_end_to_end_id_arriving_twice_is_one_message,
    an_invalid_message_is_refused_before_it_is_accepted,
    check_digits_are_not_verified_unless_a_setting_asks_for_it,
}

async fn collected(api: &Api, ispb: &str, number: u64) -> super::Answer {
    eventually(SOON, "messages wait", async || {
        (api.level(ispb).await.0 == number).then_some(())
    })
    .await;
    api.many(&start(ispb)).await
}

async fn a_message_comes_as_it_was_sent_with_two_decimals(api: &Api) {
    let ispb = fresh_ispb();
    let message = example(&ispb);
    assert_eq!(api.tell(&message).await.status, StatusCode::ACCEPTED);
    let answer = collected(api, &ispb, 1).await;
    assert_eq!(answer.json(), json!([message]));
    assert!(answer.text.contains(r#""valor":90.20,"#), "{}", answer.text);
}

async fn an_amount_is_exact_from_the_wire_and_back(api: &Api) {
    let ispb = fresh_ispb();
    // A float would make ...80.00 of the first one.
    let amounts = [
        "9007199254740993.01",
        "0.01",
        "1234567890123456.78",
        "0.1",
        "7",
    ];
    for amount in amounts {
        let data = example(&ispb).to_string().replace("90.2", amount);
        let data: Box<serde_json::value::RawValue> = serde_json::from_str(&data).unwrap();
        let event = format!(
            r#"{{"userId":"u","eventType":"pix.message.received","eventData":{}}}"#,
            data.get()
        );
        let sent = api.client.post(format!("{}/v1/events", api.url));
        let sent = sent
            .header("content-type", "application/json")
            .body(event)
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), StatusCode::ACCEPTED);
    }
    let text = collected(api, &ispb, 5).await.text;
    for amount in [
        "9007199254740993.01",
        "0.01",
        "1234567890123456.78",
        "0.10",
        "7.00",
    ] {
        assert!(
            text.contains(&format!(r#""valor":{amount},"#)),
            "{amount}: {text}"
        );
    }
}

async fn the_same_end_to_end_id_arriving_twice_is_one_message(api: &Api) {
    let ispb = fresh_ispb();
    let (message, other) = (example(&ispb), example(&ispb));
    for data in [&message, &message, &other, &message] {
        assert_eq!(api.tell(data).await.status, StatusCode::ACCEPTED);
    }
    // The last one lies behind the other one in the log.
    let answer = collected(api, &ispb, 2).await;
    assert_eq!(answer.json(), json!([message, other]));
    assert_eq!(api.tell(&message).await.status, StatusCode::ACCEPTED);
    let last = example(&ispb);
    assert_eq!(api.tell(&last).await.status, StatusCode::ACCEPTED);
    let next = api.many(&answer.next()).await;
    assert_eq!(next.json(), json!([last]));
}

async fn an_invalid_message_is_refused_before_it_is_accepted(api: &Api) {
    let ispb = fresh_ispb();
    let wrong: [(&str, Value, &str); 11] = [
        ("/valor", json!("90.20"), "eventData.valor"),
        ("/valor", json!(0), "eventData.valor"),
        ("/valor", json!(1.005), "eventData.valor"),
        ("/endToEndId", json!("E1"), "eventData.endToEndId"),
        ("/pagador/ispb", json!("3207498"), "eventData.pagador.ispb"),
        (
            "/pagador/cpfCnpj",
            json!("987.162.781-90"),
            "eventData.pagador.cpfCnpj",
        ),
        (
            "/recebedor/tipoConta",
            json!("CORR"),
            "eventData.recebedor.tipoConta",
        ),
        ("/recebedor", json!([]), "eventData.recebedor"),
        (
            "/dataHoraPagamento",
            json!("yesterday"),
            "eventData.dataHoraPagamento",
        ),
        (
            "/dataHoraPagamento",
            json!("2022-07-23 19:47:18Z"),
            "eventData.dataHoraPagamento",
        ),
        (
            "/dataHoraPagamento",
            json!("2022-07-23T19:47:60Z"),
            "eventData.dataHoraPagamento",
        ),
    ];
    for (at, value, field) in wrong {
        let mut message = example(&ispb);
        *message.pointer_mut(at).unwrap() = value;
        let answer = api.tell(&message).await;
        answer.assert_problem(StatusCode::BAD_REQUEST);
        let errors = answer.json()["errors"].as_array().unwrap().clone();
        assert!(
            errors.iter().any(|error| error["field"] == field),
            "{field}: {errors:?}"
        );
    }
    // Another type may have any data.
    let event = json!({"userId": "u", "eventType": "pix.other", "eventData": {"valor": "x"}});
    assert_eq!(
        api.post("/v1/events", &event).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(api.level(&ispb).await.0, 0);
}

/// Those of the example are not valid.
async fn check_digits_are_not_verified_unless_a_setting_asks_for_it(api: &Api) {
    let answer = api.tell(&example(&fresh_ispb())).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let app = crate::harness::App::builder();
    let folder = tempfile::tempdir().unwrap();
    let app = app
        .embedded(folder.path())
        .set("pix.check_digits", true)
        .start()
        .await;
    let strict = Api::of(&app);
    strict
        .tell(&example(&fresh_ispb()))
        .await
        .assert_problem(StatusCode::BAD_REQUEST);
}
