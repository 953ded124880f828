//! One connection of the load generator.

use super::{Sent, Shared};
use crate::body::{Body, Ids};
use crate::http::Connection;
use memchr::memmem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// Pause after an answer that is no yes, so that a server that refuses is not flooded.
const PAUSE: Duration = Duration::from_millis(20);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection: a request when its turn has come, and the next one after its answer.
pub(super) async fn run(shared: Arc<Shared>, source: u16, began: Instant) -> anyhow::Result<Sent> {
    let load = &shared.load;
    let mut sent = Sent::new(began)?;
    let mut ids = Ids::new(source);
    let text = Body::new(load.array, load.event_bytes, "");
    let head = load.target.post_head(text.bytes().len());
    let mut request = text.behind(head.as_bytes());
    let mut open: Option<Connection> = None;
    tokio::time::sleep_until(began).await;
    while let Some(turn) = shared.pace.next().await {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let before = sent.accepted.len();
        request.renew(&mut ids, &mut sent.accepted);
        let verdict = match &mut open {
            Some(open) => ask(open, request.bytes(), sent.accepted.get(before..)).await,
            None => match load.target.connect().await {
                Ok(new) => {
                    ask(
                        open.insert(new),
                        request.bytes(),
                        sent.accepted.get(before..),
                    )
                    .await
                }
                Err(_) => Verdict::Broken,
            },
        };
        let now = Instant::now();
        sent.ended = now;
        shared.answered.fetch_add(1, Ordering::Relaxed);
        match verdict {
            Verdict::Accepted { closes } => {
                sent.latency.record(now.saturating_duration_since(turn));
                if closes {
                    open = None;
                }
                continue;
            }
            Verdict::Strange => sent.strange += 1,
            Verdict::Refused { closes } => {
                sent.refused += 1;
                if closes {
                    open = None;
                }
            }
            Verdict::Broken => {
                sent.broken += 1;
                open = None;
            }
        }
        sent.unsure.extend(sent.accepted.drain(before..));
        tokio::time::sleep(PAUSE).await;
    }
    Ok(sent)
}

enum Verdict {
    Accepted { closes: bool },
    Strange,
    Refused { closes: bool },
    Broken,
}

async fn ask(connection: &mut Connection, request: &[u8], ids: Option<&[Uuid]>) -> Verdict {
    match tokio::time::timeout(PATIENCE, connection.exchange(request)).await {
        Ok(Ok(answer)) if (200..300).contains(&answer.status) => {
            if names_all(answer.body, ids.unwrap_or_default()) {
                Verdict::Accepted {
                    closes: answer.closes,
                }
            } else {
                Verdict::Strange
            }
        }
        Ok(Ok(answer)) => Verdict::Refused {
            closes: answer.closes,
        },
        Ok(Err(_)) | Err(_) => Verdict::Broken,
    }
}

/// Whether an answer names these ids, in this order, and reports none as dead-lettered.
fn names_all(body: &[u8], ids: &[Uuid]) -> bool {
    const MEMBER: &[u8] = b"\"id\":\"";
    let mut rest = body;
    let mut text = [0; 36];
    for id in ids {
        let Some(at) = memmem::find(rest, MEMBER) else {
            return false;
        };
        rest = rest.get(at + MEMBER.len()..).unwrap_or_default();
        let expected = id.hyphenated().encode_lower(&mut text);
        if !rest.starts_with(expected.as_bytes()) {
            return false;
        }
    }
    memmem::find(body, b"deadLettered").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_with_all_ids_is_a_yes() {
        let ids: Vec<Uuid> = (1..=2).map(Uuid::from_u128).collect();
        let list = |ids: &[Uuid], status: &str| {
            let items: Vec<String> = ids
                .iter()
                .map(|id| format!(r#"{{"id":"{id}","status":"{status}"}}"#))
                .collect();
            format!(r#"{{"accepted":2,"items":[{}]}}"#, items.join(","))
        };
        assert!(names_all(list(&ids, "stored").as_bytes(), &ids));
        assert!(!names_all(list(&ids[..1], "stored").as_bytes(), &ids));
        assert!(!names_all(list(&ids, "deadLettered").as_bytes(), &ids));
        let turned = [ids[1], ids[0]];
        assert!(!names_all(list(&turned, "stored").as_bytes(), &ids));
        assert!(!names_all(b"", &ids));
    }
}
