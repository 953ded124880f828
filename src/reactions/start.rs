//! The reactions of a process, and their declaration.

use super::completer::{self, Completer};
use super::reaction::{InvalidReaction, Plan, Reaction};
use super::reactor::{Reactor, Shared};
use crate::followers::{Followers, NotStarted, while_away};
use crate::metrics::Metrics;
use crate::store::reactions::lane_name;
use crate::store::{Store, StoreError};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::RwLock;

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
    /// [`Followers::start`] on.
    ///
    /// # Errors
    /// A reaction is invalid, or the store refuses a declaration. A store that is away is waited for.
    pub async fn declare(
        self,
        store: &Arc<dyn Store>,
        mut followers: Followers,
        metrics: &Arc<Metrics>,
    ) -> Result<Followers, ReactionsNotStarted> {
        let plans = self.plans()?;
        if plans.is_empty() {
            // Events of a reaction that was removed are still to be marked.
            let marking = store.follower(completer::NAME).await;
            return Ok(match marking {
                Ok(None) => followers,
                _ => followers.drive(Arc::new(Completer {
                    store: Arc::clone(store),
                })),
            });
        }
        let shared = Shared {
            store: Arc::clone(store),
            worker: worker(),
            gate: Arc::new(RwLock::new(())),
            runtime: self.runtime,
            metrics: Arc::clone(metrics),
        };
        let completer = completer::declaration();
        let declare = async || store.declare(&completer).await;
        let what = "reaction not declared yet";
        while_away(&completer.name, what, declare)
            .await
            .map_err(NotStarted::from)?;
        for plan in plans {
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
            let read = async || store.reaction(name).await;
            let record = while_away(name, what, read)
                .await
                .map_err(NotStarted::from)?;
            // Those of earlier declarations have something left to do.
            let known = record.map_or(0, |record| record.lanes.len());
            let lanes = u32::try_from(known)
                .unwrap_or(u32::MAX)
                .max(plan.reaction.lanes);
            let plan = Arc::new(plan);
            for lane in 0..lanes {
                followers = followers.drive(Arc::new(Reactor {
                    follower: lane_name(&plan.reaction.name, lane),
                    plan: Arc::clone(&plan),
                    lane,
                    shared: shared.clone(),
                }));
            }
        }
        Ok(followers.drive(Arc::new(Completer {
            store: Arc::clone(store),
        })))
    }
}

/// Tells this process from every other.
fn worker() -> Arc<str> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Arc::from(format!("{}/{}", host.trim(), std::process::id()))
}
