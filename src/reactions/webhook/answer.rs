//! What follows from a receiver's answer.

use crate::reactions::HandlerError;
use hyper::body::{Body as _, Incoming};
use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, StatusCode};
use std::future::poll_fn;
use std::pin::Pin;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, timeout_at};

/// Bytes of an answer's body that are read; a longer one costs the connection.
const READ: usize = 64 * 1024;
/// Characters of it that an error shows.
const SHOWN: usize = 200;
/// The longest `Retry-After` that is obeyed.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Reads the beginning of a body, until its end, the limit, the deadline or an error. A body that is
/// read to its end leaves the connection to the next request.
pub(super) async fn read_beginning(mut body: Incoming, deadline: Instant) -> Vec<u8> {
    let mut beginning = Vec::new();
    while beginning.len() < READ {
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let Ok(Some(Ok(frame))) = timeout_at(deadline, frame).await else {
            break;
        };
        if let Some(data) = frame.data_ref() {
            let room = READ - beginning.len();
            beginning.extend_from_slice(data.get(..room).unwrap_or(data));
        }
    }
    beginning
}

/// What an answer means: 2xx is success whatever the body is, 410 ends the run, 429 and 503 may say
/// when to come again. `host` is who answered.
pub(super) fn outcome(
    host: &str,
    status: StatusCode,
    headers: &HeaderMap,
    beginning: &[u8],
) -> Result<(), HandlerError> {
    if status.is_success() {
        return Ok(());
    }
    let mut reason = format!("{host} answered {}", status.as_u16());
    if let Some(words) = status.canonical_reason() {
        reason = format!("{reason} {words}");
    }
    if status.is_redirection() {
        reason = format!("{reason}; redirects are not followed, so set url to where it leads");
    }
    let shown = printable(beginning);
    if !shown.is_empty() {
        reason = format!("{reason}: {shown}");
    }
    let after = headers
        .get(RETRY_AFTER)
        .and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
    Err(match (status, after) {
        (StatusCode::GONE, _) => HandlerError::Discard(reason),
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(after)) => {
            HandlerError::RetryAfter { reason, after }
        }
        _ => HandlerError::Failed(reason),
    })
}

/// The time that `Retry-After` asks for, as seconds or as an HTTP date; none when it is neither.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // What overflows is more than the limit too.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

/// The first characters, with white space, control characters and what changes the direction of text
/// as single spaces, so that they cannot forge a line of a log.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::new();
    let characters = text.chars().map(|c| match c {
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' => ' ',
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' => ' ',
        c if c.is_control() || c.is_whitespace() => ' ',
        c => c,
    });
    let mut after_space = true;
    for c in characters.filter(|c| {
        let repeated = *c == ' ' && after_space;
        after_space = *c == ' ';
        !repeated
    }) {
        shown.push(c);
        if shown.chars().count() == SHOWN {
            break;
        }
    }
    shown.truncate(shown.trim_end().len());
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (value, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("86400", Some(86_400)),
            ("86401", Some(86_400)),
            ("99999999999999999999999", Some(86_400)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 2044 08:50:37 GMT", Some(86_400)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            let found = retry_after(value, now).map(|wait| wait.as_secs());
            assert_eq!(found, seconds, "{value:?}");
        }
    }

    #[test]
    fn what_is_shown_is_short_and_printable() {
        let cases: [(&[u8], &str); 6] = [
            (b"", ""),
            (b" \r\n\t", ""),
            (
                b"no\r\nlevel=ERROR \x1b[31mforged\0",
                "no level=ERROR [31mforged",
            ),
            ("tr\u{202e}op\u{2066}s\u{2028}t".as_bytes(), "tr op s t"),
            ("é\u{feff}ß".as_bytes(), "é ß"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        ];
        for (body, shown) in cases {
            assert_eq!(printable(body), shown);
        }
        assert_eq!(printable("é".repeat(500).as_bytes()), "é".repeat(200));
    }

    #[test]
    fn a_status_decides() {
        let of = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            outcome("a.example", status, &HeaderMap::new(), b"why")
        };
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(of(status), Ok(()));
        }
        let failed = |text: &str| Err(HandlerError::Failed(text.to_owned()));
        assert_eq!(of(404), failed("a.example answered 404 Not Found: why"));
        assert_eq!(of(599), failed("a.example answered 599: why"));
        assert_eq!(
            of(503),
            failed("a.example answered 503 Service Unavailable: why")
        );
        let gone = "a.example answered 410 Gone: why".to_owned();
        assert_eq!(of(410), Err(HandlerError::Discard(gone)));
    }
}
