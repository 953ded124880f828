//! Texts of values in another spelling.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Appends a string of JSON.
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    // A vector takes everything.
    let _ = serde_json::to_writer(out, text);
}

/// `2026-01-02 03:04:05.678901+00` as `2026-01-02T03:04:05.678901Z`; `None` for an infinite time and one before
/// Christ, which ISO 8601 does not write so.
pub(super) fn iso_timestamp(text: &str, with_zone: bool) -> Option<String> {
    let (day, time) = text.split_once(' ')?;
    // The session's time zone is UTC.
    let time = time.strip_suffix("+00").unwrap_or(time);
    let is_time = time
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b':' | b'.'));
    let zone = if with_zone { "Z" } else { "" };
    is_time.then(|| format!("{day}T{time}{zone}"))
}

/// `03:04:05.678+02:30` as `00:34:05.678Z`. The fraction of the second is the same everywhere.
pub(super) fn utc_time(text: &str) -> Option<String> {
    const DAY: i64 = 86_400;
    let at = text.rfind(['+', '-'])?;
    let (time, zone) = text.split_at_checked(at)?;
    let (clock, fraction) = match time.split_once('.') {
        Some((clock, _)) => (clock, time.get(clock.len()..)?),
        None => (time, ""),
    };
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let utc = (seconds(clock)? - sign * seconds(zone.get(1..)?)?).rem_euclid(DAY);
    let (hours, minutes, seconds) = (utc / 3600, utc / 60 % 60, utc % 60);
    Some(format!("{hours:02}:{minutes:02}:{seconds:02}{fraction}Z"))
}

/// Seconds of `hh`, `hh:mm` or `hh:mm:ss`.
fn seconds(clock: &str) -> Option<i64> {
    let mut total = 0;
    let mut unit = 3600;
    for part in clock.split(':') {
        total += part.parse::<i64>().ok()? * unit;
        unit /= 60;
    }
    Some(total)
}

/// The bytes of `\x00ff` in base64, with padding.
pub(super) fn base64_of_hex(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("\\x").ok_or("is not bytea in hex")?;
    let bytes = hex::decode(digits).map_err(|_| "is not bytea in hex")?;
    Ok(STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_a_zone_are_those_of_utc() {
        for (text, utc) in [
            ("03:04:05+00", "03:04:05Z"),
            ("03:04:05.678+02", "01:04:05.678Z"),
            ("00:30:00+01", "23:30:00Z"),
            ("23:30:00-05:30", "05:00:00Z"),
            ("12:00:00+00:00:30", "11:59:30Z"),
        ] {
            assert_eq!(utc_time(text).as_deref(), Some(utc), "{text}");
        }
        assert_eq!(utc_time("soon"), None);
    }
}
