//! Handlers of reactions, each against a real server.

mod email;
mod smtp_server;
mod webhook;
mod webhook_addresses;
mod webhook_tls;
