//! Where the servers of a run store: a database on a server, or a file.

use crate::Arguments;
use crate::database::{Database, connect, processor_ticks, ticks_of};
use crate::server::Server;
use std::path::PathBuf;
use tokio_postgres::Client;

pub struct Place {
    folder: tempfile::TempDir,
    pub database: Option<Database>,
    /// Settings besides those of the place.
    settings: String,
}

impl Place {
    /// `settings` are lines of TOML.
    pub async fn create(arguments: &Arguments, settings: String) -> Self {
        let database = match &arguments.url {
            Some(url) => Some(Database::create(url).await),
            None => None,
        };
        Self {
            folder: tempfile::tempdir().unwrap(),
            database,
            settings,
        }
    }

    /// Starts a server, or another replica under another name.
    pub async fn server(&self, name: &str) -> Server {
        let store = match &self.database {
            Some(database) => format!("store.url = {:?}", database.url),
            None => format!("data_dir = {:?}", self.folder.path()),
        };
        let text = format!(
            "http.port = 0\nshutdown.grace = \"0s\"\n{store}\n{}",
            self.settings
        );
        let file = self.folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        Server::start(&file).await
    }

    /// The SQLite file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("eclusa.db")
    }

    /// A connection to the database; `None` on SQLite.
    pub async fn connect(&self) -> Option<Client> {
        match &self.database {
            Some(database) => Some(connect(&database.url).await),
            None => None,
        }
    }

    /// The processor time so far of a server of the run, of PostgreSQL, and of this process.
    pub async fn processor(&self, server: &Server) -> Processor {
        let (postgres, own) = match &self.connect().await {
            Some(client) => processor_ticks(client).await,
            None => (0, ticks_of("self")),
        };
        Processor {
            server: server.usage().processor.as_secs_f64(),
            postgres: postgres as f64 / 100.0,
            own: own as f64 / 100.0,
        }
    }

    pub async fn drop(self) {
        if let Some(database) = self.database {
            database.drop().await;
        }
    }
}

/// Processor time in seconds.
#[derive(Clone, Copy)]
pub struct Processor {
    pub server: f64,
    pub postgres: f64,
    pub own: f64,
}

impl Processor {
    /// What was used since then.
    pub fn since(self, before: Self) -> Self {
        Self {
            server: self.server - before.server,
            postgres: self.postgres - before.postgres,
            own: self.own - before.own,
        }
    }

    /// That of what is measured.
    pub fn measured(self) -> f64 {
        self.server + self.postgres
    }
}
