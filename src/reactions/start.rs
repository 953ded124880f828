//! The reactions of a process, and their declaration.

use super::completer::{self, Completer};
use super::reaction::{InvalidReaction, Plan, Reaction};
use super::reactor::{Reactor, Shared};
use crate::followers::driver::{Driver, DriverSource};
use crate::followers::{Followers, NotStarted, while_away};
use crate::metrics::Metrics;
use crate::store::reactions::parse_lane;
use crate::store::{Store, StoreError};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

/// Why reactions cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ReactionsNotStarted {
    #[error(transparent)]
    Invalid(#[from] InvalidReaction),
    #[error(transparent)]
    Store(#[from] NotStarted),
}

/// The reactions of a process.
#[derive(Clone, Default)]
pub struct Reactions {
    all: Vec<Reaction>,
    runtime: Option<Handle>,
}

impl Reactions {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a reaction.
    #[must_use]
    pub fn react(mut self, reaction: Reaction) -> Self {
        self.all.push(reaction);
        self
    }

    /// Adds all reactions of another set.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.all.extend(other.all);
        self
    }

    /// Runs the handlers on this runtime instead of the thread of the followers.
    #[must_use]
    pub fn on_runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Checks the reactions.
    ///
    /// # Errors
    /// What is wrong with the first invalid one.
    pub fn check(&self) -> Result<(), InvalidReaction> {
        self.plans().map(|_| ())
    }

    /// The reactions that the store has and this set has not. Their events wait until a process runs them, or they are
    /// removed.
    ///
    /// # Errors
    /// The store's.
    pub async fn missing(&self, store: &dyn Store) -> Result<Vec<String>, StoreError> {
        let known = store.reactions().await?.into_iter();
        let is_here = |name: &str| self.all.iter().any(|reaction| &*reaction.name == name);
        Ok(known
            .map(|record| record.name)
            .filter(|name| !is_here(name))
            .collect())
    }

    fn plans(&self) -> Result<Vec<Plan>, InvalidReaction> {
        let mut names = BTreeSet::new();
        for reaction in &self.all {
            if !names.insert(&*reaction.name) {
                return Err(InvalidReaction::Twice(reaction.name.to_string()));
            }
        }
        self.all.iter().map(Reaction::check).collect()
    }

    /// Declares the reactions, and adds their lanes to the followers of the process, which run them from
    /// [`Followers::start`] on, with the lanes that other processes add later.
    ///
    /// # Errors
    /// A reaction is invalid, or the store refuses a declaration. A store that is away is waited for.
    pub async fn declare(
        self,
        store: &Arc<dyn Store>,
        followers: Followers,
        metrics: &Arc<Metrics>,
    ) -> Result<Followers, ReactionsNotStarted> {
        let plans = self.plans()?;
        let shared = Shared {
            store: Arc::clone(store),
            worker: worker(),
            turns: Arc::new(Mutex::new(())),
            runtime: self.runtime,
            metrics: Arc::clone(metrics),
        };
        let what = "reaction not declared yet";
        if !plans.is_empty() {
            let completer = completer::declaration();
            let declare = async || store.declare(&completer).await;
            while_away(&completer.name, what, declare)
                .await
                .map_err(NotStarted::from)?;
        }
        for plan in &plans {
            let declaration = plan.reaction.declaration();
            let name = declaration.name.as_str();
            let declare = async || store.declare_reaction(&declaration).await;
            if while_away(name, what, declare)
                .await
                .map_err(NotStarted::from)?
            {
                let types = declaration.types.to_vec();
                tracing::info!(
                    reaction = name,
                    ?types,
                    lanes = plan.reaction.lanes,
                    "reaction declared"
                );
            }
        }
        Ok(followers.drive(Lanes {
            plans: plans.into_iter().map(Arc::new).collect(),
            shared,
        }))
    }
}

/// The lanes of the reactions of a process, and the marking behind them.
struct Lanes {
    plans: Vec<Arc<Plan>>,
    shared: Shared,
}

#[async_trait]
impl DriverSource for Lanes {
    /// Those that the store has: another process may have declared more. Those of earlier declarations have something
    /// left to do.
    async fn drivers(&self) -> Result<Vec<Arc<dyn Driver>>, StoreError> {
        let store = &self.shared.store;
        if store.follower(completer::NAME).await?.is_none() {
            return Ok(Vec::new());
        }
        // Also without a reaction here: events of one that was removed are still to be marked.
        let mut drivers: Vec<Arc<dyn Driver>> = vec![Arc::new(Completer {
            store: Arc::clone(store),
        })];
        for record in store.reactions().await? {
            let here = |plan: &&Arc<Plan>| *plan.reaction.name == *record.name;
            let Some(plan) = self.plans.iter().find(here) else {
                continue;
            };
            for follower in record.lanes.into_iter().map(|lane| lane.name) {
                let Some((_, lane)) = parse_lane(&follower) else {
                    continue;
                };
                drivers.push(Arc::new(Reactor {
                    lane,
                    follower,
                    plan: Arc::clone(plan),
                    shared: self.shared.clone(),
                }));
            }
        }
        Ok(drivers)
    }
}

/// Tells this process from every other.
fn worker() -> Arc<str> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Arc::from(format!("{}/{}", host.trim(), std::process::id()))
}
