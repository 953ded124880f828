//! The sessions of a consumer, one after another, each on the connection in force.

use super::{Link, LinkWatch};
use crate::config::broker::BrokerSettings;
use crate::supervision::{Backoff, Lifecycle, Phase};
use std::sync::Arc;
use std::time::Instant;

/// What comes after a session that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another session, at once.
    Session,
    /// Nothing: the process is leaving.
    End,
}

/// Waits until a link is no longer in force, or the process is stopping.
pub async fn replaced(links: &LinkWatch, link: &Link, lifecycle: &Lifecycle) -> Next {
    let mut links = links.clone();
    let other = |current: &Option<Arc<Link>>| {
        let current = current.as_deref();
        current.is_none_or(|current| !std::ptr::eq(current, link))
    };
    tokio::select! {
        // An error means that there will be no link any more.
        _ = links.wait_for(other) => Next::Session,
        () = lifecycle.reached(Phase::Draining) => Next::End,
    }
}

/// Runs sessions until one is the last, or the connection is gone for good. `failed` is called for each
/// that fails, before the pause that follows; pauses grow while sessions fail at once.
pub async fn run<E>(
    mut links: LinkWatch,
    settings: &BrokerSettings,
    mut session: impl AsyncFnMut(&Link) -> Result<Next, E>,
    mut failed: impl AsyncFnMut(&Link, E),
) {
    let mut backoff = Backoff::new(settings.reconnect_min, settings.reconnect_max);
    loop {
        let Ok(link) = links.wait_for(Option::is_some).await.map(|l| l.clone()) else {
            return;
        };
        let Some(link) = link else { continue };
        let began = Instant::now();
        match session(&link).await {
            Ok(Next::Session) => continue,
            Ok(Next::End) => return,
            Err(error) => failed(&link, error).await,
        }
        if !link.consuming.status().connected() {
            link.suspect();
        }
        drop(link);
        if began.elapsed() > settings.reconnect_max {
            backoff.reset();
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}
