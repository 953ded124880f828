//! The place of a record in PostgreSQL's write-ahead log.

use std::fmt;
use std::str::FromStr;

/// The place of a record in PostgreSQL's write-ahead log, in bytes from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Bytes from `earlier` to here; 0 if it is not earlier.
    pub fn bytes_after(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// PostgreSQL's spelling, such as `0/16B3748`.
impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |digits: &str| {
            let plain = (1..=8).contains(&digits.len()) && !digits.starts_with('+');
            plain
                .then(|| u32::from_str_radix(digits, 16).ok())
                .flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some((half(high)?, half(low)?)))
            .map(|(high, low)| Lsn(u64::from(high) << 32 | u64::from(low)))
            .ok_or_else(|| format!("{text:?} is not a place in the log such as 0/16B3748"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_is_that_of_postgresql() {
        for (text, place) in [
            ("0/0", 0),
            ("0/16B3748", 0x16B_3748),
            ("16/B374D848", 0x16_B374_D848),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Lsn(place)));
            assert_eq!(Lsn(place).to_string(), text);
        }
        for wrong in ["", "0", "/", "0/", "+1/0", "0/123456789", "x/0", "0/0/0"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
        assert_eq!(Lsn(7).bytes_after(Lsn(5)), 2);
        assert_eq!(Lsn(5).bytes_after(Lsn(7)), 0);
    }
}
