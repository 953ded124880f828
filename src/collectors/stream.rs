//! A declared stream.

use super::shape::{FieldPath, Shape};
use crate::config::Settings;
use crate::config::streams::{PixSettings, StreamSettings};
use crate::event::StoredEvent;
use crate::event::pix;
use crate::expression::Expression;
use crate::store::commit_log::LoggedEvent;
use crate::store::commit_log::TypePatterns;
use crate::store::followers::Start;
use crate::store::streams::{NewMessage, StreamRules};

/// The name of the stream of Pix messages.
pub const PIX: &str = "pix";

/// Longest key and order key, in bytes.
pub const MAX_KEY: usize = 256;

/// A stream that cannot be declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stream {name:?}: {reason}")]
pub struct InvalidStream {
    pub name: String,
    pub reason: String,
}

/// A declared stream: which events are its messages, under which keys, and how they are handed out.
#[derive(Debug, Clone)]
pub struct Stream {
    pub name: String,
    pub types: TypePatterns,
    pub start: Start,
    pub rules: StreamRules,
    when: Option<Expression>,
    /// `None` for the stream of Pix messages, whose key is the receiver's ISPB.
    key: Option<Expression>,
    order_by: Option<Expression>,
    shape: Shape,
}

impl Stream {
    /// The streams that settings declare.
    ///
    /// # Errors
    /// What is wrong with the first invalid one.
    pub fn all(settings: &Settings) -> Result<Vec<Self>, InvalidStream> {
        let pix = settings.pix.enabled.then(|| Ok(Self::pix(&settings.pix)));
        pix.into_iter()
            .chain(settings.streams.iter().map(Self::new))
            .collect()
    }

    /// The stream that settings declare.
    ///
    /// # Errors
    /// What is wrong with an expression or a field.
    pub fn new(settings: &StreamSettings) -> Result<Self, InvalidStream> {
        let invalid = |reason: String| InvalidStream {
            name: settings.name.clone(),
            reason,
        };
        let parse =
            |text: &str| Expression::parse(text).map_err(|error| invalid(error.to_string()));
        let fields = settings.fields.iter().map(|(name, path)| {
            let path = FieldPath::parse(path).map_err(invalid)?;
            Ok((name.clone(), path))
        });
        let fields: Vec<(String, FieldPath)> = fields.collect::<Result<_, _>>()?;
        Ok(Self {
            name: settings.name.clone(),
            types: TypePatterns::new(settings.on.clone()),
            start: settings.start.into(),
            rules: StreamRules {
                slots: settings.slots,
                idle: settings.idle,
                wait: settings.wait,
                max_deliveries: settings.max_deliveries,
                ordered: settings.order_by.is_some(),
            },
            when: settings.when.as_deref().map(parse).transpose()?,
            key: Some(parse(&settings.key)?),
            order_by: settings.order_by.as_deref().map(parse).transpose()?,
            shape: match fields.is_empty() {
                true => Shape::Event,
                false => Shape::Fields(fields),
            },
        })
    }

    /// The stream of Pix messages.
    pub fn pix(settings: &PixSettings) -> Self {
        Self {
            name: PIX.to_owned(),
            types: TypePatterns::new([pix::EVENT_TYPE]),
            start: Start::Beginning,
            rules: StreamRules {
                slots: settings.slots,
                idle: settings.idle,
                wait: settings.wait,
                max_deliveries: None,
                ordered: false,
            },
            when: None,
            key: None,
            order_by: None,
            shape: Shape::Pix,
        }
    }

    /// The message that an event is; `None` if the condition does not hold for it.
    ///
    /// # Errors
    /// Why the event cannot be one.
    pub(super) fn message(&self, logged: &LoggedEvent) -> Result<Option<NewMessage>, String> {
        let event = &logged.event;
        if let Some(when) = &self.when
            && !when.condition(event).map_err(|error| error.to_string())?
        {
            return Ok(None);
        }
        let (body, pix) = self.shape.of(event)?;
        let key = match (&self.key, &pix) {
            (Some(key), _) => text("key", key, event)?,
            (None, Some(pix)) => Some(pix.receiver.ispb.clone()),
            (None, None) => None,
        };
        let order_key = match &self.order_by {
            Some(order_by) => text("order_by", order_by, event)?,
            None => None,
        };
        Ok(Some(NewMessage {
            key: key.ok_or("the event lacks what the stream's key needs")?,
            order_key,
            event_id: event.event_id,
            position: logged.position,
            body,
            pix,
        }))
    }
}

fn text(what: &str, of: &Expression, event: &StoredEvent) -> Result<Option<String>, String> {
    let text = of.text(event).map_err(|error| error.to_string())?;
    match &text {
        Some(text) if text.len() > MAX_KEY || text.is_empty() => Err(format!(
            "{what} gives a text of {} bytes; 1 to {MAX_KEY} are allowed",
            text.len()
        )),
        Some(text) if text.contains('\0') => Err(format!("{what} gives a text with U+0000")),
        _ => Ok(text),
    }
}
