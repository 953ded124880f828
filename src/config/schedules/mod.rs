//! Settings of schedules.

pub(super) mod data;
mod timetable;

use super::reactions::check_name;
use super::{Invalid, units};
use crate::event::item::{Fields, ItemLimits, Rules, parse};
use chrono_tz::Tz;
use data::to_json;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;

pub use timetable::Timetable;

/// Largest event of a schedule, in bytes of its JSON.
const MAX_BYTES: usize = 32 * 1_024;
/// Longest `catch_up`.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);
const DAY: u64 = 86_400;

/// `[[schedules]]`: emits an event at each time that a cron pattern names.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSettings {
    /// As the name of a reaction. It is part of the events' ids.
    pub name: String,
    /// Five fields, or six with the seconds first.
    pub cron: String,
    /// Name of a time zone, such as `Europe/Berlin`; absent for UTC.
    pub timezone: Option<String>,
    pub event_type: String,
    pub user_id: Option<String>,
    #[serde(default)]
    pub event_data: toml::Table,
    /// The version of the type's schema that `event_data` follows.
    pub schema_version: Option<i16>,
    /// How old a due time may be that is emitted late.
    #[serde(default = "an_hour", with = "units::duration")]
    pub catch_up: Duration,
}

impl ScheduleSettings {
    /// When it is due.
    ///
    /// # Errors
    /// The pattern or the time zone is invalid. The key is that below the schedule.
    pub fn timetable(&self) -> Result<Timetable, Invalid> {
        let zone = match self.timezone.as_deref() {
            None => Tz::UTC,
            Some(name) => name.parse().map_err(|_| {
                let reason = format!(
                    "is {name:?}, which is no time zone; write a name such as \"Europe/Berlin\""
                );
                Invalid::new("timezone", reason)
            })?,
        };
        Timetable::new(&self.cron, zone).map_err(|reason| Invalid::new("cron", reason))
    }

    /// The checked fields of its events, without a time. `max_bytes` bounds a single event, if set.
    ///
    /// # Errors
    /// All that is invalid. The keys are those below the schedule.
    pub fn fields(
        &self,
        limits: &ItemLimits,
        max_bytes: Option<usize>,
    ) -> Result<Fields, Vec<Invalid>> {
        let event_data =
            to_json(&self.event_data).map_err(|reason| vec![Invalid::new("event_data", reason)])?;
        let item = json!({
            "eventType": self.event_type, "userId": self.user_id, "eventData": event_data,
            "schemaVersion": self.schema_version,
        })
        .to_string();
        let most = max_bytes.map_or(MAX_BYTES, |bytes| bytes.min(MAX_BYTES));
        if item.len() > most {
            let reason = format!("makes an event of {} bytes, more than {most}", item.len());
            return Err(vec![Invalid::new("event_data", reason)]);
        }
        parse(&item, limits, Rules::AMQP).map_err(|flaws| {
            flaws
                .into_iter()
                .map(|flaw| {
                    let key = match flaw.field.as_str() {
                        "eventType" => "event_type",
                        "userId" => "user_id",
                        "schemaVersion" => "schema_version",
                        _ => "event_data",
                    };
                    Invalid::new(key, flaw.reason)
                })
                .collect()
        })
    }
}

/// What the schedules have to agree with.
pub(super) struct Bounds<'a> {
    pub(super) limits: &'a ItemLimits,
    /// Bytes of a single event.
    pub(super) max_bytes: Option<usize>,
    /// Days that events are kept.
    pub(super) retention: Option<u32>,
}

/// Adds what is invalid in the schedules, and names that several have.
pub(super) fn validate(
    schedules: &[ScheduleSettings],
    bounds: &Bounds<'_>,
    found: &mut Vec<Invalid>,
) {
    for (index, schedule) in schedules.iter().enumerate() {
        let mut flaws = Vec::new();
        flaws.extend(check_name(&schedule.name).err());
        let mut earlier = schedules.iter().take(index);
        if earlier.any(|other| other.name == schedule.name) {
            let reason = format!("is {:?}, as another schedule's", schedule.name);
            flaws.push(Invalid::new("name", reason));
        }
        flaws.extend(schedule.timetable().err());
        let fields = schedule.fields(bounds.limits, bounds.max_bytes);
        flaws.extend(fields.err().unwrap_or_default());
        let kept = bounds.retention.map(|days| u64::from(days) * DAY);
        let longest = LONGEST.min(kept.map_or(LONGEST, Duration::from_secs));
        if schedule.catch_up > longest {
            let reason = format!(
                "is {}, but may be at most {}: 7 days, and no longer than store.retention",
                humantime::format_duration(schedule.catch_up),
                humantime::format_duration(longest)
            );
            flaws.push(Invalid::new("catch_up", reason));
        }
        let at =
            |flaw: Invalid| Invalid::new(&format!("schedules[{index}].{}", flaw.key), flaw.reason);
        found.extend(flaws.into_iter().map(at));
    }
}

fn an_hour() -> Duration {
    Duration::from_secs(3_600)
}

#[cfg(test)]
mod tests {
    use crate::config::{ConfigError, Sources};

    const DAILY: &str = "[[schedules]]\nname = \"daily\"\ncron = \"0 3 * * *\"\n\
                         event_type = \"day.began\"\n";

    fn keys(text: &str) -> Vec<String> {
        match Sources::from_text(text).load() {
            Ok(_) => Vec::new(),
            Err(ConfigError::Invalid(found)) => found.into_iter().map(|i| i.key).collect(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_name_a_pattern_and_a_type_are_enough() {
        let settings = Sources::from_text(DAILY).load().unwrap();
        let schedule = &settings.schedules[0];
        assert_eq!(schedule.catch_up.as_secs(), 3_600);
        let fields = schedule.fields(&settings.item_limits(), None).unwrap();
        assert_eq!(fields.event_data.get(), "{}");
        assert_eq!((fields.user_id, fields.timestamp), (None, None));
    }

    #[test]
    fn what_is_invalid_is_named() {
        for (line, key) in [
            ("timezone = \"Berlin\"", "timezone"),
            ("user_id = \"\"", "user_id"),
            ("event_data = { a = nan }", "event_data"),
            ("event_data = { a = \"\\u0000\" }", "event_data"),
            ("catch_up = \"8days\"", "catch_up"),
        ] {
            let keys = keys(&format!("{DAILY}{line}"));
            assert_eq!(keys, [format!("schedules[0].{key}")], "{line}");
        }
        for (from, to, key) in [
            ("0 3 * * *", "0 25 * * *", "cron"),
            ("\"daily\"", "\"-\"", "name"),
            ("day.began", "", "event_type"),
        ] {
            let keys = keys(&DAILY.replace(from, to));
            assert_eq!(keys, [format!("schedules[0].{key}")], "{to}");
        }
        assert_eq!(keys(&format!("{DAILY}{DAILY}")), ["schedules[1].name"]);
        let large = format!("{DAILY}event_data = {{ a = \"{}\" }}", "x".repeat(32_768));
        assert_eq!(keys(&large), ["schedules[0].event_data"]);
        let short = format!("store.retention = \"1d\"\n{DAILY}catch_up = \"25h\"");
        assert_eq!(keys(&short), ["schedules[0].catch_up"]);
    }
}
