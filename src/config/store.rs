//! Settings of the store.

use super::urls::not_postgres;
use super::{Invalid, in_range, units};
use serde::Deserialize;
use std::time::Duration;

/// `[store]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// `postgres://user:password@host/database`; a secret.
    pub url: String,
    /// Apply migrations at start.
    pub migrate: bool,
    /// How long the start waits for an unavailable database.
    #[serde(with = "units::duration")]
    pub startup_wait: Duration,
    pub read_connections: usize,
    /// How long to wait for a connection from a pool.
    #[serde(with = "units::duration")]
    pub acquire_timeout: Duration,
    /// How long one statement may take.
    #[serde(with = "units::duration")]
    pub statement_timeout: Duration,
    /// Time beyond `acquire_timeout` and `statement_timeout` after which a write counts as hanging.
    #[serde(with = "units::duration")]
    pub write_margin: Duration,
    /// Days that events are kept; `None` keeps them forever.
    #[serde(with = "units::days")]
    pub retention: Option<u32>,
    /// Days that outcomes of runs of reactions are kept; `None` keeps them forever.
    #[serde(with = "units::days")]
    pub keep_runs: Option<u32>,
    /// Lifetime of a lease that is not renewed.
    #[serde(with = "units::duration")]
    pub lease_ttl: Duration,
}

impl std::fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreSettings")
            .field("migrate", &self.migrate)
            .field("startup_wait", &self.startup_wait)
            .field("read_connections", &self.read_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("write_margin", &self.write_margin)
            .field("retention", &self.retention)
            .field("keep_runs", &self.keep_runs)
            .field("lease_ttl", &self.lease_ttl)
            .finish_non_exhaustive()
    }
}

impl StoreSettings {
    pub(super) fn validate(&self, found: &mut Vec<Invalid>) {
        in_range(
            found,
            "store.read_connections",
            self.read_connections,
            1..=1_000,
        );
        if let Some(days) = self.retention {
            in_range(found, "store.retention", days, 1..=36_500);
        }
        if let Some(days) = self.keep_runs {
            in_range(found, "store.keep_runs", days, 1..=3_650);
        }
        let ttls = Duration::from_secs(1)..=Duration::from_secs(600);
        if !ttls.contains(&self.lease_ttl) {
            found.push(Invalid::new(
                "store.lease_ttl",
                "must lie between 1s and 10m",
            ));
        }
        if !self.url.is_empty()
            && let Some(reason) = not_postgres(&self.url)
        {
            found.push(Invalid::new("store.url", reason));
        }
        for (key, value) in [
            ("store.acquire_timeout", self.acquire_timeout),
            ("store.statement_timeout", self.statement_timeout),
        ] {
            if value.is_zero() {
                found.push(Invalid::new(key, "must be longer than 0s"));
            }
        }
    }
}
