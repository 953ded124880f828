//! The followers that a process registers.

use super::driver::{Driver, DriverSource};
use super::outlet::Outlet;
use super::projection::Projection;
use crate::store::commit_log::TypePatterns;
use crate::store::followers::{Declaration, FollowerKind, OnError, Start};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Longest name of a follower.
const MAX_NAME: usize = 100;

/// Which events a follower wants, where it begins, and what happens to one that fails.
#[derive(Debug, Clone)]
pub struct Subscription {
    pub types: TypePatterns,
    pub start: Start,
    pub on_error: OnError,
}

impl Subscription {
    /// All events from the first one on; the follower stops at one that fails.
    pub fn all() -> Self {
        Self::to(["*"])
    }

    /// The events of these types, in which `*` stands for any characters.
    pub fn to<T: Into<String>>(types: impl IntoIterator<Item = T>) -> Self {
        Self {
            types: TypePatterns::new(types),
            start: Start::Beginning,
            on_error: OnError::Stop,
        }
    }

    /// Begins with what is committed after the first declaration.
    #[must_use]
    pub fn from_now(self) -> Self {
        Self {
            start: Start::Now,
            ..self
        }
    }

    /// Dead-letters an event that fails, and goes on.
    #[must_use]
    pub fn dead_lettering(self) -> Self {
        Self {
            on_error: OnError::DeadLetter,
            ..self
        }
    }
}

/// A follower that cannot be registered.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFollower {
    #[error(
        "the follower's name {0:?} must have 1 to {MAX_NAME} letters, digits, dots, dashes or underscores"
    )]
    Name(String),
    #[error("two followers have the name {0:?}")]
    Twice(String),
}

/// What a follower does with its events.
#[derive(Clone)]
pub(super) enum Work {
    Project(Arc<dyn Projection>),
    Send(Arc<dyn Outlet>),
    Drive(Arc<dyn Driver>),
}

impl Work {
    pub(super) fn name(&self) -> &str {
        match self {
            Work::Project(projection) => projection.name(),
            Work::Send(outlet) => outlet.name(),
            Work::Drive(driver) => driver.name(),
        }
    }

    /// What is declared when it starts; `None` if that is done elsewhere.
    pub(super) fn declaration(&self) -> Option<Declaration> {
        let (subscription, kind) = match self {
            Work::Project(projection) => {
                let kind = match projection.can_rebuild() {
                    true => FollowerKind::Transactional,
                    false => FollowerKind::Permanent,
                };
                (projection.subscription(), kind)
            }
            Work::Send(outlet) => (outlet.subscription(), FollowerKind::External),
            Work::Drive(_) => return None,
        };
        Some(Declaration {
            name: self.name().to_owned(),
            kind,
            types: subscription.types,
            start: subscription.start,
            on_error: subscription.on_error,
        })
    }
}

/// The followers of a process.
#[derive(Clone, Default)]
pub struct Followers {
    pub(super) all: Vec<Work>,
    pub(super) sources: Vec<Arc<dyn DriverSource>>,
}

impl Followers {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a follower that applies events to the database.
    #[must_use]
    pub fn project(mut self, projection: impl Projection) -> Self {
        self.all.push(Work::Project(Arc::new(projection)));
        self
    }

    /// Adds a follower that sends events elsewhere.
    #[must_use]
    pub fn send(mut self, outlet: impl Outlet) -> Self {
        self.all.push(Work::Send(Arc::new(outlet)));
        self
    }

    /// Adds followers that move their positions by themselves.
    #[must_use]
    pub(crate) fn drive(mut self, source: impl DriverSource) -> Self {
        self.sources.push(Arc::new(source));
        self
    }

    pub(super) fn check(&self) -> Result<(), InvalidFollower> {
        let mut names = BTreeSet::new();
        for work in &self.all {
            let name = work.name();
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
                return Err(InvalidFollower::Name(name.to_owned()));
            }
            if !names.insert(name) {
                return Err(InvalidFollower::Twice(name.to_owned()));
            }
        }
        Ok(())
    }
}
