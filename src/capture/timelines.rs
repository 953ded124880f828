//! Timelines: which history of the log a place belongs to. After a fail-over the same place can hold another record.

use super::{CaptureError, Lsn};

/// The timelines of a server, as its history file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timelines {
    current: u32,
    /// Earlier timelines with the place where each ended, oldest first.
    ended: Vec<(u32, Lsn)>,
}

impl Timelines {
    /// A server that is on its first timeline, or whose history is not kept.
    pub fn only(current: u32) -> Self {
        Self {
            current,
            ended: Vec::new(),
        }
    }

    /// Reads a history file: a line for each earlier timeline, with its number, the place of its end and a reason.
    ///
    /// # Errors
    /// A line is none of these.
    pub fn parse(current: u32, history: &str) -> Result<Self, CaptureError> {
        let lines = history.lines().map(str::trim);
        let entries = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut ended = Vec::new();
        for line in entries {
            let mut words = line.split_whitespace();
            let number = words.next().and_then(|word| word.parse().ok());
            let end = words.next().and_then(|word| word.parse().ok());
            match (number, end) {
                (Some(number), Some(end)) => ended.push((number, end)),
                _ => {
                    return Err(CaptureError::unreadable(
                        "a history of timelines in another form",
                    ));
                }
            }
        }
        Ok(Self { current, ended })
    }

    /// The timeline that the server writes.
    pub fn current(&self) -> u32 {
        self.current
    }

    /// The timeline of the record at `lsn`.
    pub fn of(&self, lsn: Lsn) -> u32 {
        let earlier = self.ended.iter().find(|(_, end)| lsn < *end);
        earlier.map_or(self.current, |(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_belongs_to_the_timeline_that_wrote_it() {
        let history = "1\t0/3000000\tno recovery target specified\n\n2\t0/5000060\tbefore 2026\n";
        let timelines = Timelines::parse(3, history).unwrap();
        for (place, number) in [
            ("0/10", 1),
            ("0/2FFFFFF", 1),
            ("0/3000000", 2),
            ("0/5000060", 3),
            ("1/0", 3),
        ] {
            assert_eq!(timelines.of(place.parse().unwrap()), number, "{place}");
        }
        assert_eq!(Timelines::only(1).of(Lsn(5)), 1);
        assert!(Timelines::parse(2, "one 0/1").is_err());
    }
}
