//! The followers that are measured.

use crate::database::{Running, connect};
use async_trait::async_trait;
use diesel::sql_types::{Array, BigInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use eclusa::followers::{FollowerOptions, Followers, Projection, Subscription};
use eclusa::store::commit_log::LoggedEvent;
use eclusa::store::postgres::{PostgresOptions, PostgresStore, record};
use eclusa::store::record::RecordedEvent;
use eclusa::store::transaction::{EffectError, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;

fn postgres<'a>(transaction: &'a mut Transaction<'_>) -> &'a mut AsyncPgConnection {
    match transaction {
        Transaction::Postgres(connection) => connection,
        Transaction::Sqlite(_) => panic!("this run is on PostgreSQL"),
    }
}

/// The tables of all of them.
pub const TABLES: &str = "\
    CREATE TABLE counts (key TEXT PRIMARY KEY, events BIGINT NOT NULL); \
    CREATE TABLE seen (follower TEXT NOT NULL, n BIGINT GENERATED ALWAYS AS IDENTITY, \
                       id UUID NOT NULL, position BIGINT NOT NULL)";

/// Counts by type.
pub struct Counting;

#[async_trait]
impl Projection for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn subscription(&self) -> Subscription {
        Subscription::all()
    }

    async fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        events: &[LoggedEvent],
    ) -> Result<(), EffectError> {
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        for logged in events {
            *counts.entry(&logged.event.event_type).or_default() += 1;
        }
        for (key, count) in counts {
            diesel::sql_query(
                "INSERT INTO counts VALUES ($1, $2) \
                 ON CONFLICT (key) DO UPDATE SET events = counts.events + excluded.events",
            )
            .bind::<Text, _>(key)
            .bind::<BigInt, _>(count)
            .execute(postgres(transaction))
            .await?;
        }
        Ok(())
    }

    async fn reset(&self, transaction: &mut Transaction<'_>) -> Result<(), EffectError> {
        diesel::sql_query("DELETE FROM counts")
            .execute(postgres(transaction))
            .await?;
        Ok(())
    }
}

/// Tells, with its commit, which events it has applied: their numbers.
pub struct Telling;

#[async_trait]
impl Projection for Telling {
    fn name(&self) -> &str {
        "telling"
    }

    fn subscription(&self) -> Subscription {
        Subscription::to(["timed"]).from_now()
    }

    async fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        events: &[LoggedEvent],
    ) -> Result<(), EffectError> {
        #[derive(serde::Deserialize)]
        struct Numbered {
            n: u64,
        }
        let numbers = events.iter().map(|logged| {
            let data = logged.event.event_data.get();
            serde_json::from_str::<Numbered>(data).map_or(0, |data| data.n)
        });
        let numbers: Vec<String> = numbers.map(|n| n.to_string()).collect();
        // A notification has room for 8,000 bytes.
        for part in numbers.chunks(500) {
            diesel::sql_query("SELECT pg_notify('applied', $1)")
                .bind::<Text, _>(part.join(","))
                .execute(postgres(transaction))
                .await?;
        }
        Ok(())
    }

    async fn reset(&self, _: &mut Transaction<'_>) -> Result<(), EffectError> {
        Ok(())
    }
}

/// Writes down what it sees, in its order.
pub struct Seeing(pub &'static str);

#[async_trait]
impl Projection for Seeing {
    fn name(&self) -> &str {
        self.0
    }

    fn subscription(&self) -> Subscription {
        Subscription::all()
    }

    async fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        events: &[LoggedEvent],
    ) -> Result<(), EffectError> {
        let ids: Vec<_> = events.iter().map(|logged| logged.event.event_id).collect();
        let positions: Vec<i64> = events.iter().map(|logged| logged.position.0).collect();
        diesel::sql_query(
            "INSERT INTO seen (follower, id, position) \
             SELECT $1, id, position FROM unnest($2, $3) AS t (id, position)",
        )
        .bind::<Text, _>(self.0)
        .bind::<Array<diesel::sql_types::Uuid>, _>(ids)
        .bind::<Array<BigInt>, _>(positions)
        .execute(postgres(transaction))
        .await?;
        Ok(())
    }

    async fn reset(&self, transaction: &mut Transaction<'_>) -> Result<(), EffectError> {
        diesel::sql_query("DELETE FROM seen WHERE follower = $1")
            .bind::<Text, _>(self.0)
            .execute(postgres(transaction))
            .await?;
        Ok(())
    }
}

/// Records an event for each one of the type `echoed`.
pub struct Echoing;

#[async_trait]
impl Projection for Echoing {
    fn name(&self) -> &str {
        "echoing"
    }

    fn subscription(&self) -> Subscription {
        Subscription::to(["echoed"])
    }

    async fn apply(
        &self,
        transaction: &mut Transaction<'_>,
        events: &[LoggedEvent],
    ) -> Result<(), EffectError> {
        for logged in events {
            let of = serde_json::json!({"of": logged.event.event_id});
            let echo = RecordedEvent::new("echo", &of)
                .map_err(|error| EffectError::Refused(error.to_string()))?;
            record(postgres(transaction), &echo).await?;
        }
        Ok(())
    }

    async fn reset(&self, _: &mut Transaction<'_>) -> Result<(), EffectError> {
        Ok(())
    }
}

/// A follower whose types never come.
pub struct Unmatched(pub String);

#[async_trait]
impl Projection for Unmatched {
    fn name(&self) -> &str {
        &self.0
    }

    fn subscription(&self) -> Subscription {
        Subscription::to(["never.*"])
    }

    async fn apply(&self, _: &mut Transaction<'_>, _: &[LoggedEvent]) -> Result<(), EffectError> {
        Ok(())
    }

    async fn reset(&self, _: &mut Transaction<'_>) -> Result<(), EffectError> {
        Ok(())
    }
}

/// Two that write down what they see, one that records events, and one that tells: until killed.
pub async fn follow(url: &str) {
    let mut options = PostgresOptions::new(url);
    options.lease_ttl = std::time::Duration::from_secs(3);
    let store = PostgresStore::connect(&options).await.expect("a store");
    let client = connect(url).await;
    let all = Followers::new()
        .project(Seeing("first"))
        .project(Seeing("second"))
        .project(Echoing)
        .project(Telling);
    let options = FollowerOptions {
        lease_ttl: options.lease_ttl,
        ..FollowerOptions::default()
    };
    let _running = Running::start_with(Arc::new(store), all, options).await;
    println!("follows");
    // With its parent's end of the connection.
    loop {
        if client.query("SELECT pg_sleep(3600)", &[]).await.is_err() {
            return;
        }
    }
}
