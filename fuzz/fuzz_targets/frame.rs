//! A frame, that is, a message that claims to be Eclusa's own.
#![no_main]

mod options;

use eclusa::broker::message;
use eclusa::event::frame;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use libfuzzer_sys::fuzz_target;
use options::options;

fuzz_target!(|bytes: &[u8]| {
    let mut headers = FieldTable::default();
    headers.insert(frame::VERSION_HEADER.into(), AMQPValue::LongLongInt(1));
    let properties = BasicProperties::default().with_headers(headers);
    let contents = message::read(bytes, &properties, &options());
    assert!(
        !contents.events.is_empty() || !contents.bad.is_empty(),
        "a frame that gives neither an event nor a dead letter is lost"
    );
});
