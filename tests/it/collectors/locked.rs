//! A key whose lock another process has on PostgreSQL, and does not give back.

use super::{Api, SOON, fresh_ispb, start};
use crate::harness::{App, Postgres, connect, eventually};
use futures::future::join_all;
use reqwest::StatusCode;
use std::time::{Duration, Instant};

/// More than there are connections for collectors.
const CALLS: usize = 8;
/// Less than one waits for a connection.
const QUICK: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_key_whose_lock_is_held_elsewhere_does_not_hold_up_others() {
    let url = Postgres::shared().await.database().await;
    let app = App::builder().postgres(&url).set("pix.wait", "0s");
    let app = app.start().await;
    let api = Api::of(&app);
    let (held, other) = (fresh_ispb(), fresh_ispb());
    api.make(&held, 1).await;
    api.make(&other, 20).await;
    let lock = format!(
        "SELECT pg_advisory_lock(hashtextextended('{held}', id)) FROM streams WHERE name = 'pix'"
    );
    let client = connect(&url).await;
    client.batch_execute(&lock).await.unwrap();

    let path = start(&held);
    let refused = join_all((0..CALLS).map(|_| api.get(&path)));
    let others = async {
        let began = Instant::now();
        let mut next = start(&other);
        // While those of the held one wait, one after the other.
        while began.elapsed() < 2 * QUICK {
            let asked = Instant::now();
            let answer = api.many(&next).await;
            assert!(answer.status.is_success(), "{answer:?}");
            assert!(asked.elapsed() < QUICK, "{:?}", asked.elapsed());
            next = answer.next();
        }
    };
    let began = Instant::now();
    let (refused, ()) = tokio::join!(refused, others);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    for answer in refused {
        answer.assert_problem(StatusCode::SERVICE_UNAVAILABLE);
    }

    drop(client);
    // The server has noticed when it answers.
    let answer = eventually(SOON, "the held one is free", async || {
        let answer = api.get(&path).await;
        (answer.status != StatusCode::SERVICE_UNAVAILABLE).then_some(answer)
    })
    .await;
    assert_eq!(answer.ids().len(), 1);
    assert_eq!(api.delete(&answer.next()).await.status, StatusCode::OK);
}
