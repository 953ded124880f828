//! Identity: which id an event is stored under, and which day's partition that puts it in.

use super::Event;
use chrono::{DateTime, Days, NaiveDate, Utc};
use sha2::{Digest, Sha256};
use uuid::{Uuid, Version};

/// Namespace of the UUIDv5 ids that Eclusa derives (RFC 9562, section 5.5). Changing it would make
/// every derived id a new event.
const NAMESPACE: Uuid = Uuid::from_u128(0x6a0f_3c58_9d1e_5b7a_8c42_e1d7_05b3_9f64);

/// Bucket of every id that carries no day: all ids that are not UUIDv7.
pub const UNORDERED: NaiveDate = match NaiveDate::from_ymd_opt(1, 1, 1) {
    Some(day) => day,
    None => NaiveDate::MIN,
};

/// Joins the parts with their lengths, so that `("a", "bc")` and `("ab", "c")` differ.
fn derive(kind: &str, parts: &[&[u8]]) -> Uuid {
    let mut name =
        Vec::with_capacity(kind.len() + parts.iter().map(|p| p.len() + 8).sum::<usize>());
    name.extend_from_slice(kind.as_bytes());
    for part in parts {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part);
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

/// A new id for an event that came without one.
pub fn fresh() -> Uuid {
    Uuid::now_v7()
}

/// The id of a caller's `id` that is not a UUID: unique within its producer.
pub fn of_producer(producer: &str, id: &str) -> Uuid {
    derive("id", &[producer.as_bytes(), id.as_bytes()])
}

/// The id of item `index` of a request that carried an `Idempotency-Key` and no ids.
pub fn of_idempotency_key(producer: &str, key: &str, index: usize) -> Uuid {
    derive(
        "idempotency-key",
        &[
            producer.as_bytes(),
            key.as_bytes(),
            &(index as u64).to_be_bytes(),
        ],
    )
}

/// The id of item `index` of an array message that has an id of its own while the item has none.
pub fn of_message_item(message: Uuid, index: usize) -> Uuid {
    derive("item", &[message.as_bytes(), &(index as u64).to_be_bytes()])
}

/// The id of a line of an imported file, the same on every run over the same source.
pub fn of_line(source: &str, line: u64, text: &[u8]) -> Uuid {
    derive(
        "line",
        &[
            source.as_bytes(),
            &line.to_be_bytes(),
            &Sha256::digest(text),
        ],
    )
}

/// The id of a message by its content: equal bodies are one message.
pub fn of_content(producer: &str, body: &[u8]) -> Uuid {
    derive("content", &[producer.as_bytes(), &Sha256::digest(body)])
}

/// The dead letter of an event: the same each time this very event fails, so that one that is
/// delivered again after a crash is not put aside twice. Two events that share an id are two
/// letters, since neither is in the log.
pub fn of_failed_event(event: &Event) -> Uuid {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    // Not `received_at`: a foreign message gets another one each time it is delivered.
    let when = event.timestamp.map_or(0, |time| time.timestamp_micros());
    derive(
        "letter of event",
        &[
            event.event_id.as_bytes(),
            event.event_type.as_bytes(),
            text(&event.user_id).as_bytes(),
            text(&event.session_id).as_bytes(),
            &when.to_be_bytes(),
            &Sha256::digest(event.event_data.get()),
        ],
    )
}

/// The dead letter of a message, or of one item of it, that is no event. `message` is what tells it
/// from others with the same bytes.
pub fn of_failed_message(message: &str, item: Option<usize>, body: &[u8]) -> Uuid {
    let item = item.map_or(u64::MAX, |item| item as u64);
    derive(
        "letter of message",
        &[
            message.as_bytes(),
            &item.to_be_bytes(),
            &Sha256::digest(body),
        ],
    )
}

/// The partition of an event, a pure function of its id: the UTC day inside a UUIDv7, else
/// [`UNORDERED`].
pub fn bucket(event_id: &Uuid) -> NaiveDate {
    if event_id.get_version() != Some(Version::SortRand) {
        return UNORDERED;
    }
    event_id
        .get_timestamp()
        .and_then(|time| {
            let (seconds, nanos) = time.to_unix();
            DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
        })
        .map_or(UNORDERED, |time| time.date_naive())
}

/// Refuses a UUIDv7 whose day lies more than a day ahead of `now` or more than `accept_days`
/// behind it: each such day is a partition, and nobody should make partitions at will.
///
/// # Errors
/// The reason, as a sentence for the caller.
pub fn check_day(event_id: &Uuid, now: DateTime<Utc>, accept_days: u32) -> Result<(), String> {
    let day = bucket(event_id);
    if day == UNORDERED {
        return Ok(());
    }
    let today = now.date_naive();
    let newest = today.checked_add_days(Days::new(1)).unwrap_or(today);
    let oldest = today
        .checked_sub_days(Days::new(u64::from(accept_days)))
        .unwrap_or(NaiveDate::MIN);
    if day > newest {
        return Err(format!(
            "is a UUIDv7 of {day}, more than a day in the future; check the producer's clock"
        ));
    }
    if day < oldest {
        return Err(format!(
            "is a UUIDv7 of {day}, more than {accept_days} days ago (the lesser of ingest.accept_days \
             and store.retention); \
             send older events with another kind of id"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeZone;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(of_producer("a", "bc"), of_producer("ab", "c"));
        assert_ne!(
            of_idempotency_key("p", "k", 1),
            of_idempotency_key("p", "k", 2)
        );
        assert_eq!(of_producer("shop", "42"), of_producer("shop", "42"));
    }

    #[test]
    fn the_bucket_is_the_day_inside_a_uuid_v7() {
        // RFC 9562, appendix A.6: 22 February 2022 at 19:22:22 UTC.
        let v7 = Uuid::parse_str("017F22E2-79B0-7CC3-98C4-DC0C0C07398F").unwrap();
        assert_eq!(bucket(&v7), NaiveDate::from_ymd_opt(2022, 2, 22).unwrap());
        assert_eq!(bucket(&Uuid::new_v4()), UNORDERED);
        assert_eq!(bucket(&of_producer("p", "1")), UNORDERED);
        assert_eq!(bucket(&Uuid::nil()), UNORDERED);
    }

    #[test]
    fn days_out_of_reach_are_refused() {
        let v7 = Uuid::parse_str("017F22E2-79B0-7CC3-98C4-DC0C0C07398F").unwrap();
        let at = |y, m, d| Utc.with_ymd_and_hms(y, m, d, 12, 0, 0).unwrap();
        assert!(check_day(&v7, at(2022, 2, 22), 400).is_ok());
        assert!(check_day(&v7, at(2022, 2, 21), 400).is_ok());
        assert!(check_day(&v7, at(2022, 2, 20), 400).is_err());
        assert!(check_day(&v7, at(2022, 3, 20), 10).is_err());
        let last = Uuid::parse_str("ffffffff-ffff-7fff-bfff-ffffffffffff").unwrap();
        assert!(check_day(&last, at(2022, 3, 20), 10).is_err());
    }
}
