//! The store of a run: a database on a server, or a file.

use crate::database::{Database, Running, connect, processor_ticks, ticks_of};
use eclusa::followers::Followers;
use eclusa::metrics::Metrics;
use eclusa::reactions::Reactions;
use eclusa::store::Store;
use eclusa::store::sqlite::{SqliteOptions, SqliteStore, migrate};
use std::sync::Arc;

/// Where the log is.
pub struct Place {
    pub store: Arc<dyn Store>,
    pub database: Option<Database>,
    folder: tempfile::TempDir,
}

impl Place {
    pub async fn create(url: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let Some(url) = url else {
            let path = folder.path().join("eclusa.db");
            migrate(&path).await.expect("migrates");
            let store = SqliteStore::open(&SqliteOptions::new(&path)).await;
            return Self {
                store: Arc::new(store.expect("a store")),
                database: None,
                folder,
            };
        };
        let database = Database::create(url).await;
        Self {
            store: database.store().await,
            database: Some(database),
            folder,
        }
    }

    /// Declares reactions; they run from the start of the followers on.
    pub async fn declare(&self, reactions: Reactions) -> Followers {
        let metrics = Arc::new(Metrics::new().unwrap());
        let declared = reactions.declare(&self.store, Followers::new(), &metrics);
        declared.await.expect("reactions")
    }

    pub async fn start(&self, followers: Followers) -> Running {
        Running::start(Arc::clone(&self.store), followers).await
    }

    /// Seconds of processor time of all processes of the server, and of this process.
    pub async fn processor(&self) -> (f64, f64) {
        let (server, own) = match &self.database {
            Some(database) => processor_ticks(&connect(&database.url).await).await,
            None => (0, ticks_of("self")),
        };
        (server as f64 / 100.0, own as f64 / 100.0)
    }

    pub async fn drop(self) {
        drop(self.store);
        if let Some(database) = self.database {
            database.drop().await;
        }
        drop(self.folder);
    }
}
