//! Events that an application records in a transaction of its own: committed each has a run, rolled back none.

use super::observing::start;
use crate::followers::{Place, on_both_stores};
use crate::harness::{connect, postgres_program, precondition, program};
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use eclusa::reactions::{Reaction, Reactions};
use eclusa::store::record::RecordedEvent;
use eclusa::store::{postgres, sqlite};
use std::path::Path;
use std::process::Command;

/// The system's Python: another one that comes first in PATH does not see Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

on_both_stores! {
    what_the_library_records_has_a_run_if_it_is_committed,
}

fn reactions() -> Reactions {
    Reactions::new().react(Reaction::new("all").on("*", |_| async { Ok(()) }))
}

async fn what_the_library_records_has_a_run_if_it_is_committed(place: &Place) {
    let running = start(place, reactions()).await;
    for n in 0..10 {
        let event = RecordedEvent::new("order.paid", &serde_json::json!({ "n": n })).unwrap();
        record(place, &event, n % 2 == 0).await;
    }
    let runs = place.ended(5).await;
    assert!(runs.iter().all(|run| run.state == "succeeded"), "{runs:?}");
    place.processed(5, 0).await;
    running.stop().await;
}

/// Records an event in a transaction that is committed or rolled back.
async fn record(place: &Place, event: &RecordedEvent, commit: bool) {
    let ends = || match commit {
        true => Ok(()),
        false => Err(diesel::result::Error::RollbackTransaction),
    };
    let done = match (&place.url, &place.folder) {
        (Some(url), _) => {
            let mut connection = AsyncPgConnection::establish(url).await.unwrap();
            connection
                .transaction(async |connection| {
                    postgres::record(connection, event).await?;
                    ends()
                })
                .await
        }
        (None, folder) => {
            use diesel::Connection as _;
            use diesel::connection::SimpleConnection as _;
            let file = folder.as_ref().unwrap().path().join("eclusa.db");
            let mut connection =
                diesel::SqliteConnection::establish(&file.display().to_string()).unwrap();
            connection
                .batch_execute("PRAGMA busy_timeout = 10000")
                .unwrap();
            connection.immediate_transaction(|connection| {
                sqlite::record(connection, event)?;
                ends()
            })
        }
    };
    assert_eq!(done.is_ok(), commit, "{done:?}");
}

#[actix_rt::test]
async fn what_sql_records_has_a_run_if_it_is_committed() {
    let place = Place::postgres().await;
    let url = place.url.clone().unwrap();
    let running = start(&place, reactions()).await;
    let mut client = connect(&url).await;
    let record = "SELECT eclusa_record('order.paid', user_id => 'u1')";
    for commit in [false, true] {
        let transaction = client.transaction().await.unwrap();
        transaction.query_one(record, &[]).await.unwrap();
        match commit {
            true => transaction.commit().await.unwrap(),
            false => transaction.rollback().await.unwrap(),
        }
    }
    for end in ["ROLLBACK", "COMMIT"] {
        let script = format!("BEGIN; {record}; {end};");
        let mut psql = Command::new(postgres_program("psql"));
        psql.args(["-qAt", "-v", "ON_ERROR_STOP=1", "-c", &script, &url]);
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let runs = place.ended(2).await;
    assert!(runs.iter().all(|run| run.state == "succeeded"), "{runs:?}");
    place.processed(2, 0).await;
    running.stop().await;
}

#[actix_rt::test]
async fn what_python_records_has_a_run_if_it_is_committed() {
    let psycopg2 = program(PYTHON, &["-c", "import psycopg2"]);
    if precondition("python3-psycopg2", psycopg2).is_none() {
        return;
    }
    let place = Place::postgres().await;
    let running = start(&place, reactions()).await;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clients/python/record.py");
    let sign_up = |address: &str| {
        let mut command = Command::new(PYTHON);
        command.arg(&example).arg(address);
        command.env("DATABASE_URL", place.url.as_ref().unwrap());
        command.output().unwrap().status.success()
    };
    assert!(sign_up("ada@example.org"));
    // The address is taken: the transaction is rolled back behind the event.
    assert!(!sign_up("ada@example.org"));
    assert!(sign_up("bob@example.org"));
    let runs = place.ended(2).await;
    assert!(runs.iter().all(|run| run.state == "succeeded"), "{runs:?}");
    place.processed(2, 0).await;
    running.stop().await;
}
