//! What collectors write down of the answers that they get, and what must be true of it whatever was lost meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// An answer with messages that a collector has got.
#[derive(Debug)]
pub struct Held {
    /// One for each `start`.
    pub stream: usize,
    pub messages: Vec<String>,
    /// When its id was asked for first: the messages were handed out later than that.
    pub asked: Instant,
    /// When it came: the stream has the messages from then on at the latest.
    pub came: Instant,
    /// Until then the stream has them for certain. It is the time at which the collector acknowledges them, or ends
    /// the stream; or else the time of the call that was answered plus the lease, which begins no sooner.
    pub until: Instant,
    /// When the collector learned that they are acknowledged.
    pub acknowledged: Option<Instant>,
}

/// What is wrong with the records.
pub fn flaws(records: &[Held]) -> BTreeSet<String> {
    let mut of: BTreeMap<&str, Vec<&Held>> = BTreeMap::new();
    for held in records {
        for message in &held.messages {
            of.entry(message).or_default().push(held);
        }
    }
    let mut found = BTreeSet::new();
    for (message, holders) in of {
        for (at, one) in holders.iter().enumerate() {
            for other in &holders[at + 1..] {
                if let Some(flaw) = flaw(one, other) {
                    let (one, other) = (one.stream, other.stream);
                    found.insert(format!("{message} {flaw}: {one} and {other}"));
                }
            }
        }
    }
    found
}

fn flaw(one: &Held, other: &Held) -> Option<&'static str> {
    let after = |one: &Held, other: &Held| one.acknowledged.is_some_and(|at| at < other.asked);
    if one.stream == other.stream {
        Some("is in two answers of a stream")
    } else if one.came.max(other.came) < one.until.min(other.until) {
        Some("is with two streams at once")
    } else if after(one, other) || after(other, one) {
        Some("comes again although it is acknowledged")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_flaw_is_found() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let held = |stream, from: u64, to: u64, acknowledged: Option<u64>| Held {
            stream,
            messages: vec!["m".to_owned()],
            asked: at(from),
            came: at(from + 1),
            until: at(to),
            acknowledged: acknowledged.map(at),
        };
        let check = |one, other, expected: Option<&str>| {
            let found = flaws(&[one, other]);
            let told = found.first().map(String::as_str).unwrap_or_default();
            assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
            assert!(told.contains(expected.unwrap_or_default()), "{told}");
        };
        let twice = Some("two answers of a stream");
        check(held(1, 0, 2, None), held(1, 5, 7, None), twice);
        let both = Some("two streams at once");
        check(held(1, 0, 9, None), held(2, 5, 7, None), both);
        check(held(2, 5, 7, None), held(1, 0, 9, None), both);
        let again = Some("although it is acknowledged");
        check(held(1, 0, 2, Some(3)), held(2, 4, 6, None), again);
        check(held(2, 4, 6, None), held(1, 0, 2, Some(3)), again);
        // It was handed out before the acknowledgement for all that is known, or was not acknowledged.
        check(held(1, 0, 2, Some(3)), held(2, 3, 6, None), None);
        check(held(1, 0, 2, None), held(2, 4, 6, None), None);
        let mut other = held(2, 0, 9, None);
        other.messages = vec!["n".to_owned()];
        check(held(1, 0, 9, None), other, None);
    }
}
