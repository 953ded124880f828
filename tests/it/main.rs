//! Integration tests: the real binary, a real PostgreSQL and a real RabbitMQ.
//!
//! One test binary, because the servers are started once per process and shared by all tests.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a test's own tasks end with it, and need no supervisor"
)]

mod amqp;
mod amqp_window;
mod batching;
mod bench;
mod capture;
mod chaos;
mod chaos_minute;
mod cli;
mod clock;
mod collectors;
mod containers;
mod dead_letters;
mod examples;
mod faults;
mod followers;
mod full_mode;
mod harness;
mod harness_works;
mod http_api;
mod http_hostile;
mod http_same_origin;
mod isolation;
mod manifests;
mod openapi;
mod ordered;
mod outlets;
mod panics;
mod parsers;
mod proxy_and_model;
mod reactions;
mod retention;
mod schedules;
mod schemas;
mod scraping;
mod stopping;
mod store_contract;
mod topics;
