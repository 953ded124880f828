//! What the followers of the example `count_by_type` have counted, beside what the log has.

use std::path::Path;

use diesel::sql_types::{BigInt, Text};
use diesel::{Connection as _, RunQueryDsl as _, SqliteConnection};

use super::postgres::connect;

/// Where the log and the counts are.
pub enum Counted<'a> {
    Postgres(&'a str),
    Sqlite(&'a Path),
}

const BY_TYPE: &str = "\
    SELECT coalesce(log.key, counted.key) AS key, coalesce(log.events, 0) AS events, \
           coalesce(counted.events, 0) AS counted \
    FROM (SELECT event_type AS key, count(*) AS events FROM user_interactions GROUP BY event_type) \
         AS log \
    FULL JOIN example_counts_by_type AS counted ON counted.key = log.key \
    WHERE log.events IS NULL OR counted.events IS NULL OR log.events <> counted.events";

#[derive(Debug, diesel::QueryableByName)]
struct Difference {
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = BigInt)]
    events: i64,
    #[diesel(sql_type = BigInt)]
    counted: i64,
}

/// Each type and each user of which a follower has counted another number of events than the log has.
pub async fn miscounted(place: &Counted<'_>) -> Vec<String> {
    let by_user = BY_TYPE
        .replace("event_type", "user_id")
        .replace(
            "GROUP BY user_id",
            "WHERE user_id IS NOT NULL GROUP BY user_id",
        )
        .replace("example_counts_by_type", "example_counts_by_user");
    let mut found = Vec::new();
    for sql in [BY_TYPE, &by_user] {
        let differences: Vec<Difference> = match place {
            Counted::Postgres(url) => {
                let rows = connect(url).await.query(sql, &[]).await.expect("counts");
                let difference = |row: &tokio_postgres::Row| Difference {
                    key: row.get(0),
                    events: row.get(1),
                    counted: row.get(2),
                };
                rows.iter().map(difference).collect()
            }
            Counted::Sqlite(file) => {
                let file = file.display().to_string();
                let mut connection = SqliteConnection::establish(&file).expect("the file");
                let wait = diesel::sql_query("PRAGMA busy_timeout = 5000");
                wait.execute(&mut connection).expect("a pragma");
                let query = diesel::sql_query(sql);
                query.load(&mut connection).expect("counts")
            }
        };
        let told = |one: Difference| {
            format!(
                "{}: {} in the log, {} counted",
                one.key, one.events, one.counted
            )
        };
        found.extend(differences.into_iter().map(told));
    }
    found
}
