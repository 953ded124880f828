//! Settings: one file per concern. The defaults are `config/eclusa.toml`, which is compiled in; a
//! file, the environment and flags override them ([`layers`]).

pub mod auth;
pub mod batch;
pub mod broker;
mod cross_check;
#[cfg(feature = "service")]
pub mod captures;
pub mod dead_letters;
pub mod followers;
pub mod reactions;
pub mod http;
pub mod ingest;
pub mod layers;
pub mod log;
mod mode;
#[cfg(feature = "service")]
pub mod outlets;
pub mod reload;
pub mod retry;
#[cfg(feature = "service")]
pub mod schedules;
#[cfg(feature = "service")]
pub mod schemas;
pub mod shutdown;
pub mod start;
pub mod store;
#[cfg(feature = "service")]
pub mod streams;
pub mod topics;
pub mod urls;
mod units;

use crate::event::Event;
use crate::event::item::{DataRules, ItemLimits};
#[cfg(feature = "service")]
use crate::event::schemas::Schemas;
use serde::Deserialize;
use std::path::PathBuf;

pub use layers::{ConfigError, Sources};
pub use mode::Mode;
pub use reload::LiveSettings;

/// The built-in defaults, which also document every key.
pub const DEFAULTS: &str = include_str!("../../config/eclusa.toml");

/// Settings for throughput, to be laid over the defaults.
pub const THROUGHPUT: &str = include_str!("../../config/throughput.toml");

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Name of the environment.
    pub environment: String,
    /// As set; [`Settings::mode`] resolves `auto`.
    mode: Mode,
    /// Directory of the embedded mode's files.
    pub data_dir: PathBuf,
    pub http: http::HttpSettings,
    pub ingest: ingest::IngestSettings,
    /// When a batch is dispatched.
    pub batch: batch::BatchSettings,
    pub store: store::StoreSettings,
    pub broker: broker::BrokerSettings,
    pub retry: retry::RetrySettings,
    pub dead_letters: dead_letters::DeadLetterSettings,
    pub followers: followers::FollowerSettings,
    pub topics: topics::TopicSettings,
    /// What handles events, in the service.
    #[cfg(feature = "service")]
    pub reactions: Vec<reactions::ReactionSettings>,
    #[cfg(not(feature = "service"))]
    #[serde(rename = "reactions")]
    _reactions: serde::de::IgnoredAny,
    /// What emits events by the clock, in the service.
    #[cfg(feature = "service")]
    pub schedules: Vec<schedules::ScheduleSettings>,
    #[cfg(not(feature = "service"))]
    #[serde(rename = "schedules")]
    _schedules: serde::de::IgnoredAny,
    /// The schemas of event types, in the service.
    #[cfg(feature = "service")]
    pub schemas: Vec<schemas::SchemaSettings>,
    #[cfg(not(feature = "service"))]
    #[serde(rename = "schemas")]
    _schemas: serde::de::IgnoredAny,
    /// What [`Settings::schemas`] declare, ready to check events; made when the settings are loaded.
    #[cfg(feature = "service")]
    #[serde(skip)]
    compiled_schemas: Schemas,
    /// What collectors pull, in the service.
    #[cfg(feature = "service")]
    pub streams: Vec<streams::StreamSettings>,
    #[cfg(not(feature = "service"))]
    #[serde(rename = "streams")]
    _streams: serde::de::IgnoredAny,
    /// Where events are sent, in the service.
    #[cfg(feature = "service")]
    pub outlets: Vec<outlets::OutletSettings>,
    #[cfg(not(feature = "service"))]
    #[serde(rename = "outlets")]
    _outlets: serde::de::IgnoredAny,
    /// Tables whose changes are events, in the service.
    #[cfg(feature = "service")]
    pub captures: Vec<captures::CaptureSettings>,
    #[cfg(not(feature = "service"))]
    #[serde(rename = "captures")]
    _captures: serde::de::IgnoredAny,
    /// The Pix message interface, in the service.
    #[cfg(feature = "service")]
    pub pix: streams::PixSettings,
    #[cfg(not(feature = "service"))]
    #[serde(rename = "pix")]
    _pix: serde::de::IgnoredAny,
    /// API keys and their scopes.
    pub auth: auth::AuthSettings,
    pub log: log::LogSettings,
    pub shutdown: shutdown::ShutdownSettings,
}

/// A setting with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Dotted key as written in the file, or several contradicting keys.
    pub key: String,
    /// What is wrong, with the value, and what to do.
    pub reason: String,
}

impl Invalid {
    /// An invalid value of `key`.
    pub fn new(key: &str, reason: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Adds an [`Invalid`] when a value is outside its range.
fn in_range<T: PartialOrd + std::fmt::Display>(
    found: &mut Vec<Invalid>,
    key: &str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) {
    if !range.contains(&value) {
        found.push(Invalid::new(
            key,
            format!(
                "is {value}, but must lie between {} and {}",
                range.start(),
                range.end()
            ),
        ));
    }
}

impl Settings {
    /// The mode in effect, with `auto` resolved.
    pub fn mode(&self) -> Mode {
        match self.mode {
            Mode::Auto if !self.broker.url.is_empty() => Mode::Full,
            Mode::Auto if !self.store.url.is_empty() => Mode::Database,
            Mode::Auto => Mode::Embedded,
            other => other,
        }
    }

    /// Sets the mode, regardless of the URLs.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// The schemas of event types.
    #[cfg(feature = "service")]
    pub fn event_schemas(&self) -> &Schemas {
        &self.compiled_schemas
    }

    /// The limits that items are validated against. Ids of days that the retention has dropped or is
    /// about to drop are refused.
    pub fn item_limits(&self) -> ItemLimits {
        let kept = self.store.retention.unwrap_or(u32::MAX);
        ItemLimits {
            max_depth: self.ingest.max_depth,
            max_field_bytes: self.ingest.max_field_bytes,
            accept_days: self.ingest.accept_days.min(kept),
            #[cfg(feature = "service")]
            data: DataRules {
                pix: self.pix.rules(),
                schemas: self.compiled_schemas.clone(),
            },
            #[cfg(not(feature = "service"))]
            data: DataRules::NONE,
        }
    }

    /// Maximum bytes of a single event, or `None`. With an order by user the prefetch is fixed, so the
    /// size of each message must be bounded.
    pub fn max_event_bytes(&self) -> Option<usize> {
        let bytes = self.broker.max_message_bytes.as_u64();
        let ordered = self.broker.is_ordered();
        ordered.then(|| usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// Maximum events in one message of another publisher, which is decoded as a whole.
    pub fn max_message_items(&self) -> usize {
        let half = self.ingest.max_in_flight.as_u64() / 2;
        let most = usize::try_from(half).unwrap_or(usize::MAX) / Event::SMALLEST;
        most.max(1_000)
    }

    /// The SQLite file of the embedded mode.
    pub fn sqlite_file(&self) -> PathBuf {
        self.data_dir.join("eclusa.db")
    }

    /// Validates every value, and values that must agree with each other.
    pub fn validate(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        self.http.validate(&mut found);
        self.ingest.validate(&mut found);
        self.batch.validate(&mut found);
        self.store.validate(&mut found);
        self.broker.validate(&mut found);
        self.retry.validate(&mut found);
        self.dead_letters.validate(&mut found);
        self.followers.validate(&mut found);
        self.topics.validate(&mut found);
        #[cfg(feature = "service")]
        reactions::validate(&self.reactions, &mut found);
        #[cfg(feature = "service")]
        streams::validate(&self.streams, &mut found);
        #[cfg(feature = "service")]
        outlets::validate(&self.outlets, &self.broker, &mut found);
        #[cfg(feature = "service")]
        captures::validate(&self.captures, &self.store.url, &mut found);
        #[cfg(feature = "service")]
        self.pix.validate(&mut found);
        self.auth.validate(&mut found);
        self.log.validate(&mut found);
        self.shutdown.validate(&mut found);
        self.cross_check(&mut found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings, ConfigError> {
        Sources::from_text(text).load()
    }

    fn keys(text: &str) -> Vec<String> {
        match settings(text) {
            Ok(_) => Vec::new(),
            Err(ConfigError::Invalid(found)) => found.into_iter().map(|i| i.key).collect(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_defaults_are_valid_and_embedded() {
        let settings = settings("").unwrap();
        assert_eq!(settings.mode(), Mode::Embedded);
        assert_eq!(settings.batch.max_events, 100);
        assert_eq!(settings.http.port, 3000);
    }

    #[test]
    fn the_urls_decide_the_mode() {
        assert_eq!(
            settings("store.url = \"postgres://h/d\"").unwrap().mode(),
            Mode::Database
        );
        let full = "store.url = \"postgres://h/d\"\nbroker.url = \"amqp://h\"";
        assert_eq!(settings(full).unwrap().mode(), Mode::Full);
        assert_eq!(keys("broker.url = \"amqp://h\""), ["store.url"]);
    }

    #[test]
    fn contradictions_name_the_keys() {
        let full = "store.url = \"postgres://h/d\"\nbroker.url = \"amqp://h\"\n";
        assert!(keys(&format!("{full}broker.prefetch = 50")).is_empty());
        assert_eq!(keys("batch.max_events = 3000"), ["batch.max_events"]);
        assert!(keys("batch.max_events = 3000\nbatch.max_rows = 4096").is_empty());
        assert_eq!(keys("batch.max_rows = 4097"), ["batch.max_rows"]);
        assert_eq!(
            keys(&format!("{full}batch.max_wait = \"20m\"")),
            ["batch.max_wait, broker.consumer_timeout"]
        );
        assert_eq!(
            keys(&format!(
                "{full}broker.order = \"user\"\nbroker.shard_prefetch = 1250"
            )),
            ["broker.shard_prefetch, broker.max_message_bytes, ingest.max_in_flight"]
        );
        assert!(keys(&format!("{full}broker.prefetch = 5000")).is_empty());
        // Of 640 messages of 64 KiB: 4 x 128 on the shards, with 128 that are distributed to them.
        let sorted = format!("{full}broker.order = \"user\"\nbroker.shard_prefetch =");
        assert!(keys(&format!("{sorted} 128")).is_empty());
        assert_eq!(
            keys(&format!("{sorted} 129")),
            ["broker.shard_prefetch, broker.max_message_bytes, ingest.max_in_flight"]
        );
        assert_eq!(
            keys(&format!(
                "{full}broker.max_message_bytes = \"16 MiB\"\nbroker.channels = 2"
            )),
            ["broker.channels, broker.max_message_bytes, ingest.max_in_flight"]
        );
    }

    #[test]
    fn order_wants_a_broker_and_no_way_past_it() {
        let full = "store.url = \"postgres://h/d\"\nbroker.url = \"amqp://h\"\n";
        let ordered = format!("{full}broker.order = \"user\"\n");
        let in_force = settings(&ordered).unwrap().broker;
        assert!(in_force.refuses() && !settings(full).unwrap().broker.refuses());
        assert_eq!(in_force.heartbeat_in_force().as_secs(), 2);
        assert_eq!(keys("broker.order = \"user\""), ["broker.order"]);
        assert_eq!(
            keys(&format!("{ordered}broker.fallback = \"store\"")),
            ["broker.order, broker.fallback"]
        );
        assert!(keys(&format!("{ordered}broker.fallback = \"refuse\"")).is_empty());
        for shards in ["0", "257"] {
            let keys = keys(&format!("{full}broker.shards = {shards}"));
            assert_eq!(keys, ["broker.shards"]);
        }
    }

    #[test]
    #[cfg(feature = "service")]
    fn a_reaction_is_named_by_its_place_and_its_name_is_unique() {
        let reaction = |name: &str, url: &str| {
            format!(
                "[[reactions]]\nname = {name:?}\non = [\"*\"]\n[reactions.webhook]\n\
                 url = {url:?}\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n"
            )
        };
        let good = reaction("a", "https://example.org");
        assert_eq!(settings(&good).unwrap().reactions.len(), 1);
        assert_eq!(
            keys(&format!("{good}{}", reaction("b", "example.org"))),
            ["reactions[1].webhook.url"]
        );
        assert_eq!(keys(&format!("{good}{good}")), ["reactions[1].name"]);
        for (days, fits) in [
            ("1d", true),
            ("forever", true),
            ("0d", false),
            ("3651d", false),
        ] {
            let keys = keys(&format!("store.keep_runs = {days:?}"));
            assert_eq!(keys.is_empty(), fits, "{days}: {keys:?}");
        }
    }

    #[test]
    fn what_is_kept_bounds_what_is_taken() {
        let days = |text: &str| settings(text).unwrap().item_limits().accept_days;
        assert_eq!(days(""), 400);
        assert_eq!(days("store.retention = \"90d\""), 90);
        assert_eq!(days("store.retention = \"500days\""), 400);
        assert_eq!(keys("store.retention = \"0s\""), ["store.retention"]);
        assert_eq!(keys("store.lease_ttl = \"100ms\""), ["store.lease_ttl"]);
        for wrong in ["36h", "1month", "never"] {
            let text = format!("store.retention = \"{wrong}\"");
            let error = settings(&text).unwrap_err().to_string();
            assert!(
                error.contains("whole days") && error.contains("forever"),
                "{error}"
            );
        }
    }

    #[test]
    fn beyond_loopback_needs_keys_or_the_words() {
        assert_eq!(keys("http.bind = \"0.0.0.0\""), ["http.bind"]);
        let open = "http.bind = \"0.0.0.0\"\nauth.without_keys = \"allow-beyond-loopback\"";
        assert_eq!(keys(open), ["http.allowed_hosts"]);
        assert!(settings(&format!("{open}\nhttp.allowed_hosts = [\"app\"]")).is_ok());
    }
}
