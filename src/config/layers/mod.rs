//! Where settings come from: built-in defaults, a file, the environment, flags, each over the one
//! before. The defaults name every key there is, so a key they lack is unknown.

mod environment;
mod error;
mod overlay;
mod url;

use super::{DEFAULTS, Settings};
use environment::Environment;
use overlay::{find_mut, overlay, parse, set};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

pub use error::ConfigError;
pub use url::{hide_password, percent_encode};

/// Read when no file is named, if it is there.
const DEFAULT_FILE: &str = "eclusa.toml";
/// Keys whose values are never shown.
const SECRETS: [&str; 2] = ["store.url", "broker.url"];
/// Lists of sections, and keys in them whose values are never shown.
const LISTED_SECRETS: [(&str, &[&str]); 2] = [
    (
        "reactions",
        &[
            "webhook.url",
            "webhook.secret",
            "email.password",
            "amqp.url",
        ],
    ),
    ("outlets", &["url"]),
];

/// The sources of the settings; kept, so that they can be read again.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    text: Option<String>,
    environment: Environment,
    flags: Vec<(String, String)>,
}

impl Sources {
    /// The file named (or `./eclusa.toml` if it exists), this process's environment, and flags as
    /// pairs of dotted key and value.
    pub fn from_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        let default = Path::new(DEFAULT_FILE);
        Self {
            file: file.or_else(|| default.exists().then(|| default.to_owned())),
            text: None,
            environment: Environment::of_process(),
            flags,
        }
    }

    /// Only this TOML text over the defaults.
    pub fn from_text(text: &str) -> Self {
        Self {
            text: Some(text.to_owned()),
            ..Self::default()
        }
    }

    /// The same with flags over it, as pairs of dotted key and value.
    pub fn with_flags(mut self, flags: Vec<(String, String)>) -> Self {
        self.flags = flags;
        self
    }

    /// The settings file, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Merges the sources and checks the result.
    ///
    /// # Errors
    /// [`ConfigError`], which names the source, the key and what to do.
    pub fn load(&self) -> Result<Settings, ConfigError> {
        let table = self.merge()?;
        #[cfg_attr(
            not(feature = "service"),
            expect(unused_mut, reason = "schemas are of the service")
        )]
        let mut settings: Settings =
            Value::Table(table)
                .try_into()
                .map_err(|error: toml::de::Error| ConfigError::Syntax {
                    origin: "a setting".to_owned(),
                    reason: error.to_string().trim().to_owned(),
                })?;
        // Before the rest, which checks the events of schedules with them.
        #[cfg(feature = "service")]
        let of_schemas = settings.compile_schemas(self.file.as_deref().and_then(Path::parent));
        let invalid = settings.validate();
        #[cfg(feature = "service")]
        let of_streams = super::streams::bound_to_none(&settings);
        #[cfg(feature = "service")]
        let invalid = [invalid, of_schemas, of_streams].concat();
        if invalid.is_empty() {
            Ok(settings)
        } else {
            Err(ConfigError::Invalid(invalid))
        }
    }

    /// The merged settings as TOML, secrets hidden.
    ///
    /// # Errors
    /// As [`Sources::load`], except that values are not checked.
    pub fn show(&self) -> Result<String, ConfigError> {
        let mut table = self.merge()?;
        for key in SECRETS {
            if let Some(Value::String(text)) = find_mut(&mut table, key)
                && !text.is_empty()
            {
                *text = hide_password(text);
            }
        }
        for (list, keys) in LISTED_SECRETS {
            let Some(Value::Array(sections)) = table.get_mut(list) else {
                continue;
            };
            for section in sections.iter_mut().filter_map(Value::as_table_mut) {
                for key in keys {
                    if let Some(value) = find_mut(section, key) {
                        *value = Value::String("***".to_owned());
                    }
                }
            }
        }
        if let Some(Value::Array(captures)) = table.get_mut("captures") {
            for capture in captures.iter_mut().filter_map(Value::as_table_mut) {
                if let Some(Value::String(url)) = capture.get_mut("url") {
                    *url = hide_password(url);
                }
            }
        }
        toml::to_string(&table).map_err(|error| ConfigError::Syntax {
            origin: "the merged settings".to_owned(),
            reason: error.to_string(),
        })
    }

    fn merge(&self) -> Result<Table, ConfigError> {
        let defaults = parse(DEFAULTS, "config/eclusa.toml")?;
        let mut table = defaults.clone();
        if let Some(path) = &self.file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
                path: path.clone(),
                source,
            })?;
            let origin = path.display().to_string();
            overlay(&mut table, parse(&text, &origin)?, &defaults, &origin, "")?;
        }
        if let Some(text) = &self.text {
            overlay(
                &mut table,
                parse(text, "the text")?,
                &defaults,
                "the text",
                "",
            )?;
        }
        for (name, key, value) in self.environment.values()? {
            set(&mut table, &defaults, &name, &key, &value)?;
        }
        for (key, value) in &self.flags {
            set(&mut table, &defaults, "the command line", key, value)?;
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_environment(pairs: &[(&str, &str)]) -> Sources {
        Sources {
            environment: Environment(
                pairs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            ),
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
    fn secrets_of_reactions_are_not_shown() {
        let text = "[[reactions]]\nname = \"a\"\nwebhook = { url = \"https://h/s3cret\", secret = 's3cret' }\n\
                    [[reactions]]\nemail = { host = \"smtp.example.org\", password = \"s3cret\" }\n\
                    amqp.url = \"amqp://u:s3cret@h\"";
        let from_file = Sources::from_text(text);
        let from_environment = with_environment(&[(
            "ECLUSA__REACTIONS",
            "[{ webhook = { url = 's3cret', secret = 's3cret' } }, \
             { email = { host = 'smtp.example.org', password = 's3cret' }, amqp = { url = 's3cret' } }]",
        )]);
        for sources in [from_file, from_environment] {
            let shown = sources.show().unwrap();
            assert!(!shown.contains("s3cret"), "{shown}");
            assert_eq!(shown.matches("\"***\"").count(), 4, "{shown}");
            assert!(shown.contains("smtp.example.org"), "{shown}");
        }
    }

    #[test]
    fn secrets_of_outlets_are_not_shown() {
        let text = "[[outlets]]\nname = \"all\"\nstream = \"events\"\nurl = \"amqp://u:s3cret@h\"";
        let shown = Sources::from_text(text).show().unwrap();
        assert!(
            !shown.contains("s3cret") && shown.contains("events"),
            "{shown}"
        );
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
}
