//! `eclusa reactions reprocess`

use super::{run_status, unknown};
use crate::cli::progress::progress_bar;
use crate::cli::server::{Place, Server, ServerArgs};
use crate::config::Settings;
use crate::event::frame::rfc3339;
use crate::http::reactions::reprocess::ReprocessReply;
use crate::http::reactions::view::{ReactionView, RunCountsView};
use crate::reactions::runs::{Reprocessed, Reprocessing, RunStatus, overview, reprocess};
use anyhow::bail;
use chrono::{DateTime, Utc};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Map, Value, json};
use std::process::ExitCode;

/// Largest limit that a request can carry.
const LIMIT: u64 = i32::MAX as u64;

/// Options of `reprocess`.
#[derive(Args)]
pub struct ReprocessArgs {
    /// The reaction's name
    #[arg(long, value_name = "NAME")]
    reaction: String,
    /// Only runs of events of this type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only with this status: FAILED or SUCCESS
    #[arg(long, default_value = "FAILED", value_parser = ended_status)]
    status: RunStatus,
    /// Only runs of events that the log took in at this time or later (RFC 3339)
    #[arg(long, value_name = "TIME")]
    from: Option<DateTime<Utc>>,
    /// Only runs of events that the log took in before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    to: Option<DateTime<Utc>>,
    /// At most this many
    #[arg(long, short = 'n', value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// How many become due in a second; 0 is unlimited
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    rate: u32,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    server: ServerArgs,
}

fn ended_status(word: &str) -> Result<RunStatus, String> {
    match run_status(word) {
        Ok(RunStatus::Pending) => Err("such runs are made anyway".to_owned()),
        Ok(status) => Ok(status),
        Err(_) => Err("must be FAILED or SUCCESS".to_owned()),
    }
}

/// Makes runs again, and prints how many.
pub async fn run(settings: &Settings, args: ReprocessArgs) -> anyhow::Result<ExitCode> {
    let what = Reprocessing {
        status: args.status,
        event_type: args.event_type,
        from: args.from,
        to: args.to,
        limit: args.limit,
        rate: args.rate,
        dry_run: args.dry_run,
        cursor: None,
        time: None,
    };
    let done = match args.server.place(settings)? {
        Place::There(server) => there(&server, &args.reaction, what).await?,
        Place::Here(_lock) => here(settings, &args.reaction, what).await?,
    };
    let will_be = match args.dry_run {
        true => "would be made again",
        false => "will be made again",
    };
    let gone = match done.gone {
        0 => String::new(),
        gone => format!(", {gone} not: the log no longer has their events"),
    };
    println!("{} {will_be}{gone}", done.reprocessed);
    Ok(ExitCode::SUCCESS)
}

async fn here(settings: &Settings, name: &str, what: Reprocessing) -> anyhow::Result<Reprocessed> {
    let store = crate::app::store::open(settings).await?;
    let Some(found) = overview(&*store, name).await? else {
        bail!(unknown(name));
    };
    let reaction = found.record.clone();
    let bar = bar(&what, ReactionView::from(found).counts);
    let done = reprocess(&*store, &reaction, &what, |done| {
        show(&bar, done);
        true
    })
    .await?;
    bar.finish_and_clear();
    if let Some(reason) = done.stopped {
        bail!(
            "{} will be made again, then: {reason}; run it again later",
            done.reprocessed
        );
    }
    Ok(done)
}

/// By a server, which works in parts.
async fn there(server: &Server, name: &str, what: Reprocessing) -> anyhow::Result<Reprocessed> {
    let found: ReactionView = server.get(&format!("/v1/reactions/{name}")).await?;
    let bar = bar(&what, found.counts);
    let mut body = members(name, &what);
    let mut done = Reprocessed::default();
    loop {
        if let Some(limit) = what.limit {
            let left = limit.saturating_sub(done.reprocessed);
            body.insert("limit".to_owned(), left.min(LIMIT).into());
        }
        let request = serde_json::to_vec(&body)?;
        let reply: ReprocessReply = server.post("/v1/reactions/reprocess", &request).await?;
        done.matched += reply.matched;
        done.reprocessed += reply.reprocessed;
        done.gone += reply.gone;
        show(&bar, &done);
        match reply.next {
            Some(next) if what.limit.is_none_or(|limit| done.reprocessed < limit) => {
                body.insert("cursor".to_owned(), next.into());
            }
            _ => {
                bar.finish_and_clear();
                return Ok(done);
            }
        }
    }
}

/// A bar of as many steps as there are runs of the status.
fn bar(what: &Reprocessing, counts: RunCountsView) -> ProgressBar {
    let runs = match what.status {
        RunStatus::Success => counts.succeeded,
        RunStatus::Failed | RunStatus::Pending => counts.failed,
    };
    progress_bar(what.limit.map_or(runs, |limit| limit.min(runs)))
}

fn show(bar: &ProgressBar, done: &Reprocessed) {
    bar.set_position(done.reprocessed + done.gone);
    bar.set_message(format!("{} gone", done.gone));
}

/// What to make again, as a request spells it.
fn members(name: &str, what: &Reprocessing) -> Map<String, Value> {
    let all = json!({
        "reaction": name,
        "eventType": what.event_type,
        "status": what.status.as_str(),
        "from": what.from.map(rfc3339),
        "to": what.to.map(rfc3339),
        "ratePerSecond": what.rate.min(i32::MAX.unsigned_abs()),
        "dryRun": what.dry_run,
    });
    match all {
        Value::Object(members) => members.into_iter().filter(|(_, v)| !v.is_null()).collect(),
        _ => Map::new(),
    }
}
