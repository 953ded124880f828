//! Eclusa is an event processor: it accepts events over HTTP and AMQP, batches them, and writes each
//! event exactly once to PostgreSQL or SQLite.
//!
//! # The path of one event, from socket to row
//!
//! 1. A request arrives at [`http::ingest`]. [`http::body`] splits its body into items;
//!    [`event::item`] and [`event::json`] validate each item, and [`event::id`] gives it its id.
//! 2. The event becomes an [`event::Delivery`]: the event and an [`event::Ticket`]. A ticket is
//!    settled exactly once; dropped unsettled, it returns the event to its source.
//! 3. [`ingest::HttpIngest`] makes the event durable. In full mode it publishes the event as part of
//!    a frame ([`event::frame`]) to the work queue, and the publisher confirm is the answer. In the
//!    direct modes the commit is the answer.
//! 4. [`consume::AmqpConsumer`] takes frames and the messages of other publishers from the work queue;
//!    [`broker::message`] decodes them. With an order by user, [`ordering`] does so per shard.
//! 5. [`batch::BatchAccumulator`] collects deliveries until a batch is due, and dispatches it to an
//!    idle writer. [`batch::DbWriter`] writes the batch in one transaction ([`store::EventStore`]) and
//!    settles the tickets. A batch that fails is bisected (`batch::batch_write`) until the bad rows
//!    stand alone.
//! 6. A failure is classified ([`store::ErrorKind`]), and [`retry::policy`] alone decides what
//!    follows. [`retry::RetrySupervisor`] schedules retries and dead-letters events.
//! 7. [`dead_letters`] projects dead letters into their table, and replays and purges them there.
//! 8. After the commit [`followers::sequencer`] has the batch numbered, which gives the event its place in
//!    the order of the log. Each [`followers::follower`] reads it there, and applies it to the database or
//!    sends it elsewhere. One of them is the feed of each stream ([`collectors`]), whose messages clients pull over HTTP.
//!    Clients that keep their own position stream the log itself ([`topics`]).
//!    Each outlet of the settings ([`outlets`]) is another one, which publishes to RabbitMQ.
//!
//! # Actors and messages
//!
//! ```text
//!   HTTP request                                            RabbitMQ
//!        │ Ingest                                              │ deliveries
//!        ▼            direct: IngestQueue                      ▼
//!   HttpIngest ───────────────────────────┐              AmqpConsumer ◄── settlements (AckTracker)
//!        │ full: frames                   │                    │ Push          ▲
//!        ▼                                ▼                    │               │
//!    RabbitMQ                     BatchAccumulator ◄───────────┘               │
//!                                   │        ▲                                 │
//!                        WriteBatch │        │ WriterReady                     │
//!                                   ▼        │                                 │
//!                                  DbWriter pool ──────── tickets ─────────────┤
//!                                      │ Failed                                │
//!                                      ▼                                       │
//!                                RetrySupervisor ──────── tickets ─────────────┘
//!                                      │ dead letters
//!              full: dead-letter queue │ direct: table
//!                                      ▼
//!                             DeadLetterProjector ──► table dead_letters
//!
//!    DbWriter pool ── after each commit ──► Sequencer ── end of the log ──► Follower, one for each
//! ```
//!
//! [`capture`] reads the changes of tables of another PostgreSQL by logical replication. [`schedules`] hands the events of due times to an `HttpIngest` of its own.
//!
//! [`supervision`] runs every actor and restarts it after a panic; [`app`] starts the process, and
//! `app::shutdown` drains it on SIGTERM. The command line is no part of the library: `src/cli`.
//!
//! # Features
//!
//! `postgres` and `sqlite` are the stores; either is enough to write to the event log, to read it, and to react to its
//! events. `service` is the flow above, with both stores. `cli` and `bench`, which with the default features make the
//! program `eclusa`, add nothing to the library.

#[cfg(not(any(feature = "postgres", feature = "sqlite")))]
compile_error!("enable a store: the feature postgres or sqlite, or service for both");

// From the entry point down to the ground; a module imports only what stands below it.
#[cfg(feature = "service")]
pub mod app;
#[cfg(feature = "service")]
pub mod http;
#[cfg(feature = "service")]
pub mod schedules;
#[cfg(feature = "service")]
pub mod ingest;
#[cfg(feature = "service")]
pub mod consume;
#[cfg(feature = "service")]
pub mod capture;
#[cfg(feature = "service")]
pub mod ordering;
#[cfg(feature = "service")]
pub mod batch;
#[cfg(feature = "service")]
pub mod retry;
#[cfg(feature = "service")]
pub mod dead_letters;
#[cfg(feature = "service")]
pub mod collectors;
#[cfg(feature = "service")]
pub mod topics;
#[cfg(feature = "service")]
pub mod outlets;
pub mod reactions;
pub mod followers;
pub mod maintenance;
#[cfg(feature = "service")]
pub mod broker;
pub mod store;
pub mod supervision;
#[cfg(feature = "service")]
pub mod logging;
pub mod config;
pub mod metrics;
pub mod expression;
pub mod event;

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    fn visit(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }

    /// The files below `folders`, but not below `except`, without comments and unit tests.
    fn code(folders: &[&str], except: &str) -> Vec<(PathBuf, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        for folder in folders {
            visit(&root.join(folder), &mut files);
        }
        files.retain(|path| !path.starts_with(root.join(except)));
        assert!(!files.is_empty());
        let code = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let lines = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            (path, lines.collect::<Vec<_>>().join("\n"))
        };
        files.into_iter().map(code).collect()
    }

    #[test]
    fn sqlstates_are_read_in_store_error_only() {
        const CLASSES: &str = "08 0A 22 23 25 26 28 3D 3F 40 42 53 54 55 57 58 XX";
        let is_code = |quoted: &&str| {
            quoted.len() == 5
                && quoted
                    .chars()
                    .all(|c| c.is_ascii_digit() || c.is_ascii_uppercase())
                && CLASSES.split(' ').any(|class| quoted.starts_with(class))
        };
        for (file, text) in code(&["src"], "src/store/error") {
            let codes: Vec<&str> = text.split('"').filter(is_code).collect();
            assert!(codes.is_empty(), "{file:?} reads SQLSTATEs: {codes:?}");
            for name in ["SqlState", "as_db_error"] {
                assert!(!text.contains(name), "{file:?} reads SQLSTATEs: {name}");
            }
        }
    }

    /// What handles failed events asks the policy, and does not look at an error's kind itself.
    #[test]
    fn the_policy_alone_decides_what_follows_a_failure() {
        let folders = ["src/ingest", "src/batch", "src/retry", "src/dead_letters"];
        for (file, text) in code(&folders, "src/retry/policy.rs") {
            assert!(
                !text.contains("ErrorKind"),
                "{file:?} looks at an ErrorKind"
            );
        }
    }
}
