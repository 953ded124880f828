//! `eclusa bench`: a load generator and a judge.
//!
//! It knows a server from outside only and shares no code with what it judges; what it needs of the
//! program that links it stands in [`program`]. [`run::run`] measures whole paths ([`plan::Scenario`]) with the real server as a process of its own
//! ([`under_test`]), and in the same run, on the same machine, the parts they are made of
//! ([`yardsticks`]): an HTTP handler that keeps nothing, a broker and a store without other users.
//! A path is judged by the share of what its parts alone would allow ([`figures::bound`]), so that
//! the verdict says something on any machine. Afterwards every event that was accepted must be
//! stored once ([`verify`]).
//!
//! It works in a database and on queues of its own ([`place`]), which it removes at the end.

pub mod against;
pub mod body;
pub mod child;
pub mod command;
pub mod database;
pub mod figures;
pub mod gate;
pub mod http;
pub mod latency;
pub mod load;
pub mod measure;
pub mod place;
pub mod plan;
pub mod process;
pub mod program;
pub mod progress;
pub mod queues;
pub mod report;
pub mod run;
pub mod schedule;
pub mod target;
mod thread;
pub mod under_test;
pub mod verify;
pub mod yardsticks;

pub use command::{BenchArgs, HandlerArgs};
pub use program::{Expected, Program, Servers};
