//! A database of the bench's own on the given server, so that nothing of the user's is touched.

use crate::program::Program;
use anyhow::{Context as _, bail};
use futures::future::BoxFuture;
use tokio_postgres::Client;
use uuid::Uuid;

/// The database: made empty, and dropped by [`Database::remove`].
#[derive(Debug, Clone)]
pub struct Database {
    /// The URL that was given.
    server: String,
    /// The URL of the database.
    pub url: String,
    name: String,
    program: Program,
}

impl Database {
    /// Makes it beside the one the URL names.
    ///
    /// # Errors
    /// When the server is not there or the role may not make databases.
    pub async fn create(server: &str, program: Program) -> anyhow::Result<Self> {
        let name = format!("eclusa_bench_{:08x}", rand::random::<u32>());
        let database = Self {
            server: server.to_owned(),
            url: with_database(server, &name)?,
            name,
            program,
        };
        let statement = format!("CREATE DATABASE {}", database.name);
        database.run(server, &statement).await.with_context(|| {
            "cannot make a database for the bench on the server of store.url; its role needs the \
             right to (ALTER ROLE ... CREATEDB)"
        })?;
        match database.check_name().await {
            Ok(()) => Ok(database),
            Err(error) => match database.remove().await {
                Ok(()) => Err(error),
                Err(left) => Err(error.context(format!("{left:#}"))),
            },
        }
    }

    async fn check_name(&self) -> anyhow::Result<()> {
        let (client, connection) = self.connect().await?;
        let asked = async {
            let row = client.query_one("SELECT current_database()::text", &[]);
            anyhow::Ok(row.await?.try_get::<_, String>(0)?)
        };
        // A parameter of the URL may name a database too, and it would win.
        if beside(connection, asked).await? != self.name {
            bail!("store.url names its database in a parameter; put it into the path");
        }
        Ok(())
    }

    /// Takes all events out, so that one measurement does not pay for the one before.
    ///
    /// # Errors
    /// The server's.
    pub async fn empty(&self) -> anyhow::Result<()> {
        self.run(&self.url, "TRUNCATE user_interactions, dead_letters")
            .await?;
        self.checkpoint().await;
        Ok(())
    }

    /// Has the server put what it has in memory onto the disk. For this the role needs a right that
    /// it may not have; then the figures are noisier.
    pub async fn checkpoint(&self) {
        let _ = self.run(&self.url, "CHECKPOINT").await;
    }

    /// Ids of all events in it, and with an id twice where it is stored twice.
    ///
    /// # Errors
    /// The server's.
    pub async fn ids(&self) -> anyhow::Result<Vec<Uuid>> {
        let (client, connection) = self.connect().await?;
        let asked = async {
            let rows = client.query("SELECT event_id FROM user_interactions", &[]);
            let rows = rows.await?;
            let ids: Result<Vec<Uuid>, _> = rows.iter().map(|row| row.try_get(0)).collect();
            Ok(ids?)
        };
        beside(connection, asked).await
    }

    /// The server's version, such as `15.18`.
    ///
    /// # Errors
    /// The server's.
    pub async fn version(&self) -> anyhow::Result<String> {
        let (client, connection) = self.connect().await?;
        let asked = async {
            let row = client.query_one("SHOW server_version", &[]).await?;
            Ok(row.try_get(0)?)
        };
        beside(connection, asked).await
    }

    /// A connection to it, and what drives the connection.
    ///
    /// # Errors
    /// The server's.
    pub async fn connect(&self) -> anyhow::Result<(Client, BoxFuture<'static, ()>)> {
        (self.program.connect)(self.url.clone()).await
    }

    async fn run(&self, url: &str, statement: &str) -> anyhow::Result<()> {
        let (client, connection) = (self.program.connect)(url.to_owned()).await?;
        beside(connection, async {
            Ok(client.batch_execute(statement).await?)
        })
        .await
    }

    /// Drops it, and ends the connections to it.
    ///
    /// # Errors
    /// The server's, with the database's name.
    pub async fn remove(&self) -> anyhow::Result<()> {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        self.run(&self.server, &statement)
            .await
            .with_context(|| format!("cannot drop {}; drop it by hand", self.name))
    }
}

/// Does the work while the connection is driven.
///
/// # Errors
/// The work's, or that the connection ended.
pub async fn beside<T>(
    connection: BoxFuture<'static, ()>,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        result = work => result,
        () = connection => bail!("the connection to PostgreSQL ended"),
    }
}

/// The URL with another database in its path.
fn with_database(url: &str, name: &str) -> anyhow::Result<String> {
    let (scheme, rest) = url
        .split_once("://")
        .context("store.url must begin with postgres://")?;
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, format!("?{query}")),
        None => (rest, String::new()),
    };
    let authority = rest.split('/').next().unwrap_or(rest);
    Ok(format!("{scheme}://{authority}/{name}{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_the_url_changes() {
        for (url, expected) in [
            ("postgres://u:p@h:5432/mine", "postgres://u:p@h:5432/b"),
            ("postgres://h", "postgres://h/b"),
            (
                "postgres://u@h/mine?sslmode=require",
                "postgres://u@h/b?sslmode=require",
            ),
            ("postgresql:///mine?host=/tmp", "postgresql:///b?host=/tmp"),
        ] {
            assert_eq!(with_database(url, "b").unwrap(), expected);
        }
    }
}
