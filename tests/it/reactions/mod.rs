//! Reactions: each run gets its outcome; and their handlers, each against a real server.

mod amqp;
mod child;
mod completing;
mod effects;
mod email;
mod operation;
mod held_open;
mod receiver;
mod running;
mod signup;
mod smtp_server;
mod webhook;
mod webhook_addresses;
mod webhook_tls;
