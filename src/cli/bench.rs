//! `eclusa bench`

use super::GlobalArgs;
use crate::broker::server_version;
use crate::broker::topology::Topology;
use crate::config::{Sources, THROUGHPUT};
use crate::retry::policy;
use crate::store::postgres::{PostgresOptions, connect_alone};
use eclusa_bench::{BenchArgs, Expected, HandlerArgs, Program, Servers};
use futures::FutureExt as _;
use std::process::ExitCode;
use std::time::Duration;

/// A statement of the bench may take longer than one of the server, such as one that deletes much.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(600);
/// How long the broker may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(3);

/// What the bench needs to know of this program.
const PROGRAM: Program = Program {
    version: env!("CARGO_PKG_VERSION"),
    throughput: THROUGHPUT,
    expect,
    connect: |url| {
        async move {
            let options = PostgresOptions {
                statement_timeout: STATEMENT_TIMEOUT,
                ..PostgresOptions::new(url)
            };
            Ok(connect_alone(&options).await?)
        }
        .boxed()
    },
    broker_version: |url| {
        async move {
            let uri: lapin::uri::AMQPUri = url.parse().ok()?;
            let version = server_version::ask(&uri, VERSION_TIMEOUT).await.ok()?;
            Some(format!("{}.{}", version.major, version.minor))
        }
        .boxed()
    },
};

/// Measures, and prints the report. Fails when an accepted event is missing or stored twice.
pub fn run(global: &GlobalArgs, args: BenchArgs) -> anyhow::Result<ExitCode> {
    super::block_on(args.run(|| servers(global), global.set.clone(), PROGRAM))
}

/// Runs the bare handler until its parent is gone.
pub fn run_handler(args: HandlerArgs) -> anyhow::Result<ExitCode> {
    super::block_on(args.run())
}

/// Of what is set on the command line only where the servers are. The rest is for the server under
/// test, whose profile it must agree with, and not this installation's settings.
fn servers(global: &GlobalArgs) -> anyhow::Result<Servers> {
    let mut global = global.clone();
    global
        .set
        .retain(|(key, _)| key == "store.url" || key == "broker.url");
    let settings = global.sources(Vec::new()).load()?;
    Ok(Servers {
        store: settings.store.url,
        broker: settings.broker.url,
    })
}

fn expect(text: &str, flags: &[(String, String)]) -> anyhow::Result<Expected> {
    let settings = Sources::from_text(text).with_flags(flags.to_vec()).load()?;
    let delays = policy::delays(&settings.retry);
    let topology = Topology::new(&settings.broker, delays.clone());
    let mut queues = vec![
        topology.queue().to_owned(),
        topology.dead_letter_queue().to_owned(),
    ];
    queues.extend(delays.into_iter().map(|delay| topology.retry_queue(delay)));
    if let Some(shards) = topology.shards() {
        let names = shards.all();
        queues.extend(names.map(|shard| shards.queue(topology.queue(), shard)));
    }
    Ok(Expected {
        workers: settings.http.workers,
        sqlite_file: settings.sqlite_file(),
        queues,
        exchanges: vec![
            settings.broker.exchange,
            settings.broker.dead_letter_exchange,
        ],
    })
}
