//! Eclusa's own tables, which are not captured: each record of the log would become another one.

use super::TableName;
use crate::capture::CaptureError;
use tokio_postgres::Client;

/// The schema of the views.
const VIEWS: &str = "eclusa_views";

/// Why the table is not captured, if it is one of Eclusa's. Its schema is the one with the log and the numbers of
/// commits; that a table of an application there has another name is enough.
pub(super) async fn own_table(
    client: &Client,
    table: &TableName,
) -> Result<Option<String>, CaptureError> {
    let is_own = table.schema == VIEWS
        || client
            .query_one(OWN, &[&table.schema, &table.name, &OWN_TABLES.as_slice()])
            .await?
            .try_get(0)?;
    Ok(is_own.then(|| {
        "is one of Eclusa's own: what is captured would be written to it, and captured again"
            .to_owned()
    }))
}

const OWN: &str = "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname = $1 AND c.relname = 'log_commits') \
     AND EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN pg_class r ON r.oid = pg_partition_root(c.oid) \
     WHERE n.nspname = $1 AND c.relname = $2 AND coalesce(r.relname, c.relname)::text = ANY ($3))";

/// The tables of the migrations. A test compares them with a migrated store.
const OWN_TABLES: [&str; 33] = [
    "__diesel_schema_migrations",
    "captures",
    "clients",
    "dead_letters",
    "eclusa_schema",
    "follower_declarations",
    "follower_positions",
    "follower_replays",
    "followers",
    "leases",
    "log_arrivals",
    "log_commits",
    "log_floor",
    "log_generation",
    "pix_messages",
    "reaction_counts",
    "reaction_epochs",
    "reaction_marks",
    "reaction_queue",
    "reaction_runs",
    "reactions",
    "removed_reactions",
    "shard_layouts",
    "shard_replicas",
    "stream_answers",
    "stream_messages",
    "stream_parked",
    "stream_returned",
    "stream_secret",
    "stream_sessions",
    "streams",
    "user_interactions",
    "user_interactions_unordered",
];
