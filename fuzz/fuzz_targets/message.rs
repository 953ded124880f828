//! A message of another publisher: one event, an array, the NestJS envelope.
#![no_main]

use eclusa::broker::contents::DecodeOptions;
use eclusa::broker::message;
use eclusa::config::broker::MissingId;
use eclusa::event::item::ItemLimits;
use lapin::BasicProperties;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let options = DecodeOptions {
        limits: ItemLimits {
            max_depth: 16,
            max_field_bytes: 256,
            accept_days: 400,
        },
        max_event_bytes: None,
        max_items: 1_000,
        producer: "p".into(),
        missing_id: MissingId::Random,
        again: None,
    };
    let contents = message::read(bytes, &BasicProperties::default(), &options);
    assert!(
        !contents.events.is_empty() || !contents.bad.is_empty(),
        "a message that gives neither an event nor a dead letter is lost"
    );
});
