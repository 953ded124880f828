//! Settings of the messages that a reaction publishes.

use crate::config::Invalid;
use serde::Deserialize;

/// Bytes of a short string of AMQP, such as the name of an exchange.
const SHORT: usize = 255;

/// `amqp = { ... }` of a reaction: one message for each event, published to an exchange.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmqpSettings {
    /// `amqp://user:password@host/vhost`; a secret. Empty for `broker.url`.
    #[serde(default)]
    pub url: String,
    /// The exchange, which exists: it is not declared here.
    pub exchange: String,
    /// The routing key; absent for the event's type.
    pub routing_key: Option<String>,
    /// CEL that gives the routing key.
    pub routing_key_from: Option<String>,
    /// Whether the message survives a restart of the broker, in a durable queue.
    #[serde(default = "yes")]
    pub persistent: bool,
}

impl AmqpSettings {
    /// Adds what is invalid; `at` is the key of the handler itself, as `reactions[0].amqp`. That the
    /// URL and the expression can be parsed is seen when the handler is made.
    pub fn validate(&self, at: &str, found: &mut Vec<Invalid>) {
        let mut invalid = |key: &str, reason: String| {
            found.push(Invalid::new(&format!("{at}.{key}"), reason));
        };
        let schemes = ["amqp://", "amqps://"];
        if !self.url.is_empty() && !schemes.iter().any(|scheme| self.url.starts_with(scheme)) {
            let reason = "must begin with amqp:// or amqps://, or be empty for broker.url";
            invalid("url", reason.to_owned());
        }
        if self.exchange.is_empty() || self.exchange.len() > SHORT {
            let reason = format!(
                "is {:?}, but must be the name of an exchange, of 1 to {SHORT} bytes",
                self.exchange
            );
            invalid("exchange", reason);
        }
        if self.routing_key.is_some() && self.routing_key_from.is_some() {
            let reason = "is set, and routing_key too; remove one of them";
            invalid("routing_key_from", reason.to_owned());
        }
        if let Some(length) = self.routing_key.as_ref().map(String::len)
            && length > SHORT
        {
            let reason = format!("has {length} bytes, but AMQP has room for {SHORT}");
            invalid("routing_key", reason);
        }
    }
}

impl std::fmt::Debug for AmqpSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AmqpSettings")
            .field("exchange", &self.exchange)
            .field("routing_key", &self.routing_key)
            .field("routing_key_from", &self.routing_key_from)
            .field("persistent", &self.persistent)
            .finish_non_exhaustive()
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<String> {
        let settings: AmqpSettings = toml::from_str(text).unwrap();
        let mut found = Vec::new();
        settings.validate("amqp", &mut found);
        found.into_iter().map(|invalid| invalid.key).collect()
    }

    #[test]
    fn what_is_invalid_is_named() {
        assert!(keys("exchange = \"events\"").is_empty());
        let longest = "k".repeat(255);
        assert!(keys(&format!("exchange = \"e\"\nrouting_key = {longest:?}")).is_empty());
        for (text, key) in [
            ("exchange = \"\"", "amqp.exchange"),
            ("exchange = \"e\"\nurl = \"http://h\"", "amqp.url"),
            (
                "exchange = \"e\"\nrouting_key = \"k\"\nrouting_key_from = \"userId\"",
                "amqp.routing_key_from",
            ),
            (
                &format!("exchange = \"e\"\nrouting_key = \"{longest}k\""),
                "amqp.routing_key",
            ),
        ] {
            assert_eq!(keys(text), [key], "{text}");
        }
    }

    #[test]
    fn the_url_is_not_shown() {
        let text = "url = \"amqp://u:s3cret@h\"\nexchange = \"events\"";
        let settings: AmqpSettings = toml::from_str(text).unwrap();
        assert!(settings.persistent);
        let shown = format!("{settings:?}");
        assert!(
            shown.contains("events") && !shown.contains("s3cret"),
            "{shown}"
        );
    }
}
