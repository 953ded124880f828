//! The process: wiring, start and shutdown.

pub mod captured;
mod consumers;
pub mod embedded_lock;
pub mod flow;
pub mod reload;
mod schedules;
pub mod signals;
pub mod shutdown;
pub mod store;
mod writers;

use crate::capture::commands::left_behind;
use crate::collectors::Stream;
use crate::config::{LiveSettings, Settings, Sources};
use crate::event::schemas::compatibility::{CompatibilityMode, compare_versions};
use crate::followers::Followers;
use crate::http;
use crate::http::HttpState;
use crate::http::dead_letters::count::DeadLetterCount;
use crate::ingest::completions::Completions;
use crate::ingest::http_ingest;
use crate::ingest::http_ingest::{HttpIngest, IngestTarget};
use crate::logging::LogControl;
use crate::outlets::Outlets;
use crate::reactions::{self, Reactions};
use crate::schedules::Scheduler;
use crate::supervision::mailbox::{Mailbox, mailbox};
use crate::supervision::{Phase, RestartPolicy, supervise};
use actix_web::dev::Server;
use actix_web::{App as HttpApp, HttpServer, web};
use anyhow::Context as _;
use embedded_lock::EmbeddedLock;
use flow::{Flow, Following};
use signals::{ReloadSignal, StopSignals};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Capacity of the mailbox of a worker's ingest actor. The budget of bytes is the effective bound.
const INGEST_MAILBOX: usize = 8_192;

/// A process that is ready to serve.
pub struct App {
    flow: Flow,
    server: Server,
    port: u16,
    live: LiveSettings,
    sources: Sources,
    log: LogControl,
    /// Kept because an actor without an address is not restarted.
    _scheduler: Option<Mailbox<Scheduler>>,
    _lock: Option<EmbeddedLock>,
}

impl App {
    /// Opens the store, starts the actors and binds the port. Call it on actix's runtime.
    ///
    /// # Errors
    /// The part that cannot start, and what to do.
    pub async fn build(
        settings: Settings,
        sources: Sources,
        log: LogControl,
        followers: Followers,
        reactions: Reactions,
    ) -> anyhow::Result<Self> {
        let live = LiveSettings::new(settings);
        let settings = Arc::clone(&live.get());
        warn_of_incompatible_schemas(&settings);
        let reactions = reactions.and(reactions::handlers::reactions(&live)?);
        let streams = Stream::all(&settings)?;
        let outlets = Outlets::new(&live)?;
        captured::check(&settings)?;
        let listener = bind(&settings)?;
        let port = listener.local_addr()?.port();
        let address = settings.http.local_url(port);
        let lock = EmbeddedLock::of_server(&settings, &address)?;
        let (store, layouts) = store::open_with_layouts(&settings).await?;
        if lock.is_some() {
            // Only this process uses the file, so all earlier leases are void.
            store.void_leases().await?;
        }
        match reactions.missing(&*store).await {
            Ok(missing) if missing.is_empty() => {}
            Ok(missing) => tracing::warn!(
                reactions = ?missing,
                "reactions are declared that this process does not run; their events wait for a process that does, \
                 or for `eclusa reactions remove`"
            ),
            Err(error) => tracing::warn!(%error, "the declared reactions cannot be read"),
        }
        match outlets.missing(&*store).await {
            Ok(missing) if missing.is_empty() => {}
            Ok(missing) => tracing::warn!(
                followers = ?missing,
                "outlets are declared that this process does not run; their events wait for a process that does, or \
                 for `eclusa followers remove`"
            ),
            Err(error) => tracing::warn!(%error, "the declared outlets cannot be read"),
        }
        match left_behind(&*store, &settings.captures).await {
            Ok(left) => {
                for (capture, slot) in left {
                    tracing::warn!(
                        capture,
                        slot,
                        "a capture has left the settings, and its slot was not dropped by command: the captured server \
                         keeps log for the slot until its disk is full. Declare the capture again and run `eclusa \
                         capture drop-slot` before it leaves, or run SELECT pg_drop_replication_slot('{slot}') there"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "the captures of the store cannot be read"),
        }
        let followers = outlets.add_to(followers, &store);
        let following = Following {
            followers,
            reactions,
            streams,
            captures: true,
        };
        let flow = Flow::start(&live, store, layouts, following).await?;
        let scheduler = schedules::start(&flow, &live.get())?;
        let server = serve(listener, &live, &flow)?;
        Ok(Self {
            flow,
            server,
            port,
            live,
            sources,
            log,
            _scheduler: scheduler,
            _lock: lock,
        })
    }

    /// The port that the server listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves until a signal asks the process to stop, or until an unrecoverable failure, whose reason
    /// it returns.
    pub async fn run_until_stopped(
        self,
        mut stop: StopSignals,
        signal: ReloadSignal,
    ) -> Option<String> {
        let lifecycle = self.flow.lifecycle.clone();
        let handle = self.server.handle();
        let mut reload = reload::Reload {
            signal,
            live: self.live.clone(),
            sources: self.sources,
            log: self.log,
            partitions: self.flow.partitions.clone(),
        };
        let settings = self.live.get().shutdown.clone();
        let server = self.server;
        let flow = self.flow;
        let stopping = async {
            tokio::select! {
                () = stop.requested() => {}
                () = lifecycle.reached(Phase::Leaving) => {}
                () = reload.run() => {}
                () = flow::report_totals(&flow) => {}
            }
            shutdown::run(&flow, &handle, &settings, &mut stop).await;
        };
        let (served, ()) = futures::join!(server, stopping);
        if let Err(error) = served {
            tracing::error!(%error, "the HTTP server failed");
            return Some(format!("the HTTP server failed: {error}"));
        }
        lifecycle.failure()
    }
}

/// Says at the start which versions of a schema are not seen to be compatible. It starts all the same: events in
/// the log and on the way follow the older version already, and refusing to start would lose time, not gain
/// safety. `eclusa schemas check` fails where that helps, before a release.
fn warn_of_incompatible_schemas(settings: &Settings) {
    for schemas in settings.event_schemas().types() {
        for pair in compare_versions(schemas, CompatibilityMode::Backward, false) {
            if let (false, Some(first)) = (pair.is_compatible(), pair.found.first()) {
                tracing::warn!(
                    event_type = schemas.event_type,
                    older = pair.older,
                    newer = pair.newer,
                    pointer = first.pointer,
                    rule = first.rule,
                    reason = first.reason,
                    "two versions of a schema are not compatible; see `eclusa schemas check`"
                );
            }
        }
    }
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
    let target = flow.ingest_target();
    let shared = flow.clone();
    let live = live.clone();
    let replayer = flow.replayer(&live);
    let letter_count = DeadLetterCount::default();
    let next_worker = Arc::new(AtomicUsize::new(0));
    let server = HttpServer::new(move || {
        // Runs once per worker, on its thread, where its ingest actor lives.
        let completions = Completions::default();
        let ingest = start_ingest(
            &shared,
            target.clone(),
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
            retry: shared.retry.clone(),
            completions,
            accepted: shared.metrics.accepted.with_label_values(&["http"]),
            partitions: shared.partitions.clone(),
            admission: shared.admission(),
            read_waiters: shared.read_waiters.clone(),
            followers: shared.followers.clone(),
            follower_store: Arc::clone(&shared.follower_store),
            log: Arc::clone(&shared.log),
            whole: Arc::clone(&shared.whole),
            polls: shared.polls.clone(),
            topics: shared.topics.clone(),
            captures: shared.captures.clone(),
            budget: shared.budget.clone(),
            health: shared.health.clone(),
            lifecycle: shared.lifecycle.clone(),
            metrics: Arc::clone(&shared.metrics),
        };
        HttpApp::new()
            .app_data(web::Data::new(state))
            .configure(|config| http::routes(config, &shared.metrics))
    })
    .on_connect(http::connection::remember)
    .workers(workers)
    .max_connections(settings.http.max_connections.div_ceil(workers))
    .client_request_timeout(settings.http.request_timeout)
    .keep_alive(settings.http.keep_alive)
    .shutdown_timeout(shutdown::RESPONSE_GRACE_SECONDS)
    .disable_signals()
    .listen(listener)?
    .run();
    Ok(server)
}

fn start_ingest(
    flow: &Flow,
    target: IngestTarget,
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
    let params = http_ingest::HttpIngestParams {
        target,
        completions,
        metrics: Arc::clone(&flow.metrics),
    };
    supervise(
        inbox,
        HttpIngest::new(params),
        RestartPolicy::default(),
        &flow.metrics,
        &flow.lifecycle,
    );
    mailbox
}
