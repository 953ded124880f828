//! Structured logs on standard error, as text or JSON; panics are logged too. `docs/LOGGING.md` has
//! the rules of what is logged where.

use crate::config::log::{LogFormat, LogSettings};
use std::io::IsTerminal;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// Changes the log filter while the process runs.
#[derive(Clone)]
pub struct LogControl {
    handle: reload::Handle<Targets, Registry>,
}

impl LogControl {
    /// Replaces the filter; an invalid one changes nothing.
    pub fn set_filter(&self, filter: &str) {
        match filter.parse::<Targets>() {
            Ok(filter) => {
                if let Err(error) = self.handle.reload(filter) {
                    tracing::error!(%error, "the log filter could not be changed");
                }
            }
            Err(error) => tracing::error!(%error, "the log filter is invalid"),
        }
    }
}

/// Starts logging, once per process.
///
/// # Errors
/// The filter is invalid, or logging has been started before.
pub fn start(settings: &LogSettings) -> anyhow::Result<LogControl> {
    let (filter, handle) = reload::Layer::new(settings.filter.parse::<Targets>()?);
    let terminal = std::io::stderr().is_terminal();
    let human = match settings.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => terminal,
    };
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(holds_no_payload));
    if human {
        let layer = fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(terminal);
        registry.with(layer).try_init()?;
    } else {
        let layer = fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(std::io::stderr);
        registry.with(layer).try_init()?;
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(LogControl { handle })
}

/// Drops debug lines of drivers, which log statements with their parameters and so payloads.
fn holds_no_payload(line: &Metadata<'_>) -> bool {
    const DRIVERS: [&str; 3] = ["tokio_postgres", "lapin", "amq_protocol"];
    *line.level() <= Level::INFO
        || !DRIVERS
            .iter()
            .any(|driver| line.target().starts_with(driver))
}

/// Logs a panic; its supervisor logs what follows.
fn log_panic(info: &std::panic::PanicHookInfo<'_>) {
    let message = info
        .payload()
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| info.payload().downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a payload that is not text".to_owned());
    let location = info.location().map(ToString::to_string);
    tracing::error!(location, message, "panic");
}
