//! Ports for servers.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
/// The kernel hands out ports from 32768 on to outgoing connections. Below it, nobody takes the
/// port of a server that is down for a moment, and a client that reconnects to it in a loop can't
/// meet itself (TCP's simultaneous open lets a socket connect to its own ephemeral port).
const END: u16 = 32_000;

/// A port of 127.0.0.1 nobody listens on. Never given out twice by one test process; test
/// processes that run at the same time start at different places.
pub fn free_port() -> u16 {
    let address = free_listener().local_addr();
    address.expect("a listener has an address").port()
}

/// A listener at such a port. A port cannot be bound again right after it was probed: a process that another test
/// starts at that moment has the probe's socket until it executes its program.
pub fn free_listener() -> TcpListener {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = END - FIRST;
    let start = (std::process::id().wrapping_mul(61) % u32::from(span)) as u16;
    for _ in 0..span {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % span;
        let port = FIRST + (start + offset) % span;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener;
        }
    }
    panic!("no free port from {FIRST} to {END}");
}
