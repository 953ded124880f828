//! E-mails of reactions.

use super::smtp_server::{SmtpServer, certificate, has_aiosmtpd, header};
use crate::harness::{free_port, temp_dir};
use eclusa::config::reactions::email::EmailSettings;
use eclusa::event::StoredEvent;
use eclusa::reactions::email::Email;
use eclusa::reactions::{Handler, HandlerError, Run};
use serde_json::{Value, json};
use uuid::Uuid;

/// Settings for a server on this port, changed by `set`; null removes a key.
fn settings(port: u16, set: Value) -> EmailSettings {
    let mut settings = json!({
        "host": "127.0.0.1",
        "port": port,
        "tls": "none",
        "from": "Müller & Söhne <shop@example.org>",
        "to": "{{ eventData.name }} <{{ eventData.email }}>",
        "allowed_domains": ["example.org", "bücher.example"],
        "subject": "Grüße, {{ eventData.name }}",
        "text": "Hello {{ eventData.name }}",
    });
    for (key, value) in set.as_object().unwrap() {
        match value {
            Value::Null => settings.as_object_mut().unwrap().remove(key),
            value => settings
                .as_object_mut()
                .unwrap()
                .insert(key.clone(), value.clone()),
        };
    }
    serde_json::from_value(settings).unwrap()
}

fn email(port: u16, set: Value) -> Email {
    Email::new(&settings(port, set)).unwrap()
}

fn run_of(data: Value) -> Run {
    let event = json!({
        "sequence": 1,
        "id": Uuid::new_v4(),
        "producer": "p",
        "userId": "u",
        "eventType": "user.signed_up",
        "eventData": data,
        "sessionId": null,
        "timestamp": "2026-01-02T03:04:05Z",
        "receivedAt": "2026-01-02T03:04:05Z",
        "source": "http",
        "processed": false,
    });
    let event: StoredEvent = serde_json::from_str(&event.to_string()).unwrap();
    Run::new("welcome-mail", 1, event)
}

fn ada() -> Value {
    json!({"name": "Ada", "email": "ada@example.org"})
}

fn failed(sent: Result<(), HandlerError>) -> String {
    match sent {
        Err(HandlerError::Failed(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

fn discarded(sent: Result<(), HandlerError>) -> String {
    match sent {
        Err(HandlerError::Discard(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn text_and_html_arrive_with_their_headers() {
    if !has_aiosmtpd() {
        return;
    }
    let server = SmtpServer::start(json!({})).await;
    let html = "<p>Hello {{ eventData.name }}</p>\n<i>{{ eventType }}, {{ timestamp }}</i>";
    let email = email(server.port, json!({ "html": html }));
    let name = "Zoë \"Z\" <b>, Ltd.";
    let run = run_of(json!({"name": name, "email": "zoe@BÜCHER.example"}));
    email.handle(&run).await.unwrap();
    let message = &server.messages(1).await[0];
    assert_eq!(message["sender"], "shop@example.org");
    assert_eq!(message["recipients"], json!(["zoe@xn--bcher-kva.example"]));
    assert_eq!(header(message, "subject"), format!("Grüße, {name}"));
    assert!(
        header(message, "from").contains("Müller & Söhne"),
        "{message}"
    );
    assert!(
        header(message, "from").contains("<shop@example.org>"),
        "{message}"
    );
    assert!(header(message, "to").contains("Zoë"), "{message}");
    assert_eq!(
        header(message, "message-id"),
        format!("<{}@example.org>", run.id())
    );
    assert_eq!(header(message, "auto-submitted"), "auto-generated");
    assert!(header(message, "date").contains("20"), "{message}");
    assert_eq!(message["type"], "multipart/alternative");
    let part = |kind: &str| {
        message["parts"][kind]
            .as_str()
            .unwrap()
            .replace("\r\n", "\n")
    };
    assert_eq!(part("text/plain").trim_end(), format!("Hello {name}"));
    let html = part("text/html");
    assert!(
        html.contains(
            "Hello Zoë &quot;Z&quot; &lt;b&gt;, Ltd.</p>\n<i>user.signed_up, 2026-01-02T03:04:05"
        ),
        "{html}"
    );
    assert_eq!(
        (&message["ascii"], &message["defects"]),
        (&json!(true), &json!([]))
    );
}

#[tokio::test]
async fn one_part_is_enough_and_connections_are_kept() {
    if !has_aiosmtpd() {
        return;
    }
    let server = SmtpServer::start(json!({})).await;
    let folder = temp_dir("email-");
    let file = folder.path().join("mail.html");
    std::fs::write(&file, "<b>{{ runId }}</b>\n").unwrap();
    let html = email(server.port, json!({"text": null, "html_file": file}));
    let run = run_of(ada());
    html.handle(&run).await.unwrap();
    html.handle(&run).await.unwrap();
    let text = email(
        server.port,
        json!({"to": ["a@example.org, b@example.org", "a@example.org"]}),
    );
    text.handle(&run).await.unwrap();
    let messages = server.messages(3).await;
    let parts = messages[0]["parts"].as_object().unwrap();
    assert!(parts["text/html"].as_str().unwrap().contains(&run.id()) && parts.len() == 1);
    // A repeat has the same id, and goes over the same connection.
    let id = header(&messages[0], "message-id");
    assert_eq!(header(&messages[1], "message-id"), id);
    assert_eq!(messages[0]["peer"], messages[1]["peer"]);
    assert_eq!(messages[2]["type"], "text/plain");
    assert_eq!(
        messages[2]["recipients"],
        json!(["a@example.org", "b@example.org"])
    );
}

#[tokio::test]
async fn what_an_event_must_not_do_is_discarded_and_nothing_is_sent() {
    if !has_aiosmtpd() {
        return;
    }
    let server = SmtpServer::start(json!({})).await;
    let all = json!({"to": "{{ eventData.all }}"});
    let many: Vec<String> = (0..51).map(|n| format!("u{n}@example.org")).collect();
    let mallory = "m@evil.example";
    for (set, data, told) in [
        (
            json!({}),
            json!({"name": "A\r\nBcc: m@evil.example", "email": "a@example.org"}),
            "line break",
        ),
        (
            json!({}),
            json!({"name": "A", "email": "a@example.org\n"}),
            "line break",
        ),
        (
            json!({}),
            json!({"name": "A\u{0}", "email": "a@example.org"}),
            "NUL",
        ),
        (
            json!({"to": "a@example.org"}),
            json!({"name": "A\nBcc: m@evil.example"}),
            "subject",
        ),
        (
            json!({}),
            json!({"name": "A", "email": "a@example.org, b@example.org"}),
            "before the @",
        ),
        (
            json!({}),
            json!({"name": "A", "email": "a@example.org> SIZE=1 <"}),
            "domain",
        ),
        (
            json!({}),
            json!({"name": "A", "email": mallory}),
            "allowed_domains",
        ),
        (
            json!({}),
            json!({"name": "A", "email": "a@sub.example.org"}),
            "allowed_domains",
        ),
        (json!({}), json!({"name": "A"}), "no such value"),
        (
            all.clone(),
            json!({"name": "A", "all": ["a@example.org", mallory]}),
            "allowed_domains",
        ),
        (
            all.clone(),
            json!({"name": "A", "all": many}),
            "51 recipients",
        ),
        (all, json!({"name": "A", "all": []}), "no recipient"),
    ] {
        let reason = discarded(email(server.port, set).handle(&run_of(data)).await);
        assert!(reason.contains(told), "{told}: {reason}");
        assert!(
            !reason.contains("Bcc") && !reason.contains("m@"),
            "{reason}"
        );
    }
    email(server.port, json!({}))
        .handle(&run_of(ada()))
        .await
        .unwrap();
    server.messages(1).await;
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn the_servers_answer_decides_what_follows() {
    if !has_aiosmtpd() {
        return;
    }
    for (command, reply, again) in [
        ("MAIL", "451 4.3.0 try later", true),
        ("MAIL", "530 5.7.0 say who you are", true),
        ("MAIL", "550 5.7.1 not from you", false),
        ("ada@example.org", "450 4.2.0 greylisted", true),
        ("ada@example.org", "421 4.3.2 going down", true),
        ("ada@example.org", "550 5.1.1 no such user", false),
        ("DATA", "452 4.3.1 disk full", true),
        ("DATA", "554 5.7.1 looks like spam", false),
    ] {
        let server = SmtpServer::start(json!({"replies": {command: reply}})).await;
        let sent = email(server.port, json!({})).handle(&run_of(ada())).await;
        let reason = if again { failed(sent) } else { discarded(sent) };
        assert!(
            reason.contains(&reply[..3]) && reason.contains(&reply[4..]),
            "{reason}"
        );
        assert!(!reason.contains("Hello"), "{reason}");
    }
}

#[tokio::test]
async fn a_refused_recipient_keeps_nobody_else_from_the_email() {
    if !has_aiosmtpd() {
        return;
    }
    let replies =
        json!({"no@example.org": "550 5.1.1 unknown", "later@example.org": "451 4.7.1 wait"});
    let server = SmtpServer::start(json!({ "replies": replies })).await;
    let email = email(server.port, json!({"to": "{{ eventData.all }}"}));
    let to = |all: &[&str]| run_of(json!({"name": "A", "all": all}));
    let reason = discarded(
        email
            .handle(&to(&["no@example.org", "a@example.org"]))
            .await,
    );
    assert!(
        reason.contains("1 of 2") && reason.contains("unknown"),
        "{reason}"
    );
    // Again later for all, so that nobody has it twice.
    let reason = failed(
        email
            .handle(&to(&["b@example.org", "later@example.org"]))
            .await,
    );
    assert!(reason.contains("wait"), "{reason}");
    let reason = discarded(email.handle(&to(&["no@example.org"])).await);
    assert!(reason.contains("every recipient"), "{reason}");
    email.handle(&to(&["c@example.org"])).await.unwrap();
    let messages = server.messages(2).await;
    let recipients: Vec<&Value> = messages
        .iter()
        .map(|message| &message["recipients"])
        .collect();
    assert_eq!(
        recipients,
        [&json!(["a@example.org"]), &json!(["c@example.org"])]
    );
}

#[tokio::test]
async fn a_server_away_is_tried_again() {
    if !has_aiosmtpd() {
        return;
    }
    let port = free_port();
    let email = email(port, json!({}));
    let run = run_of(ada());
    let reason = failed(email.handle(&run).await);
    assert!(
        reason.contains(&format!("127.0.0.1:{port} cannot be reached")),
        "{reason}"
    );
    let server = SmtpServer::start_on(port, json!({})).await;
    email.handle(&run).await.unwrap();
    drop(server);
    failed(email.handle(&run).await);
    let server = SmtpServer::start_on(port, json!({})).await;
    email.handle(&run).await.unwrap();
    assert_eq!(server.messages(1).await.len(), 1);
}

#[tokio::test]
async fn a_silent_server_costs_the_timeout_and_its_connection() {
    if !has_aiosmtpd() {
        return;
    }
    let server = SmtpServer::start(json!({"silent": true})).await;
    let email = email(server.port, json!({"timeout": "1s"}));
    for _ in 0..2 {
        let reason = failed(email.handle(&run_of(ada())).await);
        assert!(reason.contains("within 1s"), "{reason}");
    }
    let messages = server.messages(2).await;
    assert_ne!(messages[0]["peer"], messages[1]["peer"]);
}

#[tokio::test]
async fn a_wrong_password_is_said_and_not_shown() {
    if !has_aiosmtpd() {
        return;
    }
    let server = SmtpServer::start(json!({"user": "shop", "password": "s3cret"})).await;
    let folder = temp_dir("email-");
    let file = folder.path().join("password");
    std::fs::write(&file, "s3cret\n").unwrap();
    let right = email(server.port, json!({"user": "shop", "password_file": file}));
    right.handle(&run_of(ada())).await.unwrap();
    assert_eq!(server.messages(1).await[0]["login"], true);
    let set = json!({"user": "shop", "password": "hunter2"});
    let wrong = email(server.port, set.clone());
    let reason = failed(wrong.handle(&run_of(ada())).await);
    assert!(
        reason.contains("535") && reason.contains("user or the password"),
        "{reason}"
    );
    let shown = format!("{reason} {wrong:?} {:?}", settings(server.port, set));
    assert!(!shown.contains("hunter2"), "{shown}");
    let nobody = email(server.port, json!({}));
    assert!(failed(nobody.handle(&run_of(ada())).await).contains("530"));
}

#[tokio::test]
async fn tls_is_what_the_settings_say() {
    if !has_aiosmtpd() {
        return;
    }
    let folder = temp_dir("email-");
    let (certificate, key) = certificate(folder.path());
    for (tls, implicit) in [("required", false), ("implicit", true)] {
        let server = SmtpServer::start(
            json!({"certificate": certificate, "key": key, "implicit": implicit}),
        )
        .await;
        let trusted = email(server.port, json!({"tls": tls, "ca_file": certificate}));
        trusted.handle(&run_of(ada())).await.unwrap();
        assert_eq!(server.messages(1).await[0]["tls"], true);
        let reason = failed(
            email(server.port, json!({"tls": tls}))
                .handle(&run_of(ada()))
                .await,
        );
        assert!(reason.contains("certificate"), "{reason}");
        assert_eq!(server.count(), 1);
    }
    let plain = SmtpServer::start(json!({})).await;
    let email = email(
        plain.port,
        json!({"tls": "required", "user": "u", "password": "hunter2"}),
    );
    let reason = failed(email.handle(&run_of(ada())).await);
    assert!(reason.contains("does not offer STARTTLS"), "{reason}");
    assert_eq!(plain.count(), 0);
}

#[tokio::test]
async fn letters_outside_of_ascii_before_the_at_need_a_server_that_takes_them() {
    if !has_aiosmtpd() {
        return;
    }
    let run = run_of(json!({"name": "Jürg", "email": "jürg@example.org"}));
    let server = SmtpServer::start(json!({"utf8": true})).await;
    email(server.port, json!({})).handle(&run).await.unwrap();
    assert_eq!(
        server.messages(1).await[0]["recipients"],
        json!(["jürg@example.org"])
    );
    let server = SmtpServer::start(json!({})).await;
    let reason = discarded(email(server.port, json!({})).handle(&run).await);
    assert!(reason.contains("SMTPUTF8"), "{reason}");
}

#[test]
fn settings_that_cannot_work_are_named() {
    let folder = temp_dir("email-");
    let file = folder.path().join("mail.txt");
    std::fs::write(&file, "Hello\n{{ eventData.name }\n").unwrap();
    for (set, key, told) in [
        (
            json!({"text": null, "text_file": file}),
            "email.text_file",
            "line 2",
        ),
        (
            json!({"subject": "{{ usreId }}"}),
            "email.subject",
            "usreId",
        ),
        (
            json!({"html_file": "/nowhere/mail.html"}),
            "email.html_file",
            "/nowhere/mail.html",
        ),
        (json!({"from": "nobody"}), "email.from", "no @"),
        (
            json!({"from": "a@b.org, c@d.org"}),
            "email.from",
            "one address",
        ),
        (
            json!({"to": ["a@evil.example"]}),
            "email.to[0]",
            "allowed_domains",
        ),
        (json!({"to": "a@"}), "email.to[0]", "domain"),
        (
            json!({"allowed_domains": null}),
            "email.allowed_domains",
            "anybody",
        ),
        (
            json!({"allowed_domains": ["exa mple"]}),
            "email.allowed_domains",
            "exa mple",
        ),
        (
            json!({"message_id_host": "a\r\nb"}),
            "email.message_id_host",
            "host name",
        ),
        (
            json!({"tls": "required", "ca_file": file}),
            "email.ca_file",
            "PEM",
        ),
    ] {
        let invalid = Email::new(&settings(25, set)).unwrap_err();
        assert_eq!(invalid.key, key, "{invalid}");
        assert!(invalid.reason.contains(told), "{invalid}");
    }
}
