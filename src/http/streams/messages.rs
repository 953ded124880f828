//! `POST /api/util/msgs/{ispb}/{number}`: random Pix messages.

use super::check_ispb;
use crate::collectors::generator;
use crate::collectors::stream::PIX;
use crate::config::auth::Scope;
use crate::config::streams::Generator;
use crate::event::item;
use crate::event::pix::{self, PixMessage};
use crate::event::{Event, Source, id};
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::http::ingest::{self, SentEvents};
use crate::http::listing::unreadable;
use crate::http::openapi::problems::GeneratorProblems;
use crate::http::problem::Problem;
use actix_web::{HttpResponse, web};
use serde::Serialize;
use serde_json::value::RawValue;
use std::time::{Duration, Instant};
use utoipa::ToSchema;

/// Most messages of a request.
const MOST: u32 = 10_000;
/// Messages that are handed to the flow together.
const PART: u32 = 500;
/// First and longest pause between two looks whether they can be collected.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// How long they may take to become collectable.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was made.
#[derive(Serialize, ToSchema)]
struct Created {
    /// Messages that can be collected now.
    created: u32,
}

/// Create random Pix messages
///
/// Creates messages whose receiver has this ISPB, sends them through the flow like any others, and answers when they
/// can be collected. Only where the server listens on loopback, unless `pix.generator` says otherwise. Needs the scope
/// `ingest`.
#[utoipa::path(
    post,
    path = "/api/util/msgs/{ispb}/{number}",
    tag = "pix",
    params(
        ("ispb" = String, Path, description = "The receiver's ISPB.", pattern = r"^[0-9]{8}$", example = "00000000"),
        ("number" = u32, Path, description = "How many.", minimum = 1, maximum = 10000, example = 5)
    ),
    responses((status = 201, description = "They can be collected.", body = Created), GeneratorProblems)
)]
pub async fn post_messages(
    state: web::Data<HttpState>,
    caller: Caller,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Ingest)?;
    let (ispb, number) = path.into_inner();
    let number = checked(&state, &caller, &ispb, &number)?;
    let (mut parts, mut left) = (Vec::new(), number);
    while left > 0 {
        let part = left.min(PART);
        parts.push(create(&state, &caller, &ispb, part).await?);
        left -= part;
    }
    for ids in parts {
        wait_for(&state, &ids).await?;
    }
    Ok(HttpResponse::Created().json(Created { created: number }))
}

fn checked(state: &HttpState, caller: &Caller, ispb: &str, number: &str) -> Result<u32, Problem> {
    let settings = state.settings.get();
    let is_on = match settings.pix.generator {
        Generator::Loopback => settings.http.bind.is_loopback(),
        Generator::On => true,
        Generator::Off => false,
    };
    if !is_on || state.polls.stream(PIX).is_none() {
        return Err(Problem::missing(
            "random messages are switched off here (pix.generator, pix.enabled)",
        ));
    }
    check_ispb(ispb)?;
    caller.require_bound(PIX, ispb)?;
    // A sign would be parsed too.
    let is_plain = number.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = number.parse::<u32>().ok().filter(|_| is_plain);
    let parsed = parsed.filter(|number| (1..=MOST).contains(number));
    parsed.ok_or_else(|| {
        Problem::bad_request(format!(
            "the number is {number:?}, but must lie between 1 and {MOST}"
        ))
    })
}

/// Creates some, and returns their `endToEndId`s.
async fn create(
    state: &HttpState,
    caller: &Caller,
    ispb: &str,
    number: u32,
) -> Result<Vec<String>, Problem> {
    let now = item::now();
    let messages: Vec<PixMessage> = (0..number).map(|_| generator::message(ispb, now)).collect();
    let ids: Vec<String> = messages
        .iter()
        .map(|message| message.end_to_end_id.clone())
        .collect();
    let events = messages.iter().map(|message| {
        let data = RawValue::from_string(message.to_json());
        let data = data.map_err(|error| Problem::internal(error.to_string()))?;
        Ok(Event {
            event_id: id::fresh(),
            original_id: None,
            producer: caller.producer.clone(),
            user_id: Some(message.receiver.document.clone()),
            event_type: pix::EVENT_TYPE.to_owned(),
            event_data: data,
            schema_version: None,
            session_id: None,
            timestamp: Some(message.paid_at),
            received_at: now,
            source: Source::Http,
        })
    });
    let events: Vec<Event> = events.collect::<Result<_, Problem>>()?;
    let permit = state.budget.begin();
    let sent = SentEvents {
        events,
        ..SentEvents::default()
    };
    ingest::take(state, sent, false, permit).await?;
    Ok(ids)
}

/// Waits until messages can be collected.
async fn wait_for(state: &HttpState, ids: &[String]) -> Result<(), Problem> {
    let (began, mut pause) = (Instant::now(), PAUSES.0);
    loop {
        let collectable = state.whole.pix_messages(ids).await;
        if collectable.map_err(|error| unreadable(&error))? == ids.len() as u64 {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(Problem::unavailable(
                "the messages are durable, but cannot be collected yet: look at the follower streams.pix",
            ));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}
