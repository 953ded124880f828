//! Events at the times of a cron pattern.
//!
//! Every process emits every schedule. The id of an event is derived from the schedule's name and the
//! due time, so that the log has it once.

mod emitter;
mod schedule;
mod scheduler;

pub use emitter::Emitter;
pub use schedule::Schedule;
pub use scheduler::{Scheduler, SchedulerParams};
