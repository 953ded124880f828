//! The message of an event: its body, its properties, and where it goes.

use crate::broker::headers;
use crate::config::outlets::{OutletFormat, OutletSettings, OutletTarget};
use crate::event::schemas::{SchemaView, Schemas};
use crate::followers::cloud_event;
use crate::store::commit_log::LoggedEvent;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

/// A message that is to be published.
pub(super) struct OutletMessage {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) body: Vec<u8>,
    pub(super) properties: BasicProperties,
}

/// How an outlet makes messages.
pub(super) struct MessageForm {
    outlet: String,
    format: OutletFormat,
    schema: SchemaView,
    /// Empty for the default exchange.
    exchange: String,
    /// Absent for the event's type.
    routing_key: Option<String>,
}

impl MessageForm {
    pub(super) fn new(settings: &OutletSettings) -> Self {
        let (exchange, routing_key) = match settings.target() {
            Ok(OutletTarget::Exchange(exchange)) => (exchange, settings.routing_key.clone()),
            // The default exchange routes to the queue that the routing key names.
            Ok(OutletTarget::Stream(stream)) => ("", Some(stream.to_owned())),
            // Refused where the settings are checked.
            Err(_) => ("", None),
        };
        Self {
            outlet: settings.name.clone(),
            format: settings.format,
            schema: settings.schema,
            exchange: exchange.to_owned(),
            routing_key,
        }
    }

    /// Where messages with this routing key go, as errors name it.
    pub(super) fn target(&self, routing_key: &str) -> String {
        match self.exchange.as_str() {
            "" => format!("the stream {routing_key:?}"),
            exchange => format!("the exchange {exchange:?} with the routing key {routing_key:?}"),
        }
    }

    /// The message of an event. Its id is the event's, so that a consumer knows repeats.
    ///
    /// # Errors
    /// Why there is none, now and at any other time.
    pub(super) fn message(
        &self,
        logged: &LoggedEvent,
        generation: i64,
        schemas: &Schemas,
    ) -> Result<OutletMessage, String> {
        let cannot = |error: &dyn std::fmt::Display| format!("cannot make the message: {error}");
        let event = match self.schema {
            SchemaView::Sent => &logged.event,
            SchemaView::Latest => &schemas.to_latest(logged.event.clone()),
        };
        let key = self.routing_key.as_deref().unwrap_or(&event.event_type);
        let routing_key = ShortString::try_new(key)
            .map_err(|error| format!("the routing key is too long: {error}"))?;
        let exchange = ShortString::try_new(&*self.exchange).map_err(|error| cannot(&error))?;
        let (body, content_type) = match self.format {
            OutletFormat::Event => (serde_json::to_vec(event), headers::JSON),
            OutletFormat::CloudEvents => {
                let text = cloud_event::text(event);
                (text.map(String::into_bytes), cloud_event::MEDIA_TYPE)
            }
        };
        let body = body.map_err(|error| cannot(&error))?;
        let id = event.event_id.to_string();
        let id = ShortString::try_new(id).map_err(|error| cannot(&error))?;
        let mut table = FieldTable::default();
        let position = format!("{generation}-{}", logged.position);
        for (header, value) in [
            (headers::OUTLET_HEADER, self.outlet.clone()),
            (headers::POSITION_HEADER, position),
        ] {
            table.insert(header.into(), AMQPValue::LongString(value.into()));
        }
        let properties = headers::durable(headers::of_event(event))
            .with_content_type(content_type.into())
            .with_message_id(id)
            .with_headers(table);
        Ok(OutletMessage {
            exchange,
            routing_key,
            body,
            properties,
        })
    }
}
