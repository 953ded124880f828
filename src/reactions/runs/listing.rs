//! Pages of the runs of a reaction.

use super::undecided::{Found, Undecided};
use super::undecided_run;
use crate::store::commit_log::Position;
use crate::store::reactions::ReactionRecord;
use crate::store::runs::{RunFilter, RunOrder, RunRecord, RunState};
use crate::store::{Store, StoreError};
use chrono::{DateTime, Utc};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Which runs to list. Absent fields do not filter.
#[derive(Debug, Clone, Default)]
pub struct RunQuery {
    /// Only runs in one of these states.
    pub states: Option<Vec<RunState>>,
    /// Only runs of events that the log took in at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Only runs of events that the log took in before this time.
    pub to: Option<DateTime<Utc>>,
    /// Only runs before this position.
    pub before: Option<Position>,
}

/// Runs, those of the newest events first.
#[derive(Debug, Default)]
pub struct RunPage {
    pub runs: Vec<RunRecord>,
    /// Give this as `before` for the next page; `None` when there is none.
    pub next: Option<Position>,
}

/// One page of the runs of a reaction, whose record was read before. A page ends early if much had to be searched for
/// it.
///
/// # Errors
/// The store's.
pub async fn list(
    store: &dyn Store,
    reaction: &ReactionRecord,
    query: &RunQuery,
    limit: usize,
) -> Result<RunPage, StoreError> {
    let states = query.states.clone().unwrap_or(RunState::ALL.to_vec());
    let (after, until) = span(store, query).await?;
    if states.is_empty() || after >= until {
        return Ok(RunPage::default());
    }
    // One more than is shown says whether there is another page.
    let wanted = limit.saturating_add(1);
    let found = match states.contains(&RunState::Available) {
        true => {
            let undecided = Undecided::new(store, reaction);
            undecided.newest(after, until, wanted).await?
        }
        false => Found {
            events: Vec::new(),
            searched_to: after,
        },
    };
    let filter = RunFilter {
        reaction: reaction.id,
        states,
        after: found.searched_to.max(after),
        until,
    };
    let rows = store.list_runs(&filter, RunOrder::Newest, wanted).await?;
    let mut runs: BTreeMap<Reverse<Position>, RunRecord> = found
        .events
        .into_iter()
        .map(|(position, event_id)| undecided_run(reaction.id, position, event_id))
        .chain(rows)
        .map(|run| (Reverse(run.position), run))
        .collect();
    let more = runs.len() > limit;
    while runs.len() > limit {
        runs.pop_last();
    }
    let last = runs
        .last_key_value()
        .map(|(Reverse(position), _)| *position);
    let next = match last {
        Some(last) if more => Some(last),
        // Behind the position where the search has ended, the page is complete.
        _ if filter.after > after => Some(Position(filter.after.0.saturating_add(1))),
        _ => None,
    };
    Ok(RunPage {
        runs: runs.into_values().collect(),
        next,
    })
}

/// The positions that a query is about.
async fn span(store: &dyn Store, query: &RunQuery) -> Result<(Position, Position), StoreError> {
    let after = match query.from {
        Some(from) => store.position_at(from).await?,
        None => Position::START,
    };
    let mut until = match query.to {
        Some(to) => store.position_at(to).await?,
        None => Position::MAX,
    };
    if let Some(before) = query.before {
        until = until.min(Position(before.0.saturating_sub(1)));
    }
    Ok((after, until))
}
