//! How far a replay has come.

use crate::store::dead_letters::DeadLetterPosition;
use std::fmt;
use std::str::FromStr;

/// The progress of a replay, and its end: the newest dead letter at its start. Dead letters added
/// meanwhile, also by the replay itself, are left for the next replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub(super) after: Option<DeadLetterPosition>,
    pub(super) bound: DeadLetterPosition,
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
        let position = |micros| DeadLetterPosition {
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
