//! The states of captures; see [`CaptureStore`].

use super::PostgresStore;
use super::prepared::Prepare;
use super::schema::captures::dsl;
use crate::store::StoreError;
use crate::store::captures::{CaptureRow, CaptureStore};
use crate::store::rows::TimeColumn;
use async_trait::async_trait;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

type Columns = (String, i64, i64, String, TimeColumn);

/// The unique key refuses what another process has stored first.
const APPEND: &str = "\
    INSERT INTO captures (name, n, token, state) \
    SELECT $1, $2, $3, $4 \
    WHERE ($2 = 1 AND NOT EXISTS (SELECT FROM captures WHERE name = $1)) \
       OR EXISTS (SELECT FROM captures WHERE name = $1 AND n = $2 - 1 AND token <= $3) \
    ON CONFLICT DO NOTHING";

fn row((name, n, token, state, stored_at): Columns) -> CaptureRow {
    CaptureRow {
        name,
        n,
        token,
        state,
        stored_at: stored_at.0,
    }
}

#[async_trait]
impl CaptureStore for PostgresStore {
    async fn captures(&self) -> Result<Vec<CaptureRow>, StoreError> {
        let load = async |connection: &mut AsyncPgConnection| {
            let newest = dsl::captures.order((dsl::name, dsl::n.desc()));
            let rows: Vec<Columns> = newest.distinct_on(dsl::name).load(connection).await?;
            Ok(rows.into_iter().map(row).collect())
        };
        self.pools.read(load).await
    }

    async fn capture(&self, name: &str) -> Result<Option<CaptureRow>, StoreError> {
        let load = async |connection: &mut AsyncPgConnection| {
            let of_name = dsl::captures.filter(dsl::name.eq(name));
            let newest = of_name.order(dsl::n.desc());
            let found: Option<Columns> = newest.first(connection).await.optional()?;
            Ok(found.map(row))
        };
        self.pools.sequence(load).await
    }

    async fn store_capture(&self, row: &CaptureRow) -> Result<bool, StoreError> {
        let append = async |connection: &mut AsyncPgConnection| {
            let stored = diesel::sql_query(APPEND)
                .bind::<Text, _>(&row.name)
                .bind::<BigInt, _>(row.n)
                .bind::<BigInt, _>(row.token)
                .bind::<Text, _>(&row.state)
                .prepared()
                .execute(connection)
                .await?;
            if stored == 1 {
                // Those before are of no use. The lower bound spares what a snapshot keeps of rows that are deleted.
                let before = dsl::captures.filter(dsl::name.eq(&row.name));
                let before = before.filter(dsl::n.lt(row.n).and(dsl::n.ge(row.n - 256)));
                diesel::delete(before).execute(connection).await?;
            }
            Ok(stored == 1)
        };
        self.pools.sequence(append).await
    }
}
