//! How far a replay has come.

use crate::store::dead_letters::LetterPosition;
use std::fmt;
use std::str::FromStr;

/// How far a replay has come, and where it ends: at the newest letter there was when it began.
/// Letters that come meanwhile, its own among them, are for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub(super) after: Option<LetterPosition>,
    pub(super) bound: LetterPosition,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.after {
            Some(after) => write!(f, "{after}_{}", self.bound),
            None => write!(f, "_{}", self.bound),
        }
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (after, bound) = text.split_once('_').ok_or(())?;
        let after = match after {
            "" => None,
            after => Some(after.parse()?),
        };
        Ok(Self {
            after,
            bound: bound.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use uuid::Uuid;

    #[test]
    fn a_cursor_comes_back_from_its_text() {
        let position = |micros| LetterPosition {
            created_at: DateTime::from_timestamp_micros(micros).unwrap(),
            id: Uuid::new_v4(),
        };
        for after in [
            None,
            Some(position(-5)),
            Some(position(1_700_000_000_123_456)),
        ] {
            let cursor = Cursor {
                after,
                bound: position(7),
            };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for text in ["", "_", "1.x_2.y", "abc"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }
}
