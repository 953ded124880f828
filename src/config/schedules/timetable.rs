//! When a schedule is due.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// The due times of a cron pattern in a time zone.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: Tz,
}

impl Timetable {
    /// Parses a pattern of five fields, or of six with the seconds first.
    ///
    /// # Errors
    /// What is wrong, as the rest of a sentence about the pattern.
    pub fn new(cron: &str, zone: Tz) -> Result<Self, String> {
        const RIGHT: &str = "write minute, hour, day of the month, month and day of the week, such as \
                             \"30 3 * * 1-5\"";
        let fields = cron.split_whitespace().count();
        // Before the parser, which says less about it. A word such as @daily is one field.
        if !matches!(fields, 5 | 6) && !cron.trim_start().starts_with('@') {
            return Err(format!(
                "is {cron:?}, with {fields} fields in place of five; {RIGHT}"
            ));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let parsed = parser
            .parse(cron)
            .map_err(|error| format!("is {cron:?}, which is no cron pattern: {error}; {RIGHT}"))?;
        let timetable = Self { cron: parsed, zone };
        match timetable.after(Utc::now()) {
            Some(_) => Ok(timetable),
            None => Err(format!("is {cron:?}, which is never due")),
        }
    }

    /// The first due time after `time`.
    pub fn after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let time = time.with_timezone(&self.zone);
        let next = self.cron.find_next_occurrence(&time, false).ok()?;
        Some(next.with_timezone(&Utc))
    }

    /// The last due time that is not after `time`.
    pub fn until(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let time = time.with_timezone(&self.zone);
        let last = self.cron.find_previous_occurrence(&time, true).ok()?;
        Some(last.with_timezone(&Utc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn after(cron: &str, zone: Tz, at: &str) -> DateTime<Utc> {
        Timetable::new(cron, zone).unwrap().after(time(at)).unwrap()
    }

    #[test]
    fn due_times_lie_strictly_after_and_until() {
        let hourly = Timetable::new("0 * * * *", Tz::UTC).unwrap();
        let due = time("2026-01-31T10:00:00Z");
        assert_eq!(hourly.after(time("2026-01-31T09:59:59.999999Z")), Some(due));
        assert_eq!(hourly.after(due), Some(time("2026-01-31T11:00:00Z")));
        assert_eq!(hourly.until(due), Some(due));
        assert_eq!(hourly.until(time("2026-01-31T10:59:59.9Z")), Some(due));
        let second = Timetable::new("* * * * * *", Tz::UTC).unwrap();
        let between = time("2026-01-31T10:00:00.4Z");
        assert_eq!(second.until(between), Some(due));
        assert_eq!(second.after(between), Some(time("2026-01-31T10:00:01Z")));
    }

    #[test]
    fn a_time_zone_has_its_summer_time() {
        let cron = "30 3 * * *";
        let berlin = Tz::Europe__Berlin;
        let winter = after(cron, berlin, "2026-01-31T00:00:00Z");
        assert_eq!(winter, time("2026-01-31T02:30:00Z"));
        let summer = after(cron, berlin, "2026-07-31T00:00:00Z");
        assert_eq!(summer, time("2026-07-31T01:30:00Z"));
        // The hour that there is twice: once. The one that there is not: at its end.
        let twice = after("30 2 * * *", berlin, "2026-10-24T12:00:00Z");
        assert_eq!(twice, time("2026-10-25T00:30:00Z"));
        let following = after("30 2 * * *", berlin, "2026-10-25T00:30:00Z");
        assert_eq!(following, time("2026-10-26T01:30:00Z"));
        let missing = after("30 2 * * *", berlin, "2026-03-28T12:00:00Z");
        assert_eq!(missing, time("2026-03-29T01:00:00Z"));
    }

    /// What is emitted after a start is found backwards, and what follows forwards.
    #[test]
    fn due_times_are_the_same_in_both_directions() {
        let zones = [
            Tz::Europe__Berlin,
            Tz::America__New_York,
            Tz::Australia__Lord_Howe,
        ];
        let patterns = [
            "30 2 * * *",
            "*/20 * * * *",
            "0 * * * *",
            "15 1-3 * * *",
            "45 1 * * 0",
        ];
        let changes = [
            "2026-03-08",
            "2026-03-29",
            "2026-04-05",
            "2026-10-04",
            "2026-10-25",
            "2026-11-01",
        ];
        for (zone, cron) in zones
            .iter()
            .flat_map(|zone| patterns.map(|cron| (*zone, cron)))
        {
            let timetable = Timetable::new(cron, zone).unwrap();
            for day in changes {
                let noon: DateTime<Utc> = format!("{day}T12:00:00Z").parse().unwrap();
                let mut due = noon - chrono::TimeDelta::hours(36);
                while due < noon + chrono::TimeDelta::hours(36) {
                    let next = timetable.after(due).unwrap();
                    assert!(next > due, "{cron} {zone}: {next} after {due}");
                    assert_eq!(timetable.until(next), Some(next), "{cron} {zone}");
                    let before_following =
                        timetable.after(next).unwrap() - chrono::TimeDelta::seconds(1);
                    assert_eq!(
                        timetable.until(before_following),
                        Some(next),
                        "{cron} {zone}"
                    );
                    due = next;
                }
            }
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_explained() {
        for (cron, words) in [
            ("", "0 fields in place of five"),
            ("* * *", "3 fields in place of five"),
            ("* * * * * * *", "7 fields"),
            ("61 * * * *", "no cron pattern"),
            ("a b c d e", "no cron pattern"),
            ("0 0 31 2 *", "never due"),
        ] {
            let error = Timetable::new(cron, Tz::UTC).unwrap_err();
            assert!(error.contains(words), "{cron}: {error}");
        }
        assert!(Timetable::new("@daily", Tz::UTC).is_ok());
    }
}
