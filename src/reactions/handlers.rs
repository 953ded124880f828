//! Makes the reactions of the settings.

use super::amqp::AmqpMessage;
use super::email::{Email, InvalidEmail};
use super::handler::Handler;
use super::log::LogLine;
use super::reaction::Reaction;
use super::start::Reactions;
use super::upcasting::Upcasting;
use super::webhook::{InvalidWebhook, Webhook};
use crate::config::broker::BrokerSettings;
use crate::config::reactions::{HandlerSettings, ReactionSettings};
use crate::config::start::DeclaredStart;
use crate::config::{ConfigError, Invalid, LiveSettings};
use crate::event::schemas::SchemaView;
use crate::expression::Expression;
use std::sync::Arc;

/// The handler of a reaction; `broker` is used by an `amqp` that has no URL of its own. Reads the files that the settings name; it makes no connection.
///
/// # Errors
/// The first setting that cannot be used. The key is that below the reaction.
pub fn handler(
    settings: &ReactionSettings,
    broker: &BrokerSettings,
) -> Result<Arc<dyn Handler>, Invalid> {
    Ok(match settings.handler()? {
        HandlerSettings::Webhook(webhook) => {
            let mut webhook = webhook.clone();
            webhook.timeout.get_or_insert(settings.timeout);
            Arc::new(Webhook::new(&webhook).map_err(of_webhook)?)
        }
        HandlerSettings::Email(email) => {
            let mut email = email.clone();
            email.timeout.get_or_insert(settings.timeout);
            Arc::new(Email::new(&email).map_err(of_email)?)
        }
        HandlerSettings::Amqp(amqp) => Arc::new(AmqpMessage::new(amqp, broker, settings.timeout)?),
        HandlerSettings::Log(log) => Arc::new(LogLine::new(log)),
    })
}

fn of_webhook(InvalidWebhook(invalid): InvalidWebhook) -> Invalid {
    Invalid::new(&format!("webhook.{}", invalid.key), invalid.reason)
}

fn of_email(InvalidEmail { key, reason }: InvalidEmail) -> Invalid {
    Invalid { key, reason }
}

/// The reaction of these settings.
///
/// # Errors
/// The first setting that cannot be used. The key is that below the reaction.
fn reaction(settings: &ReactionSettings, live: &LiveSettings) -> Result<Reaction, Invalid> {
    let handler = handler(settings, &live.get().broker)?;
    let handler: Arc<dyn Handler> = match settings.schema {
        SchemaView::Sent => handler,
        SchemaView::Latest => Arc::new(Upcasting::new(handler, live.clone())),
    };
    let expressions = [
        ("when", &settings.when),
        ("order_by", &settings.order_by),
        ("unique", &settings.unique),
        ("at", &settings.at),
    ];
    for (key, expression) in expressions {
        if let Some(text) = expression {
            Expression::parse(text)
                .map_err(|invalid| Invalid::new(key, format!("is invalid: {invalid}")))?;
        }
    }
    let mut reaction = Reaction::new(&settings.name).handler(handler);
    for event_type in &settings.on {
        reaction = reaction.also_on(event_type);
    }
    if settings.start == DeclaredStart::Beginning {
        reaction = reaction.from_beginning();
    }
    if let Some(condition) = &settings.when {
        reaction = reaction.when(condition);
    }
    if let Some(key) = &settings.order_by {
        reaction = reaction.order_by(key);
    }
    if let Some(key) = &settings.unique {
        reaction = reaction.unique(key);
    }
    if let Some(time) = &settings.at {
        reaction = reaction.at(time);
    }
    if let Some(delay) = settings.delay {
        reaction = reaction.delay(delay);
    }
    if let Some(rate) = settings.rate_per_second {
        reaction = reaction.rate_per_second(rate);
    }
    Ok(reaction
        .max_attempts(settings.max_attempts)
        .backoff(settings.backoff.base, settings.backoff.max)
        .timeout(settings.timeout)
        .concurrency(settings.concurrency)
        .lanes(u32::from(settings.lanes)))
}

/// The reactions of the settings.
///
/// # Errors
/// For each reaction the first setting that cannot be used.
pub fn reactions(live: &LiveSettings) -> Result<Reactions, ConfigError> {
    let settings = Arc::clone(&live.get());
    let mut found = Vec::new();
    let mut made = Reactions::new();
    for (index, one) in settings.reactions.iter().enumerate() {
        match reaction(one, live) {
            Ok(reaction) => made = made.react(reaction),
            Err(invalid) => {
                let key = format!("reactions[{index}].{}", invalid.key);
                found.push(Invalid::new(&key, invalid.reason));
            }
        }
    }
    if !found.is_empty() {
        return Err(ConfigError::Invalid(found));
    }
    match made.check() {
        Ok(()) => Ok(made),
        Err(error) => Err(ConfigError::Invalid(vec![Invalid::new(
            "reactions",
            error.to_string(),
        )])),
    }
}
