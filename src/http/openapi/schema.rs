//! Schemas of JSON that no type of the HTTP API writes or reads as a whole: events, which pass as raw
//! text, and errors.
#![expect(
    dead_code,
    reason = "these types describe JSON in the OpenAPI document, and have no values"
)]

use chrono::{DateTime, Utc};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// An event as a caller sends it. `null` is the same as an absent field.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Event)]
pub struct EventBody {
    /// A UUID, or any other string that is unique within the producer. At most 256 bytes
    /// (`ingest.max_field_bytes`).
    #[schema(required = false, value_type = Option<Field>, example = "order-1001")]
    id: String,
    /// At most 256 bytes.
    #[schema(value_type = Field, example = "u1")]
    user_id: String,
    /// At most 256 bytes.
    #[schema(value_type = Field, example = "page.view")]
    event_type: String,
    /// Any JSON object, up to 32 levels deep (`ingest.max_depth`); `{}` when absent. Keys are unique,
    /// and texts and keys contain no U+0000.
    event_data: Option<Payload>,
    /// The version of the type's schema that `eventData` follows. Absent, it is the oldest declared one.
    #[schema(minimum = 1, maximum = 32767)]
    schema_version: Option<i16>,
    /// At most 256 bytes.
    #[schema(required = false, value_type = Option<Field>, example = "s1")]
    session_id: String,
    /// When the event happened, with an offset; the time of receipt when absent.
    timestamp: Option<DateTime<Utc>>,
}

/// A text of at most 256 bytes in UTF-8.
#[derive(ToSchema)]
#[schema(value_type = String, min_length = 1, max_length = 256, pattern = r"^[^\u0000]+$")]
pub struct Field(String);

/// The payload of an event.
#[derive(Deserialize, ToSchema)]
#[schema(value_type = Object, example = json!({"path": "/"}))]
pub struct Payload(String);

/// One event, or an array of 1 to 1,000 of them (`http.max_items`).
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub enum EventOrEvents {
    Event(EventBody),
    Events(Events),
}

/// 1 to 1,000 events.
#[derive(Deserialize, ToSchema)]
#[schema(value_type = Vec<EventBody>, min_items = 1, max_items = 1000)]
pub struct Events(Vec<EventBody>);

/// An event of the log.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase", as = StoredEvent)]
pub struct StoredEventBody {
    /// Order of arrival, with gaps.
    sequence: i64,
    id: Uuid,
    /// The caller's id, when the event is stored under another one.
    #[schema(nullable = false)]
    original_id: Option<String>,
    /// The name of the API key that sent the event, or `ingest.producer`; `sql` or `schedule` for events
    /// from there.
    producer: String,
    #[schema(required)]
    user_id: Option<String>,
    event_type: String,
    event_data: Payload,
    /// The version of the type's schema that `eventData` follows; absent if neither the type has a schema nor
    /// the producer named a version.
    #[schema(nullable = false, minimum = 1, maximum = 32767)]
    schema_version: Option<i16>,
    #[schema(required)]
    session_id: Option<String>,
    /// When the event happened.
    timestamp: DateTime<Utc>,
    /// When Eclusa received it.
    received_at: DateTime<Utc>,
    /// `http`, `amqp`, `import`, `sql`, `schedule` or `capture`.
    source: String,
    /// Whether all reactions to it are done; true when there are none.
    processed: bool,
}

/// A dead letter that a replay could not send.
#[derive(ToSchema)]
pub struct ReplayFailure {
    id: Uuid,
    reason: String,
}

/// Why an event or message became a dead letter.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case", as = Cause)]
pub enum CauseWord {
    Malformed,
    Invalid,
    Schema,
    Poison,
    RetriesExhausted,
    Panic,
    Timeout,
    Expired,
    Rejected,
    DeliveryLimit,
    Follower,
    Undeliverable,
    Unknown,
}

/// `replayed`: sent through the flow again, and not failed since.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case", as = DeadLetterState)]
pub enum StateWord {
    Dead,
    Replayed,
}

/// An error (RFC 9457).
#[derive(ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Always `about:blank`: the status says what kind of error it is.
    r#type: String,
    /// The name of the status.
    title: String,
    status: u16,
    /// What is wrong, and what to do.
    detail: String,
    /// The errors in each item of the request.
    #[schema(nullable = false)]
    errors: Option<Vec<ItemErrorBody>>,
    /// On a 503: the ids with which to repeat the request, in the order of its events. Absent with an
    /// `Idempotency-Key`: a repeat with the same key gets the same ids.
    #[schema(nullable = false)]
    ids: Option<Vec<String>>,
}

/// An error in an item of a request.
#[derive(ToSchema)]
#[schema(as = ItemError)]
pub struct ItemErrorBody {
    /// Index of the item, from 0.
    index: usize,
    /// The field; empty for the item as a whole.
    field: String,
    reason: String,
    /// The rule of the type's schema that `eventData` breaks.
    #[schema(nullable = false)]
    schema: Option<SchemaViolationBody>,
}

/// A rule of a schema that `eventData` breaks.
#[derive(ToSchema)]
#[schema(as = SchemaViolation)]
pub struct SchemaViolationBody {
    /// The event type.
    r#type: String,
    /// The version of its schema.
    version: i16,
    /// Where in `eventData`: a JSON pointer, empty for the whole.
    pointer: String,
    /// The rule's place in the schema: a JSON pointer whose last part is the keyword.
    rule: String,
    reason: String,
}

#[cfg(test)]
mod tests {
    use crate::event::Cause;
    use crate::reactions::runs::RunStatus;
    use crate::store::dead_letters::DeadLetterState;
    use crate::store::runs::RunState;
    use serde_json::{Value, json};

    #[test]
    fn the_words_are_those_of_the_code() {
        let document = serde_json::to_value(crate::http::openapi::build()).unwrap();
        let words = |name: &str| {
            let schema = &document["components"]["schemas"][name];
            schema["enum"].as_array().unwrap().clone()
        };
        let causes = Cause::ALL.map(|cause| Value::from(cause.as_str()));
        assert_eq!(words("Cause"), causes);
        let states = [DeadLetterState::Dead, DeadLetterState::Replayed];
        let states = states.map(|state| json!(state.as_str()));
        assert_eq!(words("DeadLetterState"), states);
        let states = RunState::ALL.map(|state| json!(state.as_str()));
        assert_eq!(words("RunState"), states);
        let statuses = RunStatus::ALL.map(|status| json!(status.as_str()));
        assert_eq!(words("RunStatus"), statuses);
    }
}

/// A Pix message, or an array of one to ten.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = PixAnswer)]
pub enum PixAnswer {
    Message(Box<PixMessageBody>),
    Messages(PixMessages),
}

/// One to ten Pix messages.
#[derive(Deserialize, ToSchema)]
#[schema(value_type = Vec<PixMessageBody>, min_items = 1, max_items = 10)]
pub struct PixMessages(Vec<PixMessageBody>);

/// A payment that one bank tells another.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PixMessage)]
pub struct PixMessageBody {
    /// `E`, the payer's ISPB, the minute of the payment, and 11 letters or digits.
    #[schema(
        pattern = r"^E[0-9]{20}[A-Za-z0-9]{11}$",
        example = "E320749862024022119277T3lEBbUM0z"
    )]
    end_to_end_id: String,
    /// In reais, with two decimals.
    #[schema(value_type = f64, example = 90.20)]
    valor: String,
    pagador: PixPartyBody,
    recebedor: PixPartyBody,
    campo_livre: String,
    tx_id: String,
    data_hora_pagamento: DateTime<Utc>,
}

/// An account at a bank, and whose it is.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PixParty)]
pub struct PixPartyBody {
    nome: String,
    /// CPF or CNPJ, without punctuation.
    cpf_cnpj: String,
    #[schema(pattern = r"^[0-9]{8}$", example = "00000000")]
    ispb: String,
    agencia: String,
    conta_transacional: String,
    /// `CACC`, `SVGS`, `SLRY` or `TRAN`.
    tipo_conta: String,
}
