//! Reactions: what their handlers do.

mod webhook;
mod webhook_addresses;
mod webhook_tls;
