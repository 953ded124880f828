//! A message of another publisher: one event, an array, the NestJS envelope.
#![no_main]

mod options;

use eclusa::broker::message;
use lapin::BasicProperties;
use libfuzzer_sys::fuzz_target;
use options::options;

fuzz_target!(|bytes: &[u8]| {
    let contents = message::read(bytes, &BasicProperties::default(), &options());
    assert!(
        !contents.events.is_empty() || !contents.bad.is_empty(),
        "a message that gives neither an event nor a dead letter is lost"
    );
});
