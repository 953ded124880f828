//! The judge: every event that the server said yes to is stored, and stored once.

use serde::Serialize;
use std::collections::HashSet;
use uuid::Uuid;

/// What the store has, held against what was accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Events that the server said yes to.
    pub accepted: u64,
    /// Rows in the store.
    pub rows: u64,
    /// Accepted, but not stored.
    pub missing: u64,
    /// Rows whose id another row has already.
    pub repeated: u64,
    /// Stored without a yes: requests that were refused or not answered may end so.
    pub unanswered: u64,
    /// Stored, and never sent.
    pub unexplained: u64,
    /// Accepted answers that do not name their events' ids.
    pub strange: u64,
}

impl Verdict {
    /// Compares the ids accepted with the ids of all rows. `unsure` were sent without an answer that
    /// says yes.
    pub fn of(mut accepted: Vec<Uuid>, mut rows: Vec<Uuid>, unsure: &[Uuid], strange: u64) -> Self {
        let unsure: HashSet<&Uuid> = unsure.iter().collect();
        accepted.sort_unstable();
        rows.sort_unstable();
        let mut verdict = Self {
            accepted: accepted.len() as u64,
            rows: rows.len() as u64,
            strange,
            ..Self::default()
        };
        rows.dedup();
        verdict.repeated = verdict.rows - rows.len() as u64;
        let mut stored = rows.iter().peekable();
        let mut others = Vec::new();
        for id in &accepted {
            while let Some(row) = stored.next_if(|row| *row < id) {
                others.push(row);
            }
            if stored.next_if(|row| *row == id).is_none() {
                verdict.missing += 1;
            }
        }
        others.extend(stored);
        verdict.unanswered = others.len() as u64;
        others.retain(|row| !unsure.contains(row));
        verdict.unexplained = others.len() as u64;
        verdict
    }

    /// Whether the promises were kept.
    pub fn holds(&self) -> bool {
        self.accepted > 0
            && self.missing == 0
            && self.repeated == 0
            && self.unexplained == 0
            && self.strange == 0
    }

    /// What is wrong, in words.
    pub fn reasons(&self) -> String {
        let mut reasons = Vec::new();
        if self.accepted == 0 {
            reasons.push("no event was accepted".to_owned());
        }
        for (count, what) in [
            (self.missing, "accepted events are not stored"),
            (self.repeated, "rows repeat an id that is stored already"),
            (self.unexplained, "rows have an id that was never sent"),
            (self.strange, "answers say yes without naming their events"),
        ] {
            if count > 0 {
                reasons.push(format!("{count} {what}"));
            }
        }
        reasons.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u128]) -> Vec<Uuid> {
        numbers.iter().copied().map(Uuid::from_u128).collect()
    }

    #[test]
    fn equal_sets_hold_whatever_their_order() {
        let verdict = Verdict::of(ids(&[3, 1, 2]), ids(&[2, 3, 1]), &[], 0);
        assert!(verdict.holds(), "{verdict:?}");
        assert_eq!((verdict.accepted, verdict.rows), (3, 3));
        assert_eq!(verdict.reasons(), "");
    }

    #[test]
    fn what_is_lost_doubled_or_made_up_is_found() {
        let lost = Verdict::of(ids(&[1, 2, 3]), ids(&[1, 3]), &[], 0);
        assert_eq!((lost.missing, lost.holds()), (1, false));
        assert_eq!(lost.reasons(), "1 accepted events are not stored");
        let doubled = Verdict::of(ids(&[1, 2]), ids(&[2, 1, 2]), &[], 0);
        assert_eq!((doubled.repeated, doubled.holds()), (1, false));
        let made_up = Verdict::of(ids(&[1]), ids(&[1, 9]), &ids(&[8]), 0);
        assert_eq!((made_up.unexplained, made_up.holds()), (1, false));
        assert!(!Verdict::of(ids(&[1]), ids(&[1]), &[], 1).holds());
        let nothing = Verdict::of(Vec::new(), Vec::new(), &ids(&[1]), 0);
        assert!(!nothing.holds());
        assert_eq!(nothing.reasons(), "no event was accepted");
        // Sent without an answer, and stored: that is allowed.
        let unanswered = Verdict::of(ids(&[2]), ids(&[0, 2, 9]), &ids(&[9, 0, 7]), 0);
        assert_eq!((unanswered.unanswered, unanswered.holds()), (2, true));
    }
}
