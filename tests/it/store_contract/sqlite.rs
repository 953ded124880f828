//! What holds for SQLite alone: group commits, the file, and which failure is of which kind.

use super::*;
use eclusa::store::CommitLog;
use eclusa::store::commit_log::Selection;
use eclusa::store::{ErrorKind, EventFilter};
use std::path::Path;

/// Runs SQL on the file beside the store.
fn execute(path: &Path, sql: &str) {
    use diesel::connection::SimpleConnection;
    use diesel::{Connection, SqliteConnection};
    let mut connection = SqliteConnection::establish(path.to_str().unwrap()).unwrap();
    connection
        .batch_execute(&format!("PRAGMA busy_timeout = 5000; {sql}"))
        .unwrap();
}

#[tokio::test]
async fn four_processes_migrate_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/folder/100% #1?.db");
    let runs = (0..4).map(|_| lite::migrate(&path));
    let mut applied = 0;
    for run in futures::future::join_all(runs).await {
        applied += run.expect("migrates").len();
    }
    assert_eq!(applied, 13);
    assert!(path.exists());
    SqliteStore::open(&SqliteOptions::new(&path)).await.unwrap();
}

#[tokio::test]
async fn another_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eclusa.db");
    let options = SqliteOptions::new(&path);
    let refused = async || SqliteStore::open(&options).await.map(|_| ()).unwrap_err();
    assert_eq!(refused().await.kind(), ErrorKind::Operator);
    assert!(!path.exists(), "opening makes no file");
    execute(&path, "CREATE TABLE other (x)");
    assert!(refused().await.to_string().contains("eclusa migrate"));
    lite::migrate(&path).await.unwrap();
    execute(
        &path,
        "UPDATE eclusa_schema SET version = 99, oldest_compatible = 98",
    );
    let error = refused().await;
    assert_eq!(error.kind(), ErrorKind::Operator);
    assert!(
        error.to_string().contains("schema 99, needs at least 98"),
        "{error}"
    );
    let error = lite::migrate(&path).await.unwrap_err();
    assert!(error.to_string().contains("upgrade this binary"), "{error}");
    execute(&path, "UPDATE eclusa_schema SET oldest_compatible = 1");
    SqliteStore::open(&options).await.unwrap();
}

#[tokio::test]
async fn a_bad_command_does_not_fail_those_committed_with_it() {
    let (store, _folder) = sqlite_store().await;
    let good: Vec<_> = (0..20).map(|_| event()).collect();
    let writes = good.iter().enumerate().map(|(number, event)| {
        let mut event = event.clone();
        if number % 5 == 0 {
            event.user_id = Some("\0".to_owned());
        }
        write(&store, [event])
    });
    for (number, result) in futures::future::join_all(writes)
        .await
        .into_iter()
        .enumerate()
    {
        if number % 5 == 0 {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Poison);
        } else {
            assert_eq!(result.unwrap(), [RowOutcome::Stored]);
        }
    }
    let page = store
        .list(&EventFilter::default(), None, 100)
        .await
        .unwrap();
    assert_eq!(page.events.len(), 16);
}

#[tokio::test]
async fn a_missing_table_is_for_the_operator() {
    let (store, folder) = sqlite_store().await;
    let path = folder.path().join("eclusa.db");
    execute(&path, "ALTER TABLE user_interactions RENAME TO elsewhere");
    let error = write(&store, [event()]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Operator, "{error}");
    let error = store.get(Uuid::now_v7()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Operator, "{error}");
    execute(&path, "ALTER TABLE elsewhere RENAME TO user_interactions");
    write(&store, [event()]).await.unwrap();
}

#[tokio::test]
async fn dropping_the_store_commits_what_was_handed_in() {
    let (store, folder) = sqlite_store().await;
    let events: Vec<_> = (0..2_000).map(|_| event()).collect();
    // Handed in and abandoned: whoever asked has gone, the command is in the queue.
    let mut pending: Vec<_> = events
        .chunks(100)
        .map(|chunk| Box::pin(store.write(rows(chunk.to_vec()))))
        .collect();
    for write in &mut pending {
        assert!(futures::poll!(write).is_pending());
    }
    drop(pending);
    drop(store);
    let path = folder.path().join("eclusa.db");
    assert!(
        !folder.path().join("eclusa.db-wal").exists(),
        "checkpointed"
    );
    let store = SqliteStore::open(&SqliteOptions::new(&path)).await.unwrap();
    let page = store
        .list(&EventFilter::default(), None, 10_000)
        .await
        .unwrap();
    assert_eq!(page.events.len(), events.len());
}

#[tokio::test]
async fn ids_are_not_given_out_twice() {
    let (store, folder) = sqlite_store().await;
    write(&store, [event(), event()]).await.unwrap();
    let end = store.number_commits().await.unwrap().end;
    execute(
        &folder.path().join("eclusa.db"),
        "DELETE FROM user_interactions",
    );
    let new = event();
    write(&store, [new.clone()]).await.unwrap();
    let (seen, _) = super::following::follow(&store, &Selection::default(), end, 10).await;
    assert_eq!(seen, [new.event_id]);
}
