//! A stream of RabbitMQ: a queue that keeps its messages, so that each consumer reads from where it
//! likes.

use super::topology::{is_mismatch, text};
use lapin::Connection;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use std::time::Duration;

/// A stream as it is to be declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamQueue {
    pub name: String,
    /// How much it keeps; absent for no limit.
    pub max_length_bytes: Option<u64>,
    /// How long it keeps a message; absent for no limit.
    pub max_age: Option<Duration>,
}

impl StreamQueue {
    /// Declares the stream. One that exists with other limits is used as it is, with a warning: the
    /// limits of a queue cannot be changed by declaring it.
    ///
    /// # Errors
    /// lapin's; a queue of this name that is no stream is one of the broker's.
    pub async fn declare(&self, connection: &Connection) -> lapin::Result<()> {
        let error = match declare(connection, &self.name, self.arguments()).await {
            Err(error) if is_mismatch(&error) => error,
            done => return done,
        };
        // Which argument differs stands in the text alone; without limits it can be the type only.
        match declare(connection, &self.name, of_type()).await {
            Err(other) if is_mismatch(&other) && other.to_string().contains(TYPE) => Err(other),
            Err(other) if !is_mismatch(&other) => Err(other),
            _ => {
                tracing::warn!(
                    stream = self.name,
                    %error,
                    "the stream exists with other limits and is used as it is; change them by a policy"
                );
                Ok(())
            }
        }
    }

    fn arguments(&self) -> FieldTable {
        let mut arguments = of_type();
        if let Some(bytes) = self.max_length_bytes {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            let bytes = AMQPValue::LongLongInt(bytes);
            arguments.insert("x-max-length-bytes".into(), bytes);
        }
        if let Some(age) = self.max_age {
            let age = format!("{}s", age.as_secs());
            arguments.insert("x-max-age".into(), text(&age));
        }
        arguments
    }
}

/// The argument that says what kind of queue one is.
const TYPE: &str = "x-queue-type";

fn of_type() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(TYPE.into(), text("stream"));
    arguments
}

/// Declares on a channel of its own, since the broker closes the channel over a mismatch.
async fn declare(connection: &Connection, name: &str, arguments: FieldTable) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(name.into(), options, arguments)
        .await?;
    channel.close(200, "declared".into()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_arguments_of_the_queue() {
        let stream = StreamQueue {
            name: "events".to_owned(),
            max_length_bytes: Some(5_000_000),
            max_age: Some(Duration::from_secs(7 * 86_400)),
        };
        let arguments = stream.arguments();
        let value = |name: &str| arguments.inner().get(name).cloned();
        assert_eq!(value("x-queue-type"), Some(text("stream")));
        assert_eq!(
            value("x-max-length-bytes"),
            Some(AMQPValue::LongLongInt(5_000_000))
        );
        assert_eq!(value("x-max-age"), Some(text("604800s")));
        let endless = StreamQueue {
            max_length_bytes: None,
            max_age: None,
            ..stream
        };
        assert_eq!(endless.arguments(), of_type());
    }
}
