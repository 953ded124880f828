//! Settings of one reaction.

use super::amqp::AmqpSettings;
use super::email::EmailSettings;
use super::log::LogLineSettings;
use super::webhook::WebhookSettings;
use crate::config::start::DeclaredStart;
use crate::config::{Invalid, in_range, units};
use crate::event::schemas::SchemaView;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Longest name of a reaction: it is part of keys and of ids of messages.
const MAX_NAME: usize = 60;
/// Longest pattern of event types, as `ingest.max_field_bytes` allows for a type.
const MAX_TYPE: usize = 1_280;
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(600);
/// Shortest time limit of an e-mail.
const SHORTEST_EMAIL: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(7 * 86_400);
const DELAYS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(365 * 86_400);
const MIN_RATE: f64 = 0.000_1;
const MAX_RATE: f64 = 100_000.0;

/// Pauses between the attempts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunBackoff {
    /// Pause before the second attempt.
    #[serde(with = "units::duration")]
    pub base: Duration,
    /// Longest pause.
    #[serde(with = "units::duration")]
    pub max: Duration,
}

impl Default for RunBackoff {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            max: Duration::from_secs(300),
        }
    }
}

/// `[[reactions]]`: a named handler of events.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReactionSettings {
    /// 1 to 60 letters, digits, dots, dashes and underscores of ASCII; the first is a letter or a digit.
    pub name: String,
    /// Event types, in which `*` stands for any characters.
    pub on: Vec<String>,
    /// Condition on the event, in CEL.
    pub when: Option<String>,
    #[serde(default)]
    pub start: DeclaredStart,
    /// Attempts before a run has failed.
    #[serde(default = "five")]
    pub max_attempts: u32,
    #[serde(default)]
    pub backoff: RunBackoff,
    /// How long one attempt may take.
    #[serde(default = "half_a_minute", with = "units::duration")]
    pub timeout: Duration,
    /// Runs that one process handles at once.
    #[serde(default = "eight")]
    pub concurrency: u32,
    /// Parts into which the events are divided, for replicas to share.
    #[serde(default = "one")]
    pub lanes: u16,
    /// Most attempts that begin in a second, over all replicas.
    pub rate_per_second: Option<f64>,
    /// CEL that gives a text: events with the same text are handled in the log's order.
    pub order_by: Option<String>,
    /// CEL that gives a text: an event is passed over while a run with the same text is open.
    pub unique: Option<String>,
    /// How long after the event's commit it is handled.
    #[serde(default, with = "units::optional_duration")]
    pub delay: Option<Duration>,
    /// CEL that gives the time at which the event is handled.
    pub at: Option<String>,
    /// In which form the handler gets events. The expressions see them as they were sent.
    #[serde(default)]
    pub schema: SchemaView,
    #[serde(default, deserialize_with = "section")]
    pub webhook: Option<WebhookSettings>,
    #[serde(default, deserialize_with = "section")]
    pub email: Option<EmailSettings>,
    #[serde(default, deserialize_with = "section")]
    pub amqp: Option<AmqpSettings>,
    #[serde(default, deserialize_with = "section")]
    pub log: Option<LogLineSettings>,
}

/// The settings of a reaction's handler.
#[derive(Debug, Clone, Copy)]
pub enum HandlerSettings<'a> {
    Webhook(&'a WebhookSettings),
    Email(&'a EmailSettings),
    Amqp(&'a AmqpSettings),
    Log(&'a LogLineSettings),
}

impl ReactionSettings {
    /// The one handler.
    ///
    /// # Errors
    /// There is none, or there are several. The key is empty.
    pub fn handler(&self) -> Result<HandlerSettings<'_>, Invalid> {
        let webhook = self.webhook.as_ref().map(HandlerSettings::Webhook);
        let email = self.email.as_ref().map(HandlerSettings::Email);
        let amqp = self.amqp.as_ref().map(HandlerSettings::Amqp);
        let log = self.log.as_ref().map(HandlerSettings::Log);
        let mut handlers = [webhook, email, amqp, log].into_iter().flatten();
        let names = "webhook, email, amqp or log";
        match (handlers.next(), handlers.next()) {
            (Some(handler), None) => Ok(handler),
            (None, _) => Err(Invalid::new("", format!("has no handler; set {names}"))),
            (Some(_), Some(_)) => Err(Invalid::new(
                "",
                format!(
                    "has more than one handler; keep one of {names}, and make a reaction of each \
                     other one"
                ),
            )),
        }
    }

    /// Adds what is invalid; `at` is the key of the reaction, as `reactions[0]`. Expressions and
    /// templates are not looked into: making the reaction's parts does that.
    pub fn validate(&self, at: &str, found: &mut Vec<Invalid>) {
        if let Err(flaw) = check_name(&self.name) {
            found.push(Invalid::new(&format!("{at}.{}", flaw.key), flaw.reason));
        }
        check_types(&format!("{at}.on"), &self.on, found);
        self.validate_numbers(at, found);
        self.validate_times(at, found);
        self.validate_keys(at, found);
        match self.handler() {
            Err(invalid) => found.push(Invalid::new(at, invalid.reason)),
            Ok(HandlerSettings::Webhook(webhook)) => {
                webhook.validate(&format!("{at}.webhook"), found);
                self.validate_timeout(&format!("{at}.webhook.timeout"), webhook.timeout, found);
            }
            Ok(HandlerSettings::Email(email)) => {
                email.validate(&format!("{at}.email"), found);
                self.validate_timeout(&format!("{at}.email.timeout"), email.timeout, found);
                if self.timeout < SHORTEST_EMAIL {
                    let reason = "is shorter than the second that an e-mail needs at least";
                    found.push(Invalid::new(&format!("{at}.timeout"), reason));
                }
            }
            Ok(HandlerSettings::Amqp(amqp)) => amqp.validate(&format!("{at}.amqp"), found),
            Ok(HandlerSettings::Log(_)) => {}
        }
    }

    fn validate_numbers(&self, at: &str, found: &mut Vec<Invalid>) {
        let key = |key: &str| format!("{at}.{key}");
        in_range(found, &key("max_attempts"), self.max_attempts, 1..=100);
        in_range(found, &key("concurrency"), self.concurrency, 1..=1_000);
        in_range(found, &key("lanes"), self.lanes, 1..=64);
        if let Some(rate) = self.rate_per_second
            && !(MIN_RATE..=MAX_RATE).contains(&rate)
        {
            found.push(Invalid::new(
                &key("rate_per_second"),
                format!("is {rate}, but must lie between {MIN_RATE} and {MAX_RATE}"),
            ));
        }
    }

    fn validate_times(&self, at: &str, found: &mut Vec<Invalid>) {
        let shown = humantime::format_duration;
        let mut within = |key: &str, value: Duration, range: RangeInclusive<Duration>| {
            if !range.contains(&value) {
                found.push(Invalid::new(
                    &format!("{at}.{key}"),
                    format!(
                        "is {}, but must lie between {} and {}",
                        shown(value),
                        shown(*range.start()),
                        shown(*range.end())
                    ),
                ));
            }
        };
        within("timeout", self.timeout, TIMEOUTS);
        let bases = Duration::from_millis(10)..=LONGEST_BACKOFF;
        within("backoff.base", self.backoff.base, bases);
        let longest = self.backoff.base.min(LONGEST_BACKOFF)..=LONGEST_BACKOFF;
        within("backoff.max", self.backoff.max, longest);
        if let Some(delay) = self.delay {
            within("delay", delay, DELAYS);
        }
    }

    /// A lane is chosen by one key, and what waits for its time cannot keep an order.
    fn validate_keys(&self, at: &str, found: &mut Vec<Invalid>) {
        let mut contradict = |first: &str, second: &str, reason: &str| {
            found.push(Invalid::new(
                &format!("{at}.{first}, {at}.{second}"),
                format!("contradict each other: {reason}"),
            ));
        };
        let late = "an event that is handled later than those behind it keeps no order; remove one \
                    of them";
        if self.order_by.is_some() && self.delay.is_some() {
            contradict("order_by", "delay", late);
        }
        if self.order_by.is_some() && self.at.is_some() {
            contradict("order_by", "at", late);
        }
        if self.delay.is_some() && self.at.is_some() {
            let reason = "both say when an event is handled; remove one of them";
            contradict("delay", "at", reason);
        }
        if let (Some(order_by), Some(unique)) = (&self.order_by, &self.unique)
            && order_by != unique
        {
            let reason = "the events are divided by one key; write the same expression in both, or \
                          remove one of them";
            contradict("order_by", "unique", reason);
        }
    }

    fn validate_timeout(&self, key: &str, timeout: Option<Duration>, found: &mut Vec<Invalid>) {
        if let Some(timeout) = timeout.filter(|timeout| *timeout > self.timeout) {
            let shown = humantime::format_duration;
            found.push(Invalid::new(
                key,
                format!(
                    "is {}, longer than the timeout of the reaction, which is {}; raise that, or \
                     remove this one, which is then the same",
                    shown(timeout),
                    shown(self.timeout)
                ),
            ));
        }
    }
}

/// Without the value in the error if it is none, as serde would have it: a URL may be a secret.
fn section<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    match toml::Value::deserialize(deserializer)? {
        section @ toml::Value::Table(_) => section.try_into().map(Some).map_err(D::Error::custom),
        _ => Err(D::Error::custom(
            "a handler is a section, such as webhook = { url = \"...\", secret_file = \"...\" }",
        )),
    }
}

/// Adds what is invalid in the event types at a key.
pub(in crate::config) fn check_types(key: &str, types: &[String], found: &mut Vec<Invalid>) {
    if types.is_empty() {
        let reason = "names no event types; write [\"order.paid\"], [\"order.*\"] or [\"*\"]";
        found.push(Invalid::new(key, reason));
    }
    for kind in types {
        if kind.is_empty() || kind.len() > MAX_TYPE || kind.contains('\0') {
            let reason = format!("has {kind:?}, which no event type can match");
            found.push(Invalid::new(key, reason));
        }
    }
}

/// Checks the name of a reaction, a schedule, a stream or an outlet. The key of the error is `name`.
pub(in crate::config) fn check_name(name: &str) -> Result<(), Invalid> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed)
    {
        return Ok(());
    }
    Err(Invalid::new(
        "name",
        format!(
            "is {name:?}, but must have 1 to {MAX_NAME} letters, digits, dots, dashes or underscores, \
             and begin with a letter or a digit"
        ),
    ))
}

fn one() -> u16 {
    1
}

fn five() -> u32 {
    5
}

fn eight() -> u32 {
    8
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOK: &str = r#"webhook = { url = "https://example.org/hooks", secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" }"#;
    const MAIL: &str = r#"email = { host = "smtp.example.org", from = "a@example.org", to = "b@example.org", subject = "s", text = "t" }"#;

    fn parse(lines: &str) -> Result<ReactionSettings, toml::de::Error> {
        toml::from_str(&format!("name = \"r\"\non = [\"order.*\"]\n{lines}"))
    }

    fn found(settings: &ReactionSettings) -> Vec<Invalid> {
        let mut found = Vec::new();
        settings.validate("reactions[0]", &mut found);
        found
    }

    fn keys(lines: &str) -> Vec<String> {
        let found = found(&parse(lines).unwrap());
        found.into_iter().map(|invalid| invalid.key).collect()
    }

    #[test]
    fn a_name_types_and_a_handler_are_enough() {
        let settings = parse(HOOK).unwrap();
        assert_eq!(found(&settings), []);
        assert_eq!(settings.start, DeclaredStart::Now);
        assert_eq!((settings.max_attempts, settings.concurrency), (5, 8));
        assert_eq!((settings.lanes, settings.timeout.as_secs()), (1, 30));
        assert_eq!(settings.backoff, RunBackoff::default());
        let base = parse(&format!("{HOOK}\nbackoff.base = \"2s\"\ndelay = \"5m\"")).unwrap();
        assert_eq!(
            (base.backoff.base.as_secs(), base.backoff.max.as_secs()),
            (2, 300)
        );
        assert_eq!(base.delay, Some(Duration::from_secs(300)));
        let unknown = parse(&format!("{HOOK}\nwhne = \"true\"")).unwrap_err();
        assert!(unknown.to_string().contains("whne"), "{unknown}");
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (key, value) in [
            ("max_attempts", "0"),
            ("max_attempts", "101"),
            ("concurrency", "0"),
            ("concurrency", "1001"),
            ("lanes", "0"),
            ("lanes", "65"),
            ("rate_per_second", "0"),
            ("rate_per_second", "nan"),
            ("rate_per_second", "100000.5"),
            ("timeout", "\"9ms\""),
            ("timeout", "\"601s\""),
            ("backoff.base", "\"9ms\""),
            ("backoff.max", "\"999ms\""),
            ("backoff.max", "\"8days\""),
            ("delay", "\"0s\""),
            ("delay", "\"366days\""),
        ] {
            let line = format!("{HOOK}\n{key} = {value}");
            assert_eq!(keys(&line), [format!("reactions[0].{key}")], "{line}");
        }
        for line in ["rate_per_second = 0.5", "rate_per_second = 100000"] {
            assert!(keys(&format!("{HOOK}\n{line}")).is_empty(), "{line}");
        }
    }

    #[test]
    fn names_and_types_have_a_form() {
        for (name, fits) in [
            ("welcome-mail", true),
            ("0.A_b-c", true),
            (&"n".repeat(60), true),
            (&"n".repeat(61), false),
            ("", false),
            (".hidden", false),
            ("ä", false),
            ("a b", false),
        ] {
            let settings = ReactionSettings {
                name: name.to_owned(),
                ..parse(HOOK).unwrap()
            };
            assert_eq!(found(&settings).is_empty(), fits, "{name:?}");
        }
        for on in [vec![], vec![String::new()], vec!["a\0".to_owned()]] {
            let settings = ReactionSettings {
                on,
                ..parse(HOOK).unwrap()
            };
            let keys: Vec<String> = found(&settings).into_iter().map(|i| i.key).collect();
            assert_eq!(keys, ["reactions[0].on"]);
        }
    }

    #[test]
    fn contradictions_name_both_keys() {
        let by = "order_by = \"userId\"";
        for (lines, key) in [
            (
                format!("{by}\ndelay = \"1s\""),
                "order_by, reactions[0].delay",
            ),
            (
                format!("{by}\nat = \"timestamp\""),
                "order_by, reactions[0].at",
            ),
            (
                "delay = \"1s\"\nat = \"timestamp\"".to_owned(),
                "delay, reactions[0].at",
            ),
            (
                format!("{by}\nunique = \"sessionId\""),
                "order_by, reactions[0].unique",
            ),
        ] {
            let keys = keys(&format!("{HOOK}\n{lines}"));
            assert_eq!(keys, [format!("reactions[0].{key}")]);
        }
        assert!(keys(&format!("{HOOK}\n{by}\nunique = \"userId\"")).is_empty());
    }

    #[test]
    fn there_is_one_handler() {
        let none = &found(&parse("").unwrap())[0];
        assert_eq!(none.key, "reactions[0]");
        assert!(none.reason.contains("no handler"), "{}", none.reason);
        let two = &found(&parse(&format!("{HOOK}\n{MAIL}")).unwrap())[0];
        assert!(two.reason.contains("more than one"), "{}", two.reason);
        let error = parse("webhook = \"https://example.org/t0ken\"").unwrap_err();
        // The text that toml quotes is left out of the merged settings' errors.
        assert!(error.message().contains("is a section") && !error.message().contains("t0ken"));
        // A handler's own flaws are told too.
        assert_eq!(
            keys(&HOOK.replace("https", "ftp")),
            ["reactions[0].webhook.url"]
        );
    }

    #[test]
    fn the_handlers_timeout_is_within_the_reactions() {
        let hook = HOOK.replace(" }", ", timeout = \"31s\" }");
        assert_eq!(keys(&hook), ["reactions[0].webhook.timeout"]);
        assert!(keys(&format!("{hook}\ntimeout = \"31s\"")).is_empty());
        let mail = MAIL.replace(" }", ", timeout = \"31s\" }");
        assert_eq!(keys(&mail), ["reactions[0].email.timeout"]);
        // Without one of its own it has the reaction's.
        assert!(keys(&format!("{HOOK}\ntimeout = \"10ms\"")).is_empty());
        assert_eq!(
            keys(&format!("{MAIL}\ntimeout = \"999ms\"")),
            ["reactions[0].timeout"]
        );
    }
}
