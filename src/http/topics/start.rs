//! Where a stream begins, as `from` says it.

use crate::http::followers::view::OutsidePosition;
use crate::topics::StartAt;
use chrono::{DateTime, Utc};

/// Reads `from`.
///
/// # Errors
/// What it may be.
pub fn start_at(text: &str) -> Result<StartAt, String> {
    match text {
        "beginning" => return Ok(StartAt::Beginning),
        "now" => return Ok(StartAt::Now),
        _ => {}
    }
    if let Ok(outside) = text.parse::<OutsidePosition>() {
        return Ok(StartAt::Position {
            generation: outside.generation,
            position: outside.position,
        });
    }
    // A plus that was not percent-encoded arrives as a space.
    let time = DateTime::parse_from_rfc3339(&text.replace(' ', "+")).map_err(|_| {
        format!(
            "from is {text:?}, but must be beginning, now, a position such as 1-8191, or a time as in RFC 3339, such as \
             2026-01-31T09:30:00Z"
        )
    })?;
    let time = time.with_timezone(&Utc);
    if time > Utc::now() {
        return Err(format!(
            "from is {text}, which is yet to come; from=now begins with what comes"
        ));
    }
    Ok(StartAt::Time(time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::commit_log::Position;

    #[test]
    fn a_stream_begins_at_a_word_a_time_or_a_position() {
        assert_eq!(start_at("beginning"), Ok(StartAt::Beginning));
        assert_eq!(start_at("now"), Ok(StartAt::Now));
        let position = StartAt::Position {
            generation: 2,
            position: Position(8_191),
        };
        assert_eq!(start_at("2-8191"), Ok(position));
        let time = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        for text in [
            "2023-11-14T22:13:20Z",
            "2023-11-14T23:13:20+01:00",
            "2023-11-14T23:13:20 01:00",
        ] {
            assert_eq!(start_at(text), Ok(StartAt::Time(time)), "{text}");
        }
        for text in ["", "end", "1-", "-1", "2026-01-31", "99999999999-1"] {
            let flaw = start_at(text).unwrap_err();
            assert!(flaw.contains("a position such as"), "{text}: {flaw}");
        }
        let future = start_at("9000-01-01T00:00:00Z").unwrap_err();
        assert!(future.contains("yet to come"), "{future}");
    }
}
