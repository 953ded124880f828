//! One schedule: its next due time, and the event of a due time.

use crate::config::Invalid;
use crate::config::schedules::{ScheduleSettings, Timetable};
use crate::event::item::{self, Fields, ItemLimits};
use crate::event::{Event, Source, id};
use chrono::{DateTime, TimeDelta, Utc};
use std::sync::Arc;

/// Producer of the events.
const PRODUCER: &str = "schedule";
/// How old a due time may be while the process runs, if `catch_up` is shorter: it is late then because
/// of what went before it.
const SHORTEST: TimeDelta = TimeDelta::minutes(1);

/// A schedule that is ready to run.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub name: Arc<str>,
    timetable: Timetable,
    fields: Fields,
    catch_up: TimeDelta,
}

impl Schedule {
    /// A schedule with these settings.
    ///
    /// # Errors
    /// The first setting that is invalid. The key is that below the schedule.
    pub fn new(settings: &ScheduleSettings, limits: &ItemLimits) -> Result<Self, Invalid> {
        let fields = settings.fields(limits, None).map_err(|flaws| {
            let first = flaws.into_iter().next();
            first.unwrap_or_else(|| Invalid::new("event_data", "is invalid"))
        })?;
        Ok(Self {
            name: settings.name.as_str().into(),
            timetable: settings.timetable()?,
            fields,
            catch_up: TimeDelta::from_std(settings.catch_up).unwrap_or(TimeDelta::MAX),
        })
    }

    /// The due time to emit after `last`. At the start, without a last one, it is the newest that has
    /// passed within `catch_up`, if there is one. Later on none is left out that is not older.
    pub(super) fn next_due(
        &self,
        last: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Option<DateTime<Utc>> {
        let Some(last) = last else {
            let oldest = before(now, self.catch_up);
            let passed = self.timetable.until(now).filter(|due| *due > oldest);
            return passed.or_else(|| self.timetable.after(now));
        };
        let oldest = before(now, self.catch_up.max(SHORTEST));
        self.timetable.after(last.max(oldest))
    }

    /// The event of a due time.
    pub(super) fn event(&self, due: DateTime<Utc>) -> Event {
        let mut fields = self.fields.clone();
        fields.timestamp = Some(due);
        fields.into_event(
            id::of_schedule(&self.name, due),
            None,
            PRODUCER.into(),
            Source::Schedule,
            item::now(),
        )
    }
}

fn before(now: DateTime<Utc>, span: TimeDelta) -> DateTime<Utc> {
    now.checked_sub_signed(span).unwrap_or(DateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn schedule(cron: &str, catch_up: &str) -> Schedule {
        let text = format!(
            "[[schedules]]\nname = \"s\"\ncron = {cron:?}\nevent_type = \"tick\"\n\
             event_data.n = 1\ncatch_up = {catch_up:?}"
        );
        let settings = Sources::from_text(&text).load().unwrap();
        Schedule::new(&settings.schedules[0], &settings.item_limits()).unwrap()
    }

    fn time(text: &str) -> DateTime<Utc> {
        format!("2026-01-31T{text}Z").parse().unwrap()
    }

    #[test]
    fn the_start_catches_up_with_the_newest_due_time() {
        let hourly = schedule("0 * * * *", "30m");
        let at = |now| hourly.next_due(None, time(now)).unwrap();
        assert_eq!(at("10:00:00"), time("10:00:00"));
        assert_eq!(at("10:29:59"), time("10:00:00"));
        assert_eq!(at("10:30:00"), time("11:00:00"));
        let often = schedule("* * * * *", "30m");
        assert_eq!(
            often.next_due(None, time("10:05:30")),
            Some(time("10:05:00"))
        );
        let never = schedule("0 * * * *", "0s");
        assert_eq!(
            never.next_due(None, time("10:00:01")),
            Some(time("11:00:00"))
        );
    }

    #[test]
    fn what_is_late_is_left_out_only_when_it_is_too_old() {
        let often = schedule("* * * * *", "30m");
        let next = |last, now| often.next_due(Some(time(last)), time(now)).unwrap();
        assert_eq!(next("10:00:00", "10:00:01"), time("10:01:00"));
        assert_eq!(next("10:00:00", "10:30:30"), time("10:01:00"));
        assert_eq!(next("10:00:00", "10:45:30"), time("10:16:00"));
        // A clock that is set back emits nothing twice.
        assert_eq!(next("10:00:00", "09:00:00"), time("10:01:00"));
        let never = schedule("* * * * * *", "0s");
        let late = never.next_due(Some(time("10:00:00")), time("10:00:30"));
        assert_eq!(late, Some(time("10:00:01")));
    }

    #[test]
    fn the_event_of_a_due_time_is_the_same_in_every_process() {
        let due = time("10:00:00");
        let [one, other] = [(); 2].map(|()| schedule("0 * * * *", "1h").event(due));
        assert_eq!(one.event_id, other.event_id);
        assert_eq!(one.timestamp, Some(due));
        assert_eq!(one.event_data.get(), r#"{"n":1}"#);
        assert_eq!(id::bucket(&one.event_id), due.date_naive());
    }
}
