//! Web pages and foreign hosts cannot act on a server without API keys.

use crate::harness::{App, eventually, temp_dir};
use crate::http_api::embedded;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};

const SOON: Duration = Duration::from_secs(20);

/// Sends a request with these headers, and returns status and body.
async fn sent(app: &App, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = client.request(method, format!("{}{path}", app.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if path.contains("dead-letters/") {
        request = request.body(r#"{"all":true}"#);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_default())
}

#[tokio::test]
async fn a_web_page_cannot_act_on_a_server_without_keys() {
    let (app, _dir) = embedded().await;
    let purge = "/v1/dead-letters/purge";
    let json = ("content-type", "application/json");
    // What a page of another origin sends, and what it sends after DNS rebinding.
    let origin = ("origin", "https://evil.example");
    for (method, path, headers, reason) in [
        ("POST", purge, vec![json, origin], "Origin"),
        ("POST", purge, vec![json, ("origin", "null")], "Origin"),
        (
            "POST",
            purge,
            vec![json, ("origin", "http://localhost:5173")],
            "Origin",
        ),
        (
            "GET",
            "/v1/events",
            vec![("sec-fetch-site", "cross-site")],
            "Sec-Fetch-Site",
        ),
        (
            "GET",
            "/v1/events",
            vec![("sec-fetch-site", "same-site")],
            "Sec-Fetch-Site",
        ),
        (
            "GET",
            "/v1/events",
            vec![("host", "evil.example:3000")],
            "http.allowed_hosts",
        ),
        (
            "GET",
            "/metrics",
            vec![("host", "evil.example")],
            "http.allowed_hosts",
        ),
        (
            "GET",
            "/nowhere",
            vec![("host", "evil.example")],
            "http.allowed_hosts",
        ),
    ] {
        let (status, problem) = sent(&app, method, path, &headers).await;
        assert_eq!(status, 403, "{method} {path} {headers:?}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(reason), "{headers:?}: {detail}");
    }
    // The server's own pages, and callers that are no browser.
    let own = app.url().to_owned();
    let same = [
        json,
        ("origin", own.as_str()),
        ("sec-fetch-site", "same-origin"),
    ];
    assert_eq!(sent(&app, "POST", purge, &same).await.0, 200);
    assert_eq!(sent(&app, "POST", purge, &[json]).await.0, 200);
    let typed = [("sec-fetch-site", "none")];
    assert_eq!(sent(&app, "GET", "/v1/events", &typed).await.0, 200);
}

#[tokio::test]
async fn a_host_that_the_settings_name_is_served_and_can_be_added_live() {
    let dir = temp_dir("hosts-");
    let app = App::builder().embedded(dir.path());
    let mut app = app.set("http.allowed_hosts", json!(["app"])).start().await;
    let from =
        async |app: &App, host: &str| sent(app, "GET", "/metrics", &[("host", host)]).await.0;
    assert_eq!(from(&app, "app:3000").await, 200);
    assert_eq!(from(&app, "shop.internal").await, 403);
    app.rewrite_config("http.allowed_hosts", json!(["app", "shop.internal"]));
    eventually(SOON, "the new host is served", async || {
        (from(&app, "shop.internal").await == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_body_needs_a_content_type_on_every_route() {
    let (app, _dir) = embedded().await;
    for path in [
        "/v1/events",
        "/events",
        "/v1/dead-letters/replay",
        "/v1/dead-letters/purge",
    ] {
        let (status, problem) = sent(&app, "POST", path, &[]).await;
        assert_eq!(status, 415, "{path}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("no Content-Type"), "{path}: {detail}");
    }
}

/// Sends a request as it stands, and returns the status line.
async fn raw(app: &App, request: &str) -> String {
    let address = app.url().trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = tokio::io::BufReader::new(stream).lines();
    lines.next_line().await.unwrap().unwrap()
}

#[tokio::test]
async fn probes_need_no_host_and_all_else_does() {
    let (app, _dir) = embedded().await;
    for path in ["/health/live", "/health/ready"] {
        let status = raw(&app, &format!("GET {path} HTTP/1.0\r\n\r\n")).await;
        assert!(status.contains(" 200 "), "{path}: {status}");
        let foreign = [("host", "10.1.2.3:3000"), ("sec-fetch-site", "cross-site")];
        assert_eq!(sent(&app, "GET", path, &foreign).await.0, 200);
    }
    let status = raw(&app, "GET /v1/events HTTP/1.0\r\n\r\n").await;
    assert!(status.contains(" 403 "), "{status}");
}

#[tokio::test]
async fn beyond_loopback_without_keys_it_refuses_in_words() {
    let dir = temp_dir("bind-");
    let app = App::builder()
        .embedded(dir.path())
        .set("http.bind", "0.0.0.0");
    let (status, told) = app.refused().await;
    assert!(!status.success());
    assert!(
        told.contains("no API keys") && told.contains("allow-beyond-loopback"),
        "{told}"
    );
    let app = App::builder()
        .embedded(dir.path())
        .set("http.bind", "0.0.0.0")
        .set("auth.without_keys", "allow-beyond-loopback");
    let (status, told) = app.refused().await;
    assert!(
        !status.success() && told.contains("http.allowed_hosts"),
        "{told}"
    );
}
