//! Times of payments, in the one form that every reader of the contract knows.

use chrono::{DateTime, Datelike, SecondsFormat, Utc};

/// A digit stands for `0`, and any other character for itself.
const SECONDS: &str = "0000-00-00T00:00:00";
const OFFSETS: [&str; 2] = ["+00:00", "-00:00"];
/// Most digits of a fraction of a second.
const FRACTION: usize = 9;

/// Reads a time of RFC 3339 in the years 1 to 9999 of UTC, with capital letters and without a leap second.
pub(super) fn parse(text: &str) -> Option<DateTime<Utc>> {
    let (seconds, rest) = text.split_at_checked(SECONDS.len())?;
    let offset = match rest.strip_prefix('.') {
        Some(fraction) => {
            let offset = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
            let digits = fraction.len() - offset.len();
            (1..=FRACTION).contains(&digits).then_some(offset)?
        }
        None => rest,
    };
    let is_offset = offset == "Z" || OFFSETS.iter().any(|form| has_form(offset, form));
    if !has_form(seconds, SECONDS) || !is_offset || seconds.ends_with(":60") {
        return None;
    }
    let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
    (1..=9999).contains(&time.year()).then_some(time)
}

/// Writes a time with milliseconds, as the contract does.
pub(super) fn to_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn has_form(text: &str, form: &str) -> bool {
    let fits = |(byte, form): (u8, u8)| match form {
        b'0' => byte.is_ascii_digit(),
        other => byte == other,
    };
    text.len() == form.len() && text.bytes().zip(form.bytes()).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_in_utc_with_milliseconds() {
        for (text, shown) in [
            ("2022-07-23T19:47:18.108Z", "2022-07-23T19:47:18.108Z"),
            ("2022-07-23T19:47:18Z", "2022-07-23T19:47:18.000Z"),
            ("2022-07-23T19:47:59.1-03:00", "2022-07-23T22:47:59.100Z"),
            ("2022-07-23T19:47:18.123456789Z", "2022-07-23T19:47:18.123Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
            ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999Z"),
            ("0000-12-31T23:00:00-01:00", "0001-01-01T00:00:00.000Z"),
        ] {
            let time = parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(to_text(time), shown, "{text}");
            assert_eq!(to_text(parse(shown).unwrap()), shown, "{text}");
        }
    }

    #[test]
    fn other_forms_and_times_are_refused() {
        for text in [
            "",
            "2022-07-23",
            "2022-07-23T19:47Z",
            "2022-07-23t19:47:18Z",
            "2022-07-23 19:47:18Z",
            "2022-07-23T19:47:18z",
            "2022-07-23T19:47:18",
            " 2022-07-23T19:47:18Z",
            "2022-07-23T19:47:18 Z",
            "2022-07-23T19:47:18Z ",
            "2022-07-23T19:47:18.Z",
            "2022-07-23T19:47:18,108Z",
            "2022-07-23T19:47:18.1234567890Z",
            "2022-07-23T19:47:60Z",
            "2016-12-31T23:59:60.5Z",
            "2022-07-23T19:47:61Z",
            "2022-07-23T19:60:00Z",
            "2022-07-23T24:00:00Z",
            "2022-02-29T19:47:18Z",
            "2022-07-23T19:47:18+0300",
            "2022-07-23T19:47:18+03",
            "2022-07-23T19:47:18+24:00",
            "2022-07-23T19:47:18\u{2212}03:00",
            "２022-07-23T19:47:18Z",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "+10000-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
