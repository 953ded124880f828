//! Many collectors of one key at once.

use super::collecting::{Collecting, KEY, RULES};
use crate::followers::{Place, SOON, on_both_stores};
use eclusa::store::streams::{Call, Reply};
use futures::future::join_all;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

const MESSAGES: usize = 400;
const RIVALS: usize = 16;

on_both_stores! {
    each_message_is_with_one_session_and_sessions_have_slots,
}

/// What a collector got before it was told that all slots are taken, or that nothing is left.
async fn collect(stream: &Collecting<'_>, live: &AtomicUsize, n: usize) -> Vec<Uuid> {
    let mut got = Vec::new();
    let mut call = Call::Start { limit: 1 + n % 5 };
    loop {
        let starts = matches!(call, Call::Start { .. });
        match stream.call(KEY, call).await {
            Reply::Messages { next, messages, .. } => {
                if starts {
                    let now = live.fetch_add(1, Ordering::SeqCst);
                    assert!(now < 6, "{now} other sessions");
                }
                got.extend(messages.iter().map(|one| one.event_id));
                call = match got.len() % 7 {
                    // Its place is free for another, but only after this.
                    0 => {
                        live.fetch_sub(1, Ordering::SeqCst);
                        stream.end(next).await;
                        Call::Start { limit: 1 + n % 5 }
                    }
                    _ => Call::Next {
                        ticket: next,
                        limit: 1 + n % 5,
                        waiting: None,
                    },
                };
            }
            Reply::Waiting { next, .. } => {
                if !starts {
                    live.fetch_sub(1, Ordering::SeqCst);
                }
                stream.end(next).await;
                return got;
            }
            Reply::Full { .. } => call = Call::Start { limit: 1 + n % 5 },
            reply => panic!("{reply:?}"),
        }
    }
}

async fn each_message_is_with_one_session_and_sessions_have_slots(place: &Place) {
    let stream = Collecting::new(place, "s", RULES).await;
    let mut all = Vec::new();
    for _ in 0..4 {
        all.extend(stream.deliver(KEY, MESSAGES / 4).await);
    }
    let live = AtomicUsize::new(0);
    let rivals = (0..RIVALS).map(|n| collect(&stream, &live, n));
    let got = tokio::time::timeout(SOON, join_all(rivals)).await;
    let got = got.expect("everything is collected");
    let order: HashMap<Uuid, usize> = all.iter().copied().zip(0..).collect();
    for one in &got {
        assert!(one.is_sorted_by_key(|id| order[id]), "oldest first");
    }
    let got = got.concat();
    assert_eq!(got.len(), MESSAGES);
    assert_eq!(
        got.into_iter().collect::<HashSet<_>>(),
        HashSet::from_iter(all)
    );
    assert_eq!(stream.level(KEY).await, (0, vec![]));
}
