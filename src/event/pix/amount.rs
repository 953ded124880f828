//! Amounts in whole cents, read from and written as JSON numbers without a float in between.

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::fmt;

/// The most that `numeric(18, 2)` holds.
const MAX: i64 = 999_999_999_999_999_999;

/// An amount in cents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cents(pub i64);

impl Cents {
    /// Reads a JSON number above zero, with at most two decimals and no exponent.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(number: &str) -> Result<Self, String> {
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        if number.starts_with('-') {
            return Err("must be above zero".to_owned());
        }
        if !is_digits(whole) || !is_digits(decimals) {
            return Err("must be a number such as 90.20, without an exponent".to_owned());
        }
        if decimals.len() > 2 {
            return Err("must have at most two decimals".to_owned());
        }
        let too_large = || "must have at most 16 digits before the decimal point".to_owned();
        let cents: i64 = format!("{whole}{decimals:0<2}")
            .parse()
            .map_err(|_| too_large())?;
        match cents {
            0 => Err("must be above zero".to_owned()),
            1..=MAX => Ok(Self(cents)),
            _ => Err(too_large()),
        }
    }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl Serialize for Cents {
    /// A number with two decimals, as it stands.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = RawValue::from_string(self.to_string());
        number
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_keep_two_decimals() {
        for (text, cents, shown) in [
            ("90.20", 9020, "90.20"),
            ("90.2", 9020, "90.20"),
            ("90", 9000, "90.00"),
            ("0.01", 1, "0.01"),
            // No float has this value.
            ("9999999999999999.99", MAX, "9999999999999999.99"),
        ] {
            let amount = Cents::parse(text).unwrap();
            assert_eq!((amount, amount.to_string().as_str()), (Cents(cents), shown));
            assert_eq!(serde_json::to_string(&amount).unwrap(), shown);
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_with_the_reason() {
        for (text, reason) in [
            ("0", "above zero"),
            ("0.00", "above zero"),
            ("-1", "above zero"),
            ("1.005", "two decimals"),
            ("1e2", "exponent"),
            ("\"1.00\"", "a number"),
            ("10000000000000000", "16 digits"),
            ("99999999999999999999999", "16 digits"),
        ] {
            let error = Cents::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
