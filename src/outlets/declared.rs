//! Makes the outlets of the settings.

use super::message::MessageForm;
use super::rabbit_outlet::RabbitOutlet;
use crate::broker::connection;
use crate::broker::on_demand::OnDemandConnection;
use crate::broker::stream_queue::StreamQueue;
use crate::config::outlets::{OutletOnError, OutletSettings, OutletTarget};
use crate::config::urls::read_url;
use crate::config::{ConfigError, Invalid, LiveSettings, Settings};
use crate::followers::{Followers, Subscription};
use crate::store::commit_log::TypePatterns;
use crate::store::followers::OnError;
use crate::store::{Store, StoreError};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Before the name of an outlet, in that of its follower.
const PREFIX: &str = "outlets.";

/// The outlets of the settings, of which none is connected yet.
pub struct Outlets {
    live: LiveSettings,
    all: Vec<(OutletSettings, Arc<OnDemandConnection>)>,
    confirm_timeout: Duration,
}

impl Outlets {
    /// Reads the files that the settings name, and parses the URLs.
    ///
    /// # Errors
    /// For each outlet the setting that cannot be used.
    pub fn new(live: &LiveSettings) -> Result<Self, ConfigError> {
        let settings = live.get();
        let mut connections = HashMap::new();
        let (mut all, mut found) = (Vec::new(), Vec::new());
        for (index, outlet) in settings.outlets.iter().enumerate() {
            match connection(outlet, &settings, &mut connections) {
                Ok(connection) => all.push((outlet.clone(), connection)),
                Err(invalid) => {
                    let key = format!("outlets[{index}].{}", invalid.key);
                    found.push(Invalid::new(&key, invalid.reason));
                }
            }
        }
        if !found.is_empty() {
            return Err(ConfigError::Invalid(found));
        }
        Ok(Self {
            live: live.clone(),
            all,
            confirm_timeout: settings.broker.confirm_timeout,
        })
    }

    /// The outlets that the store has and the settings have not. Their followers keep their positions, and the
    /// retention waits for them, until they are removed.
    ///
    /// # Errors
    /// The store's.
    pub async fn missing(&self, store: &dyn Store) -> Result<Vec<String>, StoreError> {
        let followers = store.followers().await?.into_iter();
        let is_here = |name: &str| {
            let mut here = self.all.iter();
            here.any(|(outlet, _)| follower_name(outlet) == name)
        };
        Ok(followers
            .map(|follower| follower.name)
            .filter(|name| name.starts_with(PREFIX) && !is_here(name))
            .collect())
    }

    /// Adds a follower for each to those of the process.
    pub fn add_to(self, mut followers: Followers, store: &Arc<dyn Store>) -> Followers {
        for (settings, connection) in self.all {
            followers = followers.send(RabbitOutlet {
                name: follower_name(&settings),
                subscription: Subscription {
                    types: TypePatterns::new(settings.types.clone()),
                    start: settings.start.into(),
                    on_error: match settings.on_error {
                        OutletOnError::Stop => OnError::Stop,
                        OutletOnError::DeadLetter => OnError::DeadLetter,
                    },
                },
                form: MessageForm::new(&settings),
                stream: stream(&settings),
                window: usize::from(settings.window),
                confirm_timeout: self.confirm_timeout,
                connection,
                log: Arc::clone(store),
                settings: self.live.clone(),
                channel: Default::default(),
            });
        }
        followers
    }
}

fn follower_name(outlet: &OutletSettings) -> String {
    format!("{PREFIX}{}", outlet.name)
}

/// The stream that an outlet declares.
fn stream(outlet: &OutletSettings) -> Option<StreamQueue> {
    let Ok(OutletTarget::Stream(name)) = outlet.target() else {
        return None;
    };
    Some(StreamQueue {
        name: name.to_owned(),
        max_length_bytes: outlet.max_length_bytes.map(|bytes| bytes.as_u64()),
        max_age: outlet.max_age,
    })
}

/// The connection of an outlet, which outlets with the same URL share.
fn connection(
    outlet: &OutletSettings,
    settings: &Settings,
    connections: &mut HashMap<String, Arc<OnDemandConnection>>,
) -> Result<Arc<OnDemandConnection>, Invalid> {
    let (key, url) = match &outlet.url_file {
        Some(path) => ("url_file", read_url(path)?),
        None if outlet.url.is_empty() => ("url", settings.broker.url.clone()),
        None => ("url", outlet.url.clone()),
    };
    if let Some(connection) = connections.get(&url) {
        return Ok(Arc::clone(connection));
    }
    let mut broker = settings.broker.clone();
    broker.url.clone_from(&url);
    // The parser's reason may quote the URL, and the URL holds a password.
    let uri = connection::uri(&broker).map_err(|_| {
        let reason = "or broker.url in place of it, cannot be read as an AMQP URI; write one such as \
                      amqp://user:password@host:5672/vhost";
        Invalid::new(key, reason)
    })?;
    let connection = Arc::new(OnDemandConnection::new(uri, "eclusa outlets"));
    connections.insert(url, Arc::clone(&connection));
    Ok(connection)
}
