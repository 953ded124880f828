//! `eclusa serve`

use super::GlobalArgs;
use crate::app::App;
use crate::app::signals::{ReloadSignal, StopSignals};
use crate::config::{Mode, Settings, layers};
use crate::followers::Followers;
use crate::logging;
use crate::reactions::Reactions;
use clap::Args;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `serve`.
#[derive(Args, Clone, Default)]
pub struct ServeArgs {
    /// Port to listen on; 0 takes a free one
    #[arg(long, short)]
    pub(super) port: Option<u16>,
    /// Address to listen on; anything but loopback needs API keys
    #[arg(long)]
    bind: Option<IpAddr>,
    /// Directory of the embedded mode's files
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl ServeArgs {
    /// The first option that was given, as it is written.
    pub(super) fn given(&self) -> Option<&'static str> {
        let port = self.port.map(|_| "--port");
        let bind = self.bind.map(|_| "--bind");
        port.or(bind)
            .or(self.data_dir.as_ref().map(|_| "--data-dir"))
    }

    fn flags(&self) -> Vec<(String, String)> {
        let mut flags = Vec::new();
        let mut flag = |key: &str, value: Option<String>| {
            flags.extend(value.map(|value| (key.to_owned(), value)));
        };
        flag("http.port", self.port.map(|port| port.to_string()));
        flag("http.bind", self.bind.map(|bind| bind.to_string()));
        flag(
            "data_dir",
            self.data_dir.as_ref().map(|dir| dir.display().to_string()),
        );
        flags
    }
}

/// Serves until it is told to stop.
pub fn run(global: &GlobalArgs, args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let sources = global.sources(args.flags());
    let settings = sources.load()?;
    let log = logging::start(&settings.log)?;
    crate::cli::block_on(async move {
        // Before anything that takes time: waiting for a database must be interruptible too.
        let (mut stop, reload) = (StopSignals::install()?, ReloadSignal::install()?);
        let app = tokio::select! {
            app = App::build(settings.clone(), sources, log, Followers::new(), Reactions::new()) => app?,
            () = stop.requested() => return Ok(ExitCode::SUCCESS),
        };
        println!("{}", welcome(&settings, app.port()));
        match app.run_until_stopped(stop, reload).await {
            None => Ok(ExitCode::SUCCESS),
            Some(reason) => {
                eprintln!("eclusa: {reason}");
                Ok(ExitCode::FAILURE)
            }
        }
    })
}

/// What a person needs to know first.
fn welcome(settings: &Settings, port: u16) -> String {
    let address = std::net::SocketAddr::new(settings.http.bind, port);
    let url = settings.http.local_url(port);
    let (what, place) = match settings.mode() {
        Mode::Embedded | Mode::Auto => (
            "embedded (SQLite, nothing else needed)",
            settings.sqlite_file().display().to_string(),
        ),
        Mode::Database => (
            "database (PostgreSQL, direct)",
            layers::hide_password(&settings.store.url),
        ),
        Mode::Full => (
            "full (RabbitMQ in front of PostgreSQL)",
            format!(
                "{} behind {} queue {}",
                layers::hide_password(&settings.store.url),
                layers::hide_password(&settings.broker.url),
                settings.broker.queue
            ),
        ),
    };
    format!(
        "Eclusa {version}, mode {what}\n\
         Data in {place}\n\
         Listening on http://{address}\n\
         Try: curl -d '{{\"userId\":\"u1\",\"eventType\":\"page.view\",\"eventData\":{{\"path\":\"/\"}}}}' \
         -H 'content-type: application/json' {url}/v1/events\n\
         Then: curl {url}/v1/events   (API at /docs, health at /health/ready, metrics at /metrics)",
        version = env!("CARGO_PKG_VERSION"),
    )
}
