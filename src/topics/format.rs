//! How events are written to a client: server-sent events, or lines of JSON.

use super::excerpt::LineOf;
use super::roll::EndReason;
use crate::store::commit_log::Position;
use std::io::Write;

/// Milliseconds after which a browser connects again.
const RETRY: u32 = 1_000;

/// The format of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamFormat {
    /// `text/event-stream`.
    Sse,
    /// `application/x-ndjson`.
    Ndjson,
}

/// A place in the log as clients see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) generation: i64,
    pub(super) position: Position,
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.generation, self.position)
    }
}

impl StreamFormat {
    /// The `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    /// Writes an event.
    pub(super) fn event(self, out: &mut Vec<u8>, generation: i64, line: LineOf<'_>) {
        let mark = Mark {
            generation,
            position: line.position,
        };
        // Writing into memory does not fail.
        let _ = match self {
            Self::Sse => write!(out, "id: {mark}\ndata: "),
            Self::Ndjson => write!(out, "{{\"position\":\"{mark}\",\"event\":"),
        };
        out.extend_from_slice(line.json);
        out.extend_from_slice(match self {
            Self::Sse => b"\n\n",
            Self::Ndjson => b"}\n",
        });
    }

    /// The first words, which say where the stream begins.
    pub(super) fn opening(self, mark: Mark) -> Vec<u8> {
        match self {
            Self::Sse => format!("retry: {RETRY}\nid: {mark}\n\n").into_bytes(),
            Self::Ndjson => self.alive(mark),
        }
    }

    /// A sign of life, with the position up to which there was nothing else to send. A block of server-sent events
    /// without data moves the last id of the client, and is no event.
    pub(super) fn alive(self, mark: Mark) -> Vec<u8> {
        match self {
            Self::Sse => format!(": alive\nid: {mark}\n\n"),
            Self::Ndjson => format!("{{\"position\":\"{mark}\"}}\n"),
        }
        .into_bytes()
    }

    /// The last words, which say why the stream ends.
    pub(super) fn last_words(self, mark: Mark, reason: EndReason) -> Vec<u8> {
        let detail = reason.detail();
        let told = serde_json::json!({"reason": reason.as_str(), "detail": detail});
        match self {
            Self::Sse if reason.is_failure() => {
                format!("id: {mark}\nevent: error\ndata: {told}\n\n")
            }
            Self::Sse => format!(": {detail}\nid: {mark}\n\n"),
            Self::Ndjson => format!("{{\"position\":\"{mark}\",\"end\":{told}}}\n"),
        }
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark {
        generation: 2,
        position: Position(8_191),
    };

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_has_its_position_in_either_format() {
        let line = LineOf {
            position: Position(8_191),
            event_type: "t",
            json: b"{\"a\":1}",
        };
        let mut out = Vec::new();
        StreamFormat::Sse.event(&mut out, 2, line);
        StreamFormat::Ndjson.event(&mut out, 2, line);
        assert_eq!(
            text(out),
            "id: 2-8191\ndata: {\"a\":1}\n\n{\"position\":\"2-8191\",\"event\":{\"a\":1}}\n"
        );
    }

    #[test]
    fn what_is_no_event_has_a_position_too() {
        for format in [StreamFormat::Sse, StreamFormat::Ndjson] {
            for written in [
                format.opening(MARK),
                format.alive(MARK),
                format.last_words(MARK, EndReason::Stopping),
                format.last_words(MARK, EndReason::Slow),
            ] {
                let written = text(written);
                assert!(written.contains("2-8191"), "{written}");
                let is_whole = match format {
                    StreamFormat::Sse => written.ends_with("\n\n"),
                    StreamFormat::Ndjson => written.ends_with("}\n"),
                };
                assert!(is_whole, "{written}");
            }
        }
        let stopping = text(StreamFormat::Sse.last_words(MARK, EndReason::Stopping));
        assert!(stopping.starts_with(": ") && !stopping.contains("event:"));
        let slow = text(StreamFormat::Sse.last_words(MARK, EndReason::Slow));
        assert!(slow.contains("\nevent: error\ndata: {"), "{slow}");
        let slow = text(StreamFormat::Ndjson.last_words(MARK, EndReason::Slow));
        let slow: serde_json::Value = serde_json::from_str(&slow).unwrap();
        assert_eq!(slow["end"]["reason"], "slow");
    }
}
