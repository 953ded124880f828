//! `eclusa streams`

use super::GlobalArgs;
use super::server::{Place as WhereDone, ServerArgs};
use super::table::{print_line, printable};
use crate::collectors::Stream;
use crate::config::Settings;
use crate::http::streams::collect::escaped;
use crate::http::streams::view::{PlaceView, StoredStreamView};
use crate::logging;
use crate::store::Store;
use crate::store::streams::{Call, Place, StreamRecord};
use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;
use std::process::ExitCode;

/// Keys that are read at a time.
const PAGE: usize = 500;

/// Commands for streams.
#[derive(Subcommand)]
pub enum StreamsCommand {
    /// List streams: how much waits, and how many sessions collect
    List(ListArgs),
    /// Show the keys of a stream with their sessions, or one key
    Show {
        /// The stream's name
        stream: String,
        /// One of its keys, such as an ISPB
        key: Option<String>,
    },
    /// End the sessions of a key; what they have not acknowledged is handed out again
    Release(ReleaseArgs),
}

#[derive(Args)]
pub struct ListArgs {
    /// Print one JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub struct ReleaseArgs {
    /// The stream's name
    stream: String,
    /// The key, such as an ISPB
    key: String,
    /// One session, by its number; all of the key unless given
    #[arg(long, value_name = "NUMBER")]
    session: Option<i64>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs a command.
pub fn run(global: &GlobalArgs, command: StreamsCommand) -> anyhow::Result<ExitCode> {
    let settings = global.sources(global.quiet()).load()?;
    logging::start(&settings.log)?;
    super::block_on(async move {
        match command {
            StreamsCommand::List(args) => list(&settings, args.json).await,
            StreamsCommand::Show { stream, key } => show(&settings, &stream, key).await,
            StreamsCommand::Release(args) => release(settings, args).await,
        }
    })
}

async fn list(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let store = super::open_for_reading(settings).await?;
    let streams = store.streams().await?;
    if streams.is_empty() && !json {
        println!("No stream was ever declared here.");
    }
    for record in streams {
        let level = store.stream_level(record.id).await?;
        let stream = StoredStreamView::new(record, level);
        let line = match json {
            true => serde_json::to_string(&stream)?,
            false => row(&stream),
        };
        if !print_line(&line)? {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(stream: &StoredStreamView) -> String {
    let oldest = stream.oldest_waiting_seconds.unwrap_or_default();
    format!(
        "{:<24} {} waiting ({oldest:.1} s), {} leased  {} sessions",
        printable(&stream.name),
        stream.waiting,
        stream.leased,
        stream.sessions,
    )
}

async fn find(store: &dyn Store, name: &str) -> anyhow::Result<StreamRecord> {
    let found = store
        .streams()
        .await?
        .into_iter()
        .find(|one| one.name == name);
    match found {
        Some(record) => Ok(record),
        None => bail!("there is no stream {name}; `eclusa streams list` shows all"),
    }
}

async fn show(settings: &Settings, stream: &str, key: Option<String>) -> anyhow::Result<ExitCode> {
    let store = super::open_for_reading(settings).await?;
    let stream = find(&*store, stream).await?.id;
    if let Some(key) = key {
        let place = store.place(&Place { stream, key }).await?;
        print_line(&serde_json::to_string_pretty(&PlaceView::from(place))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut after: Option<String> = None;
    loop {
        let places = store.places(stream, after.as_deref(), PAGE).await?;
        let Some(last) = places.last() else {
            return Ok(ExitCode::SUCCESS);
        };
        after = Some(last.key.clone());
        for place in places {
            if !print_line(&serde_json::to_string(&PlaceView::from(place))?)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

async fn release(settings: Settings, args: ReleaseArgs) -> anyhow::Result<ExitCode> {
    let ReleaseArgs {
        stream,
        key,
        session,
        server,
    } = args;
    // Kept to the end, since it may hold the lock of the file.
    let done_by = server.place(&settings)?;
    let had_sessions = if let WhereDone::There(server) = &done_by {
        let path = format!("/v1/streams/{}/{}", escaped(&stream), escaped(&key));
        let had_sessions = check(&stream, &server.get(&path).await?, session)?;
        let body = json!({"session": session}).to_string();
        let path = format!("{path}/release");
        let _: PlaceView = server.post(&path, body.as_bytes()).await?;
        had_sessions
    } else {
        let store = crate::app::store::open(&settings).await?;
        let id = find(&*store, &stream).await?.id;
        let declared = Stream::all(&settings)?
            .into_iter()
            .find(|one| one.name == stream);
        let Some(declared) = declared else {
            bail!(
                "the settings do not declare the stream {stream}, so how its messages return is not known here"
            );
        };
        let place = Place {
            stream: id,
            key: key.clone(),
        };
        let had_sessions = check(&stream, &store.place(&place).await?.into(), session)?;
        store
            .call(&place, &Call::Release { session }, &declared.rules)
            .await?;
        had_sessions
    };
    let key = printable(&key);
    match session {
        Some(session) => println!("session {session} of {key} is ended"),
        None if had_sessions => println!("the sessions of {key} are ended"),
        None => println!("{key} has no sessions"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the key has sessions.
///
/// # Errors
/// There is no such key, or it has no such session.
fn check(stream: &str, found: &PlaceView, session: Option<i64>) -> anyhow::Result<bool> {
    let key = printable(&found.key);
    let mut sessions = found.sessions.iter();
    match session {
        Some(id) if !sessions.any(|one| one.id == id) => {
            bail!(
                "there is no session {id} of {key}; `eclusa streams show {stream} {key}` shows all"
            )
        }
        None if found.sessions.is_empty() && found.waiting == 0 => {
            bail!(
                "the stream {stream} has nothing under {key}; `eclusa streams show {stream}` lists its keys"
            )
        }
        _ => Ok(!found.sessions.is_empty()),
    }
}
