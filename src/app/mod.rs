//! The process: everything wired together, and the order in which it starts and stops.

mod consumers;
pub mod embedded_lock;
pub mod flow;
pub mod reload;
pub mod signals;
mod starter;
pub mod store;
mod writers;

use crate::actors::http_ingest::{self, Door, HttpIngest};
use crate::config::{LiveSettings, Settings, Sources};
use crate::event::Completions;
use crate::http::dead_letters::count::LetterCount;
use crate::http::doors::Doors;
use crate::http::{self, HttpState};
use crate::logging::LogControl;
use crate::supervision::mailbox::{Mailbox, mailbox};
use crate::supervision::{Phase, RestartPolicy, supervise};
use actix_web::dev::{Server, ServerHandle};
use actix_web::{App as HttpApp, HttpServer, web};
use anyhow::Context as _;
use embedded_lock::EmbeddedLock;
use flow::Flow;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Requests that may wait for a worker's ingest actor. The budget of bytes is the real bound.
const INGEST_MAILBOX: usize = 8_192;

/// Seconds that answers may take to leave once everything is settled. Idle connections, which a
/// graceful stop waits for too, are closed after it.
const LAST_ANSWERS: u64 = 1;

/// An Eclusa that is ready to serve.
pub struct App {
    flow: Flow,
    server: Server,
    port: u16,
    live: LiveSettings,
    sources: Sources,
    log: LogControl,
    _lock: Option<EmbeddedLock>,
}

impl App {
    /// Opens the store, starts the actors and binds the port. Call it on actix's runtime.
    ///
    /// # Errors
    /// In words: which part cannot start, and what to do.
    pub async fn build(
        settings: Settings,
        sources: Sources,
        log: LogControl,
    ) -> anyhow::Result<Self> {
        let listener = bind(&settings)?;
        let port = listener.local_addr()?.port();
        let address = format!("http://{}", listener.local_addr()?);
        let lock = EmbeddedLock::of_server(&settings, &address)?;
        let store = store::open(&settings).await?;
        if lock.is_some() {
            // The file is this process's alone: whoever held one is gone.
            store.void_leases().await?;
        }
        let live = LiveSettings::new(settings);
        let flow = Flow::start(&live, store)?;
        let server = serve(listener, &live, &flow)?;
        Ok(Self {
            flow,
            server,
            port,
            live,
            sources,
            log,
            _lock: lock,
        })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves until a signal asks it to stop, or something is beyond repair: then the reason comes
    /// back.
    pub async fn run_until_stopped(self) -> Option<String> {
        let lifecycle = self.flow.lifecycle.clone();
        let handle = self.server.handle();
        let reload = reload::Reload {
            live: self.live.clone(),
            sources: self.sources,
            log: self.log,
            lanes: self.flow.lanes.clone(),
        };
        let settings = self.live.get().shutdown.clone();
        let server = self.server;
        let flow = self.flow;
        let stopping = async {
            tokio::select! {
                () = signals::stop_requested() => {}
                () = lifecycle.reached(Phase::Leaving) => {}
                () = reload.run() => {}
                () = flow::report_totals(&flow) => {}
            }
            lifecycle.advance(Phase::Leaving);
            tracing::info!(
                grace_ms = settings.grace.as_millis() as u64,
                "stopping: unready, still serving"
            );
            let grace = async {
                if lifecycle.failure().is_none() {
                    tokio::time::sleep(settings.grace).await;
                }
            };
            // A second signal means: now.
            tokio::select! {
                () = grace => {}
                () = signals::stop_requested() => {}
            }
            drain(&flow, &handle, settings.deadline).await;
        };
        let (served, ()) = futures::join!(server, stopping);
        if let Err(error) = served {
            tracing::error!(%error, "the HTTP server failed");
            return Some(format!("the HTTP server failed: {error}"));
        }
        lifecycle.failure()
    }
}

/// Takes nothing new, settles what is in hand within the deadline, and stops serving. What does not
/// make it returns to its source: a caller hears 503, the broker delivers again.
async fn drain(flow: &Flow, server: &ServerHandle, deadline: Duration) {
    flow.lifecycle.advance(Phase::Draining);
    let settled = async {
        flow.lanes.drain().await;
        flow.lifecycle.released().await;
        let ledgers = &flow.metrics.ledgers;
        while ledgers.in_flight() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        done = tokio::time::timeout(deadline, settled) => match done {
            Ok(()) => tracing::info!("drained"),
            Err(_) => tracing::error!(
                in_flight = flow.metrics.ledgers.in_flight(),
                "not all settled within shutdown.deadline; the rest returns to its source"
            ),
        },
        () = signals::stop_requested() => tracing::warn!("asked again to stop: stopping at once"),
    }
    // Answers are on their way out; a graceful stop lets them leave, within LAST_ANSWERS.
    server.stop(true).await;
}

fn bind(settings: &Settings) -> anyhow::Result<TcpListener> {
    let address = std::net::SocketAddr::new(settings.http.bind, settings.http.port);
    let listener = TcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address}; choose another port with --port or http.port")
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn serve(listener: TcpListener, live: &LiveSettings, flow: &Flow) -> anyhow::Result<Server> {
    let settings = live.get();
    let workers = match settings.http.workers {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        workers => workers,
    };
    let door = flow.door();
    let refuses = settings.broker.refuses();
    let shared = flow.clone();
    let live = live.clone();
    let replayer = flow.replayer(&live);
    let letter_count = LetterCount::default();
    let next_worker = Arc::new(AtomicUsize::new(0));
    let server = HttpServer::new(move || {
        // This closure runs once in each worker, on its thread: there its ingest actor lives.
        let completions = Completions::default();
        let ingest = start_ingest(
            &shared,
            door.clone(),
            completions.clone(),
            next_worker.fetch_add(1, Ordering::Relaxed),
        );
        let state = HttpState {
            settings: live.clone(),
            store: Arc::clone(&shared.store),
            letters: Arc::clone(&shared.letters),
            letter_count: letter_count.clone(),
            replayer: replayer.clone(),
            ingest,
            completions,
            accepted: shared.metrics.accepted.with_label_values(&["http"]),
            lanes: shared.lanes.clone(),
            doors: Doors {
                store: shared.store_breaker.clone(),
                broker: shared.broker_breaker.clone().zip(shared.publisher.clone()),
                refuses,
            },
            awaited: shared.awaited.clone(),
            budget: shared.budget.clone(),
            health: shared.health.clone(),
            lifecycle: shared.lifecycle.clone(),
            metrics: Arc::clone(&shared.metrics),
        };
        HttpApp::new()
            .app_data(web::Data::new(state))
            .configure(|config| http::routes(config, &shared.metrics))
    })
    .workers(workers)
    .max_connections(settings.http.max_connections.div_ceil(workers))
    .client_request_timeout(settings.http.request_timeout)
    .keep_alive(settings.http.keep_alive)
    .shutdown_timeout(LAST_ANSWERS)
    .disable_signals()
    .listen(listener)?
    .run();
    Ok(server)
}

fn start_ingest(
    flow: &Flow,
    door: Door,
    completions: Completions,
    worker: usize,
) -> Mailbox<HttpIngest> {
    let (mailbox, inbox) = mailbox(
        "http_ingest",
        worker,
        INGEST_MAILBOX,
        &flow.metrics,
        &flow.health,
    );
    let wiring = http_ingest::Wiring {
        door,
        completions,
        metrics: Arc::clone(&flow.metrics),
    };
    supervise(
        inbox,
        HttpIngest::new(wiring),
        RestartPolicy::default(),
        &flow.metrics,
        &flow.lifecycle,
    );
    mailbox
}
