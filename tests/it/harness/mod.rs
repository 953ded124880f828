//! Starts what the tests need and takes it down again, whatever becomes of the tests.
//!
//! * [`Postgres`] and [`RabbitMq`] are private servers in a temporary folder, on ports of their own.
//!   `shared()` is one per test process; a test that stops, kills or pauses a server starts its own
//!   with `start()`. The compiler keeps this apart: those methods want `&mut`, `shared()` gives `&`.
//! * [`App`] is the real binary as a child process.
//! * [`Proxy`] is a network that can be made bad, [`Load`] are clients, and [`Model`] knows what
//!   they were promised.
//! * [`precondition`] skips a test where a tool is missing, in words.
//! * [`eventually`] is the only place that sleeps. Tests wait for conditions, never for time.
//!
//! Everything lives below one folder per test process, which [`scope`] removes together with
//! every process started in it, even after `kill -9` of the test run.

mod app;
mod command;
mod counts;
mod load;
mod metrics;
mod model;
mod npm;
mod output;
mod ports;
mod postgres;
mod precondition;
mod process;
mod proxy;
mod rabbitmq;
mod rabbitmq_files;
mod scope;
mod settings;
mod wait;

pub use app::{App, AppBuilder};
pub use command::{eclusa, told};
pub use counts::{Counted, miscounted};
pub use load::{Counts, Load, LoadPlan, event};
pub use metrics::Metrics;
pub use model::{Findings, Log, Model};
pub use npm::{has_node, npm_packages, run};
pub use ports::free_port;
pub use postgres::{Postgres, connect, postgres_program};
pub use precondition::{precondition, program};
pub use process::{memory_of, peak_memory_of};
pub use proxy::{Direction, Moment, Proxy};
pub use rabbitmq::{RabbitMq, confirming};
pub use scope::temp_dir;
pub use wait::eventually;
