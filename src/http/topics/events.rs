//! `/v1/topics/{type}/events`: a stream of events.

use super::start::start_at;
use super::view::{TopicLine, TopicMessage};
use crate::config::auth::Scope;
use crate::event::schemas::SchemaView;
use crate::http::HttpState;
use crate::http::auth::Caller;
use crate::http::connection::client;
use crate::http::followers::view::OutsidePosition;
use crate::http::listing::{parse_query, unreadable};
use crate::http::openapi::problems::TopicProblems;
use crate::http::problem::Problem;
use crate::store::commit_log::TypePatterns;
use crate::topics::{NoSeat, NotOpened, Opening, StartAt, StreamFormat, Subscriber};
use actix_web::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures::Stream;
use futures::stream::unfold;
use serde::Deserialize;
use std::convert::Infallible;
use std::time::Duration;
use utoipa::IntoParams;

/// The header with which a client goes on where it was.
const LAST_EVENT_ID: &str = "last-event-id";
/// Longest event type, as a setting may allow it.
const MAX_TYPE: usize = 1_280;
/// When to try again to open a stream, of which there are as many as may be.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Where a stream begins, whether it ends, and in which form it has the events.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EventStreamQuery {
    /// `beginning`, `now` (the default), a time (RFC 3339), or a position: the stream begins behind it.
    #[param(example = "beginning")]
    from: Option<String>,
    /// `false` ends the stream where the log ended at the request.
    #[param(default = true)]
    follow: Option<bool>,
    /// `latest`: the events as the newest version of their type's schema has them; `sent` if absent.
    #[param(value_type = Option<String>, pattern = "^(sent|latest)$")]
    #[serde(default)]
    schema: SchemaView,
}

/// Stream events
///
/// The events of a type in the order of the log, and then those that come. As server-sent events each has its position
/// as `id` and the event as `data`; with `Accept: application/x-ndjson` each is a line. `Last-Event-ID` goes on behind
/// an event, and wins over `from`. Needs the scope `read`.
#[utoipa::path(
    get,
    path = "/v1/topics/{type}/events",
    tag = "topics",
    params(
        ("type" = String, Path, min_length = 1, max_length = 1280, pattern = r"^[^\u0000]+$", example = "page.*",
         description = "The event type; `*` stands for any characters."),
        EventStreamQuery,
        ("Last-Event-ID" = Option<String>, Header, pattern = r"^([0-9]{1,9}-[0-9]{1,18})?$", example = "1-8191",
         description = "The position of the last event that the client has.")
    ),
    responses(
        (status = 200, description = "The stream.",
         content((TopicMessage = "text/event-stream"), (TopicLine = "application/x-ndjson"))),
        TopicProblems
    )
)]
pub async fn stream(
    request: HttpRequest,
    state: web::Data<HttpState>,
    caller: Caller,
    event_type: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    caller.require(Scope::Read)?;
    check_type(&event_type)?;
    let query: EventStreamQuery = parse_query(&request)?;
    let headers = request.headers();
    let start = match (last_event_id(headers)?, &query.from) {
        (Some(start), _) => start,
        (None, Some(from)) => start_at(from).map_err(Problem::bad_request)?,
        (None, None) => StartAt::Now,
    };
    let format = format(headers);
    let opening = Opening {
        holder: caller.holder(),
        client: client(&request),
        types: TypePatterns::new([event_type.as_str()]),
        schema: query.schema,
        format,
        start,
        follow: query.follow.unwrap_or(true),
    };
    let opened = state.topics.open(opening).await;
    let subscriber = opened.map_err(|why| refused(why, start, &caller))?;
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, format.content_type()))
        .insert_header((CACHE_CONTROL, "no-store"))
        // nginx would gather what is sent.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(parts(subscriber)))
}

/// The parts of a stream, each made when the connection has room for it.
fn parts(subscriber: Subscriber) -> impl Stream<Item = Result<Bytes, Infallible>> {
    unfold(subscriber, async |mut subscriber| {
        let part = subscriber.next_part().await?;
        Some((Ok(part), subscriber))
    })
}

fn check_type(event_type: &str) -> Result<(), Problem> {
    if event_type.len() > MAX_TYPE {
        return Err(Problem::bad_request(format!(
            "the type has {} bytes, but no event type has more than {MAX_TYPE}",
            event_type.len()
        )));
    }
    match event_type.contains('\0') {
        true => Err(Problem::bad_request("the type contains U+0000")),
        false => Ok(()),
    }
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<StartAt>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let outside: OutsidePosition = text
        .parse()
        .map_err(|flaw| Problem::bad_request(format!("Last-Event-ID: {flaw}")))?;
    Ok(Some(StartAt::Position {
        generation: outside.generation,
        position: outside.position,
    }))
}

/// Server-sent events, unless the client asks for lines.
fn format(headers: &HeaderMap) -> StreamFormat {
    let asks = |name: &str| {
        let mut accepted = headers
            .get_all(ACCEPT)
            .filter_map(|value| value.to_str().ok());
        accepted.any(|value| value.to_ascii_lowercase().contains(name))
    };
    match !asks("text/event-stream") && (asks("application/x-ndjson") || asks("application/ndjson"))
    {
        true => StreamFormat::Ndjson,
        false => StreamFormat::Sse,
    }
}

/// What a client is told that gets no stream.
fn refused(why: NotOpened, start: StartAt, caller: &Caller) -> Problem {
    const ANEW: &str = "from=beginning begins with the first event that the log still has, from=TIME with the first one \
                        since then, from=now with what comes";
    let given = match start {
        StartAt::Position {
            generation,
            position,
        } => OutsidePosition::new(generation, position).to_string(),
        _ => String::new(),
    };
    match why {
        NotOpened::NoSeat(NoSeat::Full(most)) => Problem::too_many(format!(
            "this process has {most} streams of events, which is as many as it may (topics.max_streams); end one, or \
             try again later"
        ))
        .after(TRY_AGAIN),
        NotOpened::NoSeat(NoSeat::HolderFull(most)) => Problem::too_many(format!(
            "{:?} has {most} streams of events here, which is as many as a key may have (topics.max_streams_per_key); \
             end one, or try again later",
            caller.producer
        ))
        .after(TRY_AGAIN),
        NotOpened::NoSeat(NoSeat::Stopping) => {
            Problem::unavailable("the server is stopping; connect again")
        }
        NotOpened::OtherGeneration(now) => Problem::gone(format!(
            "position {given} belongs to another generation of the log than {now}, which this is: the database was \
             restored or replaced. Begin again: {ANEW}"
        )),
        NotOpened::Deleted => Problem::gone(format!(
            "the retention has deleted events behind position {given}, so a stream from there would lack some. Begin \
             again: {ANEW}"
        )),
        NotOpened::Beyond(end) => Problem::gone(format!(
            "position {given} is beyond the end of the log, {end}: the database was taken back to an earlier state \
             without `eclusa followers new-generation`, or the position is none. Begin again: {ANEW}"
        )),
        NotOpened::Store(error) => unreadable(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn of(headers: &[(&str, &str)]) -> HeaderMap {
        let request = headers
            .iter()
            .fold(TestRequest::default(), |request, (name, value)| {
                request.append_header((*name, *value))
            });
        request.to_http_request().headers().clone()
    }

    #[test]
    fn lines_are_for_those_who_ask() {
        for (accept, expected) in [
            ("text/event-stream", StreamFormat::Sse),
            ("*/*", StreamFormat::Sse),
            ("application/x-ndjson", StreamFormat::Ndjson),
            ("Application/NDJSON, */*;q=0.1", StreamFormat::Ndjson),
            ("text/event-stream, application/x-ndjson", StreamFormat::Sse),
        ] {
            assert_eq!(format(&of(&[("accept", accept)])), expected, "{accept}");
        }
        assert_eq!(format(&of(&[])), StreamFormat::Sse);
    }

    #[test]
    fn a_client_goes_on_behind_its_last_event() {
        assert_eq!(last_event_id(&of(&[])).unwrap(), None);
        assert_eq!(last_event_id(&of(&[("last-event-id", "")])).unwrap(), None);
        let start = last_event_id(&of(&[("Last-Event-ID", "3-9")])).unwrap();
        assert!(matches!(
            start,
            Some(StartAt::Position { generation: 3, position }) if position.0 == 9
        ));
        let flaw = last_event_id(&of(&[("last-event-id", "beginning")])).unwrap_err();
        assert!(flaw.to_string().contains("Last-Event-ID"), "{flaw}");
    }
}
