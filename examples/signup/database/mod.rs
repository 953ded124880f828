//! The application's own tables. They lie in the database that has Eclusa's log, so that one transaction covers both.

mod postgres;
mod sqlite;

use crate::reactions::SIGNED_UP;
use crate::settings::Settings;
use async_trait::async_trait;
use diesel::prelude::*;
use eclusa::reactions::Run;
use eclusa::store::Store;
use eclusa::store::record::{NotAnEvent, RecordedEvent};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// An application has migrations of its own.
const TABLES: &str = "\
    CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE); \
    CREATE TABLE IF NOT EXISTS domains (domain TEXT PRIMARY KEY, users BIGINT NOT NULL);";

diesel::table! {
    users (id) {
        id -> Text,
        name -> Text,
        email -> Text,
    }
}

diesel::table! {
    domains (domain) {
        domain -> Text,
        users -> BigInt,
    }
}

#[derive(Debug, Clone, Insertable, Queryable, Serialize, Deserialize)]
pub struct User {
    /// That of the event too.
    pub id: String,
    pub name: String,
    pub email: String,
}

impl User {
    pub fn new(name: &str, email: &str) -> Result<Self, &'static str> {
        if name.trim().is_empty() {
            return Err("name is empty");
        }
        if name.contains(char::is_control) {
            return Err("name has a control character");
        }
        let is_text = |part: &str| {
            !part.is_empty()
                && !part.contains(|c: char| c == '@' || c.is_whitespace() || c.is_control())
        };
        match email.split_once('@') {
            Some((local, domain)) if is_text(local) && is_text(domain) => Ok(Self {
                id: Uuid::now_v7().to_string(),
                name: name.trim().to_owned(),
                email: email.to_lowercase(),
            }),
            _ => Err("email must be an address such as ada@example.org"),
        }
    }

    pub fn domain(&self) -> &str {
        self.email.split_once('@').map_or("", |(_, domain)| domain)
    }

    /// The event that this user has signed up.
    fn signed_up(&self) -> Result<RecordedEvent, NotAnEvent> {
        Ok(RecordedEvent {
            event_id: self.id.parse().ok(),
            user_id: Some(self.id.clone()),
            producer: "signup".to_owned(),
            ..RecordedEvent::new(SIGNED_UP, self)?
        })
    }
}

#[derive(Debug, Queryable, Serialize)]
pub struct Domain {
    pub domain: String,
    pub users: i64,
}

#[async_trait]
pub trait Database: Send + Sync {
    /// Adds a user and records the event, in one transaction. `false` if the address is taken: then neither is stored.
    async fn sign_up(&self, user: &User) -> anyhow::Result<bool>;

    /// Counts one more user of a domain and stores that the run has succeeded, in one transaction.
    async fn count_domain(&self, run: &Run, domain: &str) -> anyhow::Result<()>;

    async fn user(&self, id: Uuid) -> anyhow::Result<Option<User>>;

    async fn domains(&self) -> anyhow::Result<Vec<Domain>>;
}

/// Opens the database, and Eclusa's log in it.
pub async fn open(settings: &Settings) -> anyhow::Result<(Arc<dyn Store>, Arc<dyn Database>)> {
    match &settings.database_url {
        Some(url) => postgres::open(url).await,
        None => sqlite::open(settings.data_dir.join("eclusa.db")).await,
    }
}
