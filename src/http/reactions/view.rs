//! Reactions and their runs as the API and the command line show them.

use crate::http::followers::view::{Behind, FollowerStateWord};
use crate::reactions::runs::{ReactionOverview, RunId, RunStatus};
use crate::store::followers::FollowerState;
use crate::store::reactions::{Attempt, parse_lane};
use crate::store::runs::{RunRecord, RunState};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A reaction.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Reaction)]
pub struct ReactionView {
    #[schema(example = "welcome-mail")]
    pub name: String,
    /// The event types that it reacts to; `*` stands for any characters.
    #[schema(example = json!(["user.signed_up"]))]
    pub types: Vec<String>,
    /// The condition on the event, in CEL; null if there is none.
    #[schema(required, example = "eventData.plan == 'pro'")]
    pub when: Option<String>,
    /// Lanes, which the processes of one database share.
    pub lanes: u32,
    /// Whether it was paused by command.
    pub paused: bool,
    /// `broken` or `gapped` if one of its lanes is.
    #[schema(value_type = FollowerStateWord)]
    pub state: FollowerState,
    /// Why it is broken or gapped.
    #[schema(required)]
    pub reason: Option<String>,
    /// When it was declared first.
    pub declared_at: DateTime<Utc>,
    /// That of the lane that is behind most.
    pub behind: Behind,
    pub counts: RunCountsView,
    /// Its lanes by number, also those of earlier declarations that have something left to do.
    pub run_by: Vec<LaneRunBy>,
}

/// A lane of a reaction, and what runs it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LaneRunBy {
    pub lane: u32,
    /// The process that runs it; null if none does, and then its events wait.
    #[schema(required)]
    pub process: Option<String>,
}

/// How many runs a reaction has.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[schema(as = RunCounts)]
pub struct RunCountsView {
    /// Since the reaction was declared.
    pub succeeded: u64,
    /// Those that the retention of runs has left.
    pub failed: u64,
    pub cancelled: u64,
    /// Those that are due later or again. Runs whose first attempt has not ended are not counted; `behind` has their
    /// events.
    pub queued: u64,
}

/// All reactions.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReactionList {
    /// By name.
    pub reactions: Vec<ReactionView>,
}

/// A run: what becomes of one event by one reaction.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Run)]
pub struct RunView {
    /// The event's id, a dot, and the reaction's name.
    #[schema(example = "019c1330-9f4c-7c5e-a3c4-0d4b8f0a6f11.welcome-mail")]
    pub id: String,
    pub event_id: Uuid,
    #[schema(example = "welcome-mail")]
    pub reaction: String,
    #[schema(value_type = RunStateWord)]
    pub state: RunState,
    /// What the state amounts to; null for a cancelled run.
    #[schema(required, value_type = Option<RunStatusWord>)]
    pub status: Option<String>,
    /// Attempts that were made, with one that is under way.
    pub attempts: u32,
    /// When it is due, or when the attempt under way must have ended; null also for a run that has ended, was not
    /// decided yet, or waits for an earlier one of its order key.
    #[schema(required)]
    pub due: Option<DateTime<Utc>>,
    #[schema(required)]
    pub finished_at: Option<DateTime<Utc>>,
    /// How long the last attempt took.
    #[schema(required)]
    pub duration_ms: Option<f64>,
    /// The process that makes the attempt under way, or that made the last one.
    #[schema(required)]
    pub worker: Option<String>,
    /// Why it failed or was cancelled.
    #[schema(required)]
    pub error: Option<String>,
    /// The attempts before the last one; of a run that goes on all that have ended.
    pub history: Vec<AttemptView>,
}

/// An attempt that has ended.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Attempt)]
pub struct AttemptView {
    /// 1 for the first one.
    pub attempt: u32,
    /// When it ended.
    pub at: DateTime<Utc>,
    /// The process that made it.
    pub worker: String,
    pub error: String,
    #[schema(required)]
    pub duration_ms: Option<f64>,
}

/// Where a run stands.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", as = RunState)]
pub enum RunStateWord {
    Available,
    Scheduled,
    Running,
    Retryable,
    Succeeded,
    Failed,
    Cancelled,
}

/// `PENDING`: not decided, or going on.
#[derive(ToSchema)]
#[schema(rename_all = "UPPERCASE", as = RunStatus)]
pub enum RunStatusWord {
    Success,
    Failed,
    Pending,
}

impl From<ReactionOverview> for ReactionView {
    fn from(overview: ReactionOverview) -> Self {
        let ReactionOverview {
            record,
            types,
            spec,
            counts,
            ..
        } = overview;
        let run_by = record.lanes.into_iter().filter_map(|lane| {
            let (_, number) = parse_lane(&lane.name)?;
            Some(LaneRunBy {
                lane: number,
                process: lane.run_by,
            })
        });
        Self {
            name: record.name,
            types: types.to_vec(),
            lanes: spec.as_ref().map_or(0, |spec| spec.lanes),
            when: spec.and_then(|spec| spec.when),
            paused: record.paused,
            state: overview.state,
            reason: overview.reason,
            declared_at: record.declared_at,
            behind: Behind {
                events: overview.behind,
                seconds: overview.behind_seconds,
            },
            counts: RunCountsView {
                succeeded: counts.succeeded,
                failed: counts.failed,
                cancelled: counts.cancelled,
                queued: counts.queued,
            },
            run_by: run_by.collect(),
        }
    }
}

impl RunView {
    /// A run of the reaction of this name.
    pub fn new(reaction: &str, run: RunRecord) -> Self {
        let id = RunId {
            event_id: run.event_id,
            reaction: reaction.to_owned(),
        };
        Self {
            id: id.to_string(),
            event_id: run.event_id,
            reaction: id.reaction,
            state: run.state,
            status: RunStatus::of(run.state).map(|status| status.as_str().to_owned()),
            attempts: run.attempts,
            due: run.due,
            finished_at: run.finished_at,
            duration_ms: run.took.map(|took| took.as_micros() as f64 / 1_000.0),
            worker: run.worker,
            error: run.error,
            history: run.history.into_iter().map(AttemptView::from).collect(),
        }
    }
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        Self {
            attempt: attempt.attempt,
            at: attempt.at,
            worker: attempt.worker,
            error: attempt.error,
            duration_ms: attempt.duration_ms,
        }
    }
}
