//! A request's body, split into items.

use super::HttpState;
use super::problem::Problem;
use crate::event::budget::Permit;
use crate::event::item::RawItem;
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use actix_web::{HttpRequest, web};
use futures::StreamExt;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// What the body is, by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One object, or an array of objects.
    Json,
    /// One object a line.
    Lines,
}

/// Items of a body, and whether it was one object alone.
#[derive(Debug)]
pub struct Items<'a> {
    /// They themselves, unchecked.
    pub items: Vec<RawItem<'a>>,
    /// The body was a single object, so the answer is one too.
    pub single: bool,
}

/// The shape a request announces.
///
/// # Errors
/// 415 for anything but JSON and NDJSON, for a body without a content type, and for compressed bodies.
pub fn shape(request: &HttpRequest) -> Result<Shape, Problem> {
    if let Some(encoding) = request.headers().get(CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(Problem::unsupported("the body must not be compressed"));
    }
    let Some(value) = request.headers().get(CONTENT_TYPE) else {
        return Err(Problem::unsupported(
            "the request has no Content-Type; send application/json or application/x-ndjson",
        ));
    };
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    let is_one_of = |names: &[&str]| names.iter().any(|name| essence.eq_ignore_ascii_case(name));
    if is_one_of(&["application/json", "text/json"]) {
        Ok(Shape::Json)
    } else if is_one_of(&[
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
    ]) {
        Ok(Shape::Lines)
    } else {
        let other = essence.to_ascii_lowercase();
        Err(Problem::unsupported(format!(
            "content type {other:?} is not read; send application/json or application/x-ndjson"
        )))
    }
}

/// Reads the whole body within the limits of size, time and memory. What has arrived is charged to
/// the budget as it arrives, so that bodies that never end do not fill the memory; the permit covers
/// the bytes for as long as they are kept.
///
/// # Errors
/// 413, 408, 503, or 400 for a body that breaks off.
pub async fn read(
    state: &HttpState,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(web::Bytes, Permit), Problem> {
    let (limit, caller_mode) = {
        let settings = state.settings.get();
        (settings.http.max_body, settings.http.request_timeout)
    };
    let bytes = usize::try_from(limit.as_u64()).unwrap_or(usize::MAX);
    let too_large =
        || Problem::too_large(format!("the body is larger than {limit} (http.max_body)"));
    let announced = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > bytes) {
        return Err(too_large());
    }
    let reading = async {
        let mut payload = payload.into_inner();
        let mut permit = state.budget.begin();
        let mut body = web::BytesMut::new();
        while let Some(chunk) = payload.next().await {
            let chunk = chunk
                .map_err(|error| Problem::bad_request(format!("the body broke off: {error}")))?;
            if body.is_empty() && announced == Some(chunk.len()) && permit.try_grow(chunk.len()) {
                // The whole of it at once, as most are: it is read where it lies.
                return Ok((chunk, permit));
            }
            if body.len() + chunk.len() > bytes {
                return Err(too_large());
            }
            if !permit.try_grow(chunk.len()) {
                return Err(Problem::overloaded(
                    "more bytes are on their way than ingest.max_in_flight allows",
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((body.freeze(), permit))
    };
    tokio::time::timeout(caller_mode, reading)
        .await
        .unwrap_or_else(|_| {
            Err(Problem::too_slow(format!(
                "the body did not arrive within {}",
                humantime::format_duration(caller_mode)
            )))
        })
}

/// Cuts a body into items.
///
/// # Errors
/// 400 when it is not UTF-8 or not JSON, or holds nothing; 413 when it holds too much.
pub fn items(body: &[u8], shape: Shape, max_items: usize) -> Result<Items<'_>, Problem> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Problem::bad_request(format!("the body is not UTF-8: {error}")))?;
    let (items, count, single) = match shape {
        Shape::Lines => {
            let lines = || text.split('\n').map(str::trim).filter(|l| !l.is_empty());
            let items = lines().take(max_items).map(RawItem::read).collect();
            (items, lines().count(), false)
        }
        Shape::Json => match text.trim_start().as_bytes().first() {
            Some(b'{') => (vec![RawItem::read(text)], 1, true),
            Some(b'[') => {
                let (items, count) = RawItem::read_array(text, max_items).map_err(|error| {
                    Problem::bad_request(format!("the body is not valid JSON: {error}"))
                })?;
                (items, count, false)
            }
            Some(_) => {
                return Err(Problem::bad_request(
                    "the body must be an event object or an array of them",
                ));
            }
            None => return Err(Problem::bad_request("the body is empty")),
        },
    };
    if count == 0 {
        return Err(Problem::bad_request("the body holds no events"));
    }
    if count > max_items {
        return Err(Problem::too_large(format!(
            "the body holds {count} events, at most {max_items} are taken at once (http.max_items)"
        )));
    }
    Ok(Items { items, single })
}

/// Reads a body that is one JSON object.
pub(super) async fn object<T: serde::de::DeserializeOwned>(
    request: &HttpRequest,
    state: &HttpState,
    payload: web::Payload,
) -> Result<T, Problem> {
    if shape(request)? != Shape::Json {
        return Err(Problem::unsupported("the body must be one JSON object"));
    }
    let (bytes, _permit) = read(state, request, payload).await?;
    // serde reads an array as a struct, too: its items as the fields in their order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::bad_request("the body must be one JSON object"));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::bad_request(format!("the body cannot be read: {error}")))
}

/// A whole number, also where JSON spells it with a fraction of zero (`5.0`), as clients without
/// integers do.
pub(super) fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let number = Option::<f64>::deserialize(deserializer)?;
    let whole = |number: f64| {
        let fits = number.fract() == 0.0 && (0.0..=f64::from(i32::MAX)).contains(&number);
        fits.then_some(number as u32).ok_or_else(|| {
            D::Error::custom(format!(
                "{number} is no whole number from 0 to {}",
                i32::MAX
            ))
        })
    };
    number.map(whole).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_cut_into_items() {
        for (body, shape, bytes, single) in [
            ("{\"a\":1}", Shape::Json, &[6][..], true),
            (" [{\"a\":1}, {\"b\":22} ]", Shape::Json, &[6, 7], false),
            ("{}\r\n\n{\"a\":1}\n", Shape::Lines, &[0, 6], false),
        ] {
            let items = items(body.as_bytes(), shape, 3).unwrap();
            let found: Vec<usize> = items.items.iter().map(RawItem::bytes).collect();
            assert_eq!((found.as_slice(), items.single), (bytes, single), "{body}");
        }
    }

    #[test]
    fn what_holds_nothing_or_too_much_is_refused() {
        for (body, shape, part) in [
            ("", Shape::Json, "empty"),
            ("  ", Shape::Json, "empty"),
            ("[]", Shape::Json, "no events"),
            ("\n\n", Shape::Lines, "no events"),
            ("[1,2,3,4]", Shape::Json, "at most 3"),
            ("NaN", Shape::Json, "object or an array"),
            ("[NaN]", Shape::Json, "not valid JSON"),
            ("[{}", Shape::Json, "not valid JSON"),
        ] {
            let problem = items(body.as_bytes(), shape, 3).unwrap_err().to_string();
            assert!(problem.contains(part), "{body:?}: {problem}");
        }
        assert!(items(b"\xff", Shape::Json, 3).is_err());
    }
}
