//! Reactions: each run gets its outcome; and their handlers, each against a real server.

mod added_lanes;
mod amqp;
mod by_settings;
mod child;
mod completing;
mod effects;
mod email;
mod failing;
mod held_open;
mod killed;
mod marking;
mod observing;
mod operation;
mod poison;
mod receiver;
mod recorded;
mod redeclared;
mod reopened;
mod running;
mod signup;
mod smtp_server;
mod standing_still;
pub mod starts;
mod webhook;
mod webhook_addresses;
mod webhook_tls;
