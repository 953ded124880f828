//! `eclusa events tail --from`: the events behind a place in the log, and then those that come.

use super::tail::{AT_ONCE, LOOK, NUMBERED_BY_A_SERVER, end_of_log};
use crate::cli::output;
use crate::cli::server::{Place, Server, ServerArgs};
use crate::config::Settings;
use crate::event::StoredEvent;
use crate::event::schemas::{SchemaView, Schemas};
use crate::http::followers::view::OutsidePosition;
use crate::http::streams::collect::escaped;
use crate::store::Store;
use crate::store::commit_log::{Position, Span, TypePatterns};
use crate::supervision::Backoff;
use crate::topics::StartAt;
use anyhow::{Context as _, bail};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;

/// A server gives a sign of life more often than that.
const SILENCE: Duration = Duration::from_secs(45);
/// First and longest pause before the next try.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A line of a stream, as far as it matters here.
#[derive(Deserialize)]
struct StreamLine<'a> {
    position: String,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    end: Option<StreamEnd>,
}

#[derive(Deserialize)]
struct StreamEnd {
    reason: String,
    detail: String,
}

/// A line that is made here, as a server makes it.
#[derive(Serialize)]
struct LineOfEvent {
    position: String,
    event: StoredEvent,
}

/// Which events are printed.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) start: StartAt,
    pub(super) event_type: &'a str,
    pub(super) schema: SchemaView,
}

/// Prints them until interrupted.
pub(super) async fn run(
    settings: &Settings,
    server: &ServerArgs,
    wanted: Wanted<'_>,
) -> anyhow::Result<ExitCode> {
    match server.place(settings)? {
        Place::There(server) => follow_server(&server, wanted).await,
        Place::Here(lock) => {
            // Reading needs no lock, and a server may start.
            drop(lock);
            let store = crate::cli::open_for_reading(settings).await?;
            follow_store(&*store, settings.event_schemas(), wanted).await
        }
    }
    .map(|()| ExitCode::SUCCESS)
}

fn from(start: StartAt) -> String {
    match start {
        StartAt::Beginning => "beginning".to_owned(),
        StartAt::Now => "now".to_owned(),
        StartAt::Time(time) => time.to_rfc3339(),
        StartAt::Position {
            generation,
            position,
        } => OutsidePosition::new(generation, position).to_string(),
    }
}

async fn follow_server(server: &Server, wanted: Wanted<'_>) -> anyhow::Result<()> {
    let mut path = format!(
        "/v1/topics/{}/events?from={}",
        escaped(wanted.event_type),
        escaped(&from(wanted.start))
    );
    if wanted.schema == SchemaView::Latest {
        path.push_str("&schema=latest");
    }
    let mut position: Option<String> = None;
    let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
    loop {
        let reason = match server.lines(&path, position.as_deref()).await? {
            Err(reason) => reason,
            Ok(mut parts) => {
                let mut begun = Vec::new();
                loop {
                    let part = match timeout(SILENCE, parts.next()).await {
                        Err(_) => break format!("the server has said nothing for {SILENCE:?}"),
                        Ok(None) => break "the stream has ended".to_owned(),
                        Ok(Some(Err(error))) => break format!("the connection is lost: {error}"),
                        Ok(Some(Ok(part))) => part,
                    };
                    backoff.reset();
                    begun.extend_from_slice(&part);
                    if !print_whole(&mut begun, &mut position)? {
                        return Ok(());
                    }
                }
            }
        };
        match &position {
            Some(position) => eprintln!("eclusa: {reason}; going on behind {position}"),
            None => eprintln!("eclusa: {reason}; trying again"),
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

/// Prints the events of the whole lines, and leaves what is begun. `false` when the reader of our output has gone.
fn print_whole(begun: &mut Vec<u8>, position: &mut Option<String>) -> anyhow::Result<bool> {
    let Some(last) = memchr::memrchr(b'\n', begun) else {
        return Ok(true);
    };
    let rest = begun.split_off(last + 1);
    let whole = std::mem::replace(begun, rest);
    let text = std::str::from_utf8(&whole).context("the server's response is not Eclusa's")?;
    let mut printed = String::with_capacity(text.len());
    let mut ended = None;
    for line in text.lines() {
        let read: StreamLine =
            serde_json::from_str(line).context("the server's response is not Eclusa's")?;
        if read.event.is_some() {
            printed.push_str(line);
            printed.push('\n');
        }
        *position = Some(read.position);
        ended = read.end.or(ended);
    }
    if !output::write(&printed)? {
        return Ok(false);
    }
    match ended {
        // It can be gone on with.
        Some(end) if matches!(end.reason.as_str(), "slow" | "stopping" | "finished") => Ok(true),
        Some(end) => bail!(end.detail),
        None => Ok(true),
    }
}

async fn follow_store(
    store: &dyn Store,
    schemas: &Schemas,
    wanted: Wanted<'_>,
) -> anyhow::Result<()> {
    let types = TypePatterns::new([wanted.event_type]);
    let generation = store.generation().await?;
    let bounds = store.log_bounds().await?;
    let (mut cursor, mut complete_from) = match wanted.start {
        StartAt::Beginning => (Position::START, bounds.deleted_to),
        StartAt::Now => (end_of_log(store).await?, bounds.deleted_to),
        StartAt::Time(time) => (store.position_at(time).await?, bounds.deleted_to),
        StartAt::Position {
            generation: given, ..
        } if given != generation => {
            bail!(
                "the position belongs to generation {given} of the log, and this is generation {generation}"
            )
        }
        StartAt::Position { position, .. } => (position, Position::START),
    };
    let mut backoff = Backoff::new(LOOK, AGAIN.1);
    loop {
        let read = async {
            // A server numbers what is committed at once; none need be running.
            if store.unnumbered().await?.seconds > NUMBERED_BY_A_SERVER {
                store.number_commits().await?;
            }
            let read = store
                .read_topic(&types, Span::after(cursor, AT_ONCE))
                .await?;
            Ok::<_, crate::store::StoreError>((read, store.generation().await?))
        };
        let (read, found) = match read.await {
            Ok(read) => read,
            Err(error) => {
                eprintln!("eclusa: {error}; trying again");
                tokio::time::sleep(backoff.next_pause()).await;
                continue;
            }
        };
        backoff.reset();
        let at = OutsidePosition::new(generation, cursor);
        if found != generation {
            bail!("the database was restored or recovered; {at} is none of its positions");
        }
        if read.deleted_to > cursor.max(complete_from) {
            bail!(
                "the retention has deleted events behind {at}; --from beginning begins with the first that is left"
            );
        }
        complete_from = complete_from.max(read.deleted_to);
        let mut printed = String::new();
        for logged in read.chunk.events {
            let line = LineOfEvent {
                position: OutsidePosition::new(generation, logged.position).to_string(),
                event: schemas.viewed(wanted.schema, logged.event),
            };
            // A payload may have line breaks between its parts, but none within a text.
            printed.push_str(&serde_json::to_string(&line)?.replace(['\n', '\r'], " "));
            printed.push('\n');
        }
        if !output::write(&printed)? {
            return Ok(());
        }
        let moved = read.chunk.read_to != cursor;
        cursor = read.chunk.read_to;
        if !moved {
            tokio::time::sleep(LOOK).await;
        }
    }
}
