//! Leases: one holder, tokens that grow, and an end by the store's clock.

use super::*;
use crate::harness::eventually;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_secs(20);

pub async fn one_holder_at_a_time(store: &dyn Store) {
    assert_eq!(store.holder("a").await.unwrap(), None);
    let lease = store.acquire("a", "me", LONG).await.unwrap().unwrap();
    assert_eq!(store.holder("a").await.unwrap().as_deref(), Some("me"));
    assert_eq!(store.acquire("a", "you", LONG).await.unwrap(), None);
    assert!(store.acquire("b", "you", LONG).await.unwrap().is_some());
    assert!(store.renew(&lease, LONG).await.unwrap());
    store.release(&lease).await.unwrap();
    assert_eq!(store.holder("a").await.unwrap(), None);
    assert!(store.acquire("a", "you", LONG).await.unwrap().is_some());
    // What was given back can neither be renewed nor given back again.
    assert!(!store.renew(&lease, LONG).await.unwrap());
    store.release(&lease).await.unwrap();
    assert_eq!(store.holder("a").await.unwrap().as_deref(), Some("you"));
}

pub async fn a_token_is_never_given_twice(store: &dyn Store) {
    let mut last = 0;
    for round in 0..4 {
        let lease = store.acquire("a", "me", LONG).await.unwrap().unwrap();
        assert!(lease.token > last, "round {round}: {lease:?} after {last}");
        last = lease.token;
        // Its own holder gets it at once, with another token, whether it gave it back or not.
        if round % 2 == 0 {
            store.release(&lease).await.unwrap();
        }
    }
}

pub async fn a_lease_that_ran_out_is_taken_and_lost_to_its_holder(store: &dyn Store) {
    let first = store.acquire("a", "me", SHORT).await.unwrap().unwrap();
    eventually(SOON, "it has run out", async || {
        store.holder("a").await.unwrap().is_none().then_some(())
    })
    .await;
    // Nobody has taken it, so it can be renewed still.
    assert!(store.renew(&first, SHORT).await.unwrap());
    let second = eventually(SOON, "it is taken", async || {
        store.acquire("a", "you", LONG).await.unwrap()
    })
    .await;
    assert!(second.token > first.token);
    assert!(!store.renew(&first, LONG).await.unwrap());
    store.release(&first).await.unwrap();
    assert_eq!(store.holder("a").await.unwrap().as_deref(), Some("you"));
}

pub async fn many_ask_and_one_gets_it(store: &dyn Store) {
    for round in 0..5 {
        let names: Vec<String> = (0..8).map(|n| format!("{round}/{n}")).collect();
        let asked = names.iter().map(|name| store.acquire("a", name, LONG));
        let got: Vec<_> = futures::future::join_all(asked)
            .await
            .into_iter()
            .filter_map(Result::unwrap)
            .collect();
        assert_eq!(got.len(), 1, "round {round}: {got:?}");
        store.release(&got[0]).await.unwrap();
    }
}

#[tokio::test]
async fn a_boot_voids_the_leases_before_it() {
    let (store, _folder) = sqlite_store().await;
    let store: &dyn Store = &store;
    let before = store.acquire("a", "me", LONG).await.unwrap().unwrap();
    store.void_leases().await.unwrap();
    assert!(!store.renew(&before, LONG).await.unwrap());
    let after = store.acquire("a", "you", LONG).await.unwrap().unwrap();
    assert!(after.token > before.token);

    // A database may have other processes at it.
    let (store, _url) = postgres_store().await;
    let store: &dyn Store = &store;
    let kept = store.acquire("a", "me", LONG).await.unwrap().unwrap();
    store.void_leases().await.unwrap();
    assert!(store.renew(&kept, LONG).await.unwrap());
}
