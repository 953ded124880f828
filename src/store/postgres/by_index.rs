//! Settings for statements on small tables whose rows come and go.
//!
//! What the statistics say of a table that is empty one minute and full of one key the next would have it read whole, or
//! all rows of a key be read and sorted to find the newest one. Among them may be many that are deleted, while a snapshot is held
//! open.

use super::prepared::Prepare;
use diesel::sql_types::{Array, Text};
use diesel::{QueryResult, sql_query};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

/// Rows are looked up in the order of an index. Statements are planned once: a plan costs more than what most of them
/// do, and generic ones do not depend on the key.
const SETTINGS: [(&str, &str); 5] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_sort", "off"),
    ("jit", "off"),
];

/// The settings as options of a connection.
pub(super) fn options() -> String {
    let option = |(name, value)| format!("-c {name}={value}");
    SETTINGS.map(option).join(" ")
}

const SET: &str = "SELECT set_config(name, value, true) FROM unnest($1::text[], $2::text[]) AS setting (name, value)";

/// Has the statements of a transaction go by indexes.
pub(super) async fn by_index(connection: &mut AsyncPgConnection) -> QueryResult<()> {
    sql_query(SET)
        .bind::<Array<Text>, _>(SETTINGS.map(|(name, _)| name).to_vec())
        .bind::<Array<Text>, _>(SETTINGS.map(|(_, value)| value).to_vec())
        .prepared()
        .execute(connection)
        .await?;
    Ok(())
}
