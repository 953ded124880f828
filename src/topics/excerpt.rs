//! A stretch of the log as text, written once for all subscribers.

use crate::event::StoredEvent;
use crate::event::budget::Permit;
use crate::event::schemas::{SchemaView, Schemas};
use crate::store::commit_log::{Chunk, LoggedEvent, Position};
use crate::store::{ErrorKind, StoreError};
use std::ops::Range;

/// Memory of a line besides its texts, roughly.
const AROUND: usize = 64;

/// The events of a stretch of the log, each as a line of JSON.
#[derive(Debug)]
pub(super) struct Excerpt {
    /// Behind the last event of the stretch, and of what does not match.
    pub(super) end: Position,
    lines: Vec<ExcerptLine>,
    text: Vec<u8>,
}

#[derive(Debug)]
struct ExcerptLine {
    position: Position,
    event_type: Box<str>,
    /// Where its text lies.
    sent: Range<usize>,
    /// Where its text in the newest version lies, if that is another one and was asked for.
    latest: Option<Range<usize>>,
}

/// An event of an excerpt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LineOf<'a> {
    pub(super) position: Position,
    pub(super) event_type: &'a str,
    /// The event as JSON, without a line break.
    pub(super) json: &'a [u8],
}

/// What a subscriber has read by itself.
pub(super) struct OwnExcerpt {
    pub(super) excerpt: Excerpt,
    /// Whether it goes up to where the log ended before the read.
    pub(super) is_newest: bool,
    /// What was deleted until after the read.
    pub(super) deleted_to: Position,
    pub(super) _permit: Permit,
}

impl Excerpt {
    /// Writes the events of a chunk, and with schemas those that have one a second time, in the newest version.
    ///
    /// # Errors
    /// An event cannot be written as JSON, which is a defect.
    pub(super) fn new(chunk: Chunk, schemas: Option<&Schemas>) -> Result<Self, StoreError> {
        let mut excerpt = Self {
            end: chunk.read_to,
            lines: Vec::with_capacity(chunk.events.len()),
            text: Vec::new(),
        };
        for logged in chunk.events {
            excerpt.push(logged, schemas)?;
        }
        excerpt.text.shrink_to_fit();
        Ok(excerpt)
    }

    fn push(&mut self, logged: LoggedEvent, schemas: Option<&Schemas>) -> Result<(), StoreError> {
        let LoggedEvent { position, event } = logged;
        let sent = self.write(&event)?;
        let event_type = event.event_type.clone().into_boxed_str();
        let latest = match schemas.filter(|schemas| schemas.of_type(&event_type).is_some()) {
            Some(schemas) => Some(self.write(&schemas.to_latest(event))?),
            None => None,
        };
        self.lines.push(ExcerptLine {
            position,
            event_type,
            sent,
            latest,
        });
        Ok(())
    }

    /// Writes an event as a line, without a line break.
    fn write(&mut self, event: &StoredEvent) -> Result<Range<usize>, StoreError> {
        let from = self.text.len();
        serde_json::to_writer(&mut self.text, event).map_err(|error| {
            StoreError::new(ErrorKind::Transient, "an event cannot be written as JSON")
                .with_source(error)
        })?;
        // A payload is the text that the producer sent. Line breaks in it are white space: within a string they would be
        // escaped.
        if let Some(written) = self.text.get_mut(from..)
            && memchr::memchr2(b'\n', b'\r', written).is_some()
        {
            for byte in written {
                if matches!(byte, b'\n' | b'\r') {
                    *byte = b' ';
                }
            }
        }
        Ok(from..self.text.len())
    }

    /// Bytes of memory that it takes, roughly.
    pub(super) fn bytes(&self) -> usize {
        let lines = self.lines.iter().map(|line| AROUND + line.event_type.len());
        self.text.len() + lines.sum::<usize>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Its events behind a position. With `Latest` the excerpt was written with schemas, or of upcast events.
    pub(super) fn lines_behind(
        &self,
        position: Position,
        schema: SchemaView,
    ) -> impl Iterator<Item = LineOf<'_>> {
        let first = self.lines.partition_point(|line| line.position <= position);
        self.lines.iter().skip(first).filter_map(move |line| {
            let latest = line
                .latest
                .as_ref()
                .filter(|_| schema == SchemaView::Latest);
            Some(LineOf {
                position: line.position,
                event_type: &line.event_type,
                json: self.text.get(latest.unwrap_or(&line.sent).clone())?,
            })
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::schemas::{
        OnInvalid, SchemaDocument, SchemaVersion, TypeSchemas, Upcast, UpcastPath,
    };
    use chrono::DateTime;
    use serde_json::value::RawValue;
    use uuid::Uuid;

    pub(in crate::topics) fn logged(position: i64, event_type: &str, data: &str) -> LoggedEvent {
        LoggedEvent {
            position: Position(position),
            event: StoredEvent {
                id: position,
                event_id: Uuid::nil(),
                original_id: None,
                producer: "p".to_owned(),
                user_id: None,
                event_type: event_type.to_owned(),
                event_data: RawValue::from_string(data.to_owned()).unwrap(),
                schema_version: None,
                session_id: None,
                timestamp: DateTime::default(),
                received_at: DateTime::default(),
                source: "http".to_owned(),
                processed: true,
            },
        }
    }

    pub(in crate::topics) fn excerpt(positions: impl IntoIterator<Item = i64>) -> Excerpt {
        let events: Vec<_> = positions
            .into_iter()
            .map(|n| logged(n, "t", "{}"))
            .collect();
        let read_to = events.last().map_or(Position::START, |last| last.position);
        Excerpt::new(Chunk { events, read_to }, None).unwrap()
    }

    const SENT: SchemaView = SchemaView::Sent;

    /// Version 2 of `t` calls `a` `b`.
    fn schemas() -> Schemas {
        let version = |upcast| SchemaVersion {
            document: SchemaDocument::compile("{}".to_owned()).unwrap(),
            upcast,
            is_declared_compatible: false,
        };
        let path = |name| UpcastPath::parse(name).unwrap();
        let (from, to) = (path("a"), path("b"));
        let versions = vec![version(vec![]), version(vec![Upcast::Rename { from, to }])];
        Schemas::new([TypeSchemas::new(
            "t".to_owned(),
            OnInvalid::Refuse,
            1,
            versions,
        )])
    }

    #[test]
    fn each_reader_gets_the_version_that_it_asks_for() {
        let chunk = || Chunk {
            events: vec![
                logged(5, "t", r#"{"a":1.50}"#),
                logged(7, "u", r#"{"a":2}"#),
            ],
            read_to: Position(9),
        };
        let data = |excerpt: &Excerpt, schema| -> Vec<_> {
            let lines = excerpt.lines_behind(Position::START, schema);
            let read = |line: LineOf<'_>| serde_json::from_slice::<StoredEvent>(line.json).unwrap();
            lines
                .map(|line| read(line).event_data.get().to_owned())
                .collect()
        };
        let both = Excerpt::new(chunk(), Some(&schemas())).unwrap();
        assert_eq!(data(&both, SENT), [r#"{"a":1.50}"#, r#"{"a":2}"#]);
        let latest = SchemaView::Latest;
        assert_eq!(data(&both, latest), [r#"{"b":1.50}"#, r#"{"a":2}"#]);
        // Where none asks for it, nothing is written twice.
        let one = Excerpt::new(chunk(), None).unwrap();
        assert!(one.bytes() < both.bytes());
    }

    #[test]
    fn each_event_is_one_line_whatever_its_payload_looks_like() {
        let data = "{\r\n  \"a\": \"x\\ny\",\n\t\"b\": 1\r}";
        let events = vec![logged(5, "t", "{}"), logged(7, "u", data)];
        let read_to = Position(9);
        let excerpt = Excerpt::new(Chunk { events, read_to }, None).unwrap();
        let lines: Vec<_> = excerpt.lines_behind(Position(5), SENT).collect();
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].position, lines[0].event_type), (Position(7), "u"));
        assert!(!lines[0].json.contains(&b'\n') && !lines[0].json.contains(&b'\r'));
        let read: StoredEvent = serde_json::from_slice(lines[0].json).unwrap();
        let data: serde_json::Value = serde_json::from_str(read.event_data.get()).unwrap();
        assert_eq!(data, serde_json::json!({"a": "x\ny", "b": 1}));
        assert_eq!(excerpt.lines_behind(Position(4), SENT).count(), 2);
        assert_eq!(excerpt.lines_behind(Position(7), SENT).count(), 0);
        assert!(excerpt.bytes() > excerpt.text.len());
    }
}
