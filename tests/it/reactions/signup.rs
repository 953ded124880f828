//! The example `signup`: killed while mails wait and while they are sent, it sends each, and counts each once.

use super::smtp_server::{SmtpServer, has_aiosmtpd, header};
use crate::followers::{Place, SOON, on_both_stores};
use crate::harness::{App, eventually, free_port};
use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Mails that the example sends at a time.
const SLOTS: usize = 8;
/// Much less than the time after which an attempt to send a mail is given up.
const AT_ONCE: Duration = Duration::from_secs(2);

on_both_stores! {
    a_signup_that_fails_leaves_no_event,
    a_signup_does_not_wait_for_the_mail,
}

async fn start(place: &Place, smtp_port: u16) -> App {
    let builder = App::builder()
        .example("signup")
        .env("PORT", "0")
        .env("SMTP_URL", &format!("smtp://127.0.0.1:{smtp_port}"));
    let builder = match (&place.url, &place.folder) {
        (Some(url), _) => builder.env("DATABASE_URL", url),
        (None, folder) => {
            let folder = folder.as_ref().unwrap().path().display().to_string();
            builder.env("DATA_DIR", &folder)
        }
    };
    builder.start().await
}

fn address(n: usize) -> String {
    format!("user{n}@example.org")
}

/// Signs users up, some at a time, and returns their ids.
async fn sign_up(app: &App, users: Range<usize>) -> Vec<String> {
    let mut ids = Vec::new();
    for some in Vec::from_iter(users).chunks(10) {
        ids.extend(join_all(some.iter().map(|n| sign_up_one(app, *n))).await);
    }
    ids
}

async fn sign_up_one(app: &App, n: usize) -> String {
    let user = json!({"name": format!("User {n}"), "email": address(n)});
    let asked = Instant::now();
    let answer = app.post("/signups", &user).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    body["id"].as_str().unwrap().to_owned()
}

/// How many mails are the repeat of another; each user has one with the id of the run, or several of the same.
fn repeats(mails: &[Value], ids: &[String]) -> usize {
    let mut by_user: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for mail in mails {
        let recipient = mail["recipients"][0].as_str().unwrap();
        let id = header(mail, "message-id");
        by_user.entry(recipient).or_default().insert(id);
    }
    assert!(by_user.values().all(|ids| ids.len() == 1), "{by_user:?}");
    assert_eq!(by_user.len(), ids.len(), "a user has no mail");
    for (n, id) in ids.iter().enumerate() {
        let expected = format!("<{id}.welcome-mail@example.org>");
        assert!(by_user[&*address(n)].contains(&*expected));
    }
    mails.len() - ids.len()
}

#[actix_rt::test]
async fn each_signup_is_mailed_and_counted_whenever_the_process_is_killed() {
    if !has_aiosmtpd() {
        return;
    }
    // On both stores at once: most of the time passes with waiting.
    let (postgres, sqlite) = (Place::postgres().await, Place::sqlite().await);
    futures::join!(is_killed(&postgres), is_killed(&sqlite));
}

async fn is_killed(place: &Place) {
    let port = free_port();
    let mut app = start(place, port).await;
    let mut ids = sign_up(&app, 0..100).await;
    eventually(SOON, "each mail was tried", async || {
        let open = "SELECT count(*) AS n FROM reaction_queue";
        (place.number(open).await == 100).then_some(())
    })
    .await;
    app.kill9();
    let server = SmtpServer::start_on(port, json!({"delay": 0.1})).await;
    app.start_again().await;
    ids.extend(sign_up(&app, 100..200).await);
    // The server has taken these mails, and answers them later.
    for taken in [30, 90] {
        eventually(SOON, "mails are being sent", async || {
            (server.count() >= taken).then_some(())
        })
        .await;
        app.kill9();
        app.start_again().await;
    }
    let runs = place.ended(400).await;
    assert!(runs.iter().all(|run| run.state == "succeeded"), "{runs:?}");
    place.processed(200, 0).await;
    let mails = server.messages(200).await;
    let repeats = repeats(&mails, &ids);
    assert!(
        repeats <= 3 * SLOTS,
        "{repeats} mails were sent twice in 3 kills"
    );
    assert_eq!(counted(&app).await, 200);
    let shown = app.get_json(&format!("/signups/{}", ids[0])).await;
    assert_eq!(
        (&shown["name"], &shown["processed"]),
        (&json!("User 0"), &json!(true))
    );
}

/// How many users the second reaction has counted.
async fn counted(app: &App) -> u64 {
    let shown = app.get_json("/domains").await;
    assert_eq!(shown["domains"][0]["domain"], "example.org", "{shown}");
    shown["domains"][0]["users"].as_u64().unwrap()
}

async fn a_signup_that_fails_leaves_no_event(place: &Place) {
    if !has_aiosmtpd() {
        return;
    }
    let server = SmtpServer::start(json!({})).await;
    let mut app = start(place, server.port).await;
    let user = json!({"name": "Ada", "email": "ada@example.org"});
    let answers = join_all((0..10).map(|_| app.post("/signups", &user))).await;
    let statuses: Vec<StatusCode> = answers.iter().map(|answer| answer.status()).collect();
    let with = |status| statuses.iter().filter(|one| **one == status).count();
    assert_eq!(
        (with(StatusCode::CREATED), with(StatusCode::CONFLICT)),
        (1, 9),
        "{statuses:?}"
    );
    for wrong in [
        json!({"name": "", "email": "a@b"}),
        json!({"name": "A", "email": "a"}),
        json!({}),
    ] {
        let status = app.post("/signups", &wrong).await.status();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    // One more, behind all that was rolled back.
    sign_up_one(&app, 1).await;
    place.ended(4).await;
    place.processed(2, 0).await;
    assert_eq!(
        (server.messages(2).await.len(), counted(&app).await),
        (2, 2)
    );
    app.sigterm();
    assert!(app.wait_exit(SOON).await.success());
    assert_eq!(place.runs().await.len(), 4);
}

async fn a_signup_does_not_wait_for_the_mail(place: &Place) {
    if !has_aiosmtpd() {
        return;
    }
    let server = SmtpServer::start(json!({"silent": true})).await;
    let app = start(place, server.port).await;
    sign_up(&app, 0..20).await;
    // Those that wait for the server's answer are the only ones under way.
    server.messages(SLOTS).await;
    sign_up(&app, 20..25).await;
    eventually(SOON, "all are counted", async || {
        (counted(&app).await == 25).then_some(())
    })
    .await;
}
