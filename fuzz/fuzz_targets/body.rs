//! The body of `POST /v1/events`, as one document and as lines.
#![no_main]

use eclusa::event::item::{self, DataRules, ItemLimits, Rules};
use eclusa::http::body::{self, Shape};
use libfuzzer_sys::fuzz_target;

const LIMITS: ItemLimits = ItemLimits {
    max_depth: 16,
    max_field_bytes: 256,
    accept_days: 400,
    data: DataRules::NONE,
};

fuzz_target!(|bytes: &[u8]| {
    for shape in [Shape::Json, Shape::Lines] {
        if let Ok(items) = body::items(bytes, shape, 1_000) {
            for item in items.items {
                // Accepted or refused; only a panic is an error.
                let _ = item::check(item, &LIMITS, Rules::HTTP);
            }
        }
    }
});
