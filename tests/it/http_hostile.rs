//! What the HTTP door does with callers that mean no good, or do no good.

use crate::harness::{App, Postgres, RabbitMq, eventually, temp_dir};
use crate::http_api::{body, embedded};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_is_no_event_is_refused_in_words_and_never_with_a_5xx() {
    let (app, _dir) = embedded().await;
    let long = "x".repeat(10 << 20);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<(String, u16, &str)> = vec![
        ("".into(), 400, "empty"),
        ("nonsense".into(), 400, "object or an array"),
        ("{\"userId\":".into(), 400, "not valid JSON"),
        ("[]".into(), 400, "no events"),
        ("{}".into(), 400, "is required"),
        (
            r#"{"userId":"u","eventType":"t","eventData":NaN}"#.into(),
            400,
            "not valid JSON",
        ),
        (
            r#"{"userId":"u","eventType":"t","eventData":{"a":"\u0000"}}"#.into(),
            400,
            "U+0000",
        ),
        (
            r#"{"userId":"u\u0000","eventType":"t"}"#.into(),
            400,
            "U+0000",
        ),
        (
            r#"{"userId":"u","eventType":"t","eventData":{"a":"\ud800"}}"#.into(),
            400,
            "surrogate",
        ),
        (
            r#"{"userId":"\udc00","eventType":"t"}"#.into(),
            400,
            "surrogate",
        ),
        (
            r#"{"userId":"u","eventType":"t","eventData":{"a":1,"a":2}}"#.into(),
            400,
            "twice",
        ),
        (
            r#"{"userId":"u","userId":"v","eventType":"t"}"#.into(),
            400,
            "twice",
        ),
        (
            r#"{"userId":"u","eventType":"t","eventData":{"a":1e200000}}"#.into(),
            400,
            "number",
        ),
        (
            r#"{"userId":"u","eventType":"t","eventData":[]}"#.into(),
            400,
            "object",
        ),
        (
            r#"{"userId":7,"eventType":"t"}"#.into(),
            400,
            "must be a string",
        ),
        (
            r#"{"userId":"u","eventType":"t","timestamp":"now"}"#.into(),
            400,
            "RFC 3339",
        ),
        (
            r#"{"userId":"u","eventType":"t","eventdata":{}}"#.into(),
            400,
            "did you mean eventData",
        ),
        (
            format!(r#"{{"userId":"u","eventType":"t","eventData":{{"a":{deep}}}}}"#),
            400,
            "deeper",
        ),
        (
            format!(r#"{{"userId":"{}","eventType":"t"}}"#, "x".repeat(5000)),
            400,
            "longer",
        ),
        (
            format!(r#"{{"userId":"u","eventType":"t","eventData":{{"a":"{long}"}}}}"#),
            413,
            "larger",
        ),
        (
            format!("[{}]", vec!["1"; 1001].join(",")),
            413,
            "at most 1000",
        ),
        (
            r#"{"id":"00000000-0000-0000-0000-000000000000","userId":"u","eventType":"t"}"#.into(),
            400,
            "nil",
        ),
        (
            r#"{"id":"ffffffff-ffff-7fff-bfff-ffffffffffff","userId":"u","eventType":"t"}"#.into(),
            400,
            "future",
        ),
    ];
    for (text, status, reason) in cases {
        let shown: String = text.chars().take(80).collect();
        let response = app.post_as("/v1/events", "application/json", text).await;
        assert_eq!(response.status(), status, "{shown}");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json",
            "{shown}"
        );
        let text = response.text().await.unwrap();
        assert!(text.contains(reason), "{shown}: {text}");
    }
    let response = app
        .post_as("/v1/events", "application/json", vec![0xff, 0xfe])
        .await;
    assert_eq!(response.status(), 400);
    let response = app.post_as("/v1/events", "text/csv", "a,b").await;
    assert_eq!(response.status(), 415);
    assert_eq!(app.get("/nowhere").await.status(), 404);
    assert_eq!(app.post("/health/live", &json!({})).await.status(), 405);
    assert_eq!(app.metric("eclusa_events_accepted_total").await, 0.0);
    // And the door still works.
    let event = json!({"userId": "u", "eventType": "t"});
    assert_eq!(app.post("/v1/events", &event).await.status(), 202);
}

/// Every bad item is named, and yet the answer is not many times as large as the request.
#[tokio::test]
async fn many_flaws_make_no_huge_answer() {
    let (app, _dir) = embedded().await;
    let unknown: Vec<String> = (0..16).map(|n| format!("\"a{n}\":1")).collect();
    let item = format!("{{{}}}", unknown.join(","));
    for (item, count) in [
        (item, 1_000),
        (format!("{{{}\"id\":1}}", "\"id\":1,".repeat(20_000)), 1),
    ] {
        let body = format!("[{}]", vec![item; count].join(","));
        let answer = app
            .post_as("/v1/events", "application/json", body.clone())
            .await;
        assert_eq!(answer.status(), 400);
        let text = answer.text().await.unwrap();
        assert!(
            text.len() < 2 * body.len(),
            "{} for {}",
            text.len(),
            body.len()
        );
        let problem: Value = serde_json::from_str(&text).unwrap();
        let errors = problem["errors"].as_array().unwrap();
        let mut told: Vec<u64> = errors.iter().filter_map(|e| e["index"].as_u64()).collect();
        told.dedup();
        assert!(told.into_iter().eq(0..count as u64));
    }
}

#[tokio::test]
async fn keys_open_what_their_scopes_say() {
    let dir = temp_dir("keys-");
    let hash = |key: &str| format!("sha256:{:x}", Sha256::digest(key));
    let app = App::builder()
        .embedded(dir.path())
        .set("auth.public_metrics", false)
        .set(
            "auth.keys",
            json!([
                {"name": "shop", "hash": hash("one"), "scopes": ["ingest"]},
                {"name": "board", "hash": hash("two"), "scopes": ["read"]},
                {"name": "root", "hash": hash("three"), "scopes": ["admin"]},
            ]),
        )
        .start()
        .await;
    let client = reqwest::Client::new();
    let call = |method: &'static str, path: &'static str, key: Option<&'static str>| {
        let url = format!("{}{path}", app.url());
        let mut request = if method == "POST" {
            client
                .post(url)
                .header("content-type", "application/json")
                .body(r#"{"id":"1","userId":"u","eventType":"t"}"#)
        } else {
            client.get(url)
        };
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        async move { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(call("POST", "/v1/events", None).await, 401);
    assert_eq!(call("POST", "/v1/events", Some("four")).await, 401);
    assert_eq!(call("POST", "/v1/events", Some("two")).await, 403);
    assert_eq!(call("POST", "/v1/events", Some("one")).await, 202);
    assert_eq!(call("GET", "/v1/events", Some("one")).await, 403);
    assert_eq!(call("GET", "/v1/events", Some("two")).await, 200);
    assert_eq!(call("GET", "/metrics", None).await, 401);
    assert_eq!(call("GET", "/metrics", Some("three")).await, 200);
    assert_eq!(call("GET", "/health/ready", None).await, 200);
    // The key's name is the producer: the same id of another producer is another event.
    assert_eq!(call("POST", "/v1/events", Some("three")).await, 202);
    let listed = client
        .get(format!("{}/v1/events", app.url()))
        .header("x-api-key", "two")
        .send()
        .await
        .unwrap();
    let listed = body(listed).await;
    let producers: Vec<&str> = listed["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["producer"].as_str().unwrap())
        .collect();
    assert_eq!(producers, ["root", "shop"]);
}

/// Without the rule, the first caller would hold the id of the second one's event, whose order would be
/// a "duplicate" and lost.
#[tokio::test]
async fn no_producer_can_occupy_the_id_of_another() {
    let dir = temp_dir("squat-");
    let hash = |key: &str| format!("sha256:{:x}", Sha256::digest(key));
    let key = |name: &str| json!({"name": name, "hash": hash(name), "scopes": ["ingest", "read"]});
    let app = App::builder()
        .embedded(dir.path())
        .set("auth.keys", json!([key("blog"), key("shop")]))
        .start()
        .await;
    let client = reqwest::Client::new();
    let post = async |producer: &str, id: &str| {
        let request = client.post(format!("{}/v1/events", app.url()));
        let event = json!({"id": id, "userId": producer, "eventType": "order.placed"});
        let response = request.bearer_auth(producer).json(&event).send().await;
        body(response.unwrap()).await
    };
    let get = async |producer: &str, id: &str| {
        let request = client.get(format!("{}/v1/events/{id}", app.url()));
        body(request.bearer_auth(producer).send().await.unwrap()).await
    };
    let victim = eclusa::event::id::of_producer("shop", "order-1001").to_string();
    let squatted = post("blog", &victim).await;
    assert_ne!(squatted["id"], victim.as_str());
    let order = post("shop", "order-1001").await;
    assert_eq!(order["status"], "stored");
    assert_eq!(order["id"], victim.as_str());
    // Each finds its own, under the id it sent and under the id of the response.
    assert_eq!(get("shop", "order-1001").await["userId"], "shop");
    assert_eq!(get("shop", &victim).await["userId"], "shop");
    let own = squatted["id"].as_str().unwrap();
    assert_eq!(get("blog", own).await["originalId"], victim.as_str());
    // An id that was sent as a version 8 and is no other event's is found as well.
    let free = eclusa::event::id::of_producer("shop", "never-sent").to_string();
    post("blog", &free).await;
    assert_eq!(get("blog", &free).await["originalId"], free.as_str());
}

#[tokio::test]
async fn logs_hold_no_payload_and_no_secret_at_any_level() {
    let database = Postgres::shared().await.database().await;
    let url = database.replace("postgres@", "postgres:PASSWORDSECRET@");
    let app = App::builder()
        .postgres(&url)
        .rabbitmq(&RabbitMq::shared().await.vhost().await)
        .set("batch.max_wait", "100ms")
        .set("log.filter", "trace")
        .start()
        .await;
    app.wait_ready().await;
    let event = json!({
        "id": "traced", "userId": "USERSECRET", "eventType": "t", "sessionId": "SESSIONSECRET",
        "eventData": {"card": "PAYLOADSECRET"},
    });
    assert_eq!(app.post("/v1/events", &event).await.status(), 202);
    app.get_json("/v1/events/traced?wait=20s").await;
    let client = reqwest::Client::new();
    let request = client.get(format!("{}/v1/events", app.url()));
    request
        .header("x-api-key", "KEYSECRET")
        .send()
        .await
        .unwrap();
    let logs = app.logs().join("\n");
    assert!(logs.contains("settled"), "the trace is on");
    assert!(
        !logs.contains("SECRET"),
        "{}",
        logs.lines().find(|l| l.contains("SECRET")).unwrap()
    );
}

#[tokio::test]
async fn probes_may_use_head() {
    let (app, _dir) = embedded().await;
    let client = reqwest::Client::new();
    for path in ["/health/live", "/health/ready", "/metrics", "/v1/events"] {
        let response = client
            .head(format!("{}{path}", app.url()))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn bodies_that_never_end_do_not_fill_the_memory() {
    let dir = temp_dir("slow-");
    let app = App::builder()
        .embedded(dir.path())
        .set("ingest.max_in_flight", "4 MiB")
        .set("batch.max_bytes", "1 MiB")
        .set("http.request_timeout", "3s")
        .start()
        .await;
    app.wait_ready().await;
    let address = app.url().trim_start_matches("http://").to_owned();
    let mut stalled = Vec::new();
    for _ in 0..40 {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let head = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                    content-length: 1000000\r\n\r\n[";
        stream.write_all(head.as_bytes()).await.unwrap();
        // Refused in the middle of it, once there is no room; that is what is asked for.
        let _ = stream.write_all(&[b' '; 900_000]).await;
        stalled.push(stream);
    }
    let bound = (4 << 20) as f64;
    assert!(app.metric("eclusa_in_flight_bytes").await <= bound);
    let labels = [("reason", "overloaded")];
    eventually(SOON, "some are refused", async || {
        let refused = app
            .metric_with("eclusa_events_refused_total", &labels)
            .await;
        (refused >= 1.0).then_some(())
    })
    .await;
    // The stalled ones time out, and there is room again.
    let event = json!({"userId": "u", "eventType": "t"});
    eventually(SOON, "there is room again", async || {
        (app.post("/v1/events", &event).await.status() == 202).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused() {
    let (_app, dir) = embedded().await;
    let (status, told) = App::builder().embedded(dir.path()).refused().await;
    assert!(!status.success());
    assert!(
        told.contains("in use by another Eclusa at http://127.0.0.1:"),
        "{told}"
    );
}
