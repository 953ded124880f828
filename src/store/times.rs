//! Both stores keep times to the microsecond; a producer's may be finer.

use chrono::{DateTime, TimeDelta, Utc};

/// What is kept of a time: the microsecond it lies in.
pub(super) fn floor(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}

/// The bound rounded to the stored precision, so that it divides stored events as the exact time would.
pub(super) fn bound(time: DateTime<Utc>) -> DateTime<Utc> {
    let floor = floor(time);
    if floor == time {
        return time;
    }
    floor
        .checked_add_signed(TimeDelta::microseconds(1))
        .unwrap_or(floor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_microsecond_are_rounded_also_before_1970() {
        for seconds in [-2, 0, 2] {
            let at = |nanos| DateTime::from_timestamp(seconds, nanos).unwrap();
            assert_eq!(floor(at(1_999)), at(1_000));
            assert_eq!(bound(at(1_001)), at(2_000));
            assert_eq!(bound(at(1_000)), at(1_000));
        }
    }
}
