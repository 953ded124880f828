//! Counter of stored events by type, with a bounded number of series.
//!
//! The 50 most frequent types have a series each; the rest share `other`. A type that overtakes the
//! least frequent of the 50 replaces it and counts from then on, so no series ever decreases.

use super::accounting::{counter, family};
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use std::collections::HashMap;
use std::sync::Arc;

const NAME: &str = "eclusa_events_stored_by_type_total";
const HELP: &str = "Events committed in the log, by type: the 50 most frequent, the rest as other.";
/// Types with a series of their own.
const SHOWN: usize = 50;
/// Types whose frequency is tracked; further types count as `other` only.
const KNOWN: usize = 1_000;

#[derive(Default)]
struct Type {
    /// All events of the type.
    total: u64,
    /// Those counted in its own series.
    shown: u64,
    /// Whether it has a series now.
    has_series: bool,
}

#[derive(Default)]
struct Counts {
    types: HashMap<String, Type>,
    with_series: usize,
    other: u64,
}

impl Counts {
    fn add(&mut self, event_type: &str, events: u64) {
        if !self.types.contains_key(event_type) {
            if self.types.len() >= KNOWN {
                self.other += events;
                return;
            }
            self.types.insert(event_type.to_owned(), Type::default());
        }
        let least = self.least_shown();
        let full = self.with_series >= SHOWN;
        let Some(entry) = self.types.get_mut(event_type) else {
            return;
        };
        entry.total += events;
        if entry.has_series {
            entry.shown += events;
        } else if !full {
            entry.has_series = true;
            entry.shown += events;
            self.with_series += 1;
        } else if let Some((_, name)) = least.filter(|(total, _)| entry.total > *total) {
            entry.has_series = true;
            entry.shown += events;
            if let Some(loser) = self.types.get_mut(&name) {
                loser.has_series = false;
            }
        } else {
            self.other += events;
        }
    }

    /// The least frequent type with a series; `None` while there is room for another series.
    fn least_shown(&self) -> Option<(u64, String)> {
        if self.with_series < SHOWN {
            return None;
        }
        self.types
            .iter()
            .filter(|(_, entry)| entry.has_series)
            .min_by_key(|(_, entry)| entry.total)
            .map(|(name, entry)| (entry.total, name.clone()))
    }
}

/// The collector; clones share its counts.
#[derive(Clone)]
pub struct StoredByType {
    counts: Arc<Mutex<Counts>>,
    desc: Desc,
}

impl StoredByType {
    pub(super) fn new() -> prometheus::Result<Self> {
        Ok(Self {
            counts: Arc::default(),
            desc: Desc::new(
                NAME.to_owned(),
                HELP.to_owned(),
                vec!["event_type".to_owned()],
                HashMap::new(),
            )?,
        })
    }

    /// Counts the stored events of one batch.
    pub fn add<'a>(&self, event_types: impl Iterator<Item = &'a str>) {
        let mut batch: HashMap<&str, u64> = HashMap::new();
        for event_type in event_types {
            *batch.entry(event_type).or_default() += 1;
        }
        let mut counts = self.counts.lock();
        for (event_type, events) in batch {
            counts.add(event_type, events);
        }
    }
}

impl Collector for StoredByType {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counts = self.counts.lock();
        let rows = counts
            .types
            .iter()
            .filter(|(name, entry)| entry.has_series && name.as_str() != "other")
            .map(|(name, entry)| counter(&[("event_type", name)], entry.shown))
            .chain([{
                // An event type that is itself called "other" shares the common series.
                let namesake = counts.types.get("other").map_or(0, |entry| entry.shown);
                counter(&[("event_type", "other")], counts.other + namesake)
            }])
            .collect();
        vec![family(NAME, HELP, MetricType::COUNTER, rows)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frequent_type_overtakes_and_nothing_goes_down() {
        let mut counts = Counts::default();
        for n in 0..SHOWN {
            counts.add(&format!("t{n}"), 2);
        }
        counts.add("late", 1);
        assert_eq!(counts.other, 1);
        counts.add("late", 5);
        assert!(counts.types["late"].has_series);
        assert_eq!(counts.types["late"].shown, 5);
        assert_eq!(counts.other, 1);
        let shown: u64 = counts.types.values().map(|t| t.shown).sum();
        assert_eq!(shown + counts.other, 2 * SHOWN as u64 + 6);
    }

    #[test]
    fn unbounded_types_use_bounded_memory() {
        let mut counts = Counts::default();
        for n in 0..5_000 {
            counts.add(&format!("t{n}"), 1);
        }
        assert_eq!(counts.types.len(), KNOWN);
        let shown: u64 = counts.types.values().map(|t| t.shown).sum();
        assert_eq!(shown + counts.other, 5_000);
    }
}
