//! Random Pix messages that are valid, for tests and demonstrations.

use crate::event::pix::amount::Cents;
use crate::event::pix::document::with_check_digits;
use crate::event::pix::{ACCOUNT_TYPES, Party, PixMessage};
use chrono::{DateTime, SubsecRound, Utc};
use rand::Rng;
use rand::distr::Alphanumeric;
use rand::seq::IndexedRandom;

const FIRST: [&str; 12] = [
    "Ana", "Bruno", "Carla", "Diego", "Érica", "Fábio", "Gilda", "Hugo", "Íris", "João", "Luísa",
    "Marcos",
];
const LAST: [&str; 10] = [
    "Almeida",
    "Barros",
    "Conceição",
    "Duarte",
    "Fonseca",
    "Gonçalves",
    "Lima",
    "Moraes",
    "Nóbrega",
    "Silva",
];
/// Largest amount in cents.
const MOST: i64 = 1_000_000;

/// A message to an account at this bank. Document numbers have right check digits.
pub fn message(receiver: &str, now: DateTime<Utc>) -> PixMessage {
    let mut random = rand::rng();
    let bank = digits(&mut random, 8);
    let payer = party(&mut random, bank);
    let rest: String = (&mut random)
        .sample_iter(Alphanumeric)
        .take(11)
        .map(char::from)
        .collect();
    let minute = now.format("%Y%m%d%H%M");
    PixMessage {
        end_to_end_id: format!("E{}{minute}{rest}", payer.ispb),
        amount: Cents(random.random_range(1..=MOST)),
        payer,
        receiver: party(&mut random, receiver.to_owned()),
        free_text: String::new(),
        tx_id: (&mut random)
            .sample_iter(Alphanumeric)
            .take(18)
            .map(char::from)
            .collect(),
        paid_at: now.trunc_subsecs(3),
    }
}

fn party(random: &mut impl Rng, ispb: String) -> Party {
    let mut one_of = |names: &[&'static str]| names.choose(random).copied().unwrap_or_default();
    let (first, last, account_type) = (one_of(&FIRST), one_of(&LAST), one_of(&ACCOUNT_TYPES));
    let is_company = random.random_ratio(1, 5);
    let base = match is_company {
        true => format!("{}0001", digits(random, 8)),
        false => digits(random, 9),
    };
    Party {
        name: match is_company {
            true => format!("{last} e {first} Ltda"),
            false => format!("{first} {last}"),
        },
        document: with_check_digits(&base),
        ispb,
        branch: digits(random, 4),
        account: digits(random, 7),
        account_type: account_type.to_owned(),
    }
}

fn digits(random: &mut impl Rng, count: usize) -> String {
    (0..count)
        .map(|_| char::from(random.random_range(b'0'..=b'9')))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::pix::PixRules;

    #[test]
    fn what_is_made_passes_the_strictest_check() {
        let rules = PixRules { check_digits: true };
        for _ in 0..500 {
            let message = message("12345678", Utc::now());
            let parsed = PixMessage::parse(&message.to_json(), rules);
            assert_eq!(parsed.unwrap(), message);
        }
    }
}
