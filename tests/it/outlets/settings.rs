//! What `config check` and the start say of outlets that cannot work.

use super::*;
use crate::harness::{RabbitMq, eclusa, temp_dir, told};

fn check(outlets: &str) -> (bool, String) {
    let set = format!("outlets={outlets}");
    let output = eclusa(&["config", "check", "--set", &set])
        .output()
        .unwrap();
    (output.status.success(), told(&output))
}

#[test]
fn what_is_wrong_is_named_and_no_password_is_shown() {
    let (fine, said) = check("[{ name = 'a', types = ['*'], stream = 's', url = 'amqp://h' }]");
    assert!(fine, "{said}");
    for (outlets, words) in [
        (
            "[{ name = 'a', types = ['*'], stream = 's' }]",
            ["outlets[0].url", "broker.url"],
        ),
        (
            "[{ name = 'a', types = ['*'], url = 'amqp://h' }]",
            ["outlets[0]", "set exchange or stream"],
        ),
        (
            "[{ name = 'a', types = ['*'], stream = 's', url = 'amqp://u:s3cret@h:port/%zz' }]",
            ["outlets[0].url", "AMQP URI"],
        ),
        (
            "[{ name = 'a', types = ['*'], stream = 's', url_file = '/nowhere/url' }]",
            ["outlets[0].url_file", "/nowhere/url"],
        ),
        (
            "[{ name = 'a', types = [], stream = 's', url = 'amqp://h' }]",
            ["outlets[0].types", "no event types"],
        ),
        (
            "[{ name = 'a', types = ['*'], queue = 's', url = 'amqp://h' }]",
            ["queue", "unknown field"],
        ),
    ] {
        let (fine, said) = check(outlets);
        assert!(!fine, "{outlets}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[actix_rt::test]
async fn a_url_comes_from_a_file() {
    let place = Place::sqlite().await;
    let url = RabbitMq::shared().await.vhost().await;
    let folder = temp_dir("outlets-");
    let file = folder.path().join("url");
    std::fs::write(&file, format!("{url}\n")).unwrap();
    let outlet = json!([{
        "name": NAME, "types": ["*"], "url_file": file.display().to_string(), "stream": STREAM,
    }]);
    let app = start(&place, outlet).await;
    post(&app, "a", 0..10).await;
    let log = logged_ids(&place, &["*"]).await;
    let mut reader = Reader::of_stream(&url, STREAM).await;
    reader.all_of(&log).await;
    assert_eq!(reader.ids(), log);
}
