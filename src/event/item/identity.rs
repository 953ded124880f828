//! The identity of an item that came with an id.

use crate::event::id;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// The event id that a caller's `id` stands for, and the `id` itself where they differ.
///
/// # Errors
/// Why the id cannot be taken.
pub fn resolve_id(
    given: String,
    producer: &str,
    now: DateTime<Utc>,
    accept_days: u32,
) -> Result<(Uuid, Option<String>), String> {
    match id::canonical(&given) {
        Some(uuid) if uuid.is_nil() || uuid.is_max() => {
            Err("is the nil or max UUID, which identifies nothing".to_owned())
        }
        Some(uuid) if uuid == id::of_caller(producer, &given) => {
            id::check_day(&uuid, now, accept_days)?;
            Ok((uuid, None))
        }
        _ => Ok((id::of_producer(producer, &given), Some(given))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_no_uuid_becomes_one_per_producer() {
        let resolve = |id: &str, producer| {
            resolve_id(id.to_owned(), producer, super::super::now(), 400).unwrap()
        };
        let (a, original) = resolve("order-1", "shop");
        assert_eq!(original.as_deref(), Some("order-1"));
        assert_ne!(a, resolve("order-1", "blog").0);
        let uuid = "8c5d6a44-9d5c-4b7e-9a43-0f7a3f1f9d11";
        assert_eq!(
            resolve(uuid, "shop"),
            (Uuid::parse_str(uuid).unwrap(), None)
        );
        for none in [Uuid::nil(), Uuid::max()] {
            assert!(resolve_id(none.to_string(), "shop", super::super::now(), 400).is_err());
        }
    }

    #[test]
    fn no_producer_can_occupy_the_id_of_another() {
        let resolve = |id: &str, producer| {
            resolve_id(id.to_owned(), producer, super::super::now(), 400).unwrap()
        };
        let (victim, _) = resolve("order-1001", "shop");
        let (squatter, original) = resolve(&victim.to_string(), "blog");
        assert_ne!(squatter, victim);
        assert_eq!(original, Some(victim.to_string()));
    }
}
