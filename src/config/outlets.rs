//! Settings of outlets: where events are sent.

use super::broker::BrokerSettings;
use super::reactions::{check_name, check_types};
use super::start::DeclaredStart;
use super::{Invalid, in_range, units};
use crate::event::schemas::SchemaView;
use bytesize::ByteSize;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of a short string of AMQP, such as the name of an exchange.
const SHORT: usize = 255;
const AGES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(36_500 * 86_400);

/// The form in which an outlet sends events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutletFormat {
    /// As the API shows them.
    #[default]
    Event,
    /// CloudEvents 1.0 in the structured mode, in JSON.
    CloudEvents,
}

/// What happens when an event cannot be sent because of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutletOnError {
    /// The outlet stops before it.
    #[default]
    Stop,
    /// The event becomes a dead letter.
    DeadLetter,
}

/// `[[outlets]]`: events that are sent to RabbitMQ.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutletSettings {
    /// As a reaction's.
    pub name: String,
    /// Event types, in which `*` stands for any characters.
    pub types: Vec<String>,
    /// `amqp://user:password@host/vhost`; a secret. Empty for `broker.url`.
    #[serde(default)]
    pub url: String,
    /// A file with the URL.
    pub url_file: Option<PathBuf>,
    /// The exchange, which exists: it is not declared here.
    pub exchange: Option<String>,
    /// The routing key; absent for the event's type.
    pub routing_key: Option<String>,
    /// The stream, which is declared here, in place of an exchange.
    pub stream: Option<String>,
    /// How much the stream keeps.
    pub max_length_bytes: Option<ByteSize>,
    /// How long the stream keeps a message.
    #[serde(default, with = "units::optional_duration")]
    pub max_age: Option<Duration>,
    #[serde(default)]
    pub format: OutletFormat,
    /// In which form events are sent.
    #[serde(default)]
    pub schema: SchemaView,
    #[serde(default)]
    pub start: DeclaredStart,
    #[serde(default)]
    pub on_error: OutletOnError,
    /// Most messages that are sent and not confirmed.
    #[serde(default = "five_hundred")]
    pub window: u16,
}

/// Where an outlet sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutletTarget<'a> {
    Exchange(&'a str),
    Stream(&'a str),
}

impl OutletSettings {
    /// The one target.
    ///
    /// # Errors
    /// There is none, or there are two.
    pub fn target(&self) -> Result<OutletTarget<'_>, &'static str> {
        match (&self.exchange, &self.stream) {
            (Some(exchange), None) => Ok(OutletTarget::Exchange(exchange)),
            (None, Some(stream)) => Ok(OutletTarget::Stream(stream)),
            (None, None) => Err("has nowhere to send to; set exchange or stream"),
            (Some(_), Some(_)) => {
                Err("has both exchange and stream; keep one, and make an outlet of the other one")
            }
        }
    }

    /// Whether the server is that of `broker.url`.
    fn is_at_broker(&self) -> bool {
        self.url.is_empty() && self.url_file.is_none()
    }

    fn validate(&self, at: &str, broker: &BrokerSettings, found: &mut Vec<Invalid>) {
        if let Err(flaw) = check_name(&self.name) {
            found.push(Invalid::new(&format!("{at}.name"), flaw.reason));
        }
        check_types(&format!("{at}.types"), &self.types, found);
        in_range(found, &format!("{at}.window"), self.window, 1..=5_000);
        let mut invalid = |key: &str, reason: String| {
            found.push(Invalid::new(&format!("{at}.{key}"), reason));
        };
        if self.is_at_broker() && broker.url.is_empty() {
            let reason = "is empty, and so is broker.url; set one of them";
            invalid("url", reason.to_owned());
        }
        if !self.url.is_empty() {
            let schemes = ["amqp://", "amqps://"];
            if self.url_file.is_some() {
                invalid(
                    "url",
                    "is set, and url_file too; remove one of them".to_owned(),
                );
            } else if !schemes.iter().any(|scheme| self.url.starts_with(scheme)) {
                let reason = "must begin with amqp:// or amqps://, or be empty for broker.url";
                invalid("url", reason.to_owned());
            }
        }
        for (key, name) in [("exchange", &self.exchange), ("stream", &self.stream)] {
            if let Some(name) = name
                && (name.is_empty() || name.len() > SHORT)
            {
                let reason = format!("is {name:?}, but must be a name of 1 to {SHORT} bytes");
                invalid(key, reason);
            }
        }
        if let Some(length) = self.routing_key.as_ref().map(String::len)
            && length > SHORT
        {
            let reason = format!("has {length} bytes, but AMQP has room for {SHORT}");
            invalid("routing_key", reason);
        }
        if let Some(age) = self.max_age
            && (!AGES.contains(&age) || age.subsec_nanos() > 0)
        {
            let shown = humantime::format_duration(age);
            let reason = format!("is {shown}, but must be whole seconds, at most 100 years");
            invalid("max_age", reason);
        }
        if self.max_length_bytes.is_some_and(|most| most.as_u64() == 0) {
            invalid("max_length_bytes", "must be more than nothing".to_owned());
        }
        match self.target() {
            Err(reason) => found.push(Invalid::new(at, reason)),
            Ok(OutletTarget::Exchange(exchange)) => {
                self.validate_exchange(exchange, broker, &mut invalid)
            }
            Ok(OutletTarget::Stream(stream)) => self.validate_stream(stream, broker, &mut invalid),
        }
    }

    fn validate_exchange(
        &self,
        exchange: &str,
        broker: &BrokerSettings,
        invalid: &mut impl FnMut(&str, String),
    ) {
        for (key, is_set) in [
            ("max_length_bytes", self.max_length_bytes.is_some()),
            ("max_age", self.max_age.is_some()),
        ] {
            if is_set {
                invalid(
                    key,
                    "is for a stream; remove it, or set stream in place of exchange".to_owned(),
                );
            }
        }
        if self.is_at_broker()
            && exchange == broker.exchange
            && self.format == OutletFormat::CloudEvents
        {
            let reason = "is \"cloudevents\", but the exchange is broker.exchange, from which Eclusa takes events \
                          in its own form only; write \"event\", or name another exchange";
            invalid("format", reason.to_owned());
        }
    }

    fn validate_stream(
        &self,
        stream: &str,
        broker: &BrokerSettings,
        invalid: &mut impl FnMut(&str, String),
    ) {
        if self.routing_key.is_some() {
            let reason = "is for an exchange; remove it, or set exchange in place of stream";
            invalid("routing_key", reason.to_owned());
        }
        if stream.starts_with("amq.") {
            let reason =
                format!("is {stream:?}, but RabbitMQ keeps names that begin with amq. for itself");
            invalid("stream", reason);
        }
        let own = [&broker.queue, &broker.dead_letter_queue];
        if self.is_at_broker() && own.iter().any(|queue| *queue == stream) {
            let reason =
                format!("is {stream:?}, which is a queue of Eclusa's own; choose another name");
            invalid("stream", reason);
        }
    }
}

impl std::fmt::Debug for OutletSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutletSettings")
            .field("name", &self.name)
            .field("types", &self.types)
            .field("target", &self.target())
            .finish_non_exhaustive()
    }
}

fn five_hundred() -> u16 {
    500
}

/// Adds what is invalid in the outlets, and names that several have.
pub(super) fn validate(
    outlets: &[OutletSettings],
    broker: &BrokerSettings,
    found: &mut Vec<Invalid>,
) {
    for (index, outlet) in outlets.iter().enumerate() {
        let at = format!("outlets[{index}]");
        outlet.validate(&at, broker, found);
        let mut earlier = outlets.iter().take(index);
        if earlier.any(|other| other.name == outlet.name) {
            let reason = format!("is {:?}, as another outlet's", outlet.name);
            found.push(Invalid::new(&format!("{at}.name"), reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    const URL: &str = "url = \"amqp://u:s3cret@h\"";

    fn keys(lines: &str, broker: &BrokerSettings) -> Vec<String> {
        let text = format!("name = \"o\"\ntypes = [\"order.*\"]\n{lines}");
        let mut found = Vec::new();
        validate(&[toml::from_str(&text).unwrap()], broker, &mut found);
        found.into_iter().map(|invalid| invalid.key).collect()
    }

    fn broker(url: &str) -> BrokerSettings {
        let mut broker = Sources::from_text("").load().unwrap().broker;
        broker.url = url.to_owned();
        broker
    }

    #[test]
    fn an_exchange_or_a_stream_is_enough() {
        let text = format!("name = \"o\"\ntypes = [\"*\"]\nstream = \"s\"\n{URL}");
        let settings: OutletSettings = toml::from_str(&text).unwrap();
        assert_eq!(settings.target(), Ok(OutletTarget::Stream("s")));
        assert_eq!(settings.start, DeclaredStart::Now);
        assert_eq!(settings.on_error, OutletOnError::Stop);
        assert_eq!(
            (settings.format, settings.window),
            (OutletFormat::Event, 500)
        );
        let shown = format!("{settings:?}");
        assert!(
            shown.contains("\"s\"") && !shown.contains("s3cret"),
            "{shown}"
        );
        let embedded = broker("");
        for lines in [
            format!("{URL}\nexchange = \"e\"\nrouting_key = \"k\""),
            format!("{URL}\nstream = \"s\"\nmax_length_bytes = \"5 GB\"\nmax_age = \"7d\""),
            "url_file = \"/run/secrets/url\"\nexchange = \"e\"".to_owned(),
        ] {
            assert_eq!(keys(&lines, &embedded), [] as [&str; 0], "{lines}");
        }
        assert_eq!(keys("stream = \"s\"", &broker("amqp://h")), [] as [&str; 0]);
    }

    #[test]
    fn what_is_invalid_is_named() {
        let embedded = broker("");
        let long = "k".repeat(256);
        for (lines, key) in [
            ("exchange = \"e\"", "outlets[0].url"),
            ("exchange = \"e\"\nurl = \"http://h\"", "outlets[0].url"),
            (
                &format!("exchange = \"e\"\n{URL}\nurl_file = \"/f\""),
                "outlets[0].url",
            ),
            (URL, "outlets[0]"),
            (
                &format!("{URL}\nexchange = \"e\"\nstream = \"s\""),
                "outlets[0]",
            ),
            (&format!("{URL}\nexchange = \"\""), "outlets[0].exchange"),
            (&format!("{URL}\nstream = {long:?}"), "outlets[0].stream"),
            (&format!("{URL}\nstream = \"amq.s\""), "outlets[0].stream"),
            (
                &format!("{URL}\nstream = \"s\"\nrouting_key = \"k\""),
                "outlets[0].routing_key",
            ),
            (
                &format!("{URL}\nexchange = \"e\"\nrouting_key = {long:?}"),
                "outlets[0].routing_key",
            ),
            (
                &format!("{URL}\nexchange = \"e\"\nmax_age = \"1d\""),
                "outlets[0].max_age",
            ),
            (
                &format!("{URL}\nexchange = \"e\"\nmax_length_bytes = \"1 GB\""),
                "outlets[0].max_length_bytes",
            ),
            (
                &format!("{URL}\nstream = \"s\"\nmax_length_bytes = \"0 B\""),
                "outlets[0].max_length_bytes",
            ),
            (
                &format!("{URL}\nstream = \"s\"\nmax_age = \"500ms\""),
                "outlets[0].max_age",
            ),
            (
                &format!("{URL}\nstream = \"s\"\nwindow = 0"),
                "outlets[0].window",
            ),
            (
                &format!("{URL}\nstream = \"s\"\nwindow = 5001"),
                "outlets[0].window",
            ),
        ] {
            assert_eq!(keys(lines, &embedded), [key], "{lines}");
        }
        let text = format!("name = \"a b\"\ntypes = []\nstream = \"s\"\n{URL}");
        let outlet: OutletSettings = toml::from_str(&text).unwrap();
        let mut found = Vec::new();
        validate(&[outlet.clone(), outlet], &embedded, &mut found);
        let keys: Vec<&str> = found.iter().map(|invalid| invalid.key.as_str()).collect();
        let (name, types) = ("outlets[0].name", "outlets[0].types");
        let second = ["outlets[1].name", "outlets[1].types", "outlets[1].name"];
        assert_eq!(keys, [[name, types].as_slice(), &second].concat());
    }

    #[test]
    fn an_outlet_does_not_send_to_what_cannot_take_it() {
        let own = broker("amqp://h");
        for (lines, key) in [
            (
                "exchange = \"eclusa.events\"\nformat = \"cloudevents\"",
                "outlets[0].format",
            ),
            ("stream = \"eclusa.events\"", "outlets[0].stream"),
            ("stream = \"eclusa.dlq\"", "outlets[0].stream"),
        ] {
            assert_eq!(keys(lines, &own), [key], "{lines}");
            // They are other queues at another server.
            let elsewhere = format!("{lines}\n{URL}");
            assert_eq!(keys(&elsewhere, &own), [] as [&str; 0]);
        }
        assert_eq!(keys("exchange = \"eclusa.events\"", &own), [] as [&str; 0]);
    }
}
