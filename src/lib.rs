//! Eclusa: events come in, gather, and are written exactly once.
//!
//! # The path of one event, from socket to row
//!
//! 1. A request arrives at [`http::ingest`]. Its body is cut into items ([`http::body`]), each is
//!    checked in full ([`event::item`], [`event::json`]) and gets its identity ([`event::id`]); a
//!    flaw anywhere refuses the whole request.
//! 2. The event becomes a [`event::Delivery`]: the event and a [`event::Ticket`], which is settled
//!    exactly once, or returns the event to its source when it is dropped.
//! 3. [`actors::HttpIngest`] makes it durable. In full mode it goes as part of a frame
//!    ([`event::frame`]) onto the work queue, and the broker's confirm is the answer; then
//!    [`actors::AmqpConsumer`] takes it from there, like the messages of foreign publishers
//!    ([`broker::message`]). In direct mode the commit is the answer.
//! 4. [`actors::BatchAccumulator`] gathers events until a batch is full, old, or awaited, and hands
//!    it to a writer that has asked.
//! 5. [`actors::DbWriter`] writes the batch in one transaction ([`store::EventStore`]), and settles
//!    the tickets. What fails is sorted ([`store::ErrorKind`]), and [`retry::policy`] says what
//!    follows; [`actors::RetrySupervisor`] sends it round again or puts it aside.
//! 6. What cannot be stored becomes a dead letter ([`store::dead_letters`]), with its bytes and its
//!    cause, and can be sent through the flow again ([`retry::replay`]).
//!
//! Every actor runs under [`supervision`]; [`metrics`] counts what happens; [`config`] holds the
//! settings; [`app`] wires it all together; [`cli`] is the command line; [`mod@bench`] measures it.

pub mod actors;
pub mod app;
pub mod bench;
pub mod broker;
pub mod cli;
pub mod config;
pub mod event;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod retry;
pub mod store;
pub mod supervision;
