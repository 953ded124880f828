//! Which messages of a place a session is handed.

use super::decision::Parked;
use super::holdings::{Candidate, Handed};
use super::ledger::Ledger;
use std::collections::HashSet;

impl Ledger<'_> {
    /// Takes the oldest messages that may be handed out to this session.
    pub(super) fn pick(&mut self, session: i64, limit: usize) -> Vec<Handed> {
        let others = self
            .holdings
            .sessions
            .iter()
            .filter(|one| one.id != session);
        let mut held: HashSet<String> = others
            .flat_map(|one| one.handed.iter())
            .filter_map(|one| one.order_key.clone())
            .filter(|_| self.rules.ordered)
            .collect();
        let mut picked = Vec::new();
        let mut due = self.just_returned();
        let just_returned: HashSet<i64> = due.iter().map(|one| one.number).collect();
        due.append(&mut self.holdings.returned);
        due.sort_by_key(|one| one.number);
        for one in due {
            if picked.len() >= limit {
                break;
            }
            if one.order_key.as_ref().is_some_and(|key| held.contains(key)) {
                continue;
            }
            if !just_returned.contains(&one.number) {
                self.decision.taken.push(one.number);
            }
            picked.push(one.handed_out());
        }
        let numbers: HashSet<i64> = picked.iter().map(|one: &Handed| one.number).collect();
        let returned = &mut self.decision.returned;
        returned.retain(|one| !numbers.contains(&one.message.number));
        // What stays returned goes before everything behind the cursor of its order key.
        if self.rules.ordered {
            held.extend(self.holdings.returned_keys.iter().cloned());
            let returned = self.decision.returned.iter();
            held.extend(returned.filter_map(|one| one.message.order_key.clone()));
        }
        for one in std::mem::take(&mut self.holdings.fresh) {
            if picked.len() >= limit {
                break;
            }
            self.decision.cursor = one.number;
            match one.order_key {
                Some(order_key) if held.contains(&order_key) => {
                    let number = one.number;
                    self.decision.parked.push(Parked { number, order_key });
                }
                _ => picked.push(one.handed_out()),
            }
        }
        picked
    }

    /// What returns with this call and is due: older than anything behind the cursor, and perhaps than what has
    /// returned before.
    fn just_returned(&self) -> Vec<Candidate> {
        let returned = self.decision.returned.iter();
        returned
            .filter(|one| one.due == self.now && !self.is_held_back(&one.message))
            .map(|one| Candidate {
                number: one.message.number,
                deliveries: one.message.deliveries,
                order_key: one.message.order_key.clone(),
            })
            .collect()
    }

    /// Whether an earlier message of its order key has returned and is not due.
    fn is_held_back(&self, one: &Handed) -> bool {
        let delayed = &self.holdings.delayed;
        let first = one.order_key.as_ref().and_then(|key| delayed.get(key));
        self.rules.ordered && first.is_some_and(|first| *first < one.number)
    }
}

#[cfg(test)]
mod tests {
    use crate::store::streams::Call;
    use crate::store::streams::holdings::Holdings;
    use crate::store::streams::ledger::tests::{decided, place, session};
    use std::collections::HashMap;

    #[test]
    fn what_lapses_waits_for_an_earlier_message_that_is_not_due() {
        let holdings = |delayed: &[(&str, i64)]| {
            let delayed = delayed
                .iter()
                .map(|(key, first)| ((*key).to_owned(), *first));
            let lapses = session(1, &[(2, "a"), (3, "b"), (4, "a")], 0);
            Holdings {
                delayed: HashMap::from_iter(delayed),
                ..place(vec![lapses])
            }
        };
        for (delayed, handed, returned) in [
            (vec![], vec![2, 3, 4], vec![]),
            (vec![("a", 1)], vec![3], vec![2, 4]),
            (vec![("a", 3)], vec![2, 3], vec![4]),
            (vec![("c", 1)], vec![2, 3, 4], vec![]),
        ] {
            let decision = decided(holdings(&delayed), &Call::Start { limit: 9 });
            let answer = decision.answer.unwrap().handed;
            let numbers: Vec<i64> = answer.iter().map(|one| one.number).collect();
            assert_eq!(numbers, handed, "{delayed:?}");
            let returns = decision.returned.iter().map(|one| one.message.number);
            assert_eq!(returns.collect::<Vec<i64>>(), returned, "{delayed:?}");
        }
    }
}
