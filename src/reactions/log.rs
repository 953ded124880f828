//! The handler that writes a log line for each event.

use super::handler::{Handler, HandlerError, Run};
use crate::config::reactions::log::{LogLevel, LogLineSettings};
use async_trait::async_trait;
use tracing::Level;

/// Writes one log line for each event.
#[derive(Debug, Clone)]
pub struct LogLine {
    level: LogLevel,
    data: bool,
}

impl LogLine {
    pub fn new(settings: &LogLineSettings) -> Self {
        Self {
            level: settings.level,
            data: settings.data,
        }
    }
}

#[async_trait]
impl Handler for LogLine {
    async fn handle(&self, run: &Run) -> Result<(), HandlerError> {
        let event = &run.event;
        let data = self.data.then(|| event.event_data.get());
        // The level of a line is part of its call site.
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    $level,
                    reaction = &*run.reaction,
                    event_id = %event.event_id,
                    event_type = event.event_type,
                    run = run.id(),
                    attempt = run.attempt,
                    event_data = data,
                    "event"
                )
            };
        }
        match self.level {
            LogLevel::Trace => line!(Level::TRACE),
            LogLevel::Debug => line!(Level::DEBUG),
            LogLevel::Info => line!(Level::INFO),
            LogLevel::Warn => line!(Level::WARN),
            LogLevel::Error => line!(Level::ERROR),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use parking_lot::Mutex;
    use serde_json::{Value, json};
    use std::io;
    use std::sync::Arc;
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn line(settings: &str) -> Value {
        let settings: LogLineSettings = toml::from_str(settings).unwrap();
        let run = Run::new(
            "audit",
            2,
            serde_json::from_value(json!({
                "sequence": 1, "id": "0198c0de-0000-7000-8000-000000000001", "producer": "shop",
                "userId": "u1", "eventType": "order.paid", "eventData": {"iban": "hush"},
                "sessionId": null, "timestamp": "2026-01-02T03:04:05Z",
                "receivedAt": "2026-01-02T03:04:06Z", "source": "http", "processed": false
            }))
            .unwrap(),
        );
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(Level::TRACE)
            .with_writer(lines.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let handled = LogLine::new(&settings).handle(&run).now_or_never();
            assert_eq!(handled, Some(Ok(())));
        });
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_line_has_ids_and_the_data_only_if_it_is_asked_for() {
        let plain = line("");
        for (field, value) in [
            ("level", json!("INFO")),
            ("reaction", json!("audit")),
            ("event_id", json!("0198c0de-0000-7000-8000-000000000001")),
            ("event_type", json!("order.paid")),
            ("run", json!("0198c0de-0000-7000-8000-000000000001.audit")),
            ("attempt", json!(2)),
        ] {
            assert_eq!(plain[field], value, "{plain}");
        }
        assert!(!plain.to_string().contains("hush"), "{plain}");
        let full = line("level = \"error\"\ndata = true");
        assert_eq!(full["level"], "ERROR");
        assert_eq!(full["event_data"], r#"{"iban":"hush"}"#);
    }
}
