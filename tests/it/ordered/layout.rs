//! The layout of the shards in PostgreSQL.

use crate::harness::connect;
use crate::store_contract::postgres_store;
use eclusa::event::Shards;
use eclusa::store::ShardLayoutStore;
use eclusa::store::shard_layout::{LayoutEntry, Replica};
use uuid::Uuid;

const QUEUE: &str = "/ eclusa.events";

fn shards(count: u16) -> Shards {
    Shards {
        count,
        prefetch: 100 + count,
    }
}

fn replica() -> Replica {
    Replica {
        id: Uuid::new_v4(),
        connection: Uuid::new_v4(),
    }
}

#[tokio::test]
async fn a_layout_is_replaced_only_when_no_replica_holds_a_lease() {
    let (store, url) = postgres_store().await;
    let (a, b) = (replica(), replica());
    let enter = async |wanted: u16, replica, create| {
        let wanted = (wanted > 0).then(|| shards(wanted));
        let entry = store.enter(QUEUE, wanted, replica, create).await;
        entry.unwrap()
    };
    assert_eq!(enter(4, a, false).await, LayoutEntry::Absent);
    assert_eq!(enter(4, a, true).await, LayoutEntry::Entered(shards(4)));
    assert_eq!(enter(4, b, true).await, LayoutEntry::Entered(shards(4)));
    assert_eq!(store.renew(QUEUE, a.connection).await.unwrap(), Some(2));
    // Another connection of the same replica takes its lease.
    let again = Replica {
        connection: Uuid::new_v4(),
        ..b
    };
    enter(4, again, true).await;
    assert_eq!(store.renew(QUEUE, b.connection).await.unwrap(), None);
    let occupied = LayoutEntry::Occupied {
        shards: shards(4),
        replicas: 2,
    };
    assert_eq!(enter(8, replica(), true).await, occupied);
    // A lease that has run out stands until it is removed.
    let client = connect(&url).await;
    let run_out = "UPDATE shard_replicas SET until = 'epoch'";
    store.remove_expired(QUEUE, a.connection).await.unwrap();
    client.batch_execute(run_out).await.unwrap();
    assert_eq!(store.expired(QUEUE).await.unwrap().len(), 2);
    assert_eq!(enter(0, replica(), false).await, occupied);
    for lease in [a, again] {
        store.remove_expired(QUEUE, lease.connection).await.unwrap();
    }
    let draining = LayoutEntry::Draining(shards(4));
    assert_eq!(enter(8, a, true).await, draining);
    // While it drains no replica enters, not with the former number either.
    assert_eq!(enter(4, b, true).await, draining);
    let replaced = store.replace(QUEUE, shards(4), Some(shards(8))).await;
    replaced.unwrap();
    assert_eq!(enter(8, a, true).await, LayoutEntry::Entered(shards(8)));
    // Late, another replica replaces what is no longer there.
    store.replace(QUEUE, shards(4), None).await.unwrap();
    store.replace(QUEUE, shards(8), None).await.unwrap();
    assert_eq!(enter(8, b, true).await, LayoutEntry::Entered(shards(8)));
}
