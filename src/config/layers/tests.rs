use super::*;

fn with_environment(pairs: &[(&str, &str)]) -> Sources {
    Sources {
        environment: pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        ..Sources::default()
    }
}

#[test]
fn the_environment_goes_over_the_file_and_flags_over_both() {
    let mut sources = with_environment(&[("ECLUSA__BATCH__MAX_EVENTS", "7")]);
    sources.text = Some("[batch]\nmax_events = 5\nwriters = 3".to_owned());
    let settings = sources.load().unwrap();
    assert_eq!(settings.batch.max_events, 7);
    assert_eq!(settings.batch.writers, 3);
    sources.flags = vec![("batch.max_events".to_owned(), "9".to_owned())];
    assert_eq!(sources.load().unwrap().batch.max_events, 9);
}

#[test]
fn the_names_of_the_requirements_are_honoured() {
    let settings = with_environment(&[
        ("NODE_ENV", "production"),
        ("DB_HOST", "db"),
        ("DB_USER", "shop"),
        ("DB_PASSWORD", "p@ss/word"),
        ("DB_NAME", "events"),
        ("MAX_RETRY_ATTEMPTS", "9"),
        ("PORT", "8080"),
    ])
    .load()
    .unwrap();
    assert_eq!(settings.environment, "production");
    assert_eq!(
        settings.store.url,
        "postgres://shop:p%40ss%2Fword@db:5432/events"
    );
    assert_eq!(settings.retry.max_attempts, 9);
    assert_eq!(settings.http.port, 8080);
}

#[test]
fn an_unknown_key_names_the_nearest() {
    for (text, near) in [
        ("[batch]\nmax_event = 5", "batch.max_events"),
        ("[ingest]\nmax_wait = \"1s\"", "batch.max_wait"),
    ] {
        match Sources::from_text(text).load() {
            Err(ConfigError::UnknownKey { nearest, .. }) => {
                assert_eq!(nearest.as_deref(), Some(near));
            }
            other => panic!("{other:?}"),
        }
    }
    let error = with_environment(&[("ECLUSA__BATCH__SIZE", "5")])
        .load()
        .unwrap_err();
    assert!(error.to_string().contains("ECLUSA__BATCH__SIZE"), "{error}");
}

#[test]
fn a_value_of_the_wrong_kind_is_named() {
    let error = Sources::from_text("batch.max_events = \"many\"")
        .load()
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("batch.max_events must be a whole number"),
        "{error}"
    );
    let error = with_environment(&[("PORT", "http")]).load().unwrap_err();
    assert!(error.to_string().contains("http.port"), "{error}");
    let error = Sources::from_text("batch.max_wait = \"soon\"")
        .load()
        .unwrap_err();
    assert!(error.to_string().contains("soon"), "{error}");
}

#[test]
fn secrets_come_from_files_and_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, "postgres://eclusa:s3cret@db/events\n").unwrap();
    let path = file.to_str().unwrap();
    for name in ["DATABASE_URL_FILE", "ECLUSA__STORE__URL_FILE"] {
        let sources = with_environment(&[(name, path)]);
        assert_eq!(
            sources.load().unwrap().store.url,
            "postgres://eclusa:s3cret@db/events"
        );
        let shown = sources.show().unwrap();
        assert!(shown.contains("eclusa:***@db"), "{shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
