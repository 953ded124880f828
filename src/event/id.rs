//! Identity: which id an event is stored under, and which day's partition that puts it in.
//!
//! # Derived ids
//!
//! An id that Eclusa derives is a UUID of version 8 (RFC 9562, section 5.8). No caller can send one:
//! [`of_caller`] treats a caller's version 8 like any other string that is no UUID. So a producer
//! cannot occupy the id that another producer's event will get. The bits, from the highest:
//!
//! | bits | content |
//! |---|---|
//! | 0-47 | SHA-256 of the name; with the marker: Unix time in milliseconds, as in a UUIDv7 |
//! | 48-51 | version: 8 |
//! | 52 | marker: 1 when the id carries a time, else 0 |
//! | 53-63 | SHA-256 of the name |
//! | 64-65 | variant: 2 |
//! | 66-127 | SHA-256 of the name |
//!
//! The name is a namespace, the kind of the source and its parts with their lengths. Events of
//! schedules and captured changes carry a time; every other derived id has the marker 0.

use super::Event;
use chrono::{DateTime, Days, NaiveDate, Utc};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;
use uuid::{Builder, Uuid, Version};

/// Namespace of the ids that Eclusa derives. Changing it would make every derived id a new event.
const NAMESPACE: Uuid = Uuid::from_u128(0x6a0f_3c58_9d1e_5b7a_8c42_e1d7_05b3_9f64);

/// The bit of byte 6 that says that a derived id carries a time.
const TIME_MARKER: u8 = 0x08;

/// Bucket of every id that carries no day: all but UUIDv7 and derived ids with a time.
pub const UNORDERED: NaiveDate = match NaiveDate::from_ymd_opt(1, 1, 1) {
    Some(day) => day,
    None => NaiveDate::MIN,
};

/// Joins the parts with their lengths, so that `("a", "bc")` and `("ab", "c")` differ.
fn derive(kind: &str, parts: &[&[u8]]) -> Uuid {
    let mut name = Sha256::new();
    name.update(NAMESPACE.as_bytes());
    name.update(kind);
    for part in parts {
        name.update((part.len() as u64).to_be_bytes());
        name.update(part);
    }
    let hash: [u8; 32] = name.finalize().into();
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    if let Some(byte) = bytes.get_mut(6) {
        *byte &= !TIME_MARKER;
    }
    Builder::from_custom_bytes(bytes).into_uuid()
}

/// The same for a source that has a time.
fn derive_at(kind: &str, parts: &[&[u8]], time: DateTime<Utc>) -> Uuid {
    let mut bytes = derive(kind, parts).into_bytes();
    // The lowest 48 bits: up to the year 10889.
    let [_, _, millis @ ..] = time.timestamp_millis().max(0).to_be_bytes();
    bytes
        .iter_mut()
        .zip(millis)
        .for_each(|(to, from)| *to = from);
    if let Some(byte) = bytes.get_mut(6) {
        *byte |= TIME_MARKER;
    }
    Uuid::from_bytes(bytes)
}

/// A new id for an event that came without one.
pub fn fresh() -> Uuid {
    Uuid::now_v7()
}

/// The id that a caller's `id` stands for: the UUID itself, or an id derived from producer and `id`.
/// Only the canonical spelling counts as a UUID, since 32 hexadecimal digits are more often a hash.
/// Version 8 is for derived ids alone.
pub fn of_caller(producer: &str, id: &str) -> Uuid {
    canonical(id)
        .filter(|uuid| uuid.get_version() != Some(Version::Custom))
        .unwrap_or_else(|| of_producer(producer, id))
}

/// A UUID in its canonical spelling, of whatever version.
pub fn canonical(text: &str) -> Option<Uuid> {
    (text.len() == 36)
        .then(|| Uuid::try_parse(text).ok())
        .flatten()
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

/// The id of the event that a schedule emits at a due time.
pub fn of_schedule(name: &str, due: DateTime<Utc>) -> Uuid {
    let micros = due.timestamp_micros().to_be_bytes();
    derive_at("schedule", &[name.as_bytes(), &micros], due)
}

/// Where a captured change comes from: the same each time it is read.
#[derive(Debug, Clone, Copy)]
pub struct ChangeOrigin<'a> {
    /// Name of the capture.
    pub capture: &'a str,
    /// `system_identifier` of the server.
    pub system: u64,
    /// The timeline that has the change.
    pub timeline: u32,
    /// Place of the change in the server's log.
    pub lsn: u64,
}

/// The id of a captured change: the one at `place` among those of `table` that the log has at one place. It was
/// committed at `time`.
pub fn of_change(origin: &ChangeOrigin<'_>, table: &str, place: u64, time: DateTime<Utc>) -> Uuid {
    derive_at(
        "change",
        &[
            origin.capture.as_bytes(),
            &origin.system.to_be_bytes(),
            &origin.timeline.to_be_bytes(),
            &origin.lsn.to_be_bytes(),
            table.as_bytes(),
            &place.to_be_bytes(),
        ],
        time,
    )
}

/// The id of a row that a snapshot read, by its key, in the chunk whose watermark was written to the server's log at
/// `lsn` and `time`.
pub fn of_snapshot_row(
    capture: &str,
    snapshot: &str,
    table: &str,
    key: &[&[u8]],
    lsn: u64,
    time: DateTime<Utc>,
) -> Uuid {
    let lsn = lsn.to_be_bytes();
    let mut parts: SmallVec<[&[u8]; 8]> = SmallVec::new();
    parts.extend([
        capture.as_bytes(),
        snapshot.as_bytes(),
        table.as_bytes(),
        &lsn,
    ]);
    parts.extend_from_slice(key);
    derive_at("snapshot row", &parts, time)
}

/// The id of an event's dead letter: the same each time this event fails, so that one that is
/// delivered again after a crash has one dead letter. Two events that share an id have two, since
/// neither is in the log.
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

/// The id of the dead letter of an event that a follower cannot apply: the same each time it fails there.
pub fn of_follower_letter(follower: &str, event: Uuid) -> Uuid {
    derive(
        "letter of follower",
        &[follower.as_bytes(), event.as_bytes()],
    )
}

/// The id of the dead letter of a message, or of one item of it, that is not an event. `message` is
/// what tells it from others with the same bytes.
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

/// The partition of an event, a pure function of its id: the UTC day inside a UUIDv7 or a derived id
/// with a time, else [`UNORDERED`].
pub fn bucket(event_id: &Uuid) -> NaiveDate {
    let [_, _, _, _, _, _, marked, ..] = event_id.into_bytes();
    let carries_time = match event_id.get_version() {
        Some(Version::SortRand) => true,
        Some(Version::Custom) => marked & TIME_MARKER != 0,
        _ => false,
    };
    if !carries_time {
        return UNORDERED;
    }
    // Both have the milliseconds in their first 48 bits.
    let millis = (event_id.as_u128() >> 80) as i64;
    DateTime::from_timestamp_millis(millis).map_or(UNORDERED, |time| time.date_naive())
}

/// Refuses a UUIDv7 whose day lies more than a day ahead of `now` or more than `accept_days`
/// behind it: each such day is a partition, and a caller must not create partitions at will.
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
        for n in 0..64 {
            assert_eq!(bucket(&of_producer("p", &n.to_string())), UNORDERED);
        }
        assert_eq!(bucket(&Uuid::nil()), UNORDERED);
    }

    #[test]
    fn a_derived_id_with_a_time_has_the_bucket_of_its_day() {
        let [mut bytes, v7] = [
            "017F22E2-79B0-8CC3-98C4-DC0C0C07398F",
            "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
        ]
        .map(|text| Uuid::parse_str(text).unwrap().into_bytes());
        assert_eq!(bytes[6] & TIME_MARKER, TIME_MARKER);
        assert_eq!(
            bucket(&Uuid::from_bytes(bytes)),
            bucket(&Uuid::from_bytes(v7))
        );
        bytes[6] &= !TIME_MARKER;
        assert_eq!(bucket(&Uuid::from_bytes(bytes)), UNORDERED);
    }

    #[test]
    fn a_schedule_has_one_id_for_each_due_time() {
        let at = |hour| Utc.with_ymd_and_hms(2026, 1, 31, hour, 0, 0).unwrap();
        let id = of_schedule("daily", at(3));
        assert_eq!(id, of_schedule("daily", at(3)));
        assert_eq!(id.get_version(), Some(Version::Custom));
        assert_eq!(bucket(&id), at(3).date_naive());
        assert_eq!(id.as_u128() >> 80, at(3).timestamp_millis() as u128);
        assert_ne!(id, of_schedule("daily", at(4)));
        assert_ne!(id, of_schedule("weekly", at(3)));
        assert_ne!(of_caller("schedule", &id.to_string()), id);
    }

    #[test]
    fn a_captured_change_has_one_id_and_the_day_of_its_commit() {
        let time = Utc.with_ymd_and_hms(2026, 1, 31, 23, 59, 59).unwrap();
        let origin = ChangeOrigin {
            capture: "shop",
            system: 7,
            timeline: 1,
            lsn: 40,
        };
        let id = of_change(&origin, "public.product", 0, time);
        assert_eq!(id, of_change(&origin, "public.product", 0, time));
        assert_eq!(id.get_version(), Some(Version::Custom));
        assert_eq!(bucket(&id), time.date_naive());
        for other in [
            of_change(&origin, "public.product", 1, time),
            of_change(&origin, "public.stock", 0, time),
            of_change(
                &ChangeOrigin { lsn: 41, ..origin },
                "public.product",
                0,
                time,
            ),
            of_change(
                &ChangeOrigin {
                    timeline: 2,
                    ..origin
                },
                "public.product",
                0,
                time,
            ),
            of_change(
                &ChangeOrigin {
                    system: 8,
                    ..origin
                },
                "public.product",
                0,
                time,
            ),
            of_change(
                &ChangeOrigin {
                    capture: "blog",
                    ..origin
                },
                "public.product",
                0,
                time,
            ),
        ] {
            assert_ne!(id, other);
        }
        let row =
            |key: &[&[u8]], lsn| of_snapshot_row("shop", "1", "public.product", key, lsn, time);
        assert_eq!(row(&[b"1", b"2"], 9), row(&[b"1", b"2"], 9));
        assert_ne!(row(&[b"1", b"2"], 9), row(&[b"12"], 9));
        assert_ne!(row(&[b"1", b"2"], 9), row(&[b"1", b"2"], 10));
        assert_eq!(bucket(&row(&[b"1"], 9)), time.date_naive());
    }

    #[test]
    fn no_caller_can_send_a_derived_id() {
        let derived = of_producer("shop", "order-1001");
        assert_eq!(derived.get_version(), Some(Version::Custom));
        for text in [derived.to_string(), derived.to_string().to_uppercase()] {
            for producer in ["shop", "blog"] {
                assert_ne!(of_caller(producer, &text), derived);
            }
        }
        let v4 = "8c5d6a44-9d5c-4b7e-9a43-0f7a3f1f9d11";
        assert_eq!(of_caller("shop", v4), Uuid::parse_str(v4).unwrap());
        assert_eq!(of_caller("shop", "order-1001"), derived);
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
