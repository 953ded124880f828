//! A settings file.
#![no_main]

use eclusa::config::Sources;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Sources::from_text(text).load();
});
