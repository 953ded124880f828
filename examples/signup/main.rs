//! Sign-ups with a welcome mail: an application with one database and nothing else. See `README.md`.

mod api;
mod database;
mod reactions;
mod settings;

use actix_web::{App, HttpServer, web};
use anyhow::{Context as _, bail};
use eclusa::app::signals::StopSignals;
use eclusa::followers::{FollowerOptions, Followers};
use eclusa::metrics::Metrics;
use eclusa::reactions::email::Email;
use eclusa::supervision::{Phase, Starter};
use settings::Settings;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How long the reactions stand still after this process was killed.
const LEASE: Duration = Duration::from_secs(5);

#[actix_web::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> anyhow::Result<()> {
    let mut stop = StopSignals::install()?;
    let settings = Settings::from_environment()?;
    let email =
        Email::new(&settings.email).context("the variables SMTP_* and MAIL_* cannot be used")?;
    let (store, database) = database::open(&settings).await?;

    // The reactions run in this process, beside the server.
    let metrics = Arc::new(Metrics::new()?);
    let starter = Starter::new(Arc::clone(&metrics));
    let options = FollowerOptions {
        lease_ttl: LEASE,
        ..FollowerOptions::default()
    };
    let running = reactions::all(email, Arc::clone(&database))
        .declare(&store, Followers::new(), &metrics)
        .await?
        .start(Arc::clone(&store), options, &starter)
        .await?;

    let state = web::Data::new(api::State {
        database,
        store,
        commits: running.commits.clone(),
    });
    let server = HttpServer::new(move || App::new().app_data(state.clone()).configure(api::routes))
        .disable_signals()
        .bind(("127.0.0.1", settings.port))
        .with_context(|| format!("cannot listen on port {}; set PORT", settings.port))?;
    for address in server.addrs() {
        println!("Listening on http://{address}");
    }
    let server = server.run();
    let handle = server.handle();
    let lifecycle = starter.lifecycle.clone();
    let stopping = async {
        tokio::select! {
            () = stop.requested() => {}
            () = lifecycle.reached(Phase::Leaving) => {}
        }
        // The reactions finish what they have begun. They use connections that the server's threads may have
        // opened, so the server ends after them.
        lifecycle.advance(Phase::Draining);
        lifecycle.released().await;
        handle.stop(true).await;
    };
    let (served, ()) = futures::join!(server, stopping);
    drop(running);
    served?;
    match starter.lifecycle.failure() {
        Some(reason) => bail!(reason),
        None => Ok(()),
    }
}
