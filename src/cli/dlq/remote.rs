//! Replay and purge by a running server.

use crate::cli::progress::progress_bar;
use crate::cli::server::Server;
use crate::dead_letters::replay::{Replay, Report};
use crate::event::frame::rfc3339;
use crate::http::dead_letters::actions::{PurgeReply, ReplayReply};
use crate::store::dead_letters::{DeadLetterFilter, DeadLetterState};
use anyhow::bail;
use serde_json::{Map, Value, json};

/// Largest limit that a request can carry, for a replay and for a purge.
const REPLAY_LIMIT: u64 = i32::MAX as u64;
const PURGE_LIMIT: u64 = 10_000;

/// One part of a replay: how many dead letters match the filter, and what was done.
///
/// # Errors
/// As [`Server::post`].
pub async fn replay(server: &Server, replay: &Replay) -> anyhow::Result<(u64, Report)> {
    let mut body = members(&replay.filter);
    let mut set = |name: &str, value: Value| {
        body.insert(name.to_owned(), value);
    };
    set("dryRun", replay.dry_run.into());
    if let Some(limit) = replay.limit {
        set("limit", limit.min(REPLAY_LIMIT).into());
    }
    if let Some(rate) = replay.rate {
        set("ratePerSecond", rate.into());
    }
    if let Some(cursor) = replay.cursor {
        set("cursor", cursor.to_string().into());
    }
    let body = serde_json::to_vec(&body)?;
    let reply: ReplayReply = server.post("/v1/dead-letters/replay", &body).await?;
    let next = match reply.next.map(|next| next.parse()) {
        None => None,
        Some(Ok(next)) => Some(next),
        Some(Err(())) => bail!("the server's response is not Eclusa's"),
    };
    let report = Report {
        replayed: reply.replayed,
        failed: reply.failed,
        failures: reply.failures,
        next,
        stopped: None,
    };
    Ok((reply.matched, report))
}

/// Purges in parts until nothing is left or `limit` is reached.
///
/// # Errors
/// As [`Server::post`].
pub async fn purge(server: &Server, filter: &DeadLetterFilter, limit: u64) -> anyhow::Result<u64> {
    let mut purged = 0;
    let mut bar = None;
    loop {
        let mut body = members(filter);
        body.insert("limit".to_owned(), (limit - purged).min(PURGE_LIMIT).into());
        body.insert("all".to_owned(), true.into());
        let body = serde_json::to_vec(&body)?;
        let reply: PurgeReply = server.post("/v1/dead-letters/purge", &body).await?;
        let bar = bar.get_or_insert_with(|| progress_bar(reply.matched.min(limit)));
        purged += reply.purged;
        bar.set_position(purged);
        if reply.purged == 0 || reply.purged >= reply.matched || purged >= limit {
            bar.finish_and_clear();
            return Ok(purged);
        }
    }
}

/// A filter as a request spells it.
fn members(filter: &DeadLetterFilter) -> Map<String, Value> {
    let all = json!({
        "ids": filter.ids,
        "cause": filter.cause,
        "eventType": filter.event_type,
        "from": filter.from.map(rfc3339),
        "to": filter.to.map(rfc3339),
        "state": filter.state.map(DeadLetterState::as_str),
    });
    match all {
        Value::Object(members) => members.into_iter().filter(|(_, v)| !v.is_null()).collect(),
        _ => Map::new(),
    }
}
