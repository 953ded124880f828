//! Settings of pull streams and of the Pix message interface.

use super::auth::ApiKey;
use super::reactions::check_name;
use super::start::DeclaredStart;
use super::{Invalid, Settings, in_range, units};
use crate::event::pix::PixRules;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

const SLOTS: RangeInclusive<u32> = 1..=1_000;
const IDLES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(12 * 3_600);
const WAITS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
/// The interface promises an answer within 8 s.
const PIX_WAITS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(8);
const DELIVERIES: RangeInclusive<u32> = 1..=10_000;
/// The name of the stream of Pix messages, which no other may have.
const PIX: &str = "pix";

/// `[[streams]]`: events that collectors pull.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamSettings {
    /// As a reaction's.
    pub name: String,
    /// Event types, in which `*` stands for any characters.
    pub on: Vec<String>,
    /// Condition on the event, in CEL.
    pub when: Option<String>,
    /// CEL that gives a text: whose messages they are.
    pub key: String,
    /// CEL that gives a text: messages with the same text are with one collector at a time, in the log's order.
    pub order_by: Option<String>,
    /// Names of fields, and where they stand in the event; empty for the whole event.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
    #[serde(default)]
    pub start: DeclaredStart,
    /// Sessions of a key at a time.
    #[serde(default = "six")]
    pub slots: u32,
    /// How long a session lives without a call.
    #[serde(default = "minute", with = "units::duration")]
    pub idle: Duration,
    /// How long a call waits for messages.
    #[serde(default = "eight_seconds", with = "units::duration")]
    pub wait: Duration,
    /// A message that was handed out so often and comes back is dead-lettered.
    pub max_deliveries: Option<u32>,
}

fn six() -> u32 {
    6
}

fn minute() -> Duration {
    Duration::from_secs(60)
}

fn eight_seconds() -> Duration {
    Duration::from_secs(8)
}

impl StreamSettings {
    fn validate(&self, at: &str, found: &mut Vec<Invalid>) {
        if let Err(flaw) = check_name(&self.name) {
            found.push(Invalid::new(&format!("{at}.name"), flaw.reason));
        }
        if self.name == PIX {
            let reason = "is \"pix\", which is the stream of Pix messages";
            found.push(Invalid::new(&format!("{at}.name"), reason));
        }
        if self.on.is_empty() || self.on.iter().any(String::is_empty) {
            let reason = "must name at least one event type, such as [\"order.*\"]";
            found.push(Invalid::new(&format!("{at}.on"), reason));
        }
        in_range(found, &format!("{at}.slots"), self.slots, SLOTS);
        check_time(found, &format!("{at}.idle"), self.idle, IDLES);
        check_time(found, &format!("{at}.wait"), self.wait, WAITS);
        if let Some(most) = self.max_deliveries {
            in_range(found, &format!("{at}.max_deliveries"), most, DELIVERIES);
        }
    }
}

fn check_time(
    found: &mut Vec<Invalid>,
    key: &str,
    value: Duration,
    range: RangeInclusive<Duration>,
) {
    if !range.contains(&value) {
        let show = humantime::format_duration;
        let reason = format!(
            "is {}, but must lie between {} and {}",
            show(value),
            show(*range.start()),
            show(*range.end())
        );
        found.push(Invalid::new(key, reason));
    }
}

/// Adds what is invalid in the streams, and names that several have.
pub(super) fn validate(streams: &[StreamSettings], found: &mut Vec<Invalid>) {
    for (index, stream) in streams.iter().enumerate() {
        let at = format!("streams[{index}]");
        stream.validate(&at, found);
        let mut earlier = streams.iter().take(index);
        if earlier.any(|other| other.name == stream.name) {
            let reason = format!("is {:?}, as another stream's", stream.name);
            found.push(Invalid::new(&format!("{at}.name"), reason));
        }
    }
}

/// API keys that are bound to a stream which the settings do not declare: they could collect nothing. Not a part of what
/// a reload checks, since a key takes effect then, and its stream at the next start.
pub(super) fn bound_to_none(settings: &Settings) -> Vec<Invalid> {
    let flaw = |(index, key): (usize, &ApiKey)| {
        let bound = key.bound_to()?;
        let mut names = settings.streams.iter().map(|one| &one.name);
        let is_declared = bound.stream == PIX || names.any(|name| *name == bound.stream);
        let reason = format!(
            "{:?} is bound to the stream {:?}, which is not declared under streams",
            key.name, bound.stream
        );
        (!is_declared).then(|| Invalid::new(&format!("auth.keys[{index}]"), reason))
    };
    settings
        .auth
        .keys
        .iter()
        .enumerate()
        .filter_map(flaw)
        .collect()
}

/// Who may have random messages made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generator {
    /// Clients of a server that listens on loopback.
    Loopback,
    On,
    Off,
}

/// `[pix]`: the Pix message interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixSettings {
    /// Whether `/api/pix` is served, and events of its type are checked.
    pub enabled: bool,
    /// Whether the check digits of CPF and CNPJ are verified.
    pub check_digits: bool,
    /// Streams of an ISPB at a time.
    pub slots: u32,
    /// How long a stream lives without a call.
    #[serde(with = "units::duration")]
    pub idle: Duration,
    /// How long a call waits for messages.
    #[serde(with = "units::duration")]
    pub wait: Duration,
    pub generator: Generator,
}

impl PixSettings {
    /// What messages are checked for; `None` if they are not.
    pub fn rules(&self) -> Option<PixRules> {
        let check_digits = self.check_digits;
        self.enabled.then_some(PixRules { check_digits })
    }

    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        in_range(found, "pix.slots", self.slots, SLOTS);
        check_time(found, "pix.idle", self.idle, IDLES);
        check_time(found, "pix.wait", self.wait, PIX_WAITS);
    }
}
