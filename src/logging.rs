//! Structured logs on standard error, human or JSON, and panics among them. The rules of what is
//! logged where stand in `docs/LOGGING.md`.

use crate::config::log::{LogFormat, LogSettings};
use std::io::IsTerminal;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

/// Changes the log filter while the process runs.
#[derive(Clone)]
pub struct LogControl {
    handle: reload::Handle<EnvFilter, Registry>,
}

impl LogControl {
    /// Puts another filter in force; one that cannot be read changes nothing.
    pub fn set_filter(&self, filter: &str) {
        match EnvFilter::try_new(filter) {
            Ok(filter) => {
                if let Err(error) = self.handle.reload(filter) {
                    tracing::error!(%error, "the log filter could not be changed");
                }
            }
            Err(error) => tracing::error!(%error, "the log filter cannot be read"),
        }
    }
}

/// Starts logging. Once per process.
///
/// # Errors
/// When the filter cannot be read or logging has been started before.
pub fn start(settings: &LogSettings) -> anyhow::Result<LogControl> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&settings.filter)?);
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

/// Drivers log statements with their parameters at debug: payloads, whatever filter is set.
fn holds_no_payload(line: &Metadata<'_>) -> bool {
    const DRIVERS: [&str; 3] = ["tokio_postgres", "lapin", "amq_protocol"];
    *line.level() <= Level::INFO
        || !DRIVERS
            .iter()
            .any(|driver| line.target().starts_with(driver))
}

/// A panic is logged once, here; its supervisor then says what follows.
fn log_panic(info: &std::panic::PanicHookInfo<'_>) {
    let message = info
        .payload()
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| info.payload().downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is no text".to_owned());
    let location = info.location().map(ToString::to_string);
    tracing::error!(location, message, "panic");
}
