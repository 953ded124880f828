//! Listing, dry runs, limits, purging, and what is refused.

use super::*;

async fn bench_with_dead(count: usize) -> Bench {
    let bench = Bench::database(|builder| builder).await;
    bench.sql(FORBID).await;
    for n in 0..count {
        bench.post("bad", n, 1).await;
    }
    bench
}

#[tokio::test]
async fn pages_are_newest_first_and_visit_each_once() {
    let bench = bench_with_dead(5).await;
    let found = letters(&bench.app, "").await;
    let times: Vec<_> = found
        .iter()
        .map(|letter| letter["createdAt"].as_str().unwrap())
        .collect();
    assert_eq!(times.len(), 5);
    assert!(times.is_sorted_by(|a, b| a > b), "{times:?}");
    let between = format!("&from={}&to={}", times[3], times[1]);
    let chosen = letters(&bench.app, &between).await;
    assert_eq!(chosen, found[2..4]);
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_a_limit_is_gone_on_from() {
    let bench = bench_with_dead(7).await;
    let app = &bench.app;
    bench.sql(ALLOW).await;
    let answer = act(app, "replay", json!({"dryRun": true})).await;
    assert_eq!(
        (&answer["dryRun"], &answer["replayed"]),
        (&json!(true), &json!(7))
    );
    assert_eq!(bench.count("user_interactions").await, 0);
    bench
        .wait_count("dead_letters WHERE state = 'dead' AND replays = 0", 7)
        .await;

    let mut body = json!({"limit": 3, "ratePerSecond": 1000});
    let mut replayed = Vec::new();
    loop {
        let answer = act(app, "replay", body.clone()).await;
        replayed.push(answer["replayed"].as_u64().unwrap());
        match answer["next"].as_str() {
            Some(next) => body["cursor"] = next.into(),
            None => break,
        }
    }
    assert_eq!(replayed, [3, 3, 1]);
    assert_eq!(bench.count("user_interactions").await, 7);
    // The oldest went first.
    let sql = "user_interactions a JOIN user_interactions b ON a.id < b.id \
               AND (a.event_data->>'n')::int > (b.event_data->>'n')::int";
    assert_eq!(bench.count(sql).await, 0);
}

#[tokio::test]
async fn a_slow_replay_whose_caller_goes_away_leaves_the_books_in_order() {
    let bench = bench_with_dead(30).await;
    let app = &bench.app;
    bench.sql(ALLOW).await;
    let client = reqwest::Client::builder();
    let client = client
        .timeout(Duration::from_millis(1_500))
        .build()
        .unwrap();
    let url = format!("{}/v1/dead-letters/replay", app.url());
    let sent = client.post(url).json(&json!({"ratePerSecond": 5})).send();
    assert!(sent.await.unwrap_err().is_timeout());
    eventually(SOON, "nothing is on its way", async || {
        let flying = app.metric("eclusa_events_in_flight").await;
        let bytes = app.metric("eclusa_in_flight_bytes").await;
        (flying == 0.0 && bytes == 0.0).then_some(())
    })
    .await;
    let rows = bench.count("user_interactions").await;
    assert!((5..30).contains(&rows), "{rows}");
    let answer = act(app, "replay", json!({"ratePerSecond": 0})).await;
    assert!(answer["next"].is_null());
    assert_eq!(bench.count("user_interactions").await, 30);
}

#[tokio::test]
async fn named_letters_are_replayed_and_others_purged() {
    let bench = bench_with_dead(6).await;
    let app = &bench.app;
    bench.sql(ALLOW).await;
    let found = letters(app, "").await;
    let named = [&found[1]["id"], &found[4]["id"]];
    let answer = act(app, "replay", json!({"ids": named})).await;
    assert_eq!(answer["replayed"], 2);
    assert_eq!(bench.count("user_interactions").await, 2);
    let answer = act(app, "purge", json!({"state": "dead", "dryRun": true})).await;
    assert_eq!(
        (&answer["matched"], &answer["purged"]),
        (&json!(4), &json!(0))
    );
    assert_eq!(
        act(app, "purge", json!({"ids": [found[0]["id"]]})).await["purged"],
        1
    );
    assert_eq!(
        act(app, "purge", json!({"state": "dead", "limit": 2})).await["purged"],
        2
    );
    assert_eq!(letters(app, "").await.len(), 3);
    assert_eq!(act(app, "purge", json!({"all": true})).await["purged"], 3);
    assert!(letters(app, "").await.is_empty());
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let bench = bench_with_dead(1).await;
    let app = &bench.app;
    let refused = async |response: reqwest::Response, word: &str| {
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, 400, "{text}");
        assert!(text.contains(word), "{word}: {text}");
    };
    for (query, word) in [
        ("cause=poisson", "retries_exhausted"),
        ("state=gone", "dead or replayed"),
        ("from=yesterday", "RFC 3339"),
        ("limit=0", "between 1 and"),
        ("cursor=abc", "cursor"),
        ("causes=poison", "causes"),
    ] {
        refused(app.get(&format!("/v1/dead-letters?{query}")).await, word).await;
    }
    refused(app.get("/v1/dead-letters/17").await, "not the id").await;
    for (what, body, word) in [
        ("replay", json!({"reason": "poison"}), "unknown field"),
        ("replay", json!({"cursor": "x"}), "cursor"),
        ("replay", json!({"ids": ["x"]}), "UUID"),
        ("replay", json!([]), "one JSON object"),
        ("purge", json!({}), "which dead letters"),
        (
            "purge",
            json!({"all": true, "ratePerSecond": 1}),
            "unknown field",
        ),
    ] {
        refused(
            app.post(&format!("/v1/dead-letters/{what}"), &body).await,
            word,
        )
        .await;
    }
    let absent = format!("/v1/dead-letters/{}", uuid::Uuid::nil());
    assert_eq!(app.get(&absent).await.status(), 404);
    let wrong = app.get("/v1/dead-letters/purge").await;
    assert_eq!(wrong.status(), 405);
    assert_eq!(wrong.headers()["allow"], "POST");
    assert_eq!(letters(app, "").await.len(), 1);
}

#[tokio::test]
async fn changing_needs_the_scope_admin() {
    use sha2::{Digest, Sha256};
    let key = |name: &str, scope: &str| {
        let hash = format!("sha256:{}", hex::encode(Sha256::digest(name)));
        json!({"name": name, "hash": hash, "scopes": [scope]})
    };
    let keys = json!([key("reader", "read"), key("boss", "admin")]);
    let bench = Bench::database(|builder| builder.set("auth.keys", keys)).await;
    let client = reqwest::Client::new();
    for (name, list, purge) in [
        ("reader", 200, 403),
        ("boss", 200, 200),
        ("nobody", 401, 401),
    ] {
        let url = format!("{}/v1/dead-letters", bench.app.url());
        let get = client.get(&url).bearer_auth(name).send().await.unwrap();
        assert_eq!(get.status(), list, "{name}");
        let post = client.post(format!("{url}/purge")).bearer_auth(name);
        let post = post.json(&json!({"all": true})).send().await.unwrap();
        assert_eq!(post.status(), purge, "{name}");
    }
}
