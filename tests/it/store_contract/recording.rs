//! Events recorded inside a transaction of the caller's own, in SQL, through diesel, and from other languages.

use super::numbering::all_after;
use super::*;
use crate::harness::{connect, postgres_program, precondition, program};
use eclusa::store::commit_log::Position;
use std::path::Path;
use std::process::Command;

/// The system's Python: another one that comes first in PATH does not see Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

#[tokio::test]
async fn an_event_recorded_in_sql_goes_with_its_transaction() {
    let (store, url) = postgres_store().await;
    let mut client = connect(&url).await;
    let record = "SELECT eclusa_record('signed.up', '{\"plan\":\"pro\"}', 'u1', event_id => $1)";
    let id = Uuid::new_v4();
    let undone = client.transaction().await.unwrap();
    undone.query_one(record, &[&Some(id)]).await.unwrap();
    undone.rollback().await.unwrap();
    let (seen, _) = all_after(&store, Position::START).await;
    assert!(seen.is_empty());
    for _ in 0..2 {
        client.query_one(record, &[&Some(id)]).await.unwrap();
    }
    let generated: Uuid = client
        .query_one(record, &[&None::<Uuid>])
        .await
        .unwrap()
        .get(0);
    assert_eq!(generated.get_version_num(), 7);
    let (seen, _) = all_after(&store, Position::START).await;
    assert_eq!(seen, [id, generated], "once each");
    let stored = store.get(generated).await.unwrap().unwrap();
    assert_eq!(
        (stored.source.as_str(), stored.user_id.as_deref()),
        ("sql", Some("u1"))
    );
    for (call, says) in [
        ("eclusa_record('')", "event_type is empty"),
        ("eclusa_record('t', '[1]')", "must be a JSON object"),
        (
            "eclusa_record('t', occurred_at => 'infinity')",
            "years 1 to 9999",
        ),
        (
            "eclusa_record('t', event_id => '017f22e2-79b0-7cc3-98c4-dc0c0c07398f')",
            "no partition",
        ),
    ] {
        let error = client.query_one(&format!("SELECT {call}"), &[]).await;
        let error = error.unwrap_err();
        let message = error.as_db_error().unwrap().message().to_owned();
        assert!(message.contains(says), "{call}: {message}");
    }
}

/// A row that was changed by hand keeps nobody from reading the others.
#[tokio::test]
async fn a_time_beyond_all_others_can_be_read() {
    let (store, url) = postgres_store().await;
    let events = [event(), event(), event()];
    write(&store, events.clone()).await.unwrap();
    let client = connect(&url).await;
    for (event, time) in events.iter().zip(["infinity", "-infinity"]) {
        let change = "UPDATE user_interactions SET \"timestamp\" = $2::text::timestamptz WHERE event_id = $1";
        let changed = client.execute(change, &[&event.event_id, &time]).await;
        assert_eq!(changed.unwrap(), 1);
    }
    let (seen, _) = all_after(&store, Position::START).await;
    assert_eq!(seen, events.map(|event| event.event_id));
    let stored = store.get(seen[0]).await.unwrap().unwrap();
    let text = serde_json::to_string(&stored).unwrap();
    let again: eclusa::event::StoredEvent = serde_json::from_str(&text).unwrap();
    assert_eq!(again.timestamp, stored.timestamp);
}

#[tokio::test]
async fn an_event_recorded_through_diesel_goes_with_its_transaction() {
    use diesel_async::{AsyncConnection, AsyncPgConnection};
    use eclusa::store::record::RecordedEvent;
    let (store, url) = postgres_store().await;
    let mut connection = AsyncPgConnection::establish(&url).await.unwrap();
    let event = RecordedEvent::new("order.paid", &serde_json::json!({"amount": 3})).unwrap();
    let undone: Result<(), diesel::result::Error> = connection
        .transaction(async |connection| {
            pg::record(connection, &event).await?;
            Err(diesel::result::Error::RollbackTransaction)
        })
        .await;
    assert!(undone.is_err());
    let id = connection
        .transaction(async |connection| pg::record(connection, &event).await)
        .await
        .unwrap();
    let (seen, _) = all_after(&store, Position::START).await;
    assert_eq!(seen, [id]);
}

#[tokio::test]
async fn an_event_recorded_in_psql_goes_with_its_transaction() {
    let (store, url) = postgres_store().await;
    let psql = |end: &str| {
        let script = format!(
            "BEGIN; CREATE TABLE IF NOT EXISTS accounts (name text); \
             INSERT INTO accounts VALUES ('a'); SELECT eclusa_record('account.opened'); {end};"
        );
        let mut command = Command::new(postgres_program("psql"));
        let arguments = ["-qAt", "-v", "ON_ERROR_STOP=1", "-c", &script, &url];
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    psql("ROLLBACK");
    let id: Uuid = psql("COMMIT").parse().unwrap();
    let (seen, _) = all_after(&store, Position::START).await;
    assert_eq!(seen, [id]);
}

#[tokio::test]
async fn an_event_recorded_in_python_goes_with_its_transaction() {
    let psycopg2 = program(PYTHON, &["-c", "import psycopg2"]);
    if precondition("python3-psycopg2", psycopg2).is_none() {
        return;
    }
    let (store, url) = postgres_store().await;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clients/python/record.py");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(PYTHON);
        let command = command.arg(&example).args(arguments);
        command.env("DATABASE_URL", &url).output().unwrap()
    };
    let output = run(&["ada@example.org"]);
    assert!(output.status.success(), "{output:?}");
    let id: Uuid = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap();
    // The second sign-up violates the primary key behind the event, which goes with it.
    let output = run(&["ada@example.org"]);
    assert!(!output.status.success(), "{output:?}");
    let (seen, _) = all_after(&store, Position::START).await;
    assert_eq!(seen, [id]);
}
