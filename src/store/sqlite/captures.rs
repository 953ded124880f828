//! The states of captures; see [`CaptureStore`].

use super::schema::captures::dsl;
use super::{SqliteStore, leases};
use crate::store::StoreError;
use crate::store::captures::{CaptureRow, CaptureStore};
use crate::store::rows::TimeColumn;
use async_trait::async_trait;
use diesel::prelude::*;

type Columns = (String, i64, i64, String, TimeColumn);

fn row((name, n, token, state, stored_at): Columns) -> CaptureRow {
    CaptureRow {
        name,
        n,
        token,
        state,
        stored_at: stored_at.0,
    }
}

fn newest(connection: &mut SqliteConnection, name: &str) -> QueryResult<Option<CaptureRow>> {
    let of_name = dsl::captures.filter(dsl::name.eq(name));
    let newest = of_name.order(dsl::n.desc());
    let found: Option<Columns> = newest.first(connection).optional()?;
    Ok(found.map(row))
}

#[async_trait]
impl CaptureStore for SqliteStore {
    async fn captures(&self) -> Result<Vec<CaptureRow>, StoreError> {
        self.readers
            .read(|connection| {
                let names = dsl::captures.select(dsl::name).distinct();
                let names: Vec<String> = names.order(dsl::name).load(connection)?;
                let mut rows = Vec::new();
                for name in names {
                    rows.extend(newest(connection, &name)?);
                }
                Ok(rows)
            })
            .await
    }

    async fn capture(&self, name: &str) -> Result<Option<CaptureRow>, StoreError> {
        let name = name.to_owned();
        self.readers
            .read(move |connection| Ok(newest(connection, &name)?))
            .await
    }

    async fn store_capture(&self, row: &CaptureRow) -> Result<bool, StoreError> {
        let row = row.clone();
        self.writer
            .ask(1, move |connection| {
                let before = newest(connection, &row.name)?;
                let (n, token) = before.map_or((0, row.token), |before| (before.n, before.token));
                if n != row.n - 1 || token > row.token {
                    return Ok(false);
                }
                let now = leases::now(connection)?;
                diesel::insert_into(dsl::captures)
                    .values((
                        dsl::name.eq(&row.name),
                        dsl::n.eq(row.n),
                        dsl::token.eq(row.token),
                        dsl::state.eq(&row.state),
                        dsl::stored_at.eq(now),
                    ))
                    .execute(connection)?;
                let before = dsl::captures.filter(dsl::name.eq(&row.name).and(dsl::n.lt(row.n)));
                diesel::delete(before).execute(connection)?;
                Ok(true)
            })
            .await
    }
}
