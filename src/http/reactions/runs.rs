//! Runs: listing and reading.

use super::view::{RunStateWord, RunStatusWord, RunView};
use super::{RESTART, reaction};
use crate::config::auth::Scope;
use crate::event::id;
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::http::followers::view::OutsidePosition;
use crate::http::listing::{check_generation, cursor, found, limit, parse_query, time, unreadable};
use crate::http::openapi::problems::{LookupProblems, RunListProblems};
use crate::http::problem::Problem;
use crate::reactions::runs::{self, RunId, RunQuery, RunStatus};
use crate::store::runs::RunState;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RunListQuery {
    /// Only runs with this status.
    #[param(value_type = Option<RunStatusWord>)]
    status: Option<String>,
    /// Only runs in this state.
    #[param(value_type = Option<RunStateWord>)]
    state: Option<String>,
    /// Only runs of events that the log took in at this time or later (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<String>,
    /// Only runs of events that the log took in before this time (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<String>,
    /// Most runs on a page.
    #[param(minimum = 1, maximum = 1000, default = 50)]
    limit: Option<usize>,
    /// The `next` of the page before.
    #[param(pattern = r"^[0-9]{1,9}-[0-9]{1,18}$", example = "1-8191")]
    cursor: Option<String>,
}

/// A page of runs.
#[derive(Serialize, ToSchema)]
struct RunPage {
    /// The runs, those of the newest events first.
    runs: Vec<RunView>,
    /// The `cursor` of the next page; null on the last.
    #[schema(required)]
    next: Option<String>,
}

/// The runs of an event.
#[derive(Serialize, ToSchema)]
struct EventRuns {
    /// By the name of the reaction.
    runs: Vec<RunView>,
}

/// List the runs of a reaction
///
/// Those of the newest events first. A page can have fewer runs than asked for, or none, and yet a `next`: the search
/// for runs that are not decided goes on there.
#[utoipa::path(
    get,
    path = "/v1/reactions/{name}/runs",
    tag = "reactions",
    params(
        ("name" = String, Path, description = "The reaction's name.", example = "welcome-mail"),
        RunListQuery
    ),
    responses((status = 200, description = "A page of runs.", body = RunPage), RunListProblems)
)]
pub async fn list(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let query: RunListQuery = parse_query(&request)?;
    let limit = limit(query.limit)?;
    let before: Option<OutsidePosition> = cursor(query.cursor)?;
    let run_query = RunQuery {
        states: states(query.status, query.state)?,
        from: time("from", query.from)?,
        to: time("to", query.to)?,
        before: before.map(|before| before.position),
    };
    let reaction = reaction(&state, &path).await?;
    if let Some(before) = before {
        let what = format_args!("the cursor {before}");
        check_generation(&state, what, before.generation, RESTART).await?;
    }
    let page = async {
        let generation = state.whole.generation().await?;
        let page = runs::list(&*state.whole, &reaction, &run_query, limit).await?;
        Ok((generation, page))
    };
    let (generation, page) = page.await.map_err(|error| unreadable(&error))?;
    let view = |run| RunView::new(&reaction.name, run);
    Ok(HttpResponse::Ok().json(RunPage {
        runs: page.runs.into_iter().map(view).collect(),
        next: page
            .next
            .map(|next| OutsidePosition::new(generation, next).to_string()),
    }))
}

/// Get a run
#[utoipa::path(
    get,
    path = "/v1/runs/{id}",
    tag = "reactions",
    params((
        "id" = String, Path, description = "The event's id, a dot, and the reaction's name.",
        pattern = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.[A-Za-z0-9._-]{1,60}$",
        example = "019c1330-9f4c-7c5e-a3c4-0d4b8f0a6f11.welcome-mail"
    )),
    responses((status = 200, description = "The run.", body = RunView), LookupProblems)
)]
pub async fn get(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let id: RunId = path.parse().map_err(Problem::bad_request)?;
    show(&state, &id).await
}

/// The response that shows a run.
pub(super) async fn show(state: &HttpState, id: &RunId) -> Result<HttpResponse, Problem> {
    let run = runs::find(&*state.whole, id).await;
    let run = found(run, || missing(id))?;
    Ok(HttpResponse::Ok().json(RunView::new(&id.reaction, run)))
}

pub(super) fn missing(id: &RunId) -> Problem {
    Problem::missing(format!(
        "there is no run {id}; GET /v1/events/{}/runs lists the runs of the event",
        id.event_id
    ))
}

/// List the runs of an event
///
/// One for each reaction to the event. The event's id is the UUID that it is stored under, or the id that the caller
/// sent, as of `GET /v1/events/{id}`.
#[utoipa::path(
    get,
    path = "/v1/events/{id}/runs",
    tag = "reactions",
    params(("id" = String, Path, description = "The event's id.", example = "order-1001")),
    responses((status = 200, description = "The runs.", body = EventRuns), LookupProblems)
)]
pub async fn of_event(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    let of_caller = id::of_caller(&caller.producer, &path);
    // A derived id, as responses name it, is no caller's id; both are looked up.
    let event_id = id::canonical(&path).unwrap_or(of_caller);
    let mut runs = runs::of_event(&*state.whole, event_id).await;
    if of_caller != event_id && matches!(runs, Ok(None)) {
        runs = runs::of_event(&*state.whole, of_caller).await;
    }
    let runs = found(runs, || {
        Problem::missing(format!(
            "no event {} in the log; if it was accepted just now, ask GET /v1/events/{{id}}?wait=5s first",
            path.as_str()
        ))
    })?;
    let view = |(reaction, run): (String, _)| RunView::new(&reaction, run);
    Ok(HttpResponse::Ok().json(EventRuns {
        runs: runs.into_iter().map(view).collect(),
    }))
}

/// The states that a query asks for; `None` if for all.
fn states(status: Option<String>, state: Option<String>) -> Result<Option<Vec<RunState>>, Problem> {
    let of_status = status.map(|word| run_status("status", &word)).transpose()?;
    let one = state.map(|word| run_state(&word)).transpose()?;
    Ok(match (of_status, one) {
        (None, None) => None,
        (Some(status), None) => Some(status.states().collect()),
        (None, Some(state)) => Some(vec![state]),
        (Some(status), Some(state)) => {
            Some(status.states().filter(|other| *other == state).collect())
        }
    })
}

pub(super) fn run_status(name: &str, word: &str) -> Result<RunStatus, Problem> {
    RunStatus::parse(word).ok_or_else(|| {
        let known = RunStatus::ALL.map(RunStatus::as_str).join(", ");
        Problem::bad_request(format!("{name} is {word:?}, but must be one of {known}"))
    })
}

fn run_state(word: &str) -> Result<RunState, Problem> {
    RunState::ALL
        .into_iter()
        .find(|state| state.as_str() == word)
        .ok_or_else(|| {
            let known = RunState::ALL.map(RunState::as_str).join(", ");
            Problem::bad_request(format!("state is {word:?}, but must be one of {known}"))
        })
}
