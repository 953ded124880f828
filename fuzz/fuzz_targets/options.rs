//! How the targets decode a message.

use eclusa::broker::contents::DecodeOptions;
use eclusa::config::broker::MissingId;
use eclusa::event::item::{DataRules, ItemLimits};

const LIMITS: ItemLimits = ItemLimits {
    max_depth: 16,
    max_field_bytes: 256,
    accept_days: 400,
    data: DataRules::NONE,
};

pub fn options() -> DecodeOptions {
    DecodeOptions {
        limits: LIMITS,
        max_event_bytes: None,
        max_items: 1_000,
        producer: "p".into(),
        missing_id: MissingId::Random,
        again: None,
    }
}
