//! The server under test: this program as a child, with settings that the bench makes for it. The
//! user's own settings, files and queues have no part in it.

use super::child::Child;
use super::plan::{Plan, Profile, Scenario};
use crate::program::{Expected, Program};
use anyhow::Context as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// How a server is started: its settings file, and flags over it.
#[derive(Debug)]
pub struct UnderTest {
    arguments: Vec<String>,
    /// What the program says of its settings.
    pub expected: Expected,
    /// The mode it runs in.
    pub mode: &'static str,
    folder: PathBuf,
}

/// Where it stores and what stands before that.
#[derive(Debug, Clone, Default)]
pub struct Services {
    /// PostgreSQL, the bench's own database.
    pub store: Option<String>,
    /// RabbitMQ, and the bench's own names there.
    pub broker: Option<(String, Vec<(&'static str, String)>)>,
    pub data: PathBuf,
}

/// The settings of a server under test, composed and checked.
#[derive(Debug)]
pub struct Composed {
    text: String,
    flags: Vec<(String, String)>,
    mode: &'static str,
    /// What the program says of them.
    pub expected: Expected,
}

impl Composed {
    /// For a scenario: the profile, what the bench sets, and over it what the user sets, except what
    /// would lead to something that is not the bench's own.
    ///
    /// # Errors
    /// When the settings break a rule, with the key.
    pub fn new(
        plan: &Plan,
        scenario: Scenario,
        services: &Services,
        program: Program,
    ) -> anyhow::Result<Self> {
        let mut own = vec![
            ("http.bind", "127.0.0.1".to_owned()),
            ("data_dir", services.data.display().to_string()),
        ];
        let store = services
            .store
            .as_ref()
            .filter(|_| scenario != Scenario::Embedded);
        let broker = services.broker.as_ref().filter(|_| scenario.uses_broker());
        let mode = match (store, broker) {
            (Some(_), Some(_)) => "full",
            (Some(_), None) => "database",
            (None, _) => "embedded",
        };
        own.push(("mode", mode.to_owned()));
        own.extend(store.map(|url| ("store.url", url.clone())));
        if let Some((url, names)) = broker {
            own.push(("broker.url", url.clone()));
            own.extend(names.iter().cloned());
        }
        let profile = match plan.profile {
            Profile::Default => "",
            Profile::Throughput => program.throughput,
        };
        let mut table: Table = profile.parse().context("the built-in profile")?;
        for (key, value) in &own {
            insert(&mut table, key, Value::String(value.clone()));
        }
        insert(&mut table, "http.port", Value::Integer(0));
        let text = toml::to_string(&table)?;
        let reserved = |key: &str| {
            let places = ["store.url", "broker.url", "http.port", "http.bind"];
            places.contains(&key) || own.iter().any(|(own, _)| *own == key)
        };
        let flags: Vec<(String, String)> = plan
            .set
            .iter()
            .filter(|(key, _)| !reserved(key))
            .cloned()
            .collect();
        let expected = (program.expect)(&text, &flags)
            .context("the server under test would refuse its settings")?;
        Ok(Self {
            text,
            flags,
            mode,
            expected,
        })
    }
}

impl UnderTest {
    /// For a scenario. The file is for this user's eyes only, since URLs hold passwords.
    ///
    /// # Errors
    /// As for [`Composed::new`], or when the file cannot be written.
    pub fn new(
        plan: &Plan,
        scenario: Scenario,
        services: &Services,
        folder: &Path,
        program: Program,
    ) -> anyhow::Result<Self> {
        let composed = Composed::new(plan, scenario, services, program)?;
        let file = folder.join("eclusa.toml");
        write_private(&file, &composed.text)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut arguments = vec!["--config".to_owned(), file.display().to_string()];
        for (key, value) in composed.flags {
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        arguments.push("serve".to_owned());
        Ok(Self {
            arguments,
            expected: composed.expected,
            mode: composed.mode,
            folder: folder.to_owned(),
        })
    }

    /// Starts it, and waits until it can take events by the way it is meant to.
    ///
    /// # Errors
    /// When it does not start, with what it said.
    pub async fn start(&self) -> anyhow::Result<Child> {
        let child = Child::start(&self.arguments, &self.folder).await?;
        child.ready().await?;
        if self.mode == "full" {
            child.connected().await?;
        }
        Ok(child)
    }

    /// Starts it and waits only until it listens.
    ///
    /// # Errors
    /// As [`UnderTest::start`].
    pub async fn spawn(&self) -> anyhow::Result<Child> {
        Child::start(&self.arguments, &self.folder).await
    }

    /// HTTP workers it will have.
    pub fn workers(&self) -> usize {
        match self.expected.workers {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            workers => workers,
        }
    }
}

fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table
                .entry(section)
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)?.write_all(text.as_bytes())
}
