//! What a test of reactions sees: rows of the store, and calls of handlers.

use crate::followers::{Place, Running, SOON};
use crate::harness::eventually;
use diesel::sql_types::{BigInt, Integer, Nullable, Text};
use eclusa::followers::Followers;
use eclusa::metrics::Metrics;
use eclusa::reactions::{Reactions, Run};
use parking_lot::Mutex;
use std::sync::Arc;
use uuid::Uuid;

#[derive(Debug, Clone, diesel::QueryableByName)]
pub struct RunRow {
    #[diesel(sql_type = Text)]
    pub state: String,
    #[diesel(sql_type = Integer)]
    pub attempts: i32,
    #[diesel(sql_type = Nullable<Text>)]
    pub error: Option<String>,
}

#[derive(diesel::QueryableByName)]
pub struct Number {
    #[diesel(sql_type = BigInt)]
    pub n: i64,
}

impl Place {
    pub async fn query<T>(&self, sql: &str) -> Vec<T>
    where
        T: diesel::deserialize::QueryableByName<diesel::pg::Pg>
            + diesel::deserialize::QueryableByName<diesel::sqlite::Sqlite>
            + Send
            + 'static,
    {
        match (&self.url, &self.folder) {
            (Some(url), _) => {
                use diesel_async::{AsyncConnection as _, RunQueryDsl as _};
                let mut connection = diesel_async::AsyncPgConnection::establish(url)
                    .await
                    .unwrap();
                diesel::sql_query(sql).load(&mut connection).await.unwrap()
            }
            (None, folder) => {
                use diesel::{Connection as _, RunQueryDsl as _};
                let path = folder.as_ref().unwrap().path().join("eclusa.db");
                let path = path.display().to_string();
                let mut connection = diesel::SqliteConnection::establish(&path).unwrap();
                diesel::sql_query("PRAGMA busy_timeout = 5000")
                    .execute(&mut connection)
                    .unwrap();
                diesel::sql_query(sql).load(&mut connection).unwrap()
            }
        }
    }

    pub async fn runs(&self) -> Vec<RunRow> {
        self.query("SELECT state, attempts, error FROM reaction_runs ORDER BY reaction, position")
            .await
    }

    pub async fn number(&self, sql: &str) -> i64 {
        self.query::<Number>(sql).await[0].n
    }

    /// Waits until so many runs have ended.
    pub async fn ended(&self, count: usize) -> Vec<RunRow> {
        eventually(SOON, &format!("{count} runs have ended"), async || {
            let runs = self.runs().await;
            let ended = runs.iter().filter(|run| run.state != "open").count();
            assert!(ended <= count, "{runs:?}");
            (ended == count).then_some(runs)
        })
        .await
    }

    /// Waits until so many events are processed and so many are not.
    pub async fn processed(&self, processed: i64, unprocessed: i64) {
        let count = "SELECT count(*) AS n FROM user_interactions WHERE processed";
        let all = "SELECT count(*) AS n FROM user_interactions";
        let mut seen = (0, 0);
        let wanted = format!("{processed} events are processed and {unprocessed} not");
        eventually(SOON, &wanted, async || {
            let done = self.number(count).await;
            seen = (done, self.number(all).await - done);
            (seen == (processed, unprocessed)).then_some(())
        })
        .await;
    }
}

pub async fn start(place: &Place, reactions: Reactions) -> Running {
    let metrics = Arc::new(Metrics::new().unwrap());
    let followers = reactions
        .declare(&place.store, Followers::new(), &metrics)
        .await
        .unwrap();
    Running::start(place, followers).await
}

/// What a handler was called with.
#[derive(Clone, Default)]
pub struct Calls {
    calls: Arc<Mutex<Vec<(Uuid, u32)>>>,
}

impl Calls {
    pub fn add(&self, run: &Run) {
        self.calls.lock().push((run.event.event_id, run.attempt));
    }

    pub fn all(&self) -> Vec<(Uuid, u32)> {
        self.calls.lock().clone()
    }

    pub fn of(&self, id: Uuid) -> Vec<u32> {
        let of = |(one, attempt)| (one == id).then_some(attempt);
        self.all().into_iter().filter_map(of).collect()
    }
}
